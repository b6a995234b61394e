"""`python -m benchmarks.dashboards`: what the dashboard of a class of two hundred learners costs over ninety days, and
what a learner's own page does; on a PostgreSQL of its own, made for it and thrown away."""

import asyncio
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import date, timedelta
from statistics import median
from uuid import UUID

from benchmarks.__main__ import echo_cost
from benchmarks.report import REFERENCE_ECHO, table, verdict
from benchmarks.trees import Server, own_server
from kit.access import Access, Snapshot
from kit.auth import Principal
from kit.call import Call, enter
from kit.ids import new_id
from kit.pagination import Sealer
from services.learning import policies
from services.learning.cohort_analytics import CohortAnalyticsService
from services.learning.learner_analytics import LearnerAnalyticsService
from storyloom.learning.v1.cohort_analytics_pb2 import GetCohortAnalyticsRequest, ListCohortLearnersRequest
from storyloom.learning.v1.learner_analytics_pb2 import GetLearnerAnalyticsRequest

LEARNERS, DAYS, YEAR, LESSONS, WORDS = 200, 90, 365, 40, 500
ROUNDS = 15
LIMIT_MS = 50.0
TODAY = date(2026, 11, 22)
HELD = frozenset(
    {("cohort", "read"), ("daily_activity", "read"), ("progress", "list"), ("vocabulary_progress", "list")}
)
# Each learner is active on two days of three, for a year: rows come day by day, as they do in life, so that those of
# one learner are far apart.
ACTIVITY = """
INSERT INTO learning.daily_activity (tenant_id, user_id, day, active_duration, sessions, lessons_completed, reviews,
                                     reviews_forgotten, words_begun, words_learned, readings)
SELECT $1, user_id, day, make_interval(secs => 300 + 7 * (place % 100)), 2, (place % 9 = 0)::int, 30, 3, 4, 3, 2
FROM generate_series($3::date - $4::int + 1, $3::date, '1 day') AS day,
     unnest($2::uuid[]) WITH ORDINALITY AS learner (user_id, place)
WHERE (place + extract(doy FROM day)) % 3 <> 0
"""
COURSE = """
WITH course AS (
  INSERT INTO learning.lesson_index (tenant_id, course_id, unit_id, title, status, position, prerequisite_ids)
  SELECT $1, $3, $3, 'Bài ' || place, 'published', place, '{}' FROM generate_series(1, $4::int) AS place
  RETURNING id, position
), taken AS (
  INSERT INTO learning.enrollments (tenant_id, user_id, course_id) SELECT $1, unnest($2::uuid[]), $3 RETURNING user_id
)
INSERT INTO learning.user_progress (tenant_id, user_id, lesson_id, course_id, status, position_percent, complete_time)
SELECT $1, taken.user_id, course.id, $3, 'completed', 100, now() FROM taken, course WHERE course.position <= $4 / 2
"""
CLASS = """
WITH made AS (
  INSERT INTO learning.cohorts (tenant_id, name, description, author_id) VALUES ($1, '6A', '', $3) RETURNING id
)
INSERT INTO learning.cohort_members (tenant_id, cohort_id, user_id) SELECT $1, id, unnest($2::uuid[]) FROM made
RETURNING cohort_id
"""
REVIEWED = """
INSERT INTO learning.user_vocabulary_progress
  (tenant_id, user_id, vocabulary_id, status, phase, due_time, review_count, lapse_count, known, change)
SELECT $1, user_id, uuidv7(), 'reviewing', 'review', now() + make_interval(hours => n), 1, 0, false, 1
FROM unnest($2::uuid[]) AS user_id, generate_series(1, $3::int) AS n
"""
OTHERS = 4


async def fill(server: Server, tenant_id: UUID) -> tuple[UUID, list[UUID], UUID]:
    """A class, its learners and their course, among four other classes like it."""
    learners = [new_id() for _ in range(LEARNERS)]
    everybody, course_id = [*learners, *(new_id() for _ in range(OTHERS * LEARNERS))], new_id()
    execute = server.superuser.execute
    await execute(ACTIVITY, tenant_id, everybody, TODAY, YEAR)
    await execute(COURSE, tenant_id, everybody, course_id, LESSONS)
    await execute(REVIEWED, tenant_id, learners, WORDS)
    cohort_id = await server.superuser.fetchval(CLASS, tenant_id, learners, new_id())
    await execute("VACUUM ANALYZE")
    return cohort_id, learners, course_id


def teacher_of(tenant_id: UUID) -> Call:
    user_id = new_id()
    snapshot = Snapshot(tenant_id=tenant_id, user_id=user_id, roles=frozenset({"teacher"}), permissions=HELD)
    principal = Principal(tenant_id=tenant_id, home_tenant_id=tenant_id, user_id=user_id, snapshot=snapshot)
    access, sealer = Access(policies.RULES), Sealer(secrets.token_bytes(32))
    return Call(rpc="/bench", request_id="bench", access=access, sealer=sealer, principal=principal)


async def spent(server: Server, call: Call, work: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """Milliseconds of processor time, here and in the database, and on the clock."""
    used, passed = [], []
    for _ in range(ROUNDS):
        enter(call)
        before, began = server.used(), time.perf_counter()
        await work()
        used.append((server.used() - before) / 1e3)
        passed.append((time.perf_counter() - began) * 1e3)
    return median(used), median(passed)


async def measure(server: Server) -> list[tuple[str, float, float]]:
    tenant_id = new_id()
    cohort_id, learners, course_id = await fill(server, tenant_id)
    classes, own = CohortAnalyticsService(server.db), LearnerAnalyticsService(server.db)
    start, end = str(TODAY - timedelta(days=DAYS - 1)), str(TODAY)

    async def summary(course: str = "") -> None:
        request = GetCohortAnalyticsRequest(cohort_id=str(cohort_id), course_id=course, start_day=start, end_day=end)
        found = await classes.GetCohortAnalytics(request, None)
        assert (found.learner_count, found.active_learner_count, len(found.days)) == (LEARNERS, LEARNERS, DAYS)

    async def page() -> None:
        request = ListCohortLearnersRequest(cohort_id=str(cohort_id), start_day=start, end_day=end, page_size=100)
        assert len((await classes.ListCohortLearners(request, None)).learners) == 100

    async def learner() -> None:
        request = GetLearnerAnalyticsRequest(user_id=str(learners[7]), start_day=start, end_day=end, forecast_days=90)
        assert (await own.GetLearnerAnalytics(request, None)).days

    call = teacher_of(tenant_id)
    return [
        (f"class of {LEARNERS} × {DAYS} days", *await spent(server, call, summary)),
        ("the same of one course", *await spent(server, call, lambda: summary(str(course_id)))),
        ("a page of 100 of its learners", *await spent(server, call, page)),
        (f"a learner with {WORDS} words × {DAYS} days", *await spent(server, call, learner)),
    ]


async def main() -> int:
    before = echo_cost()
    async with own_server("learning") as server:
        rows = await measure(server)
    echo = (before + echo_cost()) / 2
    limit = LIMIT_MS * echo / REFERENCE_ECHO
    print(f"one echo costs {echo:.0f} µs: {LIMIT_MS:.0f} ms where it costs {REFERENCE_ECHO:.0f} are {limit:.0f} here")
    told = [(name, f"{cpu:.1f}", f"{clock:.1f}", verdict(cpu, limit)) for name, cpu, clock in rows]
    print("\n".join(table([("service and PostgreSQL, ms", "CPU", "on the clock", "verdict"), *told])))
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
