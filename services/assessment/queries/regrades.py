"""Statements on regrades, and on the results that they change."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, and_, func, select
from sqlalchemy.orm import aliased

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import FailedPrecondition, existing, reference_not_found
from kit.pagination import Page
from services.assessment import regrading
from services.assessment.models import Attempt, PastResult, QuizResult, Regrade
from services.assessment.queries.base import Rows, columns
from services.assessment.queries.versions import REMEMBERED, Version
from services.assessment.regrading import APPLIED, APPLYING, Change, Tally
from services.assessment.rules import Outcome

REGRADE: Select[Any] = select(*columns(Regrade))
# Those that keep one of the versions, and whose result does not know the regrade yet.
OVER = """
SELECT a.id, a.quiz_id, a.lesson_id, a.user_id, a.number, a.state, a.submit_time, a.created_at, a.version_ids, a.points,
       r.score, r.max_score, r.percent, r.passed, r.pass_mark, r.regrade_count,
       (SELECT q.review_policy::text FROM assessment.quizzes q WHERE q.tenant_id = $1 AND q.id = $2) AS review_policy,
       (SELECT json_object_agg(p.version_id, p.answer)::text FROM assessment.responses p
        WHERE p.tenant_id = $1 AND p.attempt_id = a.id) AS answers
FROM assessment.attempts a JOIN assessment.quiz_results r ON r.tenant_id = $1 AND r.attempt_id = a.id
WHERE a.tenant_id = $1 AND a.quiz_id = $2 AND a.version_ids && $3::uuid[] AND r.regrade_count < $4 AND a.id > $5
ORDER BY a.id LIMIT $6
"""
VERSION = "SELECT v.id, v.question_id, v.version FROM assessment.question_versions v WHERE v.tenant_id = $1 AND "
PINNED = f"""{VERSION} v.question_id = $2 AND EXISTS (
  SELECT FROM assessment.attempts a WHERE a.tenant_id = $1 AND a.quiz_id = $3 AND v.id = ANY(a.version_ids))
"""
LATEST = f"{VERSION} v.question_id = $2 AND ($3 = 0 OR v.version = $3) ORDER BY v.version DESC LIMIT 1"
CHANGES = """
SELECT g.number, g.question_id, g.kind, g.version, g.key_version_id, k.body::text AS key
FROM assessment.regrades g
LEFT JOIN assessment.question_versions k ON k.tenant_id = $1 AND k.id = g.key_version_id
WHERE g.tenant_id = $1 AND g.quiz_id = $2 AND g.number <= $3
"""
COUNT = "UPDATE assessment.quizzes SET regrade_count = $3 WHERE tenant_id = $1 AND id = $2"
REPLACE = """
WITH new AS (
  SELECT * FROM jsonb_to_recordset($2::text::jsonb)
    AS new (attempt_id uuid, score numeric, max_score numeric, percent numeric, passed boolean, detail jsonb)
), kept AS (
  INSERT INTO assessment.past_results
    (tenant_id, attempt_id, regrade_id, score, max_score, percent, passed, detail, pass_mark, regrade_count, graded_at)
  SELECT $1, r.attempt_id, $3, r.score, r.max_score, r.percent, r.passed, r.detail, r.pass_mark, r.regrade_count,
         r.updated_at
  FROM assessment.quiz_results r JOIN new ON new.attempt_id = r.attempt_id WHERE r.tenant_id = $1
), told AS (
  UPDATE assessment.attempts a SET revision = a.revision + 1, updated_at = $5 FROM new
  WHERE a.tenant_id = $1 AND a.id = new.attempt_id
)
UPDATE assessment.quiz_results r
SET score = new.score, max_score = new.max_score, percent = new.percent, passed = new.passed, detail = new.detail,
    regrade_count = $4, updated_at = $5
FROM new WHERE r.tenant_id = $1 AND r.attempt_id = new.attempt_id
"""
Next = aliased(PastResult, name="next")


async def get_regrade(session: ReadSession, regrade_id: UUID) -> Row[Any]:
    statement = REGRADE.where(Regrade.tenant_id == session.tenant_id, Regrade.id == regrade_id)
    return existing((await session.execute(statement)).one_or_none(), "regrade")


async def list_regrades(session: ReadSession, page: Page, quiz_id: UUID) -> tuple[Rows, str]:
    statement = REGRADE.where(Regrade.tenant_id == session.tenant_id, Regrade.quiz_id == quiz_id)
    rows = (await session.execute(page.apply(statement, Regrade.number))).all()
    return page.split(rows, key=lambda row: (row.number,))


async def find_latest(session: ReadSession, quiz_id: UUID, question_id: UUID) -> Regrade | None:
    """The regrade of the question that was made last."""
    statement = (
        select(Regrade)
        .where(Regrade.tenant_id == session.tenant_id, Regrade.quiz_id == quiz_id, Regrade.question_id == question_id)
        .order_by(Regrade.number.desc())
        .limit(1)
    )
    found: Regrade | None = await session.scalar(statement)
    return found


async def find_applying(session: WriteSession, quiz_id: UUID) -> Regrade | None:
    """The first regrade of the quiz that is not through, locked."""
    statement = (
        select(Regrade)
        .where(Regrade.tenant_id == session.tenant_id, Regrade.quiz_id == quiz_id, Regrade.state == APPLYING)
        .order_by(Regrade.number)
        .limit(1)
    )
    found: Regrade | None = await session.scalar(statement.with_for_update())
    return found


async def find_version(session: ReadSession, question_id: UUID, version: int) -> Any:
    """This version of the question, or with 0 the latest; REFERENCE_NOT_FOUND when there is none."""
    row = await session.fetchrow(LATEST, question_id, version)
    if row is None:
        raise _missing("regrade.version" if version else "regrade.question_id", question_id)
    return row


async def list_pinned(session: ReadSession, quiz_id: UUID, question_id: UUID) -> dict[UUID, Version]:
    """The versions of the question that attempts at the quiz keep; REFERENCE_NOT_FOUND when no attempt has it."""
    ids = [row.id for row in await session.fetch(PINNED, question_id, quiz_id)]
    if not ids:
        raise _missing("regrade.question_id", question_id)
    return await REMEMBERED.get(session, ids)


def _missing(field: str, question_id: UUID) -> FailedPrecondition:
    message = "No attempt at the quiz has the question, or there is no such version of it."
    return reference_not_found(message, field=field, id=str(question_id))


async def list_changes(session: ReadSession, quiz_id: UUID, most: int) -> list[Change]:
    """The regrades of the quiz up to this number, as rules need them."""
    return [change_of(row) for row in await session.fetch(CHANGES, quiz_id, most)]


def change_of(row: Any) -> Change:
    key = json.loads(row.key) if row.key is not None else None
    return Change(row.number, row.question_id, row.kind, row.version, row.key_version_id, key)


async def change_to(session: ReadSession, number: int, kind: str, version: Any) -> Change:
    """The regrade of this kind about a version of a question, a row of `find_version`."""
    if kind != regrading.KEY:
        return Change(number, version.question_id, kind, version.version)
    key = (await REMEMBERED.get(session, [version.id]))[version.id].body
    return Change(number, version.question_id, kind, version.version, version.id, key)


async def count_regrade(session: WriteSession, quiz_id: UUID, count: int) -> None:
    """Notes how many regrades the quiz has: who has read fewer can grade no attempt any more, and reads again."""
    await session.flush()
    await session.fetch(COUNT, quiz_id, count)


async def list_over(
    session: ReadSession, quiz_id: UUID, version_ids: Sequence[UUID], number: int, after: UUID, limit: int
) -> list[Any]:
    """Attempts that are over and keep one of these versions, with results older than the regrade of this number."""
    return await session.fetch(OVER, quiz_id, version_ids, number, after, limit)


async def replace_results(
    session: WriteSession, regrade: Regrade, outcomes: Mapping[UUID, Outcome], at: datetime
) -> None:
    """Keeps the results of these attempts as they were, and puts the outcomes in their place."""
    if outcomes:
        new = json.dumps([{"attempt_id": str(one), **_stored(outcome)} for one, outcome in outcomes.items()])
        await session.fetch(REPLACE, new, regrade.id, regrade.number, at)


def _stored(outcome: Outcome) -> dict[str, Any]:
    figures = {name: str(getattr(outcome, name)) for name in ("score", "max_score", "percent")}
    return {**figures, "passed": outcome.passed, "detail": outcome.detail}


def advance(regrade: Regrade, tally: Tally, last_attempt_id: UUID, *, through: bool) -> None:
    """Notes how far the regrade is, and what it did up to there."""
    for name, count in asdict(tally).items():
        setattr(regrade, name, getattr(regrade, name) + count)
    regrade.last_attempt_id = last_attempt_id
    if through:
        regrade.state = APPLIED


async def list_regrade_changes(session: ReadSession, page: Page, regrade: Any) -> tuple[Rows, str]:
    """The attempts whose results the regrade replaced, with the result before and, as `new_…`, the one it made: what
    the next regrade replaced, or else the current one."""
    names = ("score", "max_score", "percent", "passed")
    statement = (
        select(
            Attempt.id, Attempt.user_id, Attempt.number,
            *(getattr(PastResult, name) for name in names),
            *(func.coalesce(getattr(Next, name), getattr(QuizResult, name)).label(f"new_{name}") for name in names),
        )
        .select_from(PastResult)
        .join(Attempt, and_(Attempt.tenant_id == PastResult.tenant_id, Attempt.id == PastResult.attempt_id))
        .join(QuizResult, and_(QuizResult.tenant_id == Attempt.tenant_id, QuizResult.attempt_id == Attempt.id))
        .outerjoin(
            Next,
            and_(
                Next.tenant_id == PastResult.tenant_id,
                Next.attempt_id == PastResult.attempt_id,
                Next.regrade_count == regrade.number,
            ),
        )
        .where(
            PastResult.tenant_id == session.tenant_id, PastResult.regrade_id == regrade.id, visible("list", Attempt)
        )
    )  # fmt: skip
    rows = (await session.execute(page.apply(statement, Attempt.id, descending=False))).all()
    return page.split(rows, key=lambda row: (row.id,))
