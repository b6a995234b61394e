"""Soft deletion of what a course, unit or lesson contains: its mark goes from `old` to `new`, None for undeleted.

Parts bear the very instant of the deletion that hid them, so taking it back restores those and no others.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, select, update

from kit import audit
from kit.audit import Action
from kit.db import WriteSession
from kit.models import now
from services.content.announcements import announce_lessons, supersede_lessons, supersede_stories
from services.content.models import Lesson, Story, Unit


async def mark_course(session: WriteSession, course_id: UUID, old: datetime | None, new: datetime | None) -> None:
    """Marks the units, lessons and stories of the course."""
    await _mark(session, Unit, Unit.course_id == course_id, old, new)
    await _mark_lessons(session, Lesson.course_id == course_id, old, new)


async def mark_unit(session: WriteSession, unit_id: UUID, old: datetime | None, new: datetime | None) -> None:
    """Marks the lessons and stories of the unit."""
    await _mark_lessons(session, Lesson.unit_id == unit_id, old, new)


async def mark_lesson(session: WriteSession, lesson_id: UUID, old: datetime | None, new: datetime | None) -> None:
    """Marks the stories of the lesson."""
    await _mark_stories(session, Story.lesson_id == lesson_id, old, new)


async def _mark_lessons(
    session: WriteSession, owner: ColumnElement[bool], old: datetime | None, new: datetime | None
) -> None:
    marked = await _mark(session, Lesson, owner, old, new)
    within = select(Lesson.id).where(Lesson.tenant_id == session.tenant_id, owner)
    await _mark_stories(session, Story.lesson_id.in_(within), old, new)
    if new is not None:
        await supersede_lessons(session, marked)
    await announce_lessons(session, marked)


async def _mark_stories(
    session: WriteSession, owner: ColumnElement[bool], old: datetime | None, new: datetime | None
) -> None:
    marked = await _mark(session, Story, owner, old, new)
    if new is not None:
        await supersede_stories(session, marked)


async def _mark(
    session: WriteSession, model: Any, owner: ColumnElement[bool], old: datetime | None, new: datetime | None
) -> Sequence[UUID]:
    """The ids of the rows whose mark was the old one."""
    statement = (
        update(model)
        .where(model.tenant_id == session.tenant_id, owner, model.deleted_at.is_not_distinct_from(old))
        .values(deleted_at=new, revision=model.revision + 1, updated_at=now())
        .returning(model.id)
        .execution_options(synchronize_session=False)
    )
    marked: Sequence[UUID] = (await session.execute(statement)).scalars().all()
    action = Action.UNDELETE if new is None else Action.DELETE
    for one in marked:
        audit.write(session, action, model.__resource__, one, old={"deleted_at": old}, new={"deleted_at": new})
    return marked
