"""Statements about who takes which course."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, exists, select

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import existing
from kit.pagination import Page
from services.learning.models import Enrollment

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
# In one order, so that two of them take turns.
INSERT_ENROLLMENTS = """
INSERT INTO learning.enrollments (tenant_id, course_id, user_id)
SELECT $1, $2, user_id FROM unnest($3::uuid[]) AS user_id ORDER BY user_id
ON CONFLICT (tenant_id, user_id, course_id) WHERE state = 'active' DO NOTHING
RETURNING id, course_id, user_id, state
"""


async def get_enrollment(session: ReadSession, enrollment_id: UUID) -> Any:
    rows = await session.execute(
        select(*ENROLLMENT).where(Enrollment.tenant_id == session.tenant_id, Enrollment.id == enrollment_id)
    )
    return existing(rows.one_or_none(), "enrollment")


async def get_enrollment_to_change(session: WriteSession, enrollment_id: UUID) -> Enrollment:
    statement = (
        select(Enrollment)
        .where(Enrollment.tenant_id == session.tenant_id, Enrollment.id == enrollment_id)
        .with_for_update()
    )
    enrollment: Enrollment | None = await session.scalar(statement)
    return existing(enrollment, "enrollment")


async def insert_enrollments(session: WriteSession, course_id: UUID, user_ids: Collection[UUID]) -> list[Any]:
    """The enrolments of those of the users who did not take the course."""
    return await session.fetch(INSERT_ENROLLMENTS, course_id, list(user_ids))


async def list_active(session: ReadSession, course_id: UUID, user_ids: Collection[UUID]) -> Sequence[Row[Any]]:
    """The enrolments of those of the users who take the course."""
    statement = select(*ENROLLMENT).where(
        Enrollment.tenant_id == session.tenant_id,
        Enrollment.course_id == course_id,
        Enrollment.user_id.in_(user_ids),
        Enrollment.state == "active",
    )
    return (await session.execute(statement)).all()


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
