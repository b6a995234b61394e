"""The statements about where a learner goes on: one about all the courses they take, one about words and days."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, and_, case, exists, func, select, true
from sqlalchemy.orm import aliased

from kit.access import filtered, visible
from kit.db import ReadSession, Shapes
from services.learning.models import (
    DailyActivity,
    Enrollment,
    IndexedCourse,
    IndexedLesson,
    Progress,
    VocabularyProgress,
)
from services.learning.queries.learner_analytics import streak
from services.learning.queries.vocabulary_progress import count_due
from services.learning.rules import Status

SHAPES = Shapes()


async def list_courses(session: ReadSession, user_id: UUID, most: int) -> Sequence[Row[Any]]:
    """The published courses that the learner takes, the last one opened first: how many lessons they have and how many
    are completed, and the first lesson that is not and may be opened, as `next_…`."""
    taken, mine = _taken(session, user_id), _mine(session, user_id)
    counts, following = _counts(taken, mine), _following(session, taken, mine)
    statement = (
        select(
            taken.c.course_id,
            IndexedCourse.title,
            counts.c.lesson_count,
            counts.c.completed_count,
            counts.c.last_view_time,
            following,
        )
        .select_from(taken)
        .outerjoin(
            IndexedCourse, and_(IndexedCourse.tenant_id == session.tenant_id, IndexedCourse.id == taken.c.course_id)
        )
        .join(counts, true())
        .outerjoin(following, true())
        .where(func.coalesce(IndexedCourse.status, "published") != "draft", IndexedCourse.deleted.is_not(True))
        .order_by(counts.c.last_view_time.desc().nulls_last(), taken.c.id.desc())
        .limit(most)
    )
    return (await session.execute(statement)).all()


async def count_home(session: ReadSession, user_id: UUID, at: datetime) -> Any:
    """`due_count`, as `count_queue` tells it, and the streak."""
    due, days = filtered("list", VocabularyProgress), filtered("read", DailyActivity)
    values = {"learner": user_id, "at": at, **due.values, **days.values}
    (row,) = await SHAPES.fetch(
        session, (due.shape, days.shape), lambda: _home(due.expression, days.expression), values
    )
    return row


def _home(due: Any, days: Any) -> Select[Any]:
    counted: Any = count_due(due).label("due_count")
    return select(counted, streak(days))


def _taken(session: ReadSession, user_id: UUID) -> Any:
    return (
        select(Enrollment.id, Enrollment.tenant_id, Enrollment.course_id)
        .where(
            Enrollment.tenant_id == session.tenant_id,
            Enrollment.user_id == user_id,
            Enrollment.state == "active",
            visible("list", Enrollment),
        )
        .cte("taken")
    )


def _mine(session: ReadSession, user_id: UUID) -> Any:
    """What is recorded of the learner, as far as the caller may see it."""
    return (
        select(
            Progress.lesson_id, Progress.course_id, Progress.status, Progress.position_percent, Progress.last_view_time
        )
        .where(Progress.tenant_id == session.tenant_id, Progress.user_id == user_id, visible("list", Progress))
        .cte("mine")
    )


def _published(taken: Any) -> Any:
    return and_(
        IndexedLesson.tenant_id == taken.c.tenant_id,
        IndexedLesson.course_id == taken.c.course_id,
        IndexedLesson.status == "published",
        ~IndexedLesson.deleted,
    )


def _counts(taken: Any, mine: Any) -> Any:
    completed = func.count(case((mine.c.status == Status.COMPLETED, 1)))
    return (
        select(
            func.count(IndexedLesson.id).label("lesson_count"),
            completed.label("completed_count"),
            func.max(mine.c.last_view_time).label("last_view_time"),
        )
        .select_from(IndexedLesson)
        .outerjoin(mine, mine.c.lesson_id == IndexedLesson.id)
        .where(_published(taken))
        .lateral("counts")
    )


def _following(session: ReadSession, taken: Any, mine: Any) -> Any:
    return (
        select(
            IndexedLesson.id.label("next_id"),
            IndexedLesson.unit_id.label("next_unit_id"),
            IndexedLesson.title.label("next_title"),
            mine.c.status.label("next_status"),
            mine.c.position_percent.label("next_percent"),
        )
        .select_from(IndexedLesson)
        .outerjoin(mine, mine.c.lesson_id == IndexedLesson.id)
        .where(
            _published(taken),
            mine.c.status.is_distinct_from(Status.COMPLETED),
            ~_is_locked(session, mine),
        )
        .order_by(IndexedLesson.unit_position, IndexedLesson.unit_id, IndexedLesson.position, IndexedLesson.id)
        .limit(1)
        .lateral("following")
    )


def _is_locked(session: ReadSession, mine: Any) -> Any:
    """Whether the lesson waits for another, as `queries.progress.STANDING` says it."""
    needed = func.unnest(IndexedLesson.prerequisite_ids).table_valued("id").render_derived("needed")
    other, done = aliased(IndexedLesson), mine.alias("done")
    return exists(
        select(1)
        .select_from(needed)
        .outerjoin(other, and_(other.tenant_id == session.tenant_id, other.id == needed.c.id))
        .where(
            other.deleted.is_not(True),
            ~exists(select(1).where(done.c.lesson_id == needed.c.id, done.c.status == Status.COMPLETED)),
        )
        .correlate(IndexedLesson)
    )
