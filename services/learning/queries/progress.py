"""Statements about how far learners have come."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, and_, func, select

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import Aborted, existing
from kit.ids import new_id
from kit.pagination import Page
from services.learning.models import IndexedLesson, Progress
from services.learning.offline import Advance
from services.learning.queries.daily_activity import Happened, tally
from services.learning.rules import Status
from storyloom.type.v1.errors_pb2 import ErrorReason

PROGRESS: tuple[Any, ...] = (
    Progress.id,
    Progress.lesson_id,
    Progress.course_id,
    Progress.user_id,
    Progress.status,
    Progress.position_percent,
    Progress.start_time,
    Progress.last_view_time,
    Progress.complete_time,
    Progress.created_at,
    Progress.updated_at,
    Progress.revision,
)

# The two statements of the busiest call go past SQLAlchemy, which would cost each of them four times as much.

# Where a learner stands with a lesson, in one round trip: what the lesson asks, and what is recorded. A prerequisite
# that the index lacks is one whose event is on its way: it counts as missing. A deleted one no longer counts.
STANDING = """
SELECT l.id AS lesson_id, l.course_id, $2::uuid AS user_id,
       l.status = 'published' AND coalesce(c.status, 'published') <> 'draft' AS published,
       EXISTS (SELECT 1 FROM learning.enrollments e
               WHERE e.tenant_id = $1 AND e.user_id = $2 AND e.course_id = l.course_id
                 AND e.state = 'active') AS enrolled,
       ARRAY(SELECT needed.id FROM unnest(l.prerequisite_ids) AS needed (id)
             LEFT JOIN learning.lesson_index n ON n.tenant_id = $1 AND n.id = needed.id
             WHERE n.deleted IS NOT TRUE
               AND NOT EXISTS (SELECT 1 FROM learning.user_progress d
                               WHERE d.tenant_id = $1 AND d.user_id = $2 AND d.lesson_id = needed.id
                                 AND d.status = 'completed')) AS missing,
       p.id, coalesce(p.status, 'not_started') AS status, coalesce(p.position_percent, 0) AS position_percent,
       p.start_time, p.last_view_time, p.complete_time, p.created_at, p.updated_at, coalesce(p.revision, 0) AS revision
FROM learning.lesson_index l
LEFT JOIN learning.course_index c ON c.tenant_id = $1 AND c.id = l.course_id
LEFT JOIN learning.user_progress p ON p.tenant_id = $1 AND p.user_id = $2 AND p.lesson_id = l.id
WHERE l.tenant_id = $1 AND l.id = $3 AND NOT l.deleted AND c.deleted IS NOT TRUE
"""

# Concurrent reports, and events told of later, meet here, so here is where nothing may go back: `rules.advance` once
# more, on the current row. Whatever the order, the result is the same.
MERGED = """
  status = CASE WHEN 'completed' IN (p.status, excluded.status) THEN 'completed'
                WHEN 'in_progress' IN (p.status, excluded.status) THEN 'in_progress'
                ELSE 'not_started' END,
  position_percent = greatest(p.position_percent, excluded.position_percent),
  start_time = least(p.start_time, excluded.start_time),
  last_view_time = greatest(p.last_view_time, excluded.last_view_time),
  complete_time = least(p.complete_time, excluded.complete_time),
  change = excluded.change, updated_at = now(), revision = p.revision + 1
"""
RECORDED = """
RETURNING new.id, new.lesson_id, new.course_id, new.user_id, new.status, new.position_percent, new.start_time,
          new.last_view_time, new.complete_time, new.created_at, new.updated_at, new.revision,
          old.status AS old_status, old.position_percent AS old_position_percent, old.start_time AS old_start_time,
          old.complete_time AS old_complete_time
"""
# The learner is locked on the way, as `learners.lock_learner` does it.
UPSERT_PROGRESS = f"""
WITH learner AS (
  INSERT INTO learning.learners AS l (tenant_id, id, changes) VALUES ($1, $3, 1)
  ON CONFLICT (tenant_id, id) DO UPDATE SET changes = l.changes + 1, updated_at = now() RETURNING l.changes
)
INSERT INTO learning.user_progress AS p
  (tenant_id, id, user_id, lesson_id, course_id, status, position_percent, start_time, last_view_time, complete_time,
   change)
SELECT $1, $2::uuid, $3, $4::uuid, $5::uuid, $6::text, $7::int, $8::timestamptz, $9::timestamptz, $10::timestamptz,
       changes
FROM learner
ON CONFLICT (tenant_id, user_id, lesson_id) DO UPDATE SET {MERGED}
WHERE $11::text IN ('', p.revision::text)
{RECORDED}
"""  # noqa: S608
# Of several lessons at once, written only where it brings anything new.
UPSERT_ADVANCES = f"""
INSERT INTO learning.user_progress AS p
  (tenant_id, user_id, change, id, lesson_id, course_id, status, position_percent, start_time, last_view_time,
   complete_time)
SELECT $1, $2, $3, told.* FROM unnest($4::uuid[], $5::uuid[], $6::uuid[], $7::text[], $8::int[], $9::timestamptz[],
  $10::timestamptz[], $11::timestamptz[]) AS told
ON CONFLICT (tenant_id, user_id, lesson_id) DO UPDATE SET {MERGED}
WHERE excluded.position_percent > p.position_percent
   OR excluded.status <> p.status AND p.status <> 'completed' AND excluded.status <> 'not_started'
   OR least(p.start_time, excluded.start_time) IS DISTINCT FROM p.start_time
   OR greatest(p.last_view_time, excluded.last_view_time) IS DISTINCT FROM p.last_view_time
   OR least(p.complete_time, excluded.complete_time) IS DISTINCT FROM p.complete_time
{RECORDED}
"""  # noqa: S608
# What a teacher decides replaces what is recorded, unless a report came in between.
OVERRIDE_PROGRESS = f"""
INSERT INTO learning.user_progress AS p
  (tenant_id, id, user_id, lesson_id, course_id, status, position_percent, start_time, complete_time, change,
   reset_time, reopen_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $11,
        CASE WHEN $6 = 'not_started' THEN $12::timestamptz END, CASE WHEN $6 <> 'completed' THEN $12::timestamptz END)
ON CONFLICT (tenant_id, user_id, lesson_id) DO UPDATE SET
  status = excluded.status, position_percent = excluded.position_percent,
  start_time = CASE WHEN excluded.start_time IS NOT NULL THEN coalesce(p.start_time, excluded.start_time) END,
  complete_time = CASE WHEN excluded.complete_time IS NOT NULL
                       THEN coalesce(p.complete_time, excluded.complete_time) END,
  reset_time = coalesce(excluded.reset_time, p.reset_time),
  reopen_time = coalesce(excluded.reopen_time, p.reopen_time),
  change = excluded.change, updated_at = now(), revision = p.revision + 1
WHERE p.revision = $10
{RECORDED}
"""  # noqa: S608


async def get_standing(session: ReadSession, user_id: UUID, lesson_id: UUID) -> Any:
    """Where the learner stands with the lesson, see `STANDING`; without a record `id` is None and `revision` 0."""
    return existing(await session.fetchrow(STANDING, user_id, lesson_id), "lesson")


async def upsert_progress(
    session: WriteSession, standing: Any, status: Status, position_percent: int, *, at: datetime, etag: str
) -> Any:
    """The progress as recorded now, with what it was before (None where there was none) as `old_…`. Locks the learner.

    Raises ABORTED (STALE_ETAG) when `etag` is not empty and not current.
    """
    row = await session.fetchrow(
        UPSERT_PROGRESS,
        new_id(),
        standing.user_id,
        standing.lesson_id,
        standing.course_id,
        status,
        position_percent,
        None if status is Status.NOT_STARTED else at,
        at,
        at if status is Status.COMPLETED else None,
        etag,
    )
    if row is None:
        raise Aborted("The progress was changed meanwhile; read it again.", reason=ErrorReason.STALE_ETAG)
    await _count_completed(session, row)
    return row


async def override_progress(
    session: WriteSession, standing: Any, status: Status, position_percent: int, *, at: datetime, change: int
) -> Any:
    """The progress as a teacher set it, as of `upsert_progress`. `change` is what locking the learner answered with.

    Raises ABORTED (CONCURRENT_CHANGE) when it is not any more what `standing` says.
    """
    row = await session.fetchrow(
        OVERRIDE_PROGRESS,
        new_id(),
        standing.user_id,
        standing.lesson_id,
        standing.course_id,
        status,
        position_percent,
        None if status is Status.NOT_STARTED else at,
        at if status is Status.COMPLETED else None,
        standing.revision,
        change,
        at,
    )
    if row is None:
        raise Aborted("The progress was changed at the same moment; try again.")
    await _count_completed(session, row)
    return row


async def upsert_advances(
    session: WriteSession, user_id: UUID, advances: Mapping[tuple[UUID, UUID], Advance], change: int
) -> list[Any]:
    """What events bring to the learner's lessons, by lesson and course; the rows that it changed, as of
    `upsert_progress`. `change` is what locking the learner answered with."""
    if not advances:
        return []
    told = advances.values()
    rows = await session.fetch(
        UPSERT_ADVANCES,
        user_id,
        change,
        [new_id() for _ in told],
        [lesson_id for lesson_id, _ in advances],
        [course_id for _, course_id in advances],
        [one.status for one in told],
        [one.position_percent for one in told],
        [one.start_time for one in told],
        [one.last_view_time for one in told],
        [one.complete_time for one in told],
    )
    await _count_completed(session, *rows)
    return rows


async def _count_completed(session: WriteSession, *rows: Any) -> None:
    moved = [
        Happened(at=at, lessons_completed=by)
        for row in rows
        if row.old_complete_time != row.complete_time
        for at, by in ((row.old_complete_time, -1), (row.complete_time, 1))
        if at
    ]
    if moved:
        await tally(session, rows[0].user_id, moved)


async def list_progress(
    session: ReadSession, page: Page, *, course_id: str, user_id: str, status: str
) -> Sequence[Row[Any]]:
    statement = select(*PROGRESS).where(Progress.tenant_id == session.tenant_id, visible("list", Progress))
    if course_id:
        statement = statement.where(Progress.course_id == UUID(course_id))
    if user_id:
        statement = statement.where(Progress.user_id == UUID(user_id))
    if status:
        statement = statement.where(Progress.status == status)
    return (await session.execute(page.apply(statement, Progress.id))).all()


async def list_unit_progress(session: ReadSession, user_id: UUID, course_id: UUID) -> Sequence[Row[Any]]:
    """For each unit with published lessons, in order: how many there are, and how many the learner has opened and
    completed."""
    mine = and_(
        Progress.tenant_id == session.tenant_id, Progress.user_id == user_id, Progress.lesson_id == IndexedLesson.id
    )
    statement = (
        select(
            IndexedLesson.unit_id,
            func.count().label("lesson_count"),
            func.count().filter(Progress.status == Status.IN_PROGRESS).label("in_progress_count"),
            func.count().filter(Progress.status == Status.COMPLETED).label("completed_count"),
            func.max(Progress.last_view_time).label("last_view_time"),
        )
        .outerjoin(Progress, mine)
        .where(
            IndexedLesson.tenant_id == session.tenant_id,
            IndexedLesson.course_id == course_id,
            IndexedLesson.status == "published",
            ~IndexedLesson.deleted,
        )
        .group_by(IndexedLesson.unit_id)
        .order_by(func.min(IndexedLesson.unit_position), IndexedLesson.unit_id)
    )
    return (await session.execute(statement)).all()
