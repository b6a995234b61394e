"""Statements about what other services told."""

from typing import Any
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from kit.db import ReadSession, WriteSession
from kit.models import now
from services.learning.models import IndexedCourse, IndexedLesson


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


async def delete_lesson(session: WriteSession, lesson_id: UUID) -> None:
    await _delete(session, IndexedLesson, lesson_id)


async def delete_course(session: WriteSession, course_id: UUID) -> None:
    await _delete(session, IndexedCourse, course_id)


async def _delete(session: WriteSession, model: Any, row_id: UUID) -> None:
    await session.execute(delete(model).where(model.tenant_id == session.tenant_id, model.id == row_id))


async def _upsert(session: WriteSession, model: Any, values: dict[str, Any]) -> None:
    statement = insert(model).values(tenant_id=session.tenant_id, **values)
    changed = {name: statement.excluded[name] for name in values if name != "id"}
    await session.execute(
        statement.on_conflict_do_update(index_elements=["tenant_id", "id"], set_=changed | {"updated_at": now()})
    )
