"""Statements about what a learner did, and where it has brought them."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Date, DateTime, Integer, Select, Text, bindparam, cast, func, literal_column, select

from kit.access import Filter, filtered
from kit.db import ReadSession, Shapes
from kit.errors import existing
from services.learning.models import DailyActivity, LearnerSettings, VocabularyProgress
from services.learning.queries.daily_activity import NAMED, ZONE

LEARNER = f"""
SELECT zone.name AS time_zone, today.day AS today,
       (today.day + $4::int)::timestamp AT TIME ZONE zone.name AS until
FROM (SELECT {ZONE}) AS zone (name), LATERAL (SELECT ($3::timestamptz AT TIME ZONE zone.name)::date) AS today (day)
WHERE $5 OR EXISTS (SELECT FROM learning.learners WHERE tenant_id = $1 AND id = $2)
  OR EXISTS (SELECT FROM learning.enrollments WHERE tenant_id = $1 AND user_id = $2)
  OR EXISTS (SELECT FROM learning.cohort_members WHERE tenant_id = $1 AND user_id = $2)
"""  # noqa: S608
DAYS = f"""
SELECT day, {NAMED} FROM learning.daily_activity
WHERE tenant_id = $1 AND user_id = $2 AND day BETWEEN $3 AND $4 ORDER BY day
"""  # noqa: S608
ZERO: Any = literal_column("0")
ONE: Any = literal_column("1")
OWN_ZONE = (
    select(func.coalesce(func.max(LearnerSettings.time_zone), literal_column("'UTC'")))
    .where(LearnerSettings.tenant_id == bindparam("tenant"), LearnerSettings.user_id == bindparam("learner"))
    .scalar_subquery()
)
TODAY = select(
    cast(func.timezone(OWN_ZONE, bindparam("at", type_=DateTime(timezone=True))), Date)
).scalar_subquery()
COUNT: Any = func.count().label("count")
STATUS: Any = VocabularyProgress.status
WORDS: Select[Any] = (
    select(STATUS, COUNT)
    .where(VocabularyProgress.tenant_id == bindparam("tenant"), VocabularyProgress.user_id == bindparam("learner"))
    .group_by(STATUS)
)
DUE_DAY = func.greatest(
    cast(func.timezone(bindparam("zone", type_=Text), VocabularyProgress.due_time), Date),
    bindparam("today", type_=Date),
)
FORECAST: Select[Any] = (
    select(DUE_DAY.label("day"), COUNT)
    .where(
        VocabularyProgress.tenant_id == bindparam("tenant"),
        VocabularyProgress.user_id == bindparam("learner"),
        VocabularyProgress.due_time < bindparam("until", type_=DateTime(timezone=True)),
    )
    .group_by(ONE)
    .order_by(ONE)
)
SHAPES = Shapes()


async def get_learner(session: ReadSession, user_id: UUID, at: datetime, ahead: int, *, own: bool) -> Any:
    """The learner's `time_zone`, their `today`, and `until` when so many days last from then on.

    Raises NOT_FOUND when nobody has ever heard of such a learner; of themselves everybody has (`own`).
    """
    return existing(await session.fetchrow(LEARNER, user_id, at, ahead, own), "daily_activity")


async def list_days(session: ReadSession, user_id: UUID, start: date, end: date) -> list[Any]:
    return await session.fetch(DAYS, user_id, start, end)


def streak(seen: Any) -> Any:
    """A subquery of one row: `current_days`, `longest_days` and `last_active_day` of the learner's days that are seen.
    Its parameters are `tenant`, `learner` and `at`."""
    day = DailyActivity.day
    active = (
        select(day.label("day"), (day - cast(func.row_number().over(order_by=day), Integer)).label("run"))
        .where(
            DailyActivity.tenant_id == bindparam("tenant"),
            DailyActivity.user_id == bindparam("learner"),
            DailyActivity.active,
            # A phone whose clock is ahead has days that are still to come.
            day <= TODAY,
            seen,
        )
        .subquery("active")
    )
    length, last = func.count().label("length"), func.max(active.c.day).label("last")
    runs = select(length, last).group_by(active.c.run).subquery("runs")
    # Today is not over: until then yesterday's streak goes on.
    current = func.max(runs.c.length).filter(runs.c.last >= TODAY - ONE)
    return select(
        func.coalesce(current, ZERO).label("current_days"),
        func.coalesce(func.max(runs.c.length), ZERO).label("longest_days"),
        func.max(runs.c.last).label("last_active_day"),
    ).subquery("streak")


async def get_streak(session: ReadSession, user_id: UUID, at: datetime) -> Any:
    seen = filtered("read", DailyActivity)
    values = {"learner": user_id, "at": at, **seen.values}
    (row,) = await SHAPES.fetch(session, ("streak", seen.shape), lambda: select(streak(seen.expression)), values)
    return row


async def count_words(session: ReadSession, user_id: UUID) -> dict[str, int]:
    """How many words of each status the caller may list."""
    seen = filtered("list", VocabularyProgress)
    rows = await _fetch(session, WORDS, seen, {"learner": user_id})
    return {row.status: row.count for row in rows}


async def list_forecast(session: ReadSession, user_id: UUID, learner: Any) -> Sequence[Any]:
    """How many words fall due on each day until `learner.until`, of those that the caller may list."""
    seen = filtered("list", VocabularyProgress)
    values = {"learner": user_id, "zone": learner.time_zone, "today": learner.today, "until": learner.until}
    return await _fetch(session, FORECAST, seen, values)


async def _fetch(session: ReadSession, statement: Select[Any], seen: Filter, values: dict[str, Any]) -> list[Any]:
    # Statements of one set of values are one: no two of those above have the same.
    return await SHAPES.fetch(session, seen.shape, lambda: statement.where(seen.expression), {**values, **seen.values})
