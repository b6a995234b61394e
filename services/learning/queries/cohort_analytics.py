"""Statements about what the learners of a class did."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Select, Uuid, and_, bindparam, func, literal_column, select

from kit.access import filtered
from kit.db import ReadSession, Shapes
from services.learning.models import Enrollment, IndexedLesson, Progress
from services.learning.risks import EARLIER_DAYS, INACTIVE_DAYS, RECENT_DAYS
from services.learning.rules import Status

SUMS = ("lessons_completed", "reviews", "reviews_forgotten", "words_begun", "words_learned", "quizzes_passed")
TOTALS = ", ".join(f"coalesce(sum({name}) FILTER (WHERE in_range), 0)::int AS {name}" for name in SUMS)
# What risks are judged by may lie before the range. The last active day may lie anywhere.
LEARNERS = f"""
SELECT m.user_id, t.*, last.day AS last_active_day,
       coalesce(last.day > $4::date - {INACTIVE_DAYS}, false) AS recently_active
FROM unnest($2::uuid[]) AS m (user_id)
CROSS JOIN LATERAL (
  SELECT coalesce(sum(active_duration) FILTER (WHERE in_range), '0') AS active_duration,
         count(*) FILTER (WHERE in_range AND active)::int AS active_days, {TOTALS},
         coalesce(sum(reviews) FILTER (WHERE recent), 0)::int AS recent_reviews,
         coalesce(sum(reviews_forgotten) FILTER (WHERE recent), 0)::int AS recent_forgotten,
         coalesce(sum(reviews) FILTER (WHERE earlier), 0)::int AS earlier_reviews,
         coalesce(sum(reviews_forgotten) FILTER (WHERE earlier), 0)::int AS earlier_forgotten
  FROM learning.daily_activity d,
       LATERAL (SELECT d.day >= $3::date AS in_range, d.day > $4::date - {RECENT_DAYS} AS recent,
                       d.day BETWEEN $4::date - {RECENT_DAYS + EARLIER_DAYS - 1} AND $4::date - {RECENT_DAYS} AS earlier
               ) AS judged
  WHERE d.tenant_id = $1 AND d.user_id = m.user_id
    AND d.day BETWEEN least($3::date, $4::date - {RECENT_DAYS + EARLIER_DAYS - 1}) AND $4
) AS t
LEFT JOIN LATERAL (
  SELECT d.day FROM learning.daily_activity d
  WHERE d.tenant_id = $1 AND d.user_id = m.user_id AND d.active AND d.day <= $4 ORDER BY d.day DESC LIMIT 1
) AS last ON true
ORDER BY m.user_id
"""  # noqa: S608
DAYS = """
SELECT day, count(*) FILTER (WHERE active)::int AS active_learner_count, sum(active_duration) AS active_duration,
       sum(lessons_completed)::int AS lessons_completed, sum(words_learned)::int AS words_learned,
       sum(reviews)::int AS reviews
FROM learning.daily_activity
WHERE tenant_id = $1 AND user_id = ANY ($2::uuid[]) AND day BETWEEN $3 AND $4
GROUP BY day ORDER BY day
"""
TAKEN = (
    Enrollment.tenant_id == bindparam("tenant"),
    Enrollment.user_id == func.any(bindparam("learners", type_=ARRAY(Uuid))),
    Enrollment.state == literal_column("'active'"),
)
PUBLISHED = and_(
    IndexedLesson.tenant_id == Enrollment.tenant_id,
    IndexedLesson.course_id == Enrollment.course_id,
    IndexedLesson.status == literal_column("'published'"),
    ~IndexedLesson.deleted,
)
COMPLETION: tuple[Any, ...] = (
    Enrollment.user_id,
    func.count(IndexedLesson.id).label("lessons"),
    func.count(Progress.id).label("completed"),
)
SHAPES = Shapes()


@dataclass(frozen=True, slots=True)
class Completion:
    """Published lessons of the courses that a learner takes, and those of them that the learner has completed."""

    lessons: int = 0
    completed: int = 0


async def list_learners(session: ReadSession, user_ids: Sequence[UUID], start: date, end: date) -> list[Any]:
    """What each of the learners did in the range, and what risks are judged by; by their ids."""
    return await session.fetch(LEARNERS, user_ids, start, end)


async def list_days(session: ReadSession, user_ids: Sequence[UUID], start: date, end: date) -> list[Any]:
    """What they did together, day by day."""
    return await session.fetch(DAYS, user_ids, start, end)


async def list_completion(
    session: ReadSession, user_ids: Sequence[UUID], course_id: UUID | None
) -> dict[UUID, Completion]:
    """Of those of the learners who take the course, or any, how much of it they have completed as far as the caller may
    see it."""
    seen = filtered("list", Progress)
    values = {"learners": list(user_ids), **({"course": course_id} if course_id else {}), **seen.values}
    rows = await SHAPES.fetch(session, seen.shape, lambda: _completion(seen.expression, course_id), values)
    return {row.user_id: Completion(row.lessons, row.completed) for row in rows}


def _completion(seen: Any, course_id: UUID | None) -> Select[Any]:
    done = and_(
        Progress.tenant_id == Enrollment.tenant_id,
        Progress.user_id == Enrollment.user_id,
        Progress.lesson_id == IndexedLesson.id,
        Progress.status == literal_column(f"'{Status.COMPLETED}'"),
        seen,
    )
    statement = (
        select(*COMPLETION)
        .select_from(Enrollment)
        .outerjoin(IndexedLesson, PUBLISHED)
        .outerjoin(Progress, done)
        .where(*TAKEN)
        .group_by(Enrollment.user_id)
    )
    return statement.where(Enrollment.course_id == bindparam("course", type_=Uuid)) if course_id else statement
