"""Statements on attempts, their responses and results. Those of the busiest calls go past SQLAlchemy, which would cost
each of them four times as much."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, and_, case, func, or_, select, true
from sqlalchemy.dialects.postgresql import insert as insert_or_skip
from sqlalchemy.orm import aliased

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import Aborted, existing
from kit.pagination import Page
from services.assessment import rules
from services.assessment.composing import Pick
from services.assessment.models import Attempt, Extension, Quiz, QuizResult
from services.assessment.queries.base import Rows
from services.assessment.queries.questions import PURGES
from services.assessment.queries.quizzes import QUIZ
from services.assessment.queries.regrades import list_changes
from services.assessment.queries.versions import REMEMBERED
from services.assessment.regrading import in_force
from services.assessment.rules import Item, Outcome, Taking

APART = ("tenant_id", "version_ids", "points")
COLUMNS = [one.key for one in Attempt.__table__.columns if one.key not in APART]
STANDING = ("status", "own_close_time", "last_close_time", "own_attempts_allowed", "used", "answering")
FACTS = (*COLUMNS, *STANDING, "pass_mark", "regrade_count")
RESULT = ("score", "max_score", "percent", "passed")
# All there is to know of an attempt, but for what its questions say.
ATTEMPT = f"""
SELECT {", ".join(f"a.{name}" for name in COLUMNS)}, a.version_ids, a.points,
  q.pass_mark, q.regrade_count, q.status, q.review_policy::text AS review_policy,
  coalesce(e.close_time, q.close_time) AS own_close_time,
  CASE WHEN q.close_time IS NOT NULL THEN greatest(q.close_time,
    (SELECT max(x.close_time) FROM assessment.quiz_extensions x WHERE x.tenant_id = $1 AND x.quiz_id = a.quiz_id)) END
    AS last_close_time,
  CASE WHEN q.attempts_allowed > 0 THEN q.attempts_allowed + coalesce(e.extra_attempts, 0) ELSE 0 END
    AS own_attempts_allowed,
  o.used, o.answering,
  (SELECT json_object_agg(r.version_id, r.answer)::text FROM assessment.responses r
   WHERE r.tenant_id = $1 AND r.attempt_id = a.id) AS answers,
  g.score, g.max_score, g.percent, g.passed, g.detail::text AS detail
FROM assessment.attempts a
JOIN assessment.quizzes q ON q.tenant_id = $1 AND q.id = a.quiz_id AND q.deleted_at IS NULL
LEFT JOIN assessment.quiz_extensions e ON e.tenant_id = $1 AND e.quiz_id = a.quiz_id AND e.user_id = a.user_id
LEFT JOIN assessment.quiz_results g ON g.tenant_id = $1 AND g.attempt_id = a.id
CROSS JOIN LATERAL (
  SELECT count(*) AS used, coalesce(bool_or(b.state = 'open' AND b.id <> a.id), false) AS answering
  FROM assessment.attempts b WHERE b.tenant_id = $1 AND b.quiz_id = a.quiz_id AND b.user_id = a.user_id
) o
WHERE a.tenant_id = $1 AND a.id = $2
"""  # noqa: S608  # of the table's own columns
# The revision guards both writes: what another transaction changed since the attempt was read makes them do nothing.
SAVE = """
WITH changed AS (
  UPDATE assessment.attempts
  SET state = $4, submit_time = $5, updated_at = $6, revision = revision + 1
  WHERE tenant_id = $1 AND id = $2 AND revision = $3
  RETURNING tenant_id, id, revision
), saved AS (
  INSERT INTO assessment.responses (tenant_id, attempt_id, version_id, answer)
  SELECT changed.tenant_id, changed.id, given.key::uuid, given.value
  FROM changed, jsonb_each($7::text::jsonb) AS given
  ON CONFLICT (tenant_id, attempt_id, version_id)
  DO UPDATE SET answer = excluded.answer, updated_at = excluded.updated_at
)"""
GRADE = """, graded AS (
  INSERT INTO assessment.quiz_results
    (tenant_id, attempt_id, score, max_score, percent, passed, detail, pass_mark, regrade_count)
  SELECT tenant_id, id, $8, $9, $10, $11, $12::text::jsonb, $13, $14 FROM changed
)"""
# A regrade locks the quiz and counts: either it finds the result, or whoever grades finds that the count has changed.
AS_COUNTED = """
WITH counted AS (
  SELECT FROM assessment.quizzes WHERE tenant_id = $1 AND id = $15 AND regrade_count = $14 FOR KEY SHARE
), """
ONLY_AS_COUNTED = "AND revision = $3 AND EXISTS (SELECT FROM counted)"
REVISION = " SELECT revision FROM changed"
SAVE_RESPONSES = SAVE + REVISION
CLOSE_ATTEMPT = SAVE.replace("\nWITH ", AS_COUNTED).replace("AND revision = $3", ONLY_AS_COUNTED) + GRADE + REVISION
# Whoever starts attempts of a learner at a quiz and whoever extends them take turns: neither overlooks the other.
# And no question is purged between the moment in which an attempt picks it and that in which it has it.
TAKE_TURN = f"""
SELECT pg_advisory_xact_lock_shared({PURGES}),
       pg_advisory_xact_lock(hashtextextended($1::uuid::text || $2::uuid::text || $3::uuid::text, 0))
"""
OVERDUE = f"""
FROM assessment.attempts a JOIN assessment.quizzes q ON q.tenant_id = $1 AND q.id = a.quiz_id AND q.deleted_at IS NULL
WHERE a.tenant_id = $1 AND a.state = 'open'
  AND coalesce(a.deadline_time, a.updated_at + interval '{rules.ABANDONED_AFTER.days} days') <= $2
"""
LIST_OVERDUE = f"SELECT a.id {OVERDUE} AND a.id > $3 ORDER BY a.id LIMIT $4 FOR UPDATE OF a SKIP LOCKED"
COUNT_OVERDUE = f"SELECT count(*) AS overdue {OVERDUE}"
MOVE_DEADLINE = """
UPDATE assessment.attempts SET deadline_time = $3, updated_at = $4, revision = revision + 1
WHERE tenant_id = $1 AND id = $2
"""
OPEN_ATTEMPT = """
SELECT id, user_id, created_at, updated_at, state, time_limit, deadline_time FROM assessment.attempts
WHERE tenant_id = $1 AND quiz_id = $2 AND user_id = $3 AND state = 'open' FOR UPDATE
"""
Other = aliased(Attempt, name="other")


async def get_attempt(session: ReadSession, attempt_id: UUID) -> Taking:
    """The attempt with its questions in order, what was answered so far and, once it is over, the result."""
    row = existing(await session.fetchrow(ATTEMPT, attempt_id), "attempt")
    versions = await REMEMBERED.get(session, row.version_ids)
    answers = json.loads(row.answers) if row.answers else {}
    changes = await list_changes(session, row.quiz_id, row.regrade_count) if row.regrade_count else ()
    items = []
    for one, points in zip(row.version_ids, row.points, strict=True):
        question_id, version, body = versions[one]
        change = in_force(changes, question_id, version, body)
        items.append(Item(question_id, one, version, body, points, answers.get(str(one)), change))
    result = Outcome(**{name: row[name] for name in RESULT}, detail=json.loads(row.detail)) if row.detail else None
    facts = {name: row[name] for name in FACTS}
    return Taking(**facts, review_policy=json.loads(row.review_policy), items=items, result=result)


async def list_items(session: ReadSession, picks: Sequence[Pick]) -> list[Item]:
    """The questions with what they say."""
    versions = await REMEMBERED.get(session, [pick.version_id for pick in picks])
    return [
        Item(pick.question_id, pick.version_id, pick.version, versions[pick.version_id].body, pick.points)
        for pick in picks
    ]


async def list_attempts(
    session: ReadSession, page: Page, *, quiz_id: str, user_id: str, state: str, at: datetime
) -> tuple[Rows, str]:
    """Attempts with the columns of their results, null where there is none, and what a review policy looks at."""
    mine = (Other.tenant_id == session.tenant_id, Other.quiz_id == Attempt.quiz_id, Other.user_id == Attempt.user_id)
    others = (
        select(
            func.count().label("used"),
            func.coalesce(func.bool_or(and_(Other.state == rules.OPEN, Other.id != Attempt.id)), False).label(
                "answering"
            ),
        )
        .where(*mine)
        .correlate(Attempt)
        .lateral("others")
    )
    statement = (
        select(
            *(Attempt.__table__.columns[name] for name in COLUMNS),
            *(QuizResult.__table__.columns[name] for name in RESULT),
            Quiz.status,
            Quiz.review_policy,
            others.c.used,
            others.c.answering,
            *_own(session.tenant_id),
        )
        .join(Quiz, and_(Quiz.tenant_id == Attempt.tenant_id, Quiz.id == Attempt.quiz_id, Quiz.deleted_at.is_(None)))
        .outerjoin(QuizResult, and_(QuizResult.tenant_id == Attempt.tenant_id, QuizResult.attempt_id == Attempt.id))
        .outerjoin(Extension, _of(Attempt.quiz_id, Attempt.user_id))
        .join(others, true())
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


def _of(quiz_id: Any, user_id: Any) -> ColumnElement[bool]:
    """The extension of this user at this quiz."""
    return and_(Extension.tenant_id == Quiz.tenant_id, Extension.quiz_id == quiz_id, Extension.user_id == user_id)


def _own(tenant_id: UUID) -> list[Any]:
    """What holds for a learner, and when the last of all has to be done, where quiz and extension are joined."""
    another = aliased(Extension)
    last = (
        select(func.max(another.close_time))
        .where(another.tenant_id == tenant_id, another.quiz_id == Quiz.id)
        .scalar_subquery()
    )
    allowed = Quiz.attempts_allowed + func.coalesce(Extension.extra_attempts, 0)
    return [
        func.coalesce(Extension.close_time, Quiz.close_time).label("own_close_time"),
        case((Quiz.close_time.is_not(None), func.greatest(Quiz.close_time, last))).label("last_close_time"),
        case((Quiz.attempts_allowed > 0, allowed), else_=0).label("own_attempts_allowed"),
    ]


def _in_state(state: str, at: datetime) -> ColumnElement[bool]:
    """What `rules.state_at` says, as a condition."""
    end = func.coalesce(Attempt.deadline_time, Attempt.updated_at + rules.ABANDONED_AFTER)
    overdue = and_(Attempt.state == rules.OPEN, end <= at)
    if state == rules.OPEN:
        return and_(Attempt.state == rules.OPEN, end > at)
    return or_(Attempt.state == state, overdue) if state == rules.EXPIRED else Attempt.state == state


async def take_turn(session: WriteSession, quiz_id: UUID, user_id: UUID) -> None:
    """Waits for other transactions that start or extend attempts of the user at the quiz."""
    await session.fetch(TAKE_TURN, quiz_id, user_id)


async def get_quiz_to_take(session: ReadSession, quiz_id: UUID, user_id: UUID) -> Row[Any]:
    """The quiz, with the user's number of attempts `used`, the id of the open one as `open_id`, and what the user was
    given."""
    own = (Attempt.tenant_id == session.tenant_id, Attempt.quiz_id == quiz_id, Attempt.user_id == user_id)
    statement = (
        QUIZ.add_columns(
            select(func.count()).select_from(Attempt).where(*own).scalar_subquery().label("used"),
            select(Attempt.id).where(*own, Attempt.state == rules.OPEN).scalar_subquery().label("open_id"),
            Extension.extra_time,
            *_own(session.tenant_id),
        )
        .outerjoin(Extension, _of(quiz_id, user_id))
        .where(Quiz.tenant_id == session.tenant_id, Quiz.id == quiz_id, Quiz.deleted_at.is_(None))
    )
    return existing((await session.execute(statement)).one_or_none(), "quiz")


async def insert_attempt(session: WriteSession, attempt: Taking) -> None:
    """Inserts the attempt; ABORTED when another call has started one meanwhile, which the retry then finds."""
    values = {name: getattr(attempt, name) for name in COLUMNS} | {
        "tenant_id": session.tenant_id,
        "version_ids": [item.version_id for item in attempt.items],
        "points": [item.points for item in attempt.items],
    }
    statement = insert_or_skip(Attempt).values(values).on_conflict_do_nothing().returning(Attempt.id)
    if await session.scalar(statement) is None:
        raise Aborted("Another attempt was started at the same moment; try again.")


async def save_attempt(session: WriteSession, attempt: Taking, answers: Mapping[UUID, list[str]]) -> None:
    """Stores the attempt with new answers, by version id, and its result if it has one; sets the new revision.

    ABORTED when it was changed since it was read: nothing is stored then.
    """
    state = attempt.id, attempt.revision, attempt.state, attempt.submit_time, attempt.updated_at
    given = json.dumps({str(version_id): answer for version_id, answer in answers.items()})
    if result := attempt.result:
        told = *(getattr(result, name) for name in RESULT), json.dumps(result.detail)
        counted = attempt.pass_mark, attempt.regrade_count, attempt.quiz_id
        row = await session.fetchrow(CLOSE_ATTEMPT, *state, given, *told, *counted)
    else:
        row = await session.fetchrow(SAVE_RESPONSES, *state, given)
    if row is None:
        raise Aborted("The attempt was changed at the same moment; try again.")
    attempt.revision = row.revision


async def list_overdue(session: WriteSession, after: UUID, at: datetime, most: int) -> list[UUID]:
    """Open attempts that are over, behind this id and in the order of their ids, locked; without those that others are
    just closing, and those of deleted quizzes."""
    return [row.id for row in await session.fetch(LIST_OVERDUE, at, after, most)]


async def count_overdue(session: ReadSession, at: datetime) -> int:
    found: int = (await session.fetchrow(COUNT_OVERDUE, at)).overdue
    return found


async def find_open(session: WriteSession, quiz_id: UUID, user_id: UUID) -> Any:
    """The user's open attempt at the quiz, locked, or None."""
    return await session.fetchrow(OPEN_ATTEMPT, quiz_id, user_id)


async def move_deadline(session: WriteSession, attempt_id: UUID, deadline: datetime | None, at: datetime) -> None:
    await session.fetch(MOVE_DEADLINE, attempt_id, deadline, at)
