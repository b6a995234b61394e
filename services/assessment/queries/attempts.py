"""Statements on attempts, their responses and results."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Row,
    Select,
    Uuid,
    and_,
    bindparam,
    column,
    func,
    or_,
    select,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import insert as insert_or_skip
from sqlalchemy.orm import aliased

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import Aborted, NotFound
from kit.pagination import Page
from services.assessment import rules
from services.assessment.models import Attempt, Question, QuestionVersion, Quiz, QuizQuestion, QuizResult, Response
from services.assessment.queries.base import Rows, columns, one_of
from services.assessment.queries.quizzes import QUIZ
from services.assessment.rules import Item, Outcome, Taking

ATTEMPT = [one.key for one in Attempt.__table__.columns if one.key not in ("tenant_id", "version_ids")]
TAKING = (*ATTEMPT, "pass_mark", "status", "close_time", "attempts_allowed", "used", "answering")
PIN: Any = (
    func.unnest(Attempt.version_ids)
    .table_valued(column("version_id", Uuid), with_ordinality="position", name="pin")
    .render_derived()
)
TENANT: ColumnElement[UUID] = bindparam("tenant_id", type_=Uuid)
Other = aliased(Attempt, name="other")
OTHERS = (
    select(
        func.count().label("used"),
        func.coalesce(func.bool_or(and_(Other.state == rules.OPEN, Other.id != Attempt.id)), False).label("answering"),
    )
    .where(Other.tenant_id == TENANT, Other.quiz_id == Attempt.quiz_id, Other.user_id == Attempt.user_id)
    .correlate(Attempt)
    .lateral("others")
)
# Made once: how to compile a statement is remembered with it. Each table says the tenant, as its policy does.
ATTEMPT_WITH_ITEMS: Select[Any] = (
    select(
        *(Attempt.__table__.columns[name] for name in ATTEMPT),
        *(Quiz.__table__.columns[name] for name in ("pass_mark", "status", "close_time", "attempts_allowed")),
        *OTHERS.c,
        QuestionVersion.id.label("version_id"),
        QuestionVersion.question_id,
        QuestionVersion.version,
        QuestionVersion.body,
        QuizQuestion.points,
        Response.answer,
    )
    .select_from(Attempt)
    .join(Quiz, and_(Quiz.tenant_id == TENANT, Quiz.id == Attempt.quiz_id, Quiz.deleted_at.is_(None)))
    .join(OTHERS, true())
    .join(PIN, true())
    .join(QuestionVersion, and_(QuestionVersion.tenant_id == TENANT, QuestionVersion.id == PIN.c.version_id))
    .join(
        QuizQuestion,
        and_(
            QuizQuestion.tenant_id == TENANT,
            QuizQuestion.quiz_id == Attempt.quiz_id,
            QuizQuestion.question_id == QuestionVersion.question_id,
        ),
    )
    .outerjoin(
        Response,
        and_(
            Response.tenant_id == TENANT,
            Response.attempt_id == Attempt.id,
            Response.version_id == QuestionVersion.id,
        ),
    )
    .where(Attempt.tenant_id == TENANT, Attempt.id == bindparam("id", type_=Uuid))
    .order_by(PIN.c.position)
)
# The revision guards both writes: what another transaction changed since the attempt was read makes them do nothing.
SAVE = """
WITH changed AS (
  UPDATE assessment.attempts
  SET state = :state, submit_time = :submit_time, updated_at = :updated_at, revision = revision + 1
  WHERE tenant_id = :tenant_id AND id = :id AND revision = :revision
  RETURNING tenant_id, id, revision
), saved AS (
  INSERT INTO assessment.responses (tenant_id, attempt_id, version_id, answer)
  SELECT changed.tenant_id, changed.id, given.version_id, given.answer
  FROM changed, jsonb_to_recordset(CAST(:answers AS jsonb)) AS given (version_id uuid, answer jsonb)
  ON CONFLICT (tenant_id, attempt_id, version_id)
  DO UPDATE SET answer = excluded.answer, updated_at = excluded.updated_at
)"""
RESULT = """, graded AS (
  INSERT INTO assessment.quiz_results (tenant_id, attempt_id, score, max_score, percent, passed, detail)
  SELECT tenant_id, id, :score, :max_score, :percent, :passed, CAST(:detail AS jsonb) FROM changed
)"""
REVISION = " SELECT revision FROM changed"
TIMES = [bindparam(name, type_=DateTime(timezone=True)) for name in ("submit_time", "updated_at")]
SAVE_RESPONSES = text(SAVE + REVISION).bindparams(*TIMES)
CLOSE_ATTEMPT = text(SAVE + RESULT + REVISION).bindparams(*TIMES)


async def get_attempt(session: ReadSession, attempt_id: UUID) -> Taking:
    """The attempt with its questions in order, what was answered so far and, once it is over, the result."""
    values = {"tenant_id": session.tenant_id, "id": attempt_id}
    rows = (await session.execute(ATTEMPT_WITH_ITEMS, values)).all()
    if not rows:
        raise NotFound("attempt")
    attempt = Taking(
        **{name: getattr(rows[0], name) for name in TAKING},
        items=[Item(row.question_id, row.version_id, row.version, row.body, row.points, row.answer) for row in rows],
    )
    if attempt.state != rules.OPEN:
        attempt.result = await get_result(session, attempt_id)
    return attempt


async def get_result(session: ReadSession, attempt_id: UUID) -> Outcome:
    """The result of an attempt that is over."""
    statement = select(
        QuizResult.score, QuizResult.max_score, QuizResult.percent, QuizResult.passed, QuizResult.detail
    ).where(QuizResult.tenant_id == session.tenant_id, QuizResult.attempt_id == attempt_id)
    return Outcome(**one_of(await session.execute(statement), "attempt")._mapping)


async def list_attempts(
    session: ReadSession, page: Page, *, quiz_id: str, user_id: str, state: str, at: datetime
) -> tuple[Rows, str]:
    """Attempts with the columns of their results, null where there is none."""
    statement = (
        select(*columns(Attempt), QuizResult.score, QuizResult.max_score, QuizResult.percent, QuizResult.passed)
        .join(Quiz, and_(Quiz.tenant_id == Attempt.tenant_id, Quiz.id == Attempt.quiz_id, Quiz.deleted_at.is_(None)))
        .outerjoin(QuizResult, and_(QuizResult.tenant_id == Attempt.tenant_id, QuizResult.attempt_id == Attempt.id))
        .where(Attempt.tenant_id == session.tenant_id, visible("list", Attempt))
    )
    if quiz_id:
        statement = statement.where(Attempt.quiz_id == UUID(quiz_id))
    if user_id:
        statement = statement.where(Attempt.user_id == UUID(user_id))
    if state:
        statement = statement.where(_in_state(state, at))
    rows = (await session.execute(page.apply(statement, Attempt.id))).all()
    return page.split(rows, key=lambda row: (row.id,))


def _in_state(state: str, at: datetime) -> ColumnElement[bool]:
    """What `Taking.state_at` says, as a condition."""
    overdue = and_(Attempt.state == rules.OPEN, func.coalesce(Attempt.deadline_time <= at, False))
    if state == rules.OPEN:
        return and_(Attempt.state == rules.OPEN, ~overdue)
    return or_(Attempt.state == state, overdue) if state == rules.EXPIRED else Attempt.state == state


async def get_quiz_to_take(session: ReadSession, quiz_id: str, user_id: UUID) -> Row[Any]:
    """The quiz, with the user's number of attempts `used` and the id of the open one as `open_id`."""
    own = (Attempt.tenant_id == session.tenant_id, Attempt.quiz_id == UUID(quiz_id), Attempt.user_id == user_id)
    statement = QUIZ.add_columns(
        select(func.count()).select_from(Attempt).where(*own).scalar_subquery().label("used"),
        select(Attempt.id).where(*own, Attempt.state == rules.OPEN).scalar_subquery().label("open_id"),
    ).where(Quiz.tenant_id == session.tenant_id, Quiz.id == UUID(quiz_id), Quiz.deleted_at.is_(None))
    return one_of(await session.execute(statement), "quiz")


async def list_latest_items(session: ReadSession, quiz_id: UUID) -> list[Item]:
    """The questions of the quiz in order, in their latest versions."""
    statement = (
        select(
            QuizQuestion.question_id,
            QuizQuestion.points,
            QuestionVersion.id,
            QuestionVersion.version,
            QuestionVersion.body,
        )
        .select_from(QuizQuestion)
        .join(Question, and_(Question.tenant_id == QuizQuestion.tenant_id, Question.id == QuizQuestion.question_id))
        .join(
            QuestionVersion,
            and_(
                QuestionVersion.tenant_id == Question.tenant_id,
                QuestionVersion.question_id == Question.id,
                QuestionVersion.version == Question.version,
            ),
        )
        .where(QuizQuestion.tenant_id == session.tenant_id, QuizQuestion.quiz_id == quiz_id)
        .order_by(QuizQuestion.position)
    )
    return [
        Item(row.question_id, row.id, row.version, row.body, row.points) for row in await session.execute(statement)
    ]


async def insert_attempt(session: WriteSession, attempt: Taking) -> None:
    """Inserts the attempt; ABORTED when another call has started one meanwhile, which the retry then finds."""
    values = {name: getattr(attempt, name) for name in ATTEMPT} | {
        "tenant_id": session.tenant_id,
        "version_ids": [item.version_id for item in attempt.items],
    }
    statement = insert_or_skip(Attempt).values(values).on_conflict_do_nothing().returning(Attempt.id)
    if await session.scalar(statement) is None:
        raise Aborted("Another attempt was started at the same moment; try again.")


async def save_attempt(session: WriteSession, attempt: Taking, answers: Mapping[UUID, list[str]]) -> None:
    """Stores the attempt with new answers, by version id, and its result if it has one; sets the new revision.

    ABORTED when it was changed since it was read: nothing is stored then.
    """
    values: dict[str, Any] = {
        "tenant_id": session.tenant_id,
        "id": attempt.id,
        "revision": attempt.revision,
        "state": attempt.state,
        "submit_time": attempt.submit_time,
        "updated_at": attempt.updated_at,
        "answers": json.dumps([{"version_id": str(one), "answer": answers[one]} for one in answers]),
    }
    if result := attempt.result:
        values |= {name: getattr(result, name) for name in ("score", "max_score", "percent", "passed")}
        values["detail"] = json.dumps(result.detail)
    revision = (await session.execute(CLOSE_ATTEMPT if result else SAVE_RESPONSES, values)).scalar()
    if revision is None:
        raise Aborted("The attempt was changed at the same moment; try again.")
    attempt.revision = revision
