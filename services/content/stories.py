"""Stories: their life, and the versions that writing and weaving make."""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp

from kit import audit, fieldmask
from kit.access import may, require
from kit.audit import Action
from kit.auth import current
from kit.db import Database, WriteSession
from kit.errors import Aborted, InvalidArgument
from kit.ids import new_id
from kit.models import check_etag, now
from kit.pagination import Page
from services.content import publishing, rules, versioning
from services.content.announcements import supersede_stories
from services.content.enums import STORY_STATUS
from services.content.models import Story
from services.content.pages import Pages
from services.content.queries import (
    batches,
    courses,
    lessons,
    positions,
    purging,
    stories,
    story_versions,
    vocabularies,
)
from services.content.story_versions import PARSER, fill_version, make_version, supersede
from services.content.versioning import Draft
from storyloom.content.v1 import stories_pb2
from storyloom.content.v1.stories_pb2 import Story as StoryMessage
from storyloom.content.v1.story_versions_pb2 import View

WRITABLE = ("title", "lesson_id", "position", "text", "vocabulary_ids")
# What the story's place depends on.
PLACED = frozenset({"lesson_id", "position"})


class StoryService:
    SERVICE = stories_pb2.DESCRIPTOR.services_by_name["StoryService"]

    def __init__(self, db: Database) -> None:
        self.db = db
        self._pages = Pages(story_to_proto)

    async def CreateStory(self, request: stories_pb2.CreateStoryRequest, context: Any) -> StoryMessage:
        async with self.db.read() as session:
            story = _new_story(request.story, await courses.get_settings(session))
        require("create", story)
        draft = await PARSER.do(versioning.plain, story.title, request.story.text, story.language)
        version = make_version(story.id, 1, story.author_id, draft)
        story.current_version_id = version.id
        async with self.db.write() as session:
            places = await lessons.lock_places(session, {story.lesson_id})
            await _check_vocabularies(session, story)
            await _settle(session, story, places)
            session.add(story)
            audit.record(session, Action.CREATE, story)
            await session.flush()
            await story_versions.insert_versions(session, [(version, draft)])
            return await answer(session, story)

    async def GetStory(self, request: stories_pb2.GetStoryRequest, context: Any) -> StoryMessage:
        full = request.view != View.BASIC
        async with self.db.read() as session:
            row = await stories.get_story(session, UUID(request.id), full=full)
        require("read", row, resource="story")
        return story_to_proto(row, full=full)

    async def BatchGetStories(
        self, request: stories_pb2.BatchGetStoriesRequest, context: Any
    ) -> stories_pb2.BatchGetStoriesResponse:
        full = request.view == View.FULL
        async with self.db.read() as session:
            rows = await batches.read_stories(session, ids(request.ids), full=full)
        return stories_pb2.BatchGetStoriesResponse(stories=(story_to_proto(row, full=full) for row in rows))

    async def ListStories(
        self, request: stories_pb2.ListStoriesRequest, context: Any
    ) -> stories_pb2.ListStoriesResponse:
        page = Page.of(request)
        async with self.db.read() as session:
            rows = await stories.list_stories(session, request, STORY_STATUS.word[request.status], page)
            rows, token = page.split(rows, stories.next_key(request.order_by))
            response = await self._pages.fill(session, rows)
        response.next_page_token = token
        return response

    async def UpdateStory(self, request: stories_pb2.UpdateStoryRequest, context: Any) -> StoryMessage:
        wanted = fieldmask.changes(request.story, request.update_mask, WRITABLE)
        draft = await self._parsed(request.story.id, wanted)
        async with self.db.write() as session:
            story_id, moves = UUID(request.story.id), not PLACED.isdisjoint(wanted)
            places = await _lock_places(session, story_id, wanted) if moves else {}
            story = await stories.lock_story(session, story_id)
            require("update", story)
            check_etag(story, request.story.etag)
            rules.check_open("story", story.status)
            if wanted:
                await _write(session, story, wanted, places)
                audit.record(session, Action.UPDATE, story)
            if draft is not None or "title" in wanted:
                await _rewrite(session, story, draft)
            return await answer(session, story)

    async def _parsed(self, story_id: str, wanted: dict[str, Any]) -> Draft | None:
        """Takes the text, if there is one, out of what is to be written: parsed, for those who may write it."""
        text = wanted.pop("text", None)
        if text is None:
            return None
        async with self.db.read() as session:
            row = await stories.get_story(session, UUID(story_id))
        require("update", row, resource="story")
        rules.check_open("story", row.status)
        return await PARSER.do(versioning.plain, wanted.get("title", row.title), text, row.language)

    async def DeleteStory(self, request: stories_pb2.DeleteStoryRequest, context: Any) -> StoryMessage:
        async with self.db.write() as session:
            story = await stories.lock_story(session, UUID(request.id))
            require("delete", story)
            check_etag(story, request.etag)
            story.deleted_at = now()
            audit.record(session, Action.DELETE, story)
            await supersede_stories(session, [story.id])
            return await answer(session, story)

    async def UndeleteStory(self, request: stories_pb2.UndeleteStoryRequest, context: Any) -> StoryMessage:
        async with self.db.write() as session:
            places = await _lock_places(session, UUID(request.id), {})
            story = await stories.lock_story(session, UUID(request.id), deleted=True)
            require("undelete", story)
            check_etag(story, request.etag)
            lesson = _lesson_of(story.lesson_id, places)
            alone = lesson is not None and lesson.deleted_at is not None
            rules.check_deleted("story", story.deleted_at, "lesson", parent_deleted=alone)
            if lesson is not None:
                await positions.return_to(session, Story.lesson_id, story)
            story.deleted_at = None
            audit.record(session, Action.UNDELETE, story)
            return await answer(session, story)

    async def PublishStory(self, request: stories_pb2.PublishStoryRequest, context: Any) -> StoryMessage:
        async with self.db.write() as session:
            story = await stories.lock_story(session, UUID(request.id))
            version_id = optional_id(request.version_id) or story.current_version_id
            await publishing.publish_one(session, story, version_id, request.etag)
            return await answer(session, story)

    async def ArchiveStory(self, request: stories_pb2.ArchiveStoryRequest, context: Any) -> StoryMessage:
        async with self.db.write() as session:
            story = await stories.lock_story(session, UUID(request.id))
            require("archive", story)
            check_etag(story, request.etag)
            story.status = rules.step("story", "archive", story.status)
            audit.record(session, Action.ARCHIVE, story)
            return await answer(session, story)

    async def PurgeStory(self, request: stories_pb2.PurgeStoryRequest, context: Any) -> Empty:
        async with self.db.write() as session:
            story = await stories.lock_story(session, UUID(request.id), deleted=True)
            await purging.purge(session, story, request.etag)
        return Empty()


def optional_id(text: str) -> UUID | None:
    return UUID(text) if text else None


def ids(texts: Iterable[str]) -> list[UUID]:
    return list(map(UUID, texts))


def _new_story(sent: StoryMessage, settings: Any) -> Story:
    """The caller's story, so far without a version."""
    return Story(
        id=new_id(),
        title=sent.title,
        language=sent.language or settings.story_language,
        learning_language=sent.learning_language or settings.learning_language,
        lesson_id=optional_id(sent.lesson_id),
        position=sent.position,
        vocabulary_ids=ids(sent.vocabulary_ids),
        author_id=current().subject,
    )


CONVERT: Mapping[str, Callable[[Any], Any]] = {
    "title": str,
    "lesson_id": optional_id,
    "position": int,
    "vocabulary_ids": ids,
}


async def _write(session: WriteSession, story: Story, wanted: Mapping[str, Any], places: Mapping[UUID, Any]) -> None:
    """Writes the values; where they move the story, it gets its place."""
    lesson_id, position = story.lesson_id, story.position
    for name, value in wanted.items():
        setattr(story, name, CONVERT[name](value))
    if "vocabulary_ids" in wanted:
        await _check_vocabularies(session, story)
    if story.lesson_id != lesson_id and "position" not in wanted:
        story.position = None
    if (story.lesson_id, story.position) != (lesson_id, position):
        left = _lesson_of(lesson_id, places)
        if left is not None:
            rules.check_open("course", left.course_status)
        # Whoever moves it there must be allowed to change it there too.
        require("update", story)
        await _settle(session, story, places)


async def _check_vocabularies(session: WriteSession, story: Story) -> None:
    """REFERENCE_NOT_FOUND when one of the story's words is not there."""
    chosen = set(story.vocabulary_ids)
    if chosen and await vocabularies.count_vocabularies(session, chosen) != len(chosen):
        raise rules.missing("vocabulary")


async def _lock_places(session: WriteSession, story_id: UUID, wanted: Mapping[str, Any]) -> Mapping[UUID, Any]:
    """The lessons that the story is in and is to be in. Their courses are locked before the story itself, as whoever
    deletes a course or lesson does."""
    here, there = await stories.find_lesson_id(session, story_id), optional_id(wanted.get("lesson_id", ""))
    return await lessons.lock_places(session, {here, there})


def _lesson_of(lesson_id: UUID | None, places: Mapping[UUID, Any]) -> Any:
    """The lesson that the story is in, None for one on its own."""
    if lesson_id is not None and lesson_id not in places:
        raise Aborted("The story was moved meanwhile; try again.")
    return places.get(lesson_id) if lesson_id is not None else None


async def _settle(session: WriteSession, story: Story, places: Mapping[UUID, Any]) -> None:
    """Gives the story its place in its lesson; a story on its own has none."""
    if story.lesson_id is None:
        if story.position:
            raise InvalidArgument.fields([("story.position", "is only for stories in a lesson")])
        story.position = None
        return
    lesson = places.get(story.lesson_id)
    if lesson is None or lesson.deleted_at is not None:
        raise rules.missing("lesson")
    rules.check_open("course", lesson.course_status)
    await positions.settle(session, Story.lesson_id, story)


async def _rewrite(session: WriteSession, story: Story, draft: Draft | None) -> None:
    """Makes a new current version if text or title are others. Pins and bans are kept for the next weave, and with the
    same text all that is woven."""
    source = await story_versions.get_source(session, story.id, story.current_version_id)
    if draft is not None and draft.text != source.text:
        if draft.title != story.title:
            raise Aborted("The story got another title meanwhile; try again.")
        new = replace(draft, pinned=source.pinned_vocabulary_ids, banned=source.banned_vocabulary_ids)
    elif story.title != source.title:
        shares = await story_versions.list_shares(session, source.id)
        new = await asyncio.to_thread(versioning.remade, story.title, story.language, source, shares)
    else:
        return
    version = make_version(story.id, source.number + 1, current().subject, new)
    await supersede(session, Action.UPDATE, story, source, version, new)


async def answer(session: WriteSession, story: Story, *, full: bool = False) -> StoryMessage:
    """Writes what is pending; the story as it is now."""
    await session.flush()
    return story_to_proto(await stories.get_story(session, story.id, full=full, deleted=True), full=full)


def story_to_proto(row: Any, *, full: bool = False) -> StoryMessage:
    """Of a row of the columns of `stories.get_story`, with the version that the caller may see."""
    message = StoryMessage(
        id=str(row.id),
        title=row.title,
        language=row.language,
        learning_language=row.learning_language,
        lesson_id=str(row.lesson_id or ""),
        position=row.position or 0,
        vocabulary_ids=map(str, row.vocabulary_ids),
        author_id=str(row.author_id),
        status=STORY_STATUS.number[row.status],
        published_version_id=str(row.published_version_id or ""),
        etag=str(row.revision),
    )
    if row.published_version_id == row.current_version_id or may("update", row, resource="story"):
        content = row.summary + row.body if full else row.summary
        fill_version(message.current_version, content, row.approval_id)
    elif row.published_version_id is not None:
        content = row.published_summary + row.published_body if full else row.published_summary
        fill_version(message.current_version, content, row.published_approval_id)
        message.title = message.current_version.title
    _set(message.create_time, row.created_at)
    _set(message.update_time, row.updated_at)
    if row.deleted_at:
        _set(message.delete_time, row.deleted_at)
    return message


def _set(timestamp: Timestamp, at: datetime) -> None:
    # A third of the time of FromDatetime, which is felt twice for each story of a page.
    timestamp.seconds, timestamp.nanos = math.floor(at.timestamp()), at.microsecond * 1000
