"""Exercises: something to read, that questions are about."""

from collections.abc import Collection
from typing import Any
from uuid import UUID

from google.protobuf.empty_pb2 import Empty

from kit import audit, fieldmask
from kit.access import require
from kit.audit import Action
from kit.auth import current
from kit.db import Database
from kit.enums import stored_name
from kit.errors import wrong_state
from kit.models import check_etag, now, set_times
from kit.pagination import Page
from services.assessment import models
from services.assessment.lessons import check_lesson
from services.assessment.queries import exercises as queries
from services.assessment.rules import DRAFT, moved
from storyloom.assessment.v1 import exercises_pb2
from storyloom.assessment.v1.exercises_pb2 import (
    ArchiveExerciseRequest,
    CreateExerciseRequest,
    DeleteExerciseRequest,
    Exercise,
    ExerciseStatus,
    GetExerciseRequest,
    ListExercisesRequest,
    ListExercisesResponse,
    PublishExerciseRequest,
    PurgeExerciseRequest,
    UndeleteExerciseRequest,
    UpdateExerciseRequest,
)

WRITABLE = ("title", "instructions", "passage", "lesson_id")


class ExerciseService:
    SERVICE = exercises_pb2.DESCRIPTOR.services_by_name["ExerciseService"]

    def __init__(self, db: Database, lessons: Any) -> None:
        self.db, self._lessons = db, lessons

    async def CreateExercise(self, request: CreateExerciseRequest, context: Any) -> Exercise:
        await check_lesson(self._lessons, request.exercise.lesson_id, "exercise.lesson_id")
        async with self.db.write() as session:
            exercise = models.Exercise(author_id=current().subject, **_stored(request.exercise, WRITABLE))
            require("create", exercise)
            session.add(exercise)
            audit.record(session, Action.CREATE, exercise)
        return exercise_to_proto(exercise, exercise.passage)

    async def GetExercise(self, request: GetExerciseRequest, context: Any) -> Exercise:
        async with self.db.read() as session:
            row = await queries.get_exercise_row(session, request.id)
            require("read", row, resource="exercise")
        return exercise_to_proto(row, row.passage)

    async def ListExercises(self, request: ListExercisesRequest, context: Any) -> ListExercisesResponse:
        page = Page.of(request)
        status = stored_name(ExerciseStatus, request.status)
        async with self.db.read() as session:
            rows, token = await queries.list_exercises(session, page, lesson_id=request.lesson_id, status=status)
        return ListExercisesResponse(exercises=[exercise_to_proto(row, "") for row in rows], next_page_token=token)

    async def UpdateExercise(self, request: UpdateExerciseRequest, context: Any) -> Exercise:
        names = fieldmask.changes(request.exercise, request.update_mask, WRITABLE)
        if "lesson_id" in names:
            await check_lesson(self._lessons, request.exercise.lesson_id, "exercise.lesson_id")
        async with self.db.write() as session:
            exercise = await queries.get_exercise(session, request.exercise.id)
            require("update", exercise)
            check_etag(exercise, request.exercise.etag)
            if exercise.status != DRAFT:
                raise wrong_state(f"The exercise is {exercise.status}; only drafts are changed.", exercise.status)
            for name, value in _stored(request.exercise, names).items():
                setattr(exercise, name, value)
            audit.record(session, Action.UPDATE, exercise)
        return exercise_to_proto(exercise, exercise.passage)

    async def DeleteExercise(self, request: DeleteExerciseRequest, context: Any) -> Exercise:
        async with self.db.write() as session:
            exercise = await queries.get_exercise(session, request.id)
            require("delete", exercise)
            check_etag(exercise, request.etag)
            if await queries.is_named(session, exercise.id, ever=False):
                raise wrong_state("Questions are about the exercise; delete or change them first.", "in_use")
            exercise.deleted_at = now()
            audit.record(session, Action.DELETE, exercise)
        return exercise_to_proto(exercise, exercise.passage)

    async def UndeleteExercise(self, request: UndeleteExerciseRequest, context: Any) -> Exercise:
        async with self.db.write() as session:
            exercise = await queries.get_exercise(session, request.id, deleted=True)
            require("undelete", exercise)
            check_etag(exercise, request.etag)
            if exercise.deleted_at is None:
                raise wrong_state("The exercise is not deleted.", exercise.status)
            exercise.deleted_at = None
            audit.record(session, Action.UNDELETE, exercise)
        return exercise_to_proto(exercise, exercise.passage)

    async def PublishExercise(self, request: PublishExerciseRequest, context: Any) -> Exercise:
        return await self._move(request, Action.PUBLISH)

    async def ArchiveExercise(self, request: ArchiveExerciseRequest, context: Any) -> Exercise:
        return await self._move(request, Action.ARCHIVE)

    async def _move(self, request: PublishExerciseRequest | ArchiveExerciseRequest, action: Action) -> Exercise:
        async with self.db.write() as session:
            exercise = await queries.get_exercise(session, request.id)
            require(action, exercise)
            check_etag(exercise, request.etag)
            exercise.status = moved("exercise", action, exercise.status)
            audit.record(session, action, exercise)
        return exercise_to_proto(exercise, exercise.passage)

    async def PurgeExercise(self, request: PurgeExerciseRequest, context: Any) -> Empty:
        async with self.db.write() as session:
            exercise = await queries.get_exercise(session, request.id, deleted=True)
            require("purge", exercise)
            if exercise.deleted_at is None or await queries.is_named(session, exercise.id, ever=True):
                raise wrong_state("The exercise is not deleted, or a version of a question is about it.", "in_use")
            audit.record(session, "purge", exercise)
            await session.delete(exercise)
        return Empty()


def _stored(exercise: Exercise, names: Collection[str]) -> dict[str, Any]:
    """These fields as the table has them."""
    lesson_id = UUID(exercise.lesson_id) if exercise.lesson_id else None
    return {name: lesson_id if name == "lesson_id" else getattr(exercise, name) for name in names}


def exercise_to_proto(exercise: Any, passage: str) -> Exercise:
    """Of an entity or a row, with what is shown of its passage."""
    message = Exercise(
        id=str(exercise.id),
        title=exercise.title,
        instructions=exercise.instructions,
        passage=passage,
        lesson_id=str(exercise.lesson_id or ""),
        status=f"EXERCISE_STATUS_{exercise.status.upper()}",
        author_id=str(exercise.author_id),
        etag=str(exercise.revision),
    )
    set_times(message, exercise)
    return message
