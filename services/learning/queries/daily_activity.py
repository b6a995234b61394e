"""What learners did, day by day: added to as it happens, and counted anew from what the other tables say."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from uuid import UUID

from kit.db import WriteSession

ZONE = """coalesce((SELECT s.time_zone FROM learning.learner_settings s WHERE s.tenant_id = $1 AND s.user_id = $2),
                   'UTC')"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """What is to be added to the day of the learner in which `at` lies; what is taken back is negative.

    A session's time belongs to the day in which it began, so `at` is when it began whatever part of it is added.
    """

    at: datetime
    active_duration: timedelta = timedelta(0)
    sessions: int = 0
    lessons_completed: int = 0
    reviews: int = 0
    reviews_forgotten: int = 0
    words_begun: int = 0
    words_learned: int = 0
    readings: int = 0
    quizzes_passed: int = 0


COLUMNS = tuple(field.name for field in fields(Happened) if field.name != "at")
TYPES = dict.fromkeys(COLUMNS, "int") | {"active_duration": "interval"}
NAMED = ", ".join(COLUMNS)
SUMMED = ", ".join(f"sum(h.{name})" for name in COLUMNS)
TALLY = f"""
INSERT INTO learning.daily_activity AS d (tenant_id, user_id, day, {NAMED})
SELECT $1, $2, (h.at AT TIME ZONE {ZONE})::date AS local_day, {SUMMED}
FROM unnest($3::timestamptz[], {", ".join(f"${at}::{TYPES[name]}[]" for at, name in enumerate(COLUMNS, 4))})
  AS h (at, {NAMED})
GROUP BY local_day ORDER BY local_day
ON CONFLICT (tenant_id, user_id, day) DO UPDATE SET
  {", ".join(f"{name} = d.{name} + excluded.{name}" for name in COLUMNS)}, updated_at = now()
"""  # noqa: S608
# Of each table, the rows that count in the day of a time, and what for.
SOURCES: tuple[tuple[str, str, str, dict[str, str]], ...] = (
    ("learning_sessions", "start_time", "true", {"active_duration": "active_duration", "sessions": "1"}),
    ("user_progress", "complete_time", "complete_time IS NOT NULL", {"lessons_completed": "1"}),
    (
        "vocabulary_reviews",
        "review_time",
        "source <> 'known'",
        {"reviews": "1", "reviews_forgotten": "(rating = 'again')::int"},
    ),
    ("vocabulary_exposures", "exposure_time", "true", {"readings": "1"}),
    ("user_vocabulary_progress", "first_review_time", "due_time IS NOT NULL AND NOT known", {"words_begun": "1"}),
    ("user_vocabulary_progress", "learn_time", "learn_time IS NOT NULL AND NOT known", {"words_learned": "1"}),
    ("graded_attempts", "grade_time", "passed AND NOT score_hidden", {"quizzes_passed": "1"}),
)
NOTHING = {name: f"NULL::{TYPES[name]}" for name in COLUMNS}
HAPPENED = " UNION ALL ".join(
    f"SELECT {at}, {', '.join((NOTHING | values).values())} FROM learning.{table}"  # noqa: S608
    f" WHERE tenant_id = $1 AND user_id = $2 AND {condition}"
    for table, at, condition, values in SOURCES
)
ALL_SUMMED = ", ".join(f"coalesce(sum(h.{name}), '0') AS {name}" for name in COLUMNS)
ANYTHING = " OR ".join(f"d.{name} <> '0'" for name in COLUMNS)
EACH = ", ".join(f"{{0}}.{name}" for name in COLUMNS)
# A day may be left with nothing but zeros, when what was in it was taken back: that is as good as no day.
RECOUNT = f"""
WITH counted AS MATERIALIZED (
  SELECT (h.at AT TIME ZONE {ZONE})::date AS day, {ALL_SUMMED}
  FROM ({HAPPENED}) AS h (at, {NAMED}) GROUP BY 1
), gone AS (
  DELETE FROM learning.daily_activity d
  WHERE d.tenant_id = $1 AND d.user_id = $2 AND d.day NOT IN (SELECT day FROM counted)
  RETURNING d.day, {ANYTHING} AS wrong
), changed AS (
  INSERT INTO learning.daily_activity AS d (tenant_id, user_id, day, {NAMED})
  SELECT $1, $2, c.day, {EACH.format("c")} FROM counted c ORDER BY c.day
  ON CONFLICT (tenant_id, user_id, day) DO UPDATE SET
    {", ".join(f"{name} = excluded.{name}" for name in COLUMNS)}, updated_at = now()
  WHERE ({EACH.format("d")}) IS DISTINCT FROM ({EACH.format("excluded")})
  RETURNING d.day
)
SELECT day FROM gone WHERE wrong UNION ALL SELECT day FROM changed ORDER BY day
"""  # noqa: S608


async def tally(session: WriteSession, user_id: UUID, happened: Sequence[Happened]) -> None:
    """Adds to the learner's days, in the transaction of what happened. The learner must be locked (`lock_learner`): a
    change of time zone at the same moment counts either all of it or nothing yet."""
    if happened:
        values = ([getattr(one, name) for one in happened] for name in COLUMNS)
        await session.fetch(TALLY, user_id, [one.at for one in happened], *values)


async def recount(session: WriteSession, user_id: UUID) -> list[date]:
    """Counts all days of the learner, who must be locked, anew; answers with those that were otherwise. After anything
    but a change of time zone there are none."""
    return [row.day for row in await session.fetch(RECOUNT, user_id)]
