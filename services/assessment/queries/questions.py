"""Statements on the bank of questions."""

from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, and_, select

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import NotFound
from kit.pagination import Page
from services.assessment import rules
from services.assessment.models import Question, QuestionVersion, Quiz, QuizQuestion
from services.assessment.queries.base import Rows, columns, one_of

QUESTION: Select[Any] = select(*columns(Question), QuestionVersion.body).join(
    QuestionVersion,
    and_(
        QuestionVersion.tenant_id == Question.tenant_id,
        QuestionVersion.question_id == Question.id,
        QuestionVersion.version == Question.version,
    ),
)


async def get_question(session: WriteSession, question_id: str, *, deleted: bool = False) -> Question:
    """The question, locked; deleted ones are found only when asked for."""
    statement = select(Question).where(Question.tenant_id == session.tenant_id, Question.id == UUID(question_id))
    found: Question | None = (await session.execute(statement.with_for_update())).scalar_one_or_none()
    if found is None or (found.deleted_at and not deleted):
        raise NotFound("question")
    return found


async def get_body(session: ReadSession, question: Question) -> dict[str, Any]:
    """What the latest version of the question says."""
    statement = select(QuestionVersion.body).where(
        QuestionVersion.tenant_id == session.tenant_id,
        QuestionVersion.question_id == question.id,
        QuestionVersion.version == question.version,
    )
    body: dict[str, Any] = await session.scalar(statement)
    return body


async def get_question_row(session: ReadSession, question_id: str) -> Row[Any]:
    """The question's columns, and the `body` of its latest version."""
    statement = QUESTION.where(
        Question.tenant_id == session.tenant_id, Question.id == UUID(question_id), Question.deleted_at.is_(None)
    )
    return one_of(await session.execute(statement), "question")


async def list_questions(session: ReadSession, page: Page, *, kind: str, query: str) -> tuple[Rows, str]:
    statement = QUESTION.where(
        Question.tenant_id == session.tenant_id, Question.deleted_at.is_(None), visible("list", Question)
    )
    if kind:
        statement = statement.where(Question.type == kind)
    if query:
        statement = statement.where(Question.prompt.istartswith(query, autoescape=True))
    rows = (await session.execute(page.apply(statement, Question.id))).all()
    return page.split(rows, key=lambda row: (row.id,))


async def is_in_use(session: ReadSession, question_id: UUID) -> bool:
    """Whether a quiz that is not archived has the question; a deleted quiz may come back, so it counts."""
    statement = (
        select(QuizQuestion.id)
        .join(Quiz, and_(Quiz.tenant_id == QuizQuestion.tenant_id, Quiz.id == QuizQuestion.quiz_id))
        .where(
            QuizQuestion.tenant_id == session.tenant_id,
            QuizQuestion.question_id == question_id,
            Quiz.status != rules.ARCHIVED,
        )
        .limit(1)
    )
    return await session.scalar(statement) is not None
