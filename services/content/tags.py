"""Tags."""

from typing import Any
from uuid import UUID

from kit import audit, fieldmask
from kit.access import require
from kit.audit import Action
from kit.db import Database, WriteSession
from kit.models import check_etag, now, set_times
from kit.pagination import Page
from services.content import rules
from services.content.models import Course, Lesson, Story, Tag
from services.content.queries import courses, lessons, stories, tags
from storyloom.content.v1 import tags_pb2
from storyloom.content.v1.tags_pb2 import Tag as TagMessage

WRITABLE = ("name",)
TAG, UNTAG = "tag", "untag"


class TagService:
    SERVICE = tags_pb2.DESCRIPTOR.services_by_name["TagService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def CreateTag(self, request: tags_pb2.CreateTagRequest, context: Any) -> TagMessage:
        tag = Tag()
        _rename(tag, request.tag.name)
        require("create", tag)
        async with self.db.write() as session:
            session.add(tag)
            return await _record(session, Action.CREATE, tag)

    async def GetTag(self, request: tags_pb2.GetTagRequest, context: Any) -> TagMessage:
        async with self.db.read() as session:
            row = await tags.get_tag(session, UUID(request.id))
        require("read", row, resource="tag")
        return tag_to_proto(row)

    async def ListTags(self, request: tags_pb2.ListTagsRequest, context: Any) -> tags_pb2.ListTagsResponse:
        page = Page.of(request)
        async with self.db.read() as session:
            bearer = await _find_bearer(session, request)
            rows = await tags.list_tags(session, request, bearer, page)
        rows, token = page.split(rows, tags.next_key(request.order_by))
        return tags_pb2.ListTagsResponse(tags=map(tag_to_proto, rows), next_page_token=token)

    async def UpdateTag(self, request: tags_pb2.UpdateTagRequest, context: Any) -> TagMessage:
        async with self.db.write() as session:
            tag = await tags.lock_tag(session, UUID(request.tag.id))
            require("update", tag)
            check_etag(tag, request.tag.etag)
            for name in fieldmask.changes(request.tag, request.update_mask, WRITABLE).values():
                _rename(tag, name)
            return await _record(session, Action.UPDATE, tag)

    async def DeleteTag(self, request: tags_pb2.DeleteTagRequest, context: Any) -> TagMessage:
        async with self.db.write() as session:
            tag = await tags.lock_tag(session, UUID(request.id))
            require("delete", tag)
            check_etag(tag, request.etag)
            tag.deleted_at = now()
            return await _record(session, Action.DELETE, tag)

    async def UndeleteTag(self, request: tags_pb2.UndeleteTagRequest, context: Any) -> TagMessage:
        async with self.db.write() as session:
            tag = await tags.lock_tag(session, UUID(request.id), deleted=True)
            require("undelete", tag)
            check_etag(tag, request.etag)
            rules.check_deleted("tag", tag.deleted_at)
            tag.deleted_at = None
            return await _record(session, Action.UNDELETE, tag)

    async def TagCourse(self, request: tags_pb2.TagCourseRequest, context: Any) -> TagMessage:
        async with self.db.write() as session:
            course = await courses.lock_course(session, UUID(request.course_id))
            return await _change(session, TAG, course, request.tag_id)

    async def UntagCourse(self, request: tags_pb2.UntagCourseRequest, context: Any) -> TagMessage:
        async with self.db.write() as session:
            course = await courses.lock_course(session, UUID(request.course_id))
            return await _change(session, UNTAG, course, request.tag_id)

    async def TagLesson(self, request: tags_pb2.TagLessonRequest, context: Any) -> TagMessage:
        async with self.db.write() as session:
            lesson, _ = await lessons.lock_lesson(session, UUID(request.lesson_id))
            return await _change(session, TAG, lesson, request.tag_id)

    async def UntagLesson(self, request: tags_pb2.UntagLessonRequest, context: Any) -> TagMessage:
        async with self.db.write() as session:
            lesson, _ = await lessons.lock_lesson(session, UUID(request.lesson_id))
            return await _change(session, UNTAG, lesson, request.tag_id)

    async def TagStory(self, request: tags_pb2.TagStoryRequest, context: Any) -> TagMessage:
        async with self.db.write() as session:
            story = await stories.lock_story(session, UUID(request.story_id))
            return await _change(session, TAG, story, request.tag_id)

    async def UntagStory(self, request: tags_pb2.UntagStoryRequest, context: Any) -> TagMessage:
        async with self.db.write() as session:
            story = await stories.lock_story(session, UUID(request.story_id))
            return await _change(session, UNTAG, story, request.tag_id)


async def _find_bearer(session: Any, request: tags_pb2.ListTagsRequest) -> tuple[str, UUID] | None:
    """The course, lesson or story whose tags are asked for, which the caller must be allowed to read."""
    if request.story_id:
        row = await stories.get_story(session, UUID(request.story_id))
        require("read", row, resource="story")
        return "story", row.id
    if request.course_id:
        row = await courses.get_course(session, UUID(request.course_id))
        require("read", row, resource="course", known=await _known(session))
        return "course", row.id
    if request.lesson_id:
        row = await lessons.get_lesson(session, UUID(request.lesson_id))
        require("read", row, resource="lesson", known=await _known(session))
        return "lesson", row.id
    return None


async def _known(session: Any) -> dict[str, Any]:
    return {"user.course_ids": await courses.list_taken_courses(session)}


async def _change(session: WriteSession, action: str, bearer: Course | Lesson | Story, tag_id: str) -> TagMessage:
    """Puts a tag on what is locked, or takes it off, for those who may update that; says so in its name if it does."""
    require("update", bearer)
    tag = await tags.find_tag(session, UUID(tag_id))
    if tag is None:
        raise rules.missing("tag")
    change = tags.insert_bearer if action == TAG else tags.delete_bearer
    if await change(session, bearer.__resource__, bearer.id, tag.id):
        values = {"tag_id": str(tag.id), "tag": tag.name}
        old, new = (None, values) if action == TAG else (values, None)
        audit.write(session, action, bearer.__resource__, bearer.id, old=old, new=new)
    return tag_to_proto(tag)


def _rename(tag: Tag, name: str) -> None:
    tag.name, tag.name_key = name.strip(), rules.term_key(name)


async def _record(session: WriteSession, action: Action, tag: Tag) -> TagMessage:
    """Audits and writes the change; returns the tag as it is now."""
    audit.record(session, action, tag)
    await session.flush()
    return tag_to_proto(tag)


def tag_to_proto(row: Any) -> TagMessage:
    """Of the entity, or of a row of its columns."""
    message = TagMessage(id=str(row.id), name=row.name, etag=str(row.revision))
    set_times(message, row)
    return message
