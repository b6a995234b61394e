"""Lessons."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any
from uuid import UUID

from google.protobuf.empty_pb2 import Empty

from kit import audit, fieldmask
from kit.access import may, require
from kit.audit import Action
from kit.auth import current
from kit.db import Database, WriteSession
from kit.errors import StoryloomError, wrong_state
from kit.models import check_etag, now, set_times
from kit.pagination import Page
from services.content import rules
from services.content.announcements import announce_lessons, supersede_lesson
from services.content.enums import LESSON_STATUS
from services.content.models import Lesson, Story
from services.content.queries import batches, courses, hiding, lessons, positions, purging, units
from services.content.stories import story_to_proto
from services.content.versioning import lesson_hash
from storyloom.content.v1 import lessons_pb2
from storyloom.content.v1.lessons_pb2 import Lesson as LessonMessage
from storyloom.learning.v1.enrollments_pb2 import CheckEnrollmentRequest

WRITABLE = ("title", "description", "unit_id", "position", "prerequisite_ids")
# A learner waits for this only where access would otherwise be refused.
CHECK_SECONDS = 1.0


class LessonService:
    SERVICE = lessons_pb2.DESCRIPTOR.services_by_name["LessonService"]

    def __init__(self, db: Database, enrollments: Any) -> None:
        self.db, self.enrollments = db, enrollments

    async def CreateLesson(self, request: lessons_pb2.CreateLessonRequest, context: Any) -> LessonMessage:
        sent = request.lesson
        async with self.db.write() as session:
            unit, course = await units.lock_parent(session, UUID(sent.unit_id))
            lesson = Lesson(
                unit_id=unit.id,
                course_id=course.id,
                title=sent.title,
                description=sent.description,
                position=sent.position,
            )
            require("create", lesson)
            rules.check_open("course", course.status)
            moved = await positions.settle(session, Lesson.unit_id, lesson)
            session.add(lesson)
            audit.record(session, Action.CREATE, lesson)
            await session.flush()
            await lessons.insert_author(session, lesson.id, current().subject)
            if sent.prerequisite_ids:
                await _set_prerequisites(session, lesson, sent.prerequisite_ids)
            return await _announced(session, lesson, *moved)

    async def GetLesson(self, request: lessons_pb2.GetLessonRequest, context: Any) -> LessonMessage:
        async with self.db.read() as session:
            row = await lessons.get_lesson(session, UUID(request.id))
            taken: frozenset[UUID] = frozenset()
            if not _may_read(row, taken):
                taken = await courses.list_taken_courses(session)
        if not _may_read(row, taken) and _may_read(row, {row.course_id}) and await self._takes(row.course_id):
            taken |= {row.course_id}
        require("read", row, resource="lesson", known={"user.course_ids": taken})
        return lesson_to_proto(row)

    async def BatchGetLessons(
        self, request: lessons_pb2.BatchGetLessonsRequest, context: Any
    ) -> lessons_pb2.BatchGetLessonsResponse:
        async with self.db.read() as session:
            rows = await batches.read_lessons(session, list(map(UUID, request.ids)))
        return lessons_pb2.BatchGetLessonsResponse(lessons=map(lesson_to_proto, rows))

    async def ListLessons(
        self, request: lessons_pb2.ListLessonsRequest, context: Any
    ) -> lessons_pb2.ListLessonsResponse:
        page = Page.of(request)
        async with self.db.read() as session:
            taken = await courses.list_taken_courses(session)
            status = LESSON_STATUS.word[request.status]
            rows = await lessons.list_lessons(session, request, status, taken, page)
        rows, token = page.split(rows, lambda row: (row.unit_position, row.position, row.id))
        return lessons_pb2.ListLessonsResponse(lessons=map(lesson_to_proto, rows), next_page_token=token)

    async def UpdateLesson(self, request: lessons_pb2.UpdateLessonRequest, context: Any) -> LessonMessage:
        async with self.db.write() as session:
            lesson, course = await lessons.lock_lesson(session, UUID(request.lesson.id))
            require("update", lesson)
            check_etag(lesson, request.lesson.etag)
            rules.check_open("course", course.status)
            wanted = fieldmask.changes(request.lesson, request.update_mask, WRITABLE)
            moved: Sequence[UUID] = ()
            if "prerequisite_ids" in wanted:
                await _set_prerequisites(session, lesson, wanted.pop("prerequisite_ids"))
            if wanted:
                moved = await _rewrite(session, lesson, wanted)
            return await _announced(session, lesson, *moved)

    async def DeleteLesson(self, request: lessons_pb2.DeleteLessonRequest, context: Any) -> LessonMessage:
        async with self.db.write() as session:
            lesson, _ = await lessons.lock_lesson(session, UUID(request.id))
            require("delete", lesson)
            check_etag(lesson, request.etag)
            lesson.deleted_at = now()
            supersede_lesson(session, lesson, lesson_hash(lesson))
            audit.record(session, Action.DELETE, lesson)
            message = await _announced(session, lesson)
            # After the lesson itself: a story that was being added to it meanwhile is there by now.
            await hiding.mark_lesson(session, lesson.id, None, lesson.deleted_at)
            return message

    async def UndeleteLesson(self, request: lessons_pb2.UndeleteLessonRequest, context: Any) -> LessonMessage:
        async with self.db.write() as session:
            lesson, _ = await lessons.lock_lesson(session, UUID(request.id), deleted=True)
            require("undelete", lesson)
            check_etag(lesson, request.etag)
            unit = await units.get_unit(session, lesson.unit_id, deleted=True)
            rules.check_deleted("lesson", lesson.deleted_at, "unit", parent_deleted=unit.deleted_at is not None)
            await hiding.mark_lesson(session, lesson.id, lesson.deleted_at, None)
            await positions.return_to(session, Lesson.unit_id, lesson)
            lesson.deleted_at = None
            audit.record(session, Action.UNDELETE, lesson)
            return await _announced(session, lesson)

    async def PublishLesson(self, request: lessons_pb2.PublishLessonRequest, context: Any) -> LessonMessage:
        async with self.db.write() as session:
            lesson, course = await lessons.lock_lesson(session, UUID(request.id))
            require("publish", lesson)
            check_etag(lesson, request.etag)
            rules.check_open("course", course.status)
            lesson.status = rules.step("lesson", "publish", lesson.status)
            audit.record(session, Action.PUBLISH, lesson)
            return await _announced(session, lesson)

    async def ReorderStories(
        self, request: lessons_pb2.ReorderStoriesRequest, context: Any
    ) -> lessons_pb2.ReorderStoriesResponse:
        wanted = list(map(UUID, request.story_ids))
        async with self.db.write() as session:
            lesson, course = await lessons.lock_lesson(session, UUID(request.id))
            require("update", lesson)
            check_etag(lesson, request.etag)
            rules.check_open("course", course.status)
            await positions.reorder(session, lesson, Story.lesson_id, wanted)
            rows = await batches.read_stories(session, wanted)
        return lessons_pb2.ReorderStoriesResponse(stories=map(story_to_proto, rows), etag=lesson.etag)

    async def PurgeLesson(self, request: lessons_pb2.PurgeLessonRequest, context: Any) -> Empty:
        async with self.db.write() as session:
            lesson, _ = await lessons.lock_lesson(session, UUID(request.id), deleted=True)
            await purging.purge(session, lesson, request.etag)
        return Empty()

    async def _takes(self, course_id: UUID) -> bool:
        """Whether learning says that the caller takes the course, which its events may not have told yet."""
        caller = current()
        request = CheckEnrollmentRequest(
            tenant_id=str(caller.tenant_id), user_id=str(caller.subject), course_id=str(course_id)
        )
        try:
            return bool((await self.enrollments.CheckEnrollment(request, timeout=CHECK_SECONDS)).active)
        except StoryloomError:
            # What cannot be shown to be allowed is not.
            return False


def _may_read(row: Any, taken: Collection[UUID]) -> bool:
    return may("read", row, resource="lesson", known={"user.course_ids": taken})


async def _rewrite(session: WriteSession, lesson: Lesson, wanted: dict[str, Any]) -> Sequence[UUID]:
    """Writes the values, and voids what was asked for of a text that was another; returns which lessons it moved."""
    place, said = (lesson.unit_id, lesson.position), lesson_hash(lesson)
    for name, value in wanted.items():
        setattr(lesson, name, UUID(value) if name == "unit_id" else value)
    if lesson_hash(lesson) != said:
        supersede_lesson(session, lesson, said)
        await lessons.insert_author(session, lesson.id, current().subject)
    moved: Sequence[UUID] = ()
    if (lesson.unit_id, lesson.position) != place:
        await _check_unit(session, lesson, place[0])
        if "position" not in wanted:
            lesson.position = 0
        moved = await positions.settle(session, Lesson.unit_id, lesson)
    audit.record(session, Action.UPDATE, lesson)
    return moved


async def _check_unit(session: WriteSession, lesson: Lesson, before: UUID) -> None:
    """REFERENCE_NOT_FOUND unless the unit that the lesson moves to is one of its course; and whoever moves it there
    must be allowed to change it there too."""
    if lesson.unit_id == before:
        return
    unit = await units.find_unit(session, lesson.unit_id)
    if unit is None or unit.deleted_at is not None or unit.course_id != lesson.course_id:
        raise rules.missing("unit")
    require("update", lesson)


async def _set_prerequisites(session: WriteSession, lesson: Lesson, wanted: Iterable[str]) -> None:
    """Replaces the lesson's prerequisites; the lock of the course keeps other changes from closing a circle."""
    prerequisites = {UUID(one) for one in wanted}
    if await lessons.count_lessons(session, lesson.course_id, prerequisites) != len(prerequisites):
        raise rules.missing("lesson")
    pairs = await lessons.list_prerequisites(session, lesson.course_id)
    others = [pair for pair in pairs if pair[0] != lesson.id]
    if rules.has_circle([*others, *((lesson.id, before) for before in prerequisites)]):
        raise wrong_state("The prerequisites would form a circle.", "circle")
    await lessons.replace_prerequisites(session, lesson, prerequisites)
    old, new = sorted(before for one, before in pairs if one == lesson.id), sorted(prerequisites)
    values = {"prerequisite_ids": list(map(str, old))}, {"prerequisite_ids": list(map(str, new))}
    audit.write(session, Action.UPDATE, "lesson", lesson.id, old=values[0], new=values[1])
    # The etag tells of every change, also where no column of the lesson's own did.
    lesson.updated_at = now()


async def _announced(session: WriteSession, lesson: Lesson, *moved: UUID) -> LessonMessage:
    """Writes and announces the change, and the lessons that it moved on; returns the lesson as it is now."""
    await session.flush()
    await announce_lessons(session, [lesson.id, *moved])
    return lesson_to_proto(await lessons.get_lesson(session, lesson.id, deleted=True))


def lesson_to_proto(row: Any) -> LessonMessage:
    """Of a row of the lesson's columns."""
    message = LessonMessage(
        id=str(row.id),
        unit_id=str(row.unit_id),
        course_id=str(row.course_id),
        title=row.title,
        description=row.description,
        position=row.position,
        status=LESSON_STATUS.number[row.status],
        prerequisite_ids=map(str, row.prerequisite_ids or ()),
        etag=str(row.revision),
        content_hash=lesson_hash(row),
        contributor_ids=map(str, getattr(row, "contributor_ids", None) or ()),
    )
    if row.approval_id is not None:
        message.approval_id, message.approved = str(row.approval_id), True
    set_times(message, row)
    return message
