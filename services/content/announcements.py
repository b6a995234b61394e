"""The events that this service publishes, made of the rows as they are at the end of a change."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import and_, select

from kit import outbox
from kit.db import WriteSession
from services.content.enums import COURSE_STATUS, LESSON_STATUS
from services.content.models import Course, Story, StoryVersion
from services.content.queries import lessons
from storyloom.content.v1.events_pb2 import ApprovableEdited, CourseChanged, LessonChanged

STORY_VERSION = "story_version"


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
        )
        outbox.publish(session, "lesson", row.id, event)


def announce_superseded_version(session: WriteSession, version_id: UUID, content_hash: str) -> None:
    """Tells that approvals of the version are void."""
    event = ApprovableEdited(entity_type=STORY_VERSION, entity_id=str(version_id), content_hash=content_hash)
    outbox.publish(session, STORY_VERSION, version_id, event)


async def announce_superseded(session: WriteSession, story_ids: Collection[UUID]) -> None:
    """Tells that approvals of the stories' current versions are void, now that the stories are deleted."""
    if not story_ids:
        return
    statement = (
        select(StoryVersion.id, StoryVersion.content_hash)
        .join(Story, and_(Story.tenant_id == StoryVersion.tenant_id, Story.current_version_id == StoryVersion.id))
        .where(StoryVersion.tenant_id == session.tenant_id, Story.id.in_(story_ids))
    )
    for row in await session.execute(statement):
        announce_superseded_version(session, row.id, row.content_hash)
