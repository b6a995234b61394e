"""Statements about how many learners are active, all together."""

from datetime import date
from typing import Any
from uuid import UUID

from kit.db import ReadSession, WriteSession
from kit.jobs import UNHURRIED
from services.learning.queries import sums
from services.learning.queries.sums import summed, upsert

# Of each period that any learner was active in.
ACTIVITY = """
SELECT begin_date, sum(learner_count)::integer AS active,
       coalesce(sum(learner_count) FILTER (WHERE cohort = begin_date), 0)::integer AS fresh
FROM learning.tenant_activity
WHERE tenant_id = $1 AND period = $2 AND begin_date BETWEEN $3 AND $4
GROUP BY begin_date HAVING sum(learner_count) > 0
"""
RETENTION = """
SELECT cohort, begin_date, sum(learner_count)::integer AS active FROM learning.tenant_activity
WHERE tenant_id = $1 AND period = 'week' AND begin_date BETWEEN $2 AND $3 AND cohort BETWEEN $2 AND $3
GROUP BY cohort, begin_date HAVING sum(learner_count) > 0 ORDER BY cohort, begin_date
"""
# As the migration's triggers count, of all learners at once; what is kept and pending is taken away from it.
COUNTED = """
WITH days AS (
  SELECT user_id, day, min(day) OVER (PARTITION BY user_id) AS first FROM learning.daily_activity
  WHERE tenant_id = $1 AND active
), cells AS (
  SELECT user_id, 'day' AS period, day AS begin_date, first AS cohort FROM days
  UNION ALL
  SELECT DISTINCT user_id, 'week', date_trunc('week', day::timestamp)::date, date_trunc('week', first::timestamp)::date
  FROM days
  UNION ALL
  SELECT DISTINCT user_id, 'month', date_trunc('month', day::timestamp)::date,
                  date_trunc('month', first::timestamp)::date
  FROM days
)
SELECT period, begin_date,
       CASE WHEN period = 'week' OR cohort = begin_date THEN cohort ELSE '-infinity' END AS cohort,
       ARRAY[count(*)] AS amounts
FROM cells GROUP BY 1, 2, 3
UNION ALL
SELECT period, begin_date, cohort, ARRAY[-learner_count::bigint] FROM learning.tenant_activity WHERE tenant_id = $1
UNION ALL
SELECT period, begin_date, cohort, ARRAY[-amounts[1]] FROM learning.pending_sums
WHERE tenant_id = $1 AND kind = 'activity'
"""
REBUILD = upsert("activity", summed("activity", f"({COUNTED}) AS counted"))


async def list_activity(session: ReadSession, period: str, start: date, end: date) -> dict[date, Any]:
    """Learners who were active, and of these those who had never been, by the first day of each period."""
    return {row.begin_date: row for row in await session.fetch(ACTIVITY, period, start, end)}


async def list_retention(session: ReadSession, start: date, end: date) -> list[Any]:
    """Learners by the first week of theirs and each week that they were active in; both are Mondays in the range."""
    return await session.fetch(RETENTION, start, end)


async def rebuild_activity(session: WriteSession) -> list[UUID]:
    """Counts the active learners anew from the days of each; answers with the rows that were otherwise. It looks at all
    days of the tenant."""
    await session.driver.execute(UNHURRIED)
    await sums.lock(session)
    return list(await sums.write(session, "activity", REBUILD))
