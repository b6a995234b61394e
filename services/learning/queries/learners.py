"""Statements about learners, and about what they chose."""

from collections.abc import Collection
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import select

from kit.db import ReadSession, WriteSession
from kit.ids import NIL
from services.learning.models import LearnerSettings, RetentionChange
from services.learning.scheduling import DEFAULT_NEW_WORDS_PER_DAY, Change, last_change

LOCK = """
INSERT INTO learning.learners AS l (tenant_id, id, changes) VALUES ($1, $2, 1)
ON CONFLICT (tenant_id, id) DO UPDATE SET changes = l.changes + 1, updated_at = now()
RETURNING l.changes
"""
# In one order, so that no two of these wait for each other.
LOCK_ALL = """
INSERT INTO learning.learners AS l (tenant_id, id, changes)
SELECT $1, one, 1 FROM unnest($2::uuid[]) AS one ORDER BY one
ON CONFLICT (tenant_id, id) DO UPDATE SET changes = l.changes + 1, updated_at = now()
RETURNING l.id, l.changes
"""
CHANGES = "SELECT changes FROM learning.learners WHERE tenant_id = $1 AND id = $2"
# Of each, what was in force at the time, and all that followed.
RETENTION_CHANGES = """
SELECT r.user_id, r.effective_time, r.desired_retention, r.maximum_interval_days
FROM learning.retention_changes r
WHERE r.tenant_id = $1 AND r.user_id IN ($2, $3)
  AND r.effective_time >= coalesce((SELECT max(b.effective_time) FROM learning.retention_changes b
                                    WHERE b.tenant_id = $1 AND b.user_id = r.user_id AND b.effective_time <= $4),
                                   '-infinity')
"""
DAY = f"""
SELECT date_trunc('day', $3::timestamptz, coalesce(max(time_zone), 'UTC')) AS begin,
       coalesce(max(new_words_per_day), {DEFAULT_NEW_WORDS_PER_DAY}) AS new_words_per_day
FROM learning.learner_settings WHERE tenant_id = $1 AND user_id = $2
"""  # noqa: S608
TODAY = """
SELECT ($3::timestamptz AT TIME ZONE coalesce(max(time_zone), 'UTC'))::date AS day
FROM learning.learner_settings WHERE tenant_id = $1 AND user_id = $2
"""
SETTINGS: tuple[Any, ...] = (
    LearnerSettings.id,
    LearnerSettings.user_id,
    LearnerSettings.desired_retention,
    LearnerSettings.maximum_interval_days,
    LearnerSettings.new_words_per_day,
    LearnerSettings.time_zone,
    LearnerSettings.updated_at,
    LearnerSettings.revision,
)


async def lock_learner(session: WriteSession, user_id: UUID) -> int:
    """Counts one more change of the learner's, and answers with its number.

    Until the end of the transaction nobody else changes what is the learner's: call it before anything of theirs is
    written, so that two of their devices take turns and no two transactions wait for each other.
    """
    return int((await session.fetchrow(LOCK, user_id)).changes)


async def lock_learners(session: WriteSession, user_ids: Collection[UUID]) -> dict[UUID, int]:
    """The same of several, each once: the numbers by learner."""
    return {row.id: int(row.changes) for row in await session.fetch(LOCK_ALL, list(user_ids))}


async def get_changes(session: ReadSession, user_id: UUID) -> int:
    """The number of the learner's latest change that is committed, or made here; 0 before the first."""
    row = await session.fetchrow(CHANGES, user_id)
    return int(row.changes) if row else 0


async def find_settings(session: ReadSession, user_id: UUID) -> Any:
    """The learner's settings; None when none were written."""
    statement = select(*SETTINGS).where(
        LearnerSettings.tenant_id == session.tenant_id, LearnerSettings.user_id == user_id
    )
    return (await session.execute(statement)).one_or_none()


async def get_day(session: ReadSession, user_id: UUID, at: datetime) -> Any:
    """When the day of the learner began that it was at this time, and how many new words are for it."""
    return await session.fetchrow(DAY, user_id, at)


async def get_today(session: ReadSession, user_id: UUID, at: datetime) -> date:
    """The day that it was for the learner at this time."""
    today: date = (await session.fetchrow(TODAY, user_id, at)).day
    return today


async def find_settings_to_change(session: WriteSession, user_id: UUID) -> LearnerSettings | None:
    """The learner, who must be locked, changes them: nobody else does."""
    statement = select(LearnerSettings).where(
        LearnerSettings.tenant_id == session.tenant_id, LearnerSettings.user_id == user_id
    )
    found: LearnerSettings | None = await session.scalar(statement)
    return found


async def list_retention_changes(
    session: ReadSession, user_id: UUID, since: datetime
) -> tuple[list[Change], list[Change]]:
    """What the learner and what the tenant chose, as far as it says what was in force at `since` and later."""
    rows = await session.fetch(RETENTION_CHANGES, user_id, NIL, since)
    return [_change(row) for row in rows if row.user_id != NIL], [_change(row) for row in rows if row.user_id == NIL]


async def insert_retention_change(
    session: WriteSession, user_id: UUID, at: datetime, retention: Decimal | None, maximum_interval_days: int | None
) -> None:
    """What is in force from this time on, of a learner or, with the nil UUID, of the tenant; unless it was before."""
    own, common = await list_retention_changes(session, user_id, at)
    latest = last_change(common if user_id == NIL else own, at)
    if (latest.desired_retention, latest.maximum_interval_days) != (_exact(retention), maximum_interval_days):
        session.add(
            RetentionChange(
                user_id=user_id,
                effective_time=at,
                desired_retention=retention,
                maximum_interval_days=maximum_interval_days,
            )
        )


def _change(row: Any) -> Change:
    return Change(
        effective_time=row.effective_time,
        desired_retention=_exact(row.desired_retention),
        maximum_interval_days=row.maximum_interval_days,
    )


def _exact(retention: Decimal | None) -> float | None:
    return None if retention is None else float(retention)


async def has_time_zone(session: ReadSession, name: str) -> bool:
    """Whether the database knows the time zone."""
    found = await session.fetchrow("SELECT 1 FROM pg_timezone_names WHERE name = $2 AND $1::uuid IS NOT NULL", name)
    return found is not None
