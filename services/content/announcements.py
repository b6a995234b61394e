"""The events that this service publishes, made of the rows as they are at the end of a change."""

from collections.abc import Collection
from typing import Any
from uuid import UUID

from kit import outbox
from kit.db import WriteSession
from services.content.enums import COURSE_STATUS, LESSON_STATUS
from services.content.models import Course, Lesson, Story
from services.content.queries import lessons, story_versions
from services.content.versioning import lesson_hash
from storyloom.content.v1.events_pb2 import ApprovableEdited, CourseChanged, LessonChanged

LESSON, STORY_VERSION = "lesson", "story_version"


def announce_course(session: WriteSession, course: Course) -> None:
    """Tells what has become of the course."""
    event = CourseChanged(
        course_id=str(course.id),
        status=COURSE_STATUS.number[course.status],
        deleted=course.deleted_at is not None,
        title=course.title,
    )
    outbox.publish(session, "course", course.id, event)


async def announce_lessons(session: WriteSession, lesson_ids: Collection[UUID]) -> None:
    """Tells what has become of the lessons; call it after the flush."""
    if not lesson_ids:
        return
    for row in await lessons.list_by_ids(session, lesson_ids):
        event = LessonChanged(
            lesson_id=str(row.id),
            course_id=str(row.course_id),
            unit_id=str(row.unit_id),
            title=row.title,
            status=LESSON_STATUS.number[row.status],
            deleted=row.deleted_at is not None,
            prerequisite_ids=map(str, row.all_prerequisite_ids or ()),
            position=row.position,
            unit_position=row.unit_position,
        )
        outbox.publish(session, "lesson", row.id, event)


async def announce_units(session: WriteSession, course_id: UUID, unit_ids: Collection[UUID]) -> None:
    """Tells of all lessons of these units of the course where the units are now; call it after the flush."""
    if unit_ids:
        await announce_lessons(session, await lessons.list_of_units(session, course_id, unit_ids))


def announce_purged(session: WriteSession, model: Any, row_id: UUID) -> None:
    """Tells that a row of the model is no more, if others know of such rows."""
    if model is Course:
        outbox.publish(session, "course", row_id, CourseChanged(course_id=str(row_id), deleted=True, purged=True))
    elif model is Lesson:
        outbox.publish(session, "lesson", row_id, LessonChanged(lesson_id=str(row_id), deleted=True, purged=True))


def announce_edited(session: WriteSession, entity_type: str, entity_id: UUID, content_hash: str, *, used: bool) -> None:
    """Tells that approvals of this content are void, unless one was granted and used."""
    event = ApprovableEdited(entity_type=entity_type, entity_id=str(entity_id), content_hash=content_hash, used=used)
    outbox.publish(session, entity_type, entity_id, event)


async def supersede_version(session: WriteSession, story: Story, version: Any) -> None:
    """Takes back what was approved or asked for of a version that another one follows, unless it is published."""
    used = story.published_version_id == version.id
    announce_edited(session, STORY_VERSION, version.id, version.content_hash, used=used)
    if version.approval_id is not None and not used:
        await story_versions.unbind_approvals(session, [version.id])


async def supersede_stories(session: WriteSession, story_ids: Collection[UUID]) -> None:
    """The same of the current versions of stories that were deleted."""
    if not story_ids:
        return
    rows = await story_versions.list_current(session, story_ids)
    for row in rows:
        announce_edited(session, STORY_VERSION, row.id, row.content_hash, used=row.used)
    await story_versions.unbind_approvals(session, [row.id for row in rows if row.approval_id and not row.used])


def supersede_lesson(session: WriteSession, lesson: Lesson, content_hash: str) -> None:
    """Takes back what was approved or asked for of what a lesson said, whose hash this is, now that it says something
    else or is deleted."""
    used = lesson.status == "published"
    announce_edited(session, LESSON, lesson.id, content_hash, used=used)
    if not used or lesson_hash(lesson) != content_hash:
        lesson.approval_id = lesson.approved_hash = None


async def supersede_lessons(session: WriteSession, lesson_ids: Collection[UUID]) -> None:
    """Takes back what was approved or asked for of lessons that were deleted, unless they are published."""
    if not lesson_ids:
        return
    for row in await lessons.list_by_ids(session, lesson_ids):
        announce_edited(session, LESSON, row.id, lesson_hash(row), used=row.status == "published")
    await lessons.unbind_unused_approvals(session, lesson_ids)
