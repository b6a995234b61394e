"""Statements on exercises, and on the questions that name them."""

from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, select

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import existing, reference_not_found, wrong_state
from kit.pagination import Page
from services.assessment.models import Exercise, Question, QuestionVersion
from services.assessment.queries.base import Rows, columns
from services.assessment.queries.quizzes import LATEST
from services.assessment.rules import PUBLISHED

EXERCISE: Select[Any] = select(*columns(Exercise))
BASIC: Select[Any] = select(*(one for one in columns(Exercise) if one.key != "passage"))


async def get_exercise(session: WriteSession, exercise_id: str, *, deleted: bool = False) -> Exercise:
    """The exercise, locked; deleted ones are found only when asked for."""
    statement = select(Exercise).where(Exercise.tenant_id == session.tenant_id, Exercise.id == UUID(exercise_id))
    exercise: Exercise | None = await session.scalar(statement.with_for_update())
    return existing(exercise, "exercise", also_deleted=deleted)


async def get_exercise_row(session: ReadSession, exercise_id: str) -> Row[Any]:
    statement = EXERCISE.where(
        Exercise.tenant_id == session.tenant_id, Exercise.id == UUID(exercise_id), Exercise.deleted_at.is_(None)
    )
    return existing((await session.execute(statement)).one_or_none(), "exercise")


async def list_exercises(session: ReadSession, page: Page, *, lesson_id: str, status: str) -> tuple[Rows, str]:
    """Exercises without their passages."""
    statement = BASIC.where(
        Exercise.tenant_id == session.tenant_id, Exercise.deleted_at.is_(None), visible("list", Exercise)
    )
    if lesson_id:
        statement = statement.where(Exercise.lesson_id == UUID(lesson_id))
    if status:
        statement = statement.where(Exercise.status == status)
    rows = (await session.execute(page.apply(statement, Exercise.id))).all()
    return page.split(rows, key=lambda row: (row.id,))


async def check_exercise(session: WriteSession, exercise_id: str) -> None:
    """Refuses a question about the exercise unless that is published. It stays so until the transaction ends."""
    if not exercise_id:
        return
    statement = select(Exercise.status).where(
        Exercise.tenant_id == session.tenant_id, Exercise.id == UUID(exercise_id), Exercise.deleted_at.is_(None)
    )
    status = await session.scalar(statement.with_for_update(read=True))
    if status is None:
        raise reference_not_found(f"There is no exercise {exercise_id}.", field="question.exercise_id", id=exercise_id)
    if status != PUBLISHED:
        raise wrong_state(f"The exercise is {status}; questions are about published ones.", status)


async def is_named(session: ReadSession, exercise_id: UUID, *, ever: bool) -> bool:
    """Whether a question names the exercise: in its latest version and not deleted, or `ever`."""
    statement = select(QuestionVersion.id).where(
        QuestionVersion.tenant_id == session.tenant_id, QuestionVersion.exercise_id == exercise_id
    )
    if not ever:
        statement = statement.join(Question, LATEST).where(
            Question.tenant_id == session.tenant_id, Question.deleted_at.is_(None)
        )
    return await session.scalar(statement.limit(1)) is not None
