"""Statements on what is published together. Locks are taken in the order of courses, then stories, each by id."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Text, and_, cast, func, or_, select

from kit.access import visible
from kit.db import ReadSession, WriteSession
from services.content.models import Base, Course, CourseAccess, Lesson, Story, StoryVersion
from services.content.queries.courses import list_taken_courses

StoryRow = Base.metadata.tables["content.stories"]
LessonRow = Base.metadata.tables["content.lessons"]
OF_COURSE = and_(Course.tenant_id == Lesson.tenant_id, Course.id == Lesson.course_id)


async def lock_lessons(session: WriteSession, lesson_ids: Collection[UUID]) -> list[tuple[Any, str]]:
    """The lessons that there are, with their courses' status; the courses are locked."""
    if not lesson_ids:
        return []
    parents = select(Lesson.course_id).where(*_lessons(session, lesson_ids))
    statement = select(Course).where(Course.tenant_id == session.tenant_id, Course.id.in_(parents))
    await session.execute(statement.order_by(Course.id).with_for_update(key_share=True))
    # Read after the locks are there, so that they are as whoever held these before has left them.
    found = select(Lesson, Course.status).join(Course, OF_COURSE).where(*_lessons(session, lesson_ids))
    return [(row.Lesson, row.status) for row in await session.execute(found)]


async def list_lessons(session: ReadSession, lesson_ids: Collection[UUID]) -> list[tuple[Any, str]]:
    """The same without locks, as rows with an etag."""
    columns = (LessonRow, _etag(LessonRow), Course.status.label("course_status"))
    statement = select(*columns).join(Course, OF_COURSE).where(*_lessons(session, lesson_ids))
    return [(row, row.course_status) for row in await session.execute(statement)]


async def lock_stories(
    session: WriteSession, story_ids: Collection[UUID], lesson_ids: Collection[UUID], most: int
) -> Sequence[Any]:
    """These stories, and those of these lessons that are not archived, locked."""
    statement = select(Story).where(*_stories(session, story_ids, lesson_ids)).order_by(Story.id).limit(most)
    return (await session.execute(statement.with_for_update(key_share=True))).scalars().all()


async def list_stories(
    session: ReadSession, story_ids: Collection[UUID], lesson_ids: Collection[UUID], most: int
) -> Sequence[Any]:
    """The same without locks, as rows with an etag."""
    statement = select(StoryRow, _etag(StoryRow)).where(*_stories(session, story_ids, lesson_ids))
    return (await session.execute(statement.order_by(Story.id).limit(most))).all()


async def list_versions(session: ReadSession, version_ids: Collection[UUID]) -> Mapping[UUID, Any]:
    """What publishing these versions depends on, by id."""
    statement = select(
        StoryVersion.id,
        StoryVersion.story_id,
        StoryVersion.title,
        StoryVersion.content_hash,
        StoryVersion.approved_hash,
    ).where(StoryVersion.tenant_id == session.tenant_id, StoryVersion.id.in_(version_ids))
    return {row.id: row for row in await session.execute(statement)}


async def list_seen_courses(session: ReadSession, lesson_ids: Collection[UUID]) -> Mapping[UUID, UUID]:
    """The courses of these lessons, as far as the caller may read them, by the lesson."""
    seen = visible("read", Course, known={"user.course_ids": await list_taken_courses(session)})
    statement = select(Lesson.id, Lesson.course_id).join(Course, OF_COURSE)
    statement = statement.where(Lesson.tenant_id == session.tenant_id, Lesson.id.in_(lesson_ids), seen)
    return {row.id: row.course_id for row in await session.execute(statement)}


async def count_learners(session: ReadSession, course_ids: Collection[UUID]) -> Mapping[UUID | None, int]:
    """How many learners take each of the courses; under None how many take any."""
    statement = (
        select(CourseAccess.course_id, func.count(CourseAccess.user_id.distinct()).label("learners"))
        .where(CourseAccess.tenant_id == session.tenant_id, CourseAccess.course_id.in_(course_ids), CourseAccess.active)
        .group_by(func.rollup(CourseAccess.course_id))
    )
    return {row.course_id: row.learners for row in await session.execute(statement)}


def _lessons(session: ReadSession, lesson_ids: Collection[UUID]) -> tuple[ColumnElement[bool], ...]:
    return Lesson.tenant_id == session.tenant_id, Lesson.id.in_(lesson_ids), Lesson.deleted_at.is_(None)


def _stories(
    session: ReadSession, story_ids: Collection[UUID], lesson_ids: Collection[UUID]
) -> tuple[ColumnElement[bool], ...]:
    of_lessons = and_(Story.lesson_id.in_(lesson_ids), Story.status != "archived")
    return Story.tenant_id == session.tenant_id, Story.deleted_at.is_(None), or_(Story.id.in_(story_ids), of_lessons)


def _etag(table: Any) -> ColumnElement[str]:
    return cast(table.c.revision, Text).label("etag")
