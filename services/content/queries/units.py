"""Statements on units."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import and_, select

from kit.db import ReadSession, WriteSession
from kit.errors import NotFound, existing
from kit.pagination import Page
from services.content.models import Course, Unit
from services.content.queries.courses import find_course_of
from services.content.rules import missing

COLUMNS: tuple[Any, ...] = (
    Unit.id,
    Unit.course_id,
    Unit.title,
    Unit.description,
    Unit.position,
    Unit.revision,
    Unit.created_at,
    Unit.updated_at,
    Unit.deleted_at,
)
WITH_STATUS = select(*COLUMNS, Course.status.label("course_status")).join(
    Course, and_(Course.tenant_id == Unit.tenant_id, Course.id == Unit.course_id)
)


async def get_unit(session: ReadSession, unit_id: UUID, *, deleted: bool = False) -> Any:
    """The unit's columns, with its course's status as `course_status`."""
    statement = WITH_STATUS.where(Unit.tenant_id == session.tenant_id, Unit.id == unit_id)
    return existing((await session.execute(statement)).first(), "unit", also_deleted=deleted)


async def list_units(session: ReadSession, course_id: UUID, page: Page) -> Sequence[Any]:
    """One row more than the page holds, by position."""
    statement = select(*COLUMNS).where(
        Unit.tenant_id == session.tenant_id, Unit.course_id == course_id, Unit.deleted_at.is_(None)
    )
    return (await session.execute(page.apply(statement, Unit.position, Unit.id, descending=False))).all()


async def lock_unit(session: WriteSession, unit_id: UUID, *, deleted: bool = False) -> tuple[Unit, Course]:
    """The unit and its course, the course locked: units change only under that lock."""
    course = await find_course_of(session, Unit, unit_id)
    statement = select(Unit).where(Unit.tenant_id == session.tenant_id, Unit.id == unit_id)
    # Read after the lock is there, so that it is as whoever held it before has left it.
    unit: Unit | None = await session.scalar(statement)
    if course is None or unit is None or (unit.deleted_at is not None and not deleted):
        raise NotFound("unit")
    return unit, course


async def find_unit(session: WriteSession, unit_id: UUID) -> Any:
    """The unit's columns, deleted or not, or None."""
    statement = select(*COLUMNS).where(Unit.tenant_id == session.tenant_id, Unit.id == unit_id)
    return (await session.execute(statement)).first()


async def lock_parent(session: WriteSession, unit_id: UUID) -> tuple[Unit, Course]:
    """The unit that a new lesson refers to, and its course, locked; REFERENCE_NOT_FOUND when it is not there."""
    try:
        return await lock_unit(session, unit_id)
    except NotFound as error:
        raise missing("unit") from error
