"""Statements on lessons and their prerequisites."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import aliased

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import NotFound, existing
from kit.models import now
from kit.pagination import Page
from services.content.models import Course, Lesson, LessonAuthor, LessonPrerequisite, Unit
from services.content.queries.courses import find_course_of
from services.content.queries.tags import bears
from storyloom.content.v1.lessons_pb2 import ListLessonsRequest

Needed = aliased(Lesson)
ALL_PREREQUISITES = (
    select(func.array_agg(aggregate_order_by(LessonPrerequisite.prerequisite_id, LessonPrerequisite.prerequisite_id)))
    .where(
        LessonPrerequisite.tenant_id == Lesson.tenant_id,
        LessonPrerequisite.course_id == Lesson.course_id,
        LessonPrerequisite.lesson_id == Lesson.id,
    )
    .correlate(Lesson)
)
PREREQUISITES = ALL_PREREQUISITES.join(
    Needed,
    and_(
        Needed.tenant_id == LessonPrerequisite.tenant_id,
        Needed.id == LessonPrerequisite.prerequisite_id,
        Needed.deleted_at.is_(None),
    ),
)
CONTRIBUTORS = (
    select(func.array_agg(aggregate_order_by(LessonAuthor.user_id, LessonAuthor.updated_at.desc())))
    .where(LessonAuthor.tenant_id == Lesson.tenant_id, LessonAuthor.lesson_id == Lesson.id)
    .correlate(Lesson)
)
COLUMNS: tuple[Any, ...] = (
    Lesson.id,
    Lesson.unit_id,
    Lesson.course_id,
    Lesson.title,
    Lesson.description,
    Lesson.position,
    Lesson.status,
    Lesson.approval_id,
    Lesson.approved_hash,
    PREREQUISITES.scalar_subquery().label("prerequisite_ids"),
    Lesson.revision,
    Lesson.created_at,
    Lesson.updated_at,
    Lesson.deleted_at,
)


async def get_lesson(session: ReadSession, lesson_id: UUID, *, deleted: bool = False) -> Any:
    """The lesson's columns, and who wrote it."""
    contributors = CONTRIBUTORS.scalar_subquery().label("contributor_ids")
    statement = select(*COLUMNS, contributors).where(Lesson.tenant_id == session.tenant_id, Lesson.id == lesson_id)
    return existing((await session.execute(statement)).first(), "lesson", also_deleted=deleted)


async def list_lessons(
    session: ReadSession, request: ListLessonsRequest, status: str, taken: frozenset[UUID], page: Page
) -> Sequence[Any]:
    """One row more than the page holds, by place of unit and lesson, of the lessons that the caller may see.

    `taken` are the courses that the caller takes.
    """
    statement = (
        select(*COLUMNS, Unit.position.label("unit_position"))
        .join(Unit, and_(Unit.tenant_id == Lesson.tenant_id, Unit.id == Lesson.unit_id))
        .where(
            Lesson.tenant_id == session.tenant_id,
            Lesson.deleted_at.is_(None),
            visible("list", Lesson, known={"user.course_ids": taken}),
        )
    )
    if request.unit_id:
        statement = statement.where(Lesson.unit_id == UUID(request.unit_id))
    if request.course_id:
        statement = statement.where(Lesson.course_id == UUID(request.course_id))
    if status:
        statement = statement.where(Lesson.status == status)
    if request.tag_id:
        statement = statement.where(bears("lesson", Lesson.id, UUID(request.tag_id), session.tenant_id))
    keys = (Unit.position, Lesson.position, Lesson.id)
    return (await session.execute(page.apply(statement, *keys, descending=False))).all()


async def list_by_ids(session: WriteSession, lesson_ids: Collection[UUID]) -> Sequence[Any]:
    """The columns of these lessons, deleted or not, with all prerequisites that they ever may have again, and the
    places of their units."""
    every = ALL_PREREQUISITES.scalar_subquery().label("all_prerequisite_ids")
    statement = (
        select(*COLUMNS, every, Unit.position.label("unit_position"))
        .join(Unit, and_(Unit.tenant_id == Lesson.tenant_id, Unit.id == Lesson.unit_id))
        .where(Lesson.tenant_id == session.tenant_id, Lesson.id.in_(lesson_ids))
    )
    return (await session.execute(statement)).all()


async def list_of_units(session: WriteSession, course_id: UUID, unit_ids: Collection[UUID]) -> Sequence[UUID]:
    """The ids of all lessons of these units of the course, deleted or not."""
    mine = (Lesson.course_id == course_id, Lesson.unit_id.in_(unit_ids))
    statement = select(Lesson.id).where(Lesson.tenant_id == session.tenant_id, *mine)
    return (await session.execute(statement)).scalars().all()


async def lock_lesson(session: WriteSession, lesson_id: UUID, *, deleted: bool = False) -> tuple[Lesson, Course]:
    """The lesson and its course, the course locked: lessons change only under that lock."""
    course = await find_course_of(session, Lesson, lesson_id)
    statement = select(Lesson).where(Lesson.tenant_id == session.tenant_id, Lesson.id == lesson_id)
    # Read after the lock is there, so that it is as whoever held it before has left it.
    lesson: Lesson | None = await session.scalar(statement)
    if course is None or lesson is None or (lesson.deleted_at is not None and not deleted):
        raise NotFound("lesson")
    return lesson, course


async def lock_places(session: WriteSession, lesson_ids: Collection[UUID | None]) -> Mapping[UUID, Any]:
    """Of these lessons, deleted or not, when they were deleted and the status of their courses, by id. The courses are
    locked, in one order: the places of stories change only under that lock, and no lesson goes away meanwhile."""
    wanted = [one for one in lesson_ids if one is not None]
    if not wanted:
        return {}
    mine = (Lesson.tenant_id == session.tenant_id, Lesson.id.in_(wanted))
    theirs = Course.id.in_(select(Lesson.course_id).where(*mine))
    statement = select(Course.id).where(Course.tenant_id == session.tenant_id, theirs)
    await session.execute(statement.order_by(Course.id).with_for_update(key_share=True))
    of_course = and_(Course.tenant_id == Lesson.tenant_id, Course.id == Lesson.course_id)
    columns = (Lesson.id, Lesson.deleted_at, Course.status.label("course_status"))
    rows = (await session.execute(select(*columns).join(Course, of_course).where(*mine))).all()
    return {row.id: row for row in rows}


async def list_prerequisites(session: WriteSession, course_id: UUID) -> list[tuple[UUID, UUID]]:
    """All (lesson, prerequisite) pairs of a course; deleted lessons too, since they may come back."""
    statement = select(LessonPrerequisite.lesson_id, LessonPrerequisite.prerequisite_id).where(
        LessonPrerequisite.tenant_id == session.tenant_id, LessonPrerequisite.course_id == course_id
    )
    return [(row.lesson_id, row.prerequisite_id) for row in await session.execute(statement)]


async def count_lessons(session: WriteSession, course_id: UUID, lesson_ids: Collection[UUID]) -> int:
    """How many of these are undeleted lessons of the course."""
    statement = select(func.count()).where(
        Lesson.tenant_id == session.tenant_id,
        Lesson.course_id == course_id,
        Lesson.id.in_(lesson_ids),
        Lesson.deleted_at.is_(None),
    )
    return int(await session.scalar(statement))


async def replace_prerequisites(session: WriteSession, lesson: Lesson, prerequisites: Collection[UUID]) -> None:
    """Makes these the lesson's prerequisites, in place of all others."""
    own: tuple[ColumnElement[bool], ...] = (
        LessonPrerequisite.tenant_id == session.tenant_id,
        LessonPrerequisite.course_id == lesson.course_id,
        LessonPrerequisite.lesson_id == lesson.id,
    )
    await session.execute(delete(LessonPrerequisite).where(*own).execution_options(synchronize_session=False))
    if prerequisites:
        keys = {"tenant_id": session.tenant_id, "course_id": lesson.course_id, "lesson_id": lesson.id}
        rows = [keys | {"prerequisite_id": one} for one in prerequisites]
        await session.execute(insert(LessonPrerequisite).values(rows))


async def insert_author(session: WriteSession, lesson_id: UUID, user_id: UUID) -> None:
    """Notes that the user wrote the lesson as it is now."""
    statement = postgresql.insert(LessonAuthor).values(
        tenant_id=session.tenant_id, lesson_id=lesson_id, user_id=user_id, updated_at=now()
    )
    keys = ["tenant_id", "lesson_id", "user_id"]
    await session.execute(statement.on_conflict_do_update(index_elements=keys, set_={"updated_at": now()}))


async def unbind_unused_approvals(session: WriteSession, lesson_ids: Collection[UUID]) -> None:
    """Takes back the approvals of those lessons that are not published."""
    statement = (
        update(Lesson)
        .where(
            Lesson.tenant_id == session.tenant_id,
            Lesson.id.in_(lesson_ids),
            Lesson.approval_id.is_not(None),
            Lesson.status != "published",
        )
        .values(approval_id=None, approved_hash=None, revision=Lesson.revision + 1)
        .execution_options(synchronize_session=False)
    )
    await session.execute(statement)
