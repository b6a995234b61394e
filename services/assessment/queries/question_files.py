"""Statements on many questions at once, for files of them."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, inspect, select

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import NotFound
from services.assessment.models import Question, QuestionVersion, QuizQuestion
from services.assessment.queries.base import Rows
from services.assessment.queries.questions import FIND

EXPORTED: Any = (
    select(*(one for one in Question.__table__.columns if one.key not in ("tenant_id", "search_key")))
    .add_columns(QuestionVersion.body, QuestionVersion.preserved)
    .join(
        QuestionVersion,
        (QuestionVersion.tenant_id == Question.tenant_id)
        & (QuestionVersion.question_id == Question.id)
        & (QuestionVersion.version == Question.version),
    )
)


async def wait_for_turn(session: WriteSession) -> None:
    """Until no other import of the tenant is under way: two of the same file must not create its questions twice."""
    key = func.hashtextextended(f"assessment.import {session.tenant_id}", 0)
    await session.execute(select(func.pg_advisory_xact_lock(key)))


async def find_by_digest(session: ReadSession, digests: Sequence[str]) -> dict[str, UUID]:
    """The questions of these contents that an import brought, that are as they were then, and that the caller may
    read."""
    statement = (
        select(QuestionVersion.digest, Question.id)
        .join(
            Question,
            (Question.tenant_id == QuestionVersion.tenant_id)
            & (Question.id == QuestionVersion.question_id)
            & (Question.version == QuestionVersion.version),
        )
        .where(
            QuestionVersion.tenant_id == session.tenant_id,
            QuestionVersion.digest.in_(digests),
            Question.deleted_at.is_(None),
            visible("read", Question),
        )
        .order_by(Question.id.desc())
    )
    return {row.digest: row.id for row in await session.execute(statement)}


async def insert_questions(
    session: WriteSession, questions: Sequence[Question], versions: Sequence[QuestionVersion]
) -> None:
    """Inserts them with one statement for each table."""
    for question in questions:
        question.revision = 1
    for model, entities in ((Question, questions), (QuestionVersion, versions)):
        rows = [_row(session, model, one) for one in entities]
        if rows:
            await session.execute(insert(model), rows)  # type: ignore[arg-type]  # passed on as it is given


def _row(session: WriteSession, model: Any, entity: Any) -> Mapping[str, Any]:
    names = [one.key for one in inspect(model).column_attrs if not one.columns[0].computed]
    return {name: getattr(entity, name) for name in names if name != "tenant_id"} | {"tenant_id": session.tenant_id}


async def list_exported(session: ReadSession, question_ids: Sequence[UUID]) -> Rows:
    """The questions in this order, with `body` and `preserved`. NOT_FOUND when one is not there."""
    statement = EXPORTED.where(
        Question.tenant_id == session.tenant_id, Question.id.in_(question_ids), Question.deleted_at.is_(None)
    )
    rows = {row.id: row for row in await session.execute(statement)}
    if len(rows) < len(set(question_ids)):
        raise NotFound("question")
    return [rows[one] for one in question_ids]


async def list_tagged(session: ReadSession, tag: str, most: int) -> Rows:
    """The questions with the tag that the caller may export, oldest first; of more than `most` some."""
    found = await session.fetchrow(FIND, "", [tag], most, 0)
    statement = EXPORTED.where(
        Question.tenant_id == session.tenant_id,
        Question.id.in_(found.ids),
        Question.deleted_at.is_(None),
        visible("export", Question),
    )
    return (await session.execute(statement.order_by(Question.id))).all()


async def list_asked(session: ReadSession, quiz_id: UUID) -> Rows:
    """The questions that every attempt at the quiz asks, in their order, with their points."""
    statement = (
        select(QuizQuestion.question_id, QuizQuestion.points)
        .where(
            QuizQuestion.tenant_id == session.tenant_id,
            QuizQuestion.quiz_id == quiz_id,
            QuizQuestion.draw_id.is_(None),
        )
        .order_by(QuizQuestion.position)
    )
    return (await session.execute(statement)).all()
