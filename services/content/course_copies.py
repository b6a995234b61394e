"""Copies of courses, and where courses come from."""

from typing import Any
from uuid import UUID

from kit import audit
from kit.access import require, require_any
from kit.auth import Principal, acting, current, identify
from kit.db import Database, WriteSession, in_tenant
from kit.errors import InvalidArgument, Unauthenticated
from kit.limiter import Limiter
from kit.turns import in_turn
from services.content import copying, gathering
from services.content.copying import COPY, FOREIGN_COPY, Made, Wish
from services.content.courses import course_to_proto
from services.content.enums import COURSE_ORIGIN_KIND
from services.content.files import Files
from services.content.gathering import Source
from services.content.models import Course
from services.content.queries import courses, materials
from storyloom.content.v1 import course_copies_pb2
from storyloom.content.v1.course_copies_pb2 import CopyCourseResponse, CourseOrigin, StoryOrigin


class CourseCopyService:
    SERVICE = course_copies_pb2.DESCRIPTOR.services_by_name["CourseCopyService"]

    def __init__(self, db: Database, files: Files, turns: Limiter) -> None:
        self.db, self.files, self.turns = db, files, turns

    async def CopyCourse(self, request: course_copies_pb2.CopyCourseRequest, context: Any) -> CopyCourseResponse:
        caller = current()
        async with in_turn(self.turns, caller.tenant_id):
            source = await gathering.take(self.db, UUID(request.course_id))
            wish = Wish(kind=COPY, author_id=caller.subject, title=request.title)
            made = await copying.make(self.db, source, wish)
            async with self.db.write() as session:
                await copying.write(session, made)
        return _answer(made)

    async def CopyCourseToTenant(
        self, request: course_copies_pb2.CopyCourseToTenantRequest, context: Any
    ) -> CopyCourseResponse:
        caller, course_id = current(), UUID(request.course_id)
        await gathering.check(self.db, course_id)
        target = await _target(request.target_access_token)
        with acting(target):
            require_any("create", Course)
        async with in_turn(self.turns, caller.tenant_id):
            source = await gathering.take(self.db, course_id, away=True)
            wish = Wish(
                kind=FOREIGN_COPY,
                author_id=target.subject,
                title=request.title,
                source_tenant_id=caller.tenant_id,
            )
            # From here on, nothing is read of the caller's tenant, and before, nothing was of the other one.
            with acting(target):
                made = await copying.make(self.db, source, wish)
                async with copying.kept(self.files, made, source.sounds), self.db.write() as session:
                    await copying.write(session, made)
                    await record_export(session, caller, source)
        return _answer(made)

    async def GetCourseOrigin(self, request: course_copies_pb2.GetCourseOriginRequest, context: Any) -> CourseOrigin:
        async with self.db.read() as session:
            course = await courses.get_course(session, UUID(request.course_id))
            require("update", course, resource="course")
            origin = await materials.find_origin(session, course.id)
            if origin is None:
                return CourseOrigin(course_id=request.course_id, kind="COURSE_ORIGIN_KIND_ORIGINAL")
            stories = await materials.list_story_origins(session, course.id)
        return origin_to_proto(origin, stories)


async def _target(token: str) -> Principal:
    """Whose the second token is: somebody of another tenant, who is signed in there."""
    try:
        target = await identify(token)
    except Unauthenticated:
        # The caller's own token is good: theirs is not the session to renew.
        raise InvalidArgument.fields([("target_access_token", "must be a current access token")]) from None
    if target.tenant_id == current().tenant_id:
        raise InvalidArgument.fields([("target_access_token", "must be of another tenant")])
    return target


async def record_export(session: WriteSession, caller: Principal, source: Source) -> None:
    """Tells the log of the tenant that the course leaves; commits with what it becomes."""
    new = {"digest": source.digest, "stories": len(source.stories)}
    with acting(caller):
        async with in_tenant(session, caller.tenant_id):
            audit.write(session, "export", "course", UUID(str(source.course_id)), new=new)


def _answer(made: Made) -> CopyCourseResponse:
    return CopyCourseResponse(
        course=course_to_proto(made.course),
        units=len(made.units),
        lessons=len(made.lessons),
        stories=len(made.stories),
        words_created=len(made.words),
        words_matched=len(made.matched),
    )


def origin_to_proto(row: Any, stories: Any) -> CourseOrigin:
    """Of rows of their columns, as far as the caller may know them."""
    message = CourseOrigin(
        course_id=str(row.course_id),
        kind=COURSE_ORIGIN_KIND.number[row.kind],
        digest=row.digest,
        user_id=str(row.user_id),
        stories=map(story_origin_to_proto, stories),
    )
    message.create_time.FromDatetime(row.created_at)
    if _may_know(row):
        message.source_tenant_id = str(row.source_tenant_id or "")
        message.source_course_id = str(row.source_course_id or "")
    return message


def story_origin_to_proto(row: Any) -> StoryOrigin:
    """The same of a story."""
    message = StoryOrigin(story_id=str(row.story_id), digest=row.digest)
    if _may_know(row):
        message.source_story_id = str(row.source_story_id or "")
        message.source_version_id = str(row.source_version_id or "")
    return message


def _may_know(row: Any) -> bool:
    """Who else has an account in which tenants is nobody's business."""
    return row.source_tenant_id is None or row.user_id == current().subject
