"""What learners did, day by day: added to as it happens, and counted anew from what the other tables say."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID

from kit.db import WriteSession
from services.learning.rules import Span, joined

ZONE = """coalesce((SELECT s.time_zone FROM learning.learner_settings s WHERE s.tenant_id = $1 AND s.user_id = $2),
                   'UTC')"""
# Looked up once, in statements that ask for it often.
ZONED, CHOSEN = "(SELECT zone FROM chosen)", f"chosen AS MATERIALIZED (SELECT {ZONE} AS zone)"


class Happened(NamedTuple):
    """What is to be added to the day of the learner in which `at` lies; what is taken back is negative."""

    at: datetime
    sessions: int = 0
    lessons_completed: int = 0
    reviews: int = 0
    reviews_forgotten: int = 0
    words_begun: int = 0
    words_learned: int = 0
    readings: int = 0
    quizzes_passed: int = 0


COUNTED = Happened._fields[1:]
COLUMNS = ("active_duration", *COUNTED)
NAMED = ", ".join(COLUMNS)
# Each value by itself: most of what happens is one thing, and a driver looks at every element of an array.
TALLY = f"""
INSERT INTO learning.daily_activity AS d (tenant_id, user_id, day, {", ".join(COUNTED)})
SELECT $1, $2, (h.at AT TIME ZONE {ZONE})::date AS local_day,
       {", ".join(f"coalesce(sum(h.by) FILTER (WHERE h.place = {place}), 0)" for place, _ in enumerate(COUNTED))}
FROM unnest($3::timestamptz[], $4::int[], $5::int[]) AS h (at, place, by)
GROUP BY local_day ORDER BY local_day
ON CONFLICT (tenant_id, user_id, day) DO UPDATE SET
  {", ".join(f"{name} = d.{name} + excluded.{name}" for name in COUNTED)}, updated_at = now()
"""  # noqa: S608
# The same of several learners, for what other services tell of.
TALLY_QUIZZES = """
INSERT INTO learning.daily_activity AS d (tenant_id, user_id, day, quizzes_passed)
SELECT $1, h.user_id, (h.at AT TIME ZONE coalesce(s.time_zone, 'UTC'))::date AS local_day, sum(h.by)
FROM unnest($2::uuid[], $3::timestamptz[], $4::int[]) AS h (user_id, at, by)
LEFT JOIN learning.learner_settings s ON s.tenant_id = $1 AND s.user_id = h.user_id
GROUP BY h.user_id, local_day ORDER BY h.user_id, local_day
ON CONFLICT (tenant_id, user_id, day) DO UPDATE SET
  quizzes_passed = d.quizzes_passed + excluded.quizzes_passed, updated_at = now()
"""
# The days in which a time from `a` to `b` lies, wholly or in part, and from when to when they are. Clocks that go back
# at midnight can bring the date forth before the day.
DAYS = f"""
SELECT d::date AS day, d AT TIME ZONE {ZONED} AS begins, (d + interval '1 day') AT TIME ZONE {ZONED} AS ends
FROM generate_series((a AT TIME ZONE {ZONED})::date - interval '1 day', (b AT TIME ZONE {ZONED})::date::timestamp,
                     '1 day') AS d
"""  # noqa: S608
# When the learner was active in sessions: what several of them share, on whatever devices, is there once.
TIMES = """
SELECT unnest(range_agg(coalesce(s.active_times,
                                 tstzmultirange(tstzrange(s.start_time, s.start_time + s.active_duration))))) AS r
FROM learning.learning_sessions s WHERE s.tenant_id = $1 AND s.user_id = $2
"""
SPENT = f"""
SELECT d.day, sum(least(upper(t.r), d.ends) - greatest(lower(t.r), d.begins)) AS active_duration
FROM ({{times}}) AS t, LATERAL (SELECT lower(t.r) AS a, upper(t.r) AS b) AS ab, LATERAL ({DAYS}) AS d
WHERE d.begins < upper(t.r) AND lower(t.r) < d.ends GROUP BY d.day
"""  # noqa: S608
# Of sessions that last into the days: most days have none but those that have changed.
TIMES_OF_DAYS = f"""{TIMES}
  AND s.last_seen_time > (SELECT min(begins) FROM days) AND s.start_time < (SELECT max(ends) FROM days)
  AND tstzrange(s.start_time, s.last_seen_time) && (SELECT range_agg(tstzrange(begins, ends)) FROM days)
"""  # noqa: S608
TALLY_TIME = f"""
WITH {CHOSEN}, days AS MATERIALIZED (
  SELECT DISTINCT d.* FROM unnest($3::timestamptz[], $4::timestamptz[]) AS h (a, b), LATERAL ({DAYS}) AS d
  WHERE d.begins < h.b AND h.a < d.ends
), spent AS ({SPENT.format(times=TIMES_OF_DAYS)})
INSERT INTO learning.daily_activity AS d (tenant_id, user_id, day, active_duration)
SELECT $1, $2, day, coalesce(spent.active_duration, '0') FROM days LEFT JOIN spent USING (day) ORDER BY day
ON CONFLICT (tenant_id, user_id, day) DO UPDATE SET active_duration = excluded.active_duration, updated_at = now()
WHERE d.active_duration <> excluded.active_duration
"""  # noqa: S608
# Of each table, the rows that count in the day of a time, and what for.
SOURCES: tuple[tuple[str, str, str, dict[str, str]], ...] = (
    ("learning_sessions", "start_time", "true", {"sessions": "1"}),
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
NOTHING = {"active_duration": "NULL::interval"} | dict.fromkeys(COUNTED, "NULL::int")
HAPPENED = " UNION ALL ".join(
    f"SELECT ({at} AT TIME ZONE {ZONED})::date, {', '.join((NOTHING | values).values())} FROM learning.{table}"  # noqa: S608
    f" WHERE tenant_id = $1 AND user_id = $2 AND {condition}"
    for table, at, condition, values in SOURCES
)
ALL_SUMMED = ", ".join(f"coalesce(sum(h.{name}), '0') AS {name}" for name in COLUMNS)
ANYTHING = " OR ".join(f"d.{name} <> '0'" for name in COLUMNS)
EACH = ", ".join(f"{{0}}.{name}" for name in COLUMNS)
# A day may be left with nothing but zeros, when what was in it was taken back: that is as good as no day.
RECOUNT = f"""
WITH {CHOSEN}, counted AS MATERIALIZED (
  SELECT h.day, {ALL_SUMMED}
  FROM ({HAPPENED} UNION ALL SELECT day, {", ".join((NOTHING | {"active_duration": "active_duration"}).values())}
        FROM ({SPENT.format(times=TIMES)}) AS spent) AS h (day, {NAMED}) GROUP BY h.day
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
    if told := [(one.at, place, by) for one in happened for place, by in enumerate(one[1:]) if by]:
        await session.fetch(TALLY, user_id, *map(list, zip(*told, strict=True)))


async def tally_quizzes(session: WriteSession, passed: Sequence[tuple[UUID, datetime, int]]) -> None:
    """Adds quizzes passed to the days of learners, or takes them away, by learner and time; as of `tally`."""
    if passed:
        await session.fetch(TALLY_QUIZZES, *map(list, zip(*passed, strict=True)))


async def tally_time(session: WriteSession, user_id: UUID, spans: Sequence[Span]) -> None:
    """Counts the learner's active time anew in the days of the times in which that of sessions has changed; as of
    `tally`. It cannot be added to: how much of it there is depends on the learner's other sessions."""
    if changed := joined(spans):
        await session.fetch(TALLY_TIME, user_id, [begin for begin, _ in changed], [end for _, end in changed])


async def recount(session: WriteSession, user_id: UUID) -> list[date]:
    """Counts all days of the learner, who must be locked, anew; answers with those that were otherwise. After anything
    but a change of time zone there are none."""
    return [row.day for row in await session.fetch(RECOUNT, user_id)]
