"""Statements on quizzes and their items."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, delete, insert, select

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import FailedPrecondition, NotFound
from kit.pagination import Page
from services.assessment.models import Question, Quiz, QuizQuestion
from services.assessment.queries.base import Rows, columns, one_of
from storyloom.type.v1.errors_pb2 import ErrorReason

QUIZ: Select[Any] = select(*columns(Quiz))


async def get_quiz(session: WriteSession, quiz_id: str, *, deleted: bool = False) -> Quiz:
    """The quiz, locked; deleted ones are found only when asked for."""
    statement = select(Quiz).where(Quiz.tenant_id == session.tenant_id, Quiz.id == UUID(quiz_id))
    found: Quiz | None = (await session.execute(statement.with_for_update())).scalar_one_or_none()
    if found is None or (found.deleted_at and not deleted):
        raise NotFound("quiz")
    return found


async def get_quiz_row(session: ReadSession, quiz_id: str) -> Row[Any]:
    statement = QUIZ.where(Quiz.tenant_id == session.tenant_id, Quiz.id == UUID(quiz_id), Quiz.deleted_at.is_(None))
    return one_of(await session.execute(statement), "quiz")


async def list_quizzes(session: ReadSession, page: Page, *, lesson_id: str, status: str) -> tuple[Rows, str]:
    statement = QUIZ.where(Quiz.tenant_id == session.tenant_id, Quiz.deleted_at.is_(None), visible("list", Quiz))
    if lesson_id:
        statement = statement.where(Quiz.lesson_id == UUID(lesson_id))
    if status:
        statement = statement.where(Quiz.status == status)
    rows = (await session.execute(page.apply(statement, Quiz.id))).all()
    return page.split(rows, key=lambda row: (row.id,))


async def list_quiz_items(session: ReadSession, quiz_id: UUID) -> list[tuple[UUID, Decimal]]:
    """Question and points of each item, in order."""
    statement = (
        select(QuizQuestion.question_id, QuizQuestion.points)
        .where(QuizQuestion.tenant_id == session.tenant_id, QuizQuestion.quiz_id == quiz_id)
        .order_by(QuizQuestion.position)
    )
    return [(row.question_id, row.points) for row in await session.execute(statement)]


async def check_questions(session: WriteSession, question_ids: Sequence[UUID]) -> None:
    """Refuses unless all questions exist. They stay until the transaction ends."""
    statement = select(Question.id).where(
        Question.tenant_id == session.tenant_id, Question.id.in_(question_ids), Question.deleted_at.is_(None)
    )
    found = set((await session.execute(statement.with_for_update(read=True))).scalars())
    for one in question_ids:
        if one not in found:
            raise FailedPrecondition(
                f"There is no question {one}.",
                reason=ErrorReason.REFERENCE_NOT_FOUND,
                metadata={"field": "quiz.items", "id": str(one)},
            )


async def replace_quiz_items(session: WriteSession, quiz_id: UUID, items: Sequence[tuple[UUID, Decimal]]) -> None:
    await session.execute(
        delete(QuizQuestion).where(QuizQuestion.tenant_id == session.tenant_id, QuizQuestion.quiz_id == quiz_id)
    )
    rows = [
        {
            "tenant_id": session.tenant_id,
            "quiz_id": quiz_id,
            "question_id": question_id,
            "points": points,
            "position": n,
        }
        for n, (question_id, points) in enumerate(items, start=1)
    ]
    if rows:
        await session.execute(insert(QuizQuestion).values(rows))
