"""Statements about what other services told."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from kit.db import ReadSession, WriteSession
from kit.models import now
from services.learning.models import IndexedCourse, IndexedLesson

ATTEMPT = (
    *("id", "quiz_id", "lesson_id", "user_id", "number", "score", "max_score", "percent", "passed", "regraded"),
    *("grade_time", "score_hidden"),
)
UPSERT_ATTEMPTS = f"""
INSERT INTO learning.graded_attempts AS a (tenant_id, {", ".join(ATTEMPT)})
SELECT $1, told.* FROM unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::int[], $7::numeric[], $8::numeric[],
  $9::numeric[], $10::boolean[], $11::boolean[], $12::timestamptz[], $13::boolean[]) AS told
ON CONFLICT (tenant_id, id) DO UPDATE SET
  {", ".join(f"{name} = excluded.{name}" for name in ATTEMPT[1:])}, updated_at = now()
WHERE a.grade_time < excluded.grade_time
RETURNING new.user_id, new.passed AND NOT new.score_hidden AS passed, new.grade_time,
          old.passed AND NOT old.score_hidden AS old_passed, old.grade_time AS old_grade_time
"""  # noqa: S608


async def has_lesson(session: ReadSession, lesson_id: UUID) -> bool:
    statement = select(IndexedLesson.id).where(
        IndexedLesson.tenant_id == session.tenant_id, IndexedLesson.id == lesson_id
    )
    return await session.scalar(statement) is not None


async def list_indexed(session: ReadSession, lesson_ids: Collection[UUID]) -> set[UUID]:
    """Those of the lessons that are in the index."""
    statement = select(IndexedLesson.id).where(
        IndexedLesson.tenant_id == session.tenant_id, IndexedLesson.id.in_(lesson_ids)
    )
    return set((await session.execute(statement)).scalars())


async def insert_lesson(session: WriteSession, values: dict[str, Any]) -> None:
    """Adds a lesson that the index lacks. One that an event added meanwhile is newer, and stays."""
    await session.execute(insert(IndexedLesson).values(tenant_id=session.tenant_id, **values).on_conflict_do_nothing())


async def upsert_lesson(session: WriteSession, values: dict[str, Any]) -> None:
    await _upsert(session, IndexedLesson, values)


async def upsert_course(session: WriteSession, values: dict[str, Any]) -> None:
    await _upsert(session, IndexedCourse, values)


async def upsert_graded_attempts(session: WriteSession, told: Sequence[dict[str, Any]]) -> list[Any]:
    """What is kept of these attempts now, with what was as `old_…`; without those of which what is kept is as new."""
    return await session.fetch(UPSERT_ATTEMPTS, *([values[name] for values in told] for name in ATTEMPT))


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
