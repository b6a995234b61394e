"""Statements of the learning service. Each names the tenant itself."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, and_, exists, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import Aborted, NotFound
from kit.ids import new_id
from kit.models import now
from kit.pagination import Page
from services.learning.models import Enrollment, IndexedCourse, IndexedLesson, LearningSession, Progress
from services.learning.rules import ABANDONED_AFTER, Status
from storyloom.type.v1.errors_pb2 import ErrorReason

ENROLLMENT: tuple[Any, ...] = (
    Enrollment.id,
    Enrollment.course_id,
    Enrollment.user_id,
    Enrollment.state,
    Enrollment.withdraw_time,
    Enrollment.created_at,
    Enrollment.updated_at,
    Enrollment.revision,
)
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
SESSION: tuple[Any, ...] = (
    LearningSession.id,
    LearningSession.user_id,
    LearningSession.lesson_id,
    LearningSession.story_id,
    LearningSession.start_time,
    LearningSession.last_seen_time,
    LearningSession.end_time,
    LearningSession.active_duration,
    LearningSession.interactions,
    LearningSession.state,
    LearningSession.revision,
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

# Concurrent reports meet here, so here is where nothing may go back: `rules.advance` once more, on the current row.
UPSERT_PROGRESS = """
INSERT INTO learning.user_progress AS p
  (tenant_id, id, user_id, lesson_id, course_id, status, position_percent, start_time, last_view_time, complete_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (tenant_id, user_id, lesson_id) DO UPDATE SET
  status = CASE WHEN 'completed' IN (p.status, excluded.status) THEN 'completed'
                WHEN 'in_progress' IN (p.status, excluded.status) THEN 'in_progress'
                ELSE 'not_started' END,
  position_percent = greatest(p.position_percent, excluded.position_percent),
  start_time = coalesce(p.start_time, excluded.start_time),
  last_view_time = greatest(p.last_view_time, excluded.last_view_time),
  complete_time = coalesce(p.complete_time, excluded.complete_time),
  updated_at = now(),
  revision = p.revision + 1
WHERE $11::text IN ('', p.revision::text)
RETURNING new.id, new.lesson_id, new.course_id, new.user_id, new.status, new.position_percent, new.start_time,
          new.last_view_time, new.complete_time, new.created_at, new.updated_at, new.revision,
          old.status AS old_status, old.position_percent AS old_position_percent, old.start_time AS old_start_time,
          old.complete_time AS old_complete_time
"""


async def get_enrollment(session: ReadSession, enrollment_id: UUID) -> Any:
    rows = await session.execute(
        select(*ENROLLMENT).where(Enrollment.tenant_id == session.tenant_id, Enrollment.id == enrollment_id)
    )
    return _found(rows.one_or_none(), "enrollment")


async def get_enrollment_to_change(session: WriteSession, enrollment_id: UUID) -> Enrollment:
    statement = (
        select(Enrollment)
        .where(Enrollment.tenant_id == session.tenant_id, Enrollment.id == enrollment_id)
        .with_for_update()
    )
    found: Enrollment = _found(await session.scalar(statement), "enrollment")
    return found


async def list_enrollments(
    session: ReadSession, page: Page, *, course_id: str, user_id: str, state: str
) -> Sequence[Row[Any]]:
    statement = select(*ENROLLMENT).where(Enrollment.tenant_id == session.tenant_id, visible("list", Enrollment))
    if course_id:
        statement = statement.where(Enrollment.course_id == UUID(course_id))
    if user_id:
        statement = statement.where(Enrollment.user_id == UUID(user_id))
    if state:
        statement = statement.where(Enrollment.state == state)
    return (await session.execute(page.apply(statement, Enrollment.id))).all()


async def is_enrolled(session: ReadSession, user_id: UUID, course_id: UUID, *, ever: bool = False) -> bool:
    """Whether the user takes the course, or, with `ever`, has taken it."""
    statement = select(Enrollment.id).where(
        Enrollment.tenant_id == session.tenant_id, Enrollment.user_id == user_id, Enrollment.course_id == course_id
    )
    if not ever:
        statement = statement.where(Enrollment.state == "active")
    return bool(await session.scalar(select(exists(statement))))


async def get_standing(session: ReadSession, user_id: UUID, lesson_id: UUID) -> Any:
    """Where the learner stands with the lesson, see `STANDING`; without a record `id` is None and `revision` 0."""
    return _found(await session.fetchrow(STANDING, user_id, lesson_id), "lesson")


async def upsert_progress(
    session: WriteSession, standing: Any, status: Status, position_percent: int, *, at: datetime, etag: str
) -> Any:
    """The progress as recorded now, with what it was before (None where there was none) as `old_…`.

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
    return row


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
    """For each unit with published lessons: how many there are, and how many the learner has opened and completed."""
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
        .order_by(IndexedLesson.unit_id)
    )
    return (await session.execute(statement)).all()


async def get_session(session: ReadSession, session_id: UUID) -> Any:
    rows = await session.execute(
        select(*SESSION).where(LearningSession.tenant_id == session.tenant_id, LearningSession.id == session_id)
    )
    return _found(rows.one_or_none(), "learning_session")


async def get_session_to_change(session: WriteSession, session_id: UUID) -> LearningSession:
    statement = (
        select(LearningSession)
        .where(LearningSession.tenant_id == session.tenant_id, LearningSession.id == session_id)
        .with_for_update()
    )
    found: LearningSession = _found(await session.scalar(statement), "learning_session")
    return found


async def find_open_session(session: WriteSession, user_id: UUID) -> LearningSession | None:
    """The one session of the user that is stored as open, locked."""
    statement = (
        select(LearningSession)
        .where(
            LearningSession.tenant_id == session.tenant_id,
            LearningSession.user_id == user_id,
            LearningSession.state == "open",
        )
        .with_for_update()
    )
    found: LearningSession | None = await session.scalar(statement)
    return found


async def insert_session(session: WriteSession, opened: LearningSession) -> None:
    """Raises ABORTED (CONCURRENT_CHANGE) when the user opens another session at the same moment."""
    session.add(opened)
    try:
        await session.flush()
    except IntegrityError as error:
        raise Aborted("Another session was opened at the same moment; try again.") from error


async def list_sessions(
    session: ReadSession, page: Page, *, lesson_id: str, user_id: str, state: str, at: datetime
) -> Sequence[Row[Any]]:
    statement = select(*SESSION).where(LearningSession.tenant_id == session.tenant_id, visible("list", LearningSession))
    if lesson_id:
        statement = statement.where(LearningSession.lesson_id == UUID(lesson_id))
    if user_id:
        statement = statement.where(LearningSession.user_id == UUID(user_id))
    if state:
        statement = statement.where(_in_state(state, at))
    return (await session.execute(page.apply(statement, LearningSession.id))).all()


def _in_state(state: str, at: datetime) -> Any:
    """`rules.state_at` as a filter."""
    silent = and_(LearningSession.state == "open", LearningSession.last_seen_time < at - ABANDONED_AFTER)
    stored = LearningSession.state == state
    return {"open": and_(stored, ~silent), "abandoned": or_(stored, silent)}.get(state, stored)


async def has_lesson(session: ReadSession, lesson_id: UUID) -> bool:
    statement = select(IndexedLesson.id).where(
        IndexedLesson.tenant_id == session.tenant_id, IndexedLesson.id == lesson_id
    )
    return await session.scalar(statement) is not None


async def insert_lesson(session: WriteSession, values: dict[str, Any]) -> None:
    """Adds a lesson that the index lacks. One that an event added meanwhile is newer, and stays."""
    await session.execute(insert(IndexedLesson).values(tenant_id=session.tenant_id, **values).on_conflict_do_nothing())


async def upsert_lesson(session: WriteSession, values: dict[str, Any]) -> None:
    await _upsert(session, IndexedLesson, values)


async def upsert_course(session: WriteSession, values: dict[str, Any]) -> None:
    await _upsert(session, IndexedCourse, values)


async def _upsert(session: WriteSession, model: Any, values: dict[str, Any]) -> None:
    statement = insert(model).values(tenant_id=session.tenant_id, **values)
    changed = {name: statement.excluded[name] for name in values if name != "id"}
    await session.execute(
        statement.on_conflict_do_update(index_elements=["tenant_id", "id"], set_=changed | {"updated_at": now()})
    )


def _found(found: Any, resource: str) -> Any:
    if found is None:
        raise NotFound(resource)
    return found
