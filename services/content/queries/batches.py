"""Rows by their ids, in the order of these: those that are there and that the caller may read."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select

from kit.access import may
from kit.db import ReadSession
from services.content.models import Course, Lesson, Unit
from services.content.queries import courses, lessons, stories, units


async def read_courses(session: ReadSession, wanted: Sequence[UUID]) -> Sequence[Any]:
    return await _read(session, Course, select(*courses.COLUMNS), wanted)


async def read_units(session: ReadSession, wanted: Sequence[UUID]) -> Sequence[Any]:
    return await _read(session, Unit, units.WITH_STATUS, wanted)


async def read_lessons(session: ReadSession, wanted: Sequence[UUID]) -> Sequence[Any]:
    return await _read(session, Lesson, select(*lessons.COLUMNS), wanted)


async def read_stories(session: ReadSession, wanted: Sequence[UUID], *, full: bool = False) -> Sequence[Any]:
    rows = await stories.list_by_ids(session, wanted, full=full)
    seen = [row for row in rows if may("read", row, resource="story")]
    return _in_order(seen, wanted)


async def _read(session: ReadSession, model: Any, statement: Select[Any], wanted: Sequence[UUID]) -> Sequence[Any]:
    """Which courses the caller takes is looked up only where that decides."""
    statement = statement.where(
        model.tenant_id == session.tenant_id, model.id.in_(wanted), model.deleted_at.is_(None)
    )
    rows = (await session.execute(statement)).all()
    seen = _readable(model, rows)
    if len(seen) < len(rows):
        seen = _readable(model, rows, {"user.course_ids": await courses.list_taken_courses(session)})
    return _in_order(seen, wanted)


def _readable(model: Any, rows: Sequence[Any], taken: Mapping[str, Any] | None = None) -> Sequence[Any]:
    def known(row: Any) -> Mapping[str, Any] | None:
        return {"course.status": row.course_status, **(taken or {})} if model is Unit else taken

    return [row for row in rows if may("read", row, resource=model.__resource__, known=known(row))]


def _in_order(rows: Sequence[Any], wanted: Sequence[UUID]) -> Sequence[Any]:
    found = {row.id: row for row in rows}
    return [found[one] for one in wanted if one in found]
