"""Quizzes: questions put together, with the rules for taking them."""

from collections.abc import Collection, Sequence
from datetime import UTC
from decimal import Decimal
from typing import Any
from uuid import UUID

from kit import audit, fieldmask
from kit.access import may, require
from kit.audit import Action
from kit.auth import current
from kit.db import Database, ReadSession
from kit.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from kit.models import check_etag, now
from kit.pagination import Page
from services.assessment import models, rules
from services.assessment.queries import quizzes as queries
from storyloom.assessment.v1 import quizzes_pb2
from storyloom.assessment.v1.quizzes_pb2 import (
    ArchiveQuizRequest,
    CreateQuizRequest,
    DeleteQuizRequest,
    GetQuizRequest,
    ListQuizzesRequest,
    ListQuizzesResponse,
    PublishQuizRequest,
    Quiz,
    QuizItem,
    QuizStatus,
    UndeleteQuizRequest,
    UpdateQuizRequest,
)
from storyloom.content.v1.lessons_pb2 import GetLessonRequest
from storyloom.content.v1.lessons_pb2_grpc import LessonServiceStub
from storyloom.type.v1.errors_pb2 import ErrorReason

SETTINGS = ("title", "lesson_id", "time_limit", "attempts_allowed", "pass_mark", "shuffle", "open_time", "close_time")
DEFAULT_PASS_MARK = 50

Items = list[tuple[UUID, Decimal]]


class QuizService:
    SERVICE = quizzes_pb2.DESCRIPTOR.services_by_name["QuizService"]

    def __init__(self, db: Database, lessons: LessonServiceStub) -> None:
        self.db = db
        self.lessons: Any = lessons

    async def CreateQuiz(self, request: CreateQuizRequest, context: Any) -> Quiz:
        items = _items(request.quiz)
        await self._check_lesson(request.quiz.lesson_id)
        async with self.db.write() as session:
            quiz = models.Quiz(author_id=current().subject, **_stored(request.quiz, SETTINGS))
            require("create", quiz)
            await queries.check_questions(session, [question_id for question_id, _ in items])
            _count(quiz, items)
            session.add(quiz)
            audit.record(session, Action.CREATE, quiz)
            await session.flush()
            await queries.replace_quiz_items(session, quiz.id, items)
        return quiz_to_proto(quiz, items)

    async def GetQuiz(self, request: GetQuizRequest, context: Any) -> Quiz:
        async with self.db.read() as session:
            row = await queries.get_quiz_row(session, request.id)
            require("read", row, resource="quiz")
            items = await _items_to_show(session, row)
        return quiz_to_proto(row, items)

    async def ListQuizzes(self, request: ListQuizzesRequest, context: Any) -> ListQuizzesResponse:
        page = Page.of(request)
        status = QuizStatus.Name(request.status).removeprefix("QUIZ_STATUS_").lower() if request.status else ""
        async with self.db.read() as session:
            rows, token = await queries.list_quizzes(session, page, lesson_id=request.lesson_id, status=status)
        return ListQuizzesResponse(quizzes=[quiz_to_proto(row) for row in rows], next_page_token=token)

    async def UpdateQuiz(self, request: UpdateQuizRequest, context: Any) -> Quiz:
        names = fieldmask.changes(request.quiz, request.update_mask, (*SETTINGS, "items"))
        changes = _stored(request.quiz, [name for name in names if name != "items"])
        await self._check_lesson(request.quiz.lesson_id if "lesson_id" in names else "")
        async with self.db.write() as session:
            quiz = await queries.get_quiz(session, request.quiz.id)
            require("update", quiz)
            check_etag(quiz, request.quiz.etag)
            before = await queries.list_quiz_items(session, quiz.id)
            items = _items(request.quiz) if "items" in names else before
            rules.check_update(quiz.status, items_change=items != before)
            for name, value in changes.items():
                setattr(quiz, name, value)
            rules.check_window(quiz.open_time, quiz.close_time)
            if items != before:
                await queries.check_questions(session, [question_id for question_id, _ in items])
                await queries.replace_quiz_items(session, quiz.id, items)
            _count(quiz, items)
            # Other items with the same points change the quiz too, and so its etag.
            quiz.updated_at = now()
            audit.record(session, Action.UPDATE, quiz)
            shown = await _items_to_show(session, quiz)
        return quiz_to_proto(quiz, shown)

    async def DeleteQuiz(self, request: DeleteQuizRequest, context: Any) -> Quiz:
        async with self.db.write() as session:
            quiz = await queries.get_quiz(session, request.id)
            require("delete", quiz)
            check_etag(quiz, request.etag)
            quiz.deleted_at = now()
            audit.record(session, Action.DELETE, quiz)
            items = await _items_to_show(session, quiz)
        return quiz_to_proto(quiz, items)

    async def UndeleteQuiz(self, request: UndeleteQuizRequest, context: Any) -> Quiz:
        async with self.db.write() as session:
            quiz = await queries.get_quiz(session, request.id, deleted=True)
            require("undelete", quiz)
            check_etag(quiz, request.etag)
            if quiz.deleted_at is None:
                raise rules.wrong_state("The quiz is not deleted.", quiz.status)
            quiz.deleted_at = None
            audit.record(session, Action.UNDELETE, quiz)
            items = await _items_to_show(session, quiz)
        return quiz_to_proto(quiz, items)

    async def PublishQuiz(self, request: PublishQuizRequest, context: Any) -> Quiz:
        return await self._move(request, Action.PUBLISH)

    async def ArchiveQuiz(self, request: ArchiveQuizRequest, context: Any) -> Quiz:
        return await self._move(request, Action.ARCHIVE)

    async def _move(self, request: PublishQuizRequest | ArchiveQuizRequest, action: Action) -> Quiz:
        async with self.db.write() as session:
            quiz = await queries.get_quiz(session, request.id)
            require(action, quiz)
            check_etag(quiz, request.etag)
            quiz.status = rules.moved(action, quiz.status, quiz.question_count)
            audit.record(session, action, quiz)
            items = await _items_to_show(session, quiz)
        return quiz_to_proto(quiz, items)

    async def _check_lesson(self, lesson_id: str) -> None:
        if not lesson_id:
            return
        try:
            await self.lessons.GetLesson(GetLessonRequest(id=lesson_id))
        except (NotFound, PermissionDenied) as error:
            raise FailedPrecondition(
                "There is no such lesson.",
                reason=ErrorReason.REFERENCE_NOT_FOUND,
                metadata={"field": "quiz.lesson_id", "id": lesson_id},
            ) from error


async def _items_to_show(session: ReadSession, quiz: Any) -> Items:
    """The items of the quiz, for those who may read questions."""
    return await queries.list_quiz_items(session, quiz.id) if may("read", quiz, resource="question") else []


def _items(quiz: Quiz) -> Items:
    items = [(UUID(item.question_id), Decimal(item.points or "1")) for item in quiz.items]
    # Validation compares the ids as they are written, and a UUID can be written in two ways.
    if len({question_id for question_id, _ in items}) < len(items):
        raise InvalidArgument.fields([("quiz.items", "has a question twice")])
    return items


def _count(quiz: models.Quiz, items: Items) -> None:
    quiz.question_count, quiz.max_score = len(items), sum((points for _, points in items), Decimal(0))


def _stored(quiz: Quiz, names: Collection[str]) -> dict[str, Any]:
    """These settings as the table has them."""
    convert: dict[str, Any] = {
        "lesson_id": lambda: UUID(quiz.lesson_id) if quiz.lesson_id else None,
        "time_limit": lambda: quiz.time_limit.ToTimedelta() if quiz.HasField("time_limit") else None,
        "pass_mark": lambda: Decimal(quiz.pass_mark or DEFAULT_PASS_MARK),
        "open_time": lambda: quiz.open_time.ToDatetime(tzinfo=UTC) if quiz.HasField("open_time") else None,
        "close_time": lambda: quiz.close_time.ToDatetime(tzinfo=UTC) if quiz.HasField("close_time") else None,
    }
    return {name: convert[name]() if name in convert else getattr(quiz, name) for name in names}


def quiz_to_proto(quiz: Any, items: Sequence[tuple[UUID, Decimal]] = ()) -> Quiz:
    """Of an entity or a row, and its items where they are shown."""
    message = Quiz(
        id=str(quiz.id),
        title=quiz.title,
        lesson_id=str(quiz.lesson_id or ""),
        items=[QuizItem(question_id=str(question_id), points=rules.plain(points)) for question_id, points in items],
        attempts_allowed=quiz.attempts_allowed,
        pass_mark=rules.plain(quiz.pass_mark),
        shuffle=quiz.shuffle,
        status=f"QUIZ_STATUS_{quiz.status.upper()}",
        author_id=str(quiz.author_id),
        question_count=quiz.question_count,
        max_score=rules.plain(quiz.max_score),
        etag=str(quiz.revision),
    )
    message.create_time.FromDatetime(quiz.created_at)
    message.update_time.FromDatetime(quiz.updated_at)
    for name, value in (("open_time", quiz.open_time), ("close_time", quiz.close_time)):
        if value:
            getattr(message, name).FromDatetime(value)
    if quiz.time_limit:
        message.time_limit.FromTimedelta(quiz.time_limit)
    if quiz.deleted_at:
        message.delete_time.FromDatetime(quiz.deleted_at)
    return message
