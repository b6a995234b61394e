"""Courses."""

from typing import Any
from uuid import UUID

from google.protobuf.empty_pb2 import Empty

from kit import audit, fieldmask
from kit.access import may, require
from kit.audit import Action
from kit.auth import current
from kit.db import Database, WriteSession
from kit.models import check_etag, now, set_times
from kit.pagination import Page
from services.content import rules
from services.content.announcements import announce_course, announce_units
from services.content.enums import COURSE_STATUS
from services.content.models import Course, Unit
from services.content.queries import batches, courses, hiding, positions, purging
from services.content.units import unit_to_proto
from storyloom.content.v1 import courses_pb2
from storyloom.content.v1.courses_pb2 import Course as CourseMessage

WRITABLE = ("title", "description", "story_language", "learning_language")


class CourseService:
    SERVICE = courses_pb2.DESCRIPTOR.services_by_name["CourseService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def CreateCourse(self, request: courses_pb2.CreateCourseRequest, context: Any) -> CourseMessage:
        sent = request.course
        async with self.db.write() as session:
            settings = await courses.get_settings(session)
            course = Course(
                title=sent.title,
                description=sent.description,
                story_language=sent.story_language or settings.story_language,
                learning_language=sent.learning_language or settings.learning_language,
                author_id=current().subject,
            )
            require("create", course)
            session.add(course)
            return await _record(session, Action.CREATE, course)

    async def GetCourse(self, request: courses_pb2.GetCourseRequest, context: Any) -> CourseMessage:
        async with self.db.read() as session:
            row = await courses.get_course(session, UUID(request.id))
            known = {}
            if not may("read", row, resource="course"):
                known["user.course_ids"] = await courses.list_taken_courses(session)
        require("read", row, resource="course", known=known)
        return course_to_proto(row)

    async def BatchGetCourses(
        self, request: courses_pb2.BatchGetCoursesRequest, context: Any
    ) -> courses_pb2.BatchGetCoursesResponse:
        async with self.db.read() as session:
            rows = await batches.read_courses(session, list(map(UUID, request.ids)))
        return courses_pb2.BatchGetCoursesResponse(courses=map(course_to_proto, rows))

    async def ListCourses(
        self, request: courses_pb2.ListCoursesRequest, context: Any
    ) -> courses_pb2.ListCoursesResponse:
        page = Page.of(request)
        async with self.db.read() as session:
            rows = await courses.list_courses(session, request, COURSE_STATUS.word[request.status], page)
        rows, token = page.split(rows, courses.next_key(request.order_by))
        return courses_pb2.ListCoursesResponse(courses=map(course_to_proto, rows), next_page_token=token)

    async def UpdateCourse(self, request: courses_pb2.UpdateCourseRequest, context: Any) -> CourseMessage:
        async with self.db.write() as session:
            course = await courses.lock_course(session, UUID(request.course.id))
            require("update", course)
            check_etag(course, request.course.etag)
            rules.check_open("course", course.status)
            fieldmask.apply(course, request.course, request.update_mask, WRITABLE)
            return await _record(session, Action.UPDATE, course)

    async def DeleteCourse(self, request: courses_pb2.DeleteCourseRequest, context: Any) -> CourseMessage:
        async with self.db.write() as session:
            course = await courses.lock_course(session, UUID(request.id))
            require("delete", course)
            check_etag(course, request.etag)
            course.deleted_at = now()
            message = await _record(session, Action.DELETE, course)
            await hiding.mark_course(session, course.id, None, course.deleted_at)
            return message

    async def UndeleteCourse(self, request: courses_pb2.UndeleteCourseRequest, context: Any) -> CourseMessage:
        async with self.db.write() as session:
            course = await courses.lock_course(session, UUID(request.id), deleted=True)
            require("undelete", course)
            check_etag(course, request.etag)
            rules.check_deleted("course", course.deleted_at)
            await hiding.mark_course(session, course.id, course.deleted_at, None)
            course.deleted_at = None
            return await _record(session, Action.UNDELETE, course)

    async def PublishCourse(self, request: courses_pb2.PublishCourseRequest, context: Any) -> CourseMessage:
        async with self.db.write() as session:
            course = await courses.lock_course(session, UUID(request.id))
            require("publish", course)
            check_etag(course, request.etag)
            course.status = rules.step("course", "publish", course.status)
            return await _record(session, Action.PUBLISH, course)

    async def ArchiveCourse(self, request: courses_pb2.ArchiveCourseRequest, context: Any) -> CourseMessage:
        async with self.db.write() as session:
            course = await courses.lock_course(session, UUID(request.id))
            require("archive", course)
            check_etag(course, request.etag)
            course.status = rules.step("course", "archive", course.status)
            return await _record(session, Action.ARCHIVE, course)

    async def ReorderUnits(
        self, request: courses_pb2.ReorderUnitsRequest, context: Any
    ) -> courses_pb2.ReorderUnitsResponse:
        wanted = list(map(UUID, request.unit_ids))
        async with self.db.write() as session:
            course = await courses.lock_course(session, UUID(request.id))
            require("update", course)
            check_etag(course, request.etag)
            rules.check_open("course", course.status)
            moved = await positions.reorder(session, course, Unit.course_id, wanted)
            await announce_units(session, course.id, moved)
            rows = await batches.read_units(session, wanted)
        return courses_pb2.ReorderUnitsResponse(units=map(unit_to_proto, rows), etag=course.etag)

    async def PurgeCourse(self, request: courses_pb2.PurgeCourseRequest, context: Any) -> Empty:
        async with self.db.write() as session:
            course = await courses.lock_course(session, UUID(request.id), deleted=True)
            await purging.purge(session, course, request.etag)
        return Empty()


async def _record(session: WriteSession, action: Action, course: Course) -> CourseMessage:
    """Audits, writes and announces the change; returns the course as it is now."""
    audit.record(session, action, course)
    await session.flush()
    announce_course(session, course)
    return course_to_proto(course)


def course_to_proto(row: Any) -> CourseMessage:
    """Of the entity, or of a row of its columns."""
    message = CourseMessage(
        id=str(row.id),
        title=row.title,
        description=row.description,
        story_language=row.story_language,
        learning_language=row.learning_language,
        status=COURSE_STATUS.number[row.status],
        author_id=str(row.author_id),
        etag=str(row.revision),
    )
    set_times(message, row)
    return message
