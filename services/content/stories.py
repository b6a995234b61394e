"""Stories: their life, and the versions that writing and weaving make."""

import asyncio
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from kit import audit, fieldmask
from kit.access import may, require
from kit.audit import Action
from kit.auth import current
from kit.db import Database, WriteSession
from kit.errors import Aborted
from kit.ids import new_id
from kit.models import check_etag, now
from kit.pagination import Page
from services.content import rules, versioning
from services.content.announcements import supersede_stories, supersede_version
from services.content.enums import STORY_STATUS
from services.content.models import Story, StoryVersion
from services.content.queries import courses, lessons, stories, story_versions, vocabularies
from services.content.story_versions import fill_version, make_version
from services.content.versioning import Draft
from storyloom.content.v1 import stories_pb2
from storyloom.content.v1.stories_pb2 import Story as StoryMessage
from storyloom.content.v1.story_versions_pb2 import View

WRITABLE = ("title", "lesson_id", "text", "vocabulary_ids")


class StoryService:
    SERVICE = stories_pb2.DESCRIPTOR.services_by_name["StoryService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def CreateStory(self, request: stories_pb2.CreateStoryRequest, context: Any) -> StoryMessage:
        async with self.db.read() as session:
            story = _new_story(request.story, await courses.get_settings(session))
        require("create", story)
        draft = await asyncio.to_thread(versioning.plain, story.title, request.story.text)
        version = make_version(story.id, 1, story.author_id, draft)
        story.current_version_id = version.id
        async with self.db.write() as session:
            await _check_references(session, story, WRITABLE)
            session.add(story)
            audit.record(session, Action.CREATE, story)
            await session.flush()
            await story_versions.insert_version(session, version, draft)
            return await answer(session, story)

    async def GetStory(self, request: stories_pb2.GetStoryRequest, context: Any) -> StoryMessage:
        full = request.view != View.BASIC
        async with self.db.read() as session:
            row = await stories.get_story(session, UUID(request.id), full=full)
        require("read", row, resource="story")
        return story_to_proto(row, full=full)

    async def ListStories(
        self, request: stories_pb2.ListStoriesRequest, context: Any
    ) -> stories_pb2.ListStoriesResponse:
        page = Page.of(request)
        async with self.db.read() as session:
            rows = await stories.list_stories(session, request, STORY_STATUS.word[request.status], page)
        rows, token = page.split(rows, courses.next_key(request.order_by))
        return stories_pb2.ListStoriesResponse(stories=map(story_to_proto, rows), next_page_token=token)

    async def UpdateStory(self, request: stories_pb2.UpdateStoryRequest, context: Any) -> StoryMessage:
        wanted = fieldmask.changes(request.story, request.update_mask, WRITABLE)
        draft = await self._parsed(request.story.id, wanted)
        async with self.db.write() as session:
            story = await stories.lock_story(session, UUID(request.story.id))
            require("update", story)
            check_etag(story, request.story.etag)
            rules.check_open("story", story.status)
            if wanted:
                for name, value in wanted.items():
                    setattr(story, name, CONVERT[name](value))
                await _check_references(session, story, wanted)
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
        return await asyncio.to_thread(versioning.plain, wanted.get("title", row.title), text)

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
            story = await stories.lock_story(session, UUID(request.id), deleted=True)
            require("undelete", story)
            check_etag(story, request.etag)
            alone = story.lesson_id is not None and not await lessons.stays(session, story.lesson_id)
            rules.check_deleted("story", story.deleted_at, "lesson", parent_deleted=alone)
            story.deleted_at = None
            audit.record(session, Action.UNDELETE, story)
            return await answer(session, story)

    async def PublishStory(self, request: stories_pb2.PublishStoryRequest, context: Any) -> StoryMessage:
        async with self.db.write() as session:
            story = await stories.lock_story(session, UUID(request.id))
            require("publish", story)
            check_etag(story, request.etag)
            version_id = optional_id(request.version_id) or story.current_version_id
            version = await story_versions.get_source(session, story.id, version_id)
            required = (await courses.get_settings(session)).approval_required
            rules.check_publishable(
                story.status,
                required=required,
                content_hash=version.content_hash,
                approved_hash=version.approved_hash,
            )
            if story.published_version_id != version_id:
                story.status, story.published_version_id = "published", version_id
                audit.record(session, Action.PUBLISH, story)
            return await answer(session, story)

    async def ArchiveStory(self, request: stories_pb2.ArchiveStoryRequest, context: Any) -> StoryMessage:
        async with self.db.write() as session:
            story = await stories.lock_story(session, UUID(request.id))
            require("archive", story)
            check_etag(story, request.etag)
            story.status = rules.step("story", "archive", story.status)
            audit.record(session, Action.ARCHIVE, story)
            return await answer(session, story)


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
        vocabulary_ids=ids(sent.vocabulary_ids),
        author_id=current().subject,
    )


CONVERT: Mapping[str, Callable[[Any], Any]] = {"title": str, "lesson_id": optional_id, "vocabulary_ids": ids}


async def _check_references(session: WriteSession, story: Story, written: Collection[str]) -> None:
    """REFERENCE_NOT_FOUND when a written field names a lesson or vocabulary that is not there."""
    if "lesson_id" in written and story.lesson_id is not None:
        await lessons.check_lesson(session, story.lesson_id)
    if "vocabulary_ids" in written and story.vocabulary_ids:
        chosen = set(story.vocabulary_ids)
        if await vocabularies.count_vocabularies(session, chosen) != len(chosen):
            raise rules.missing("vocabulary")


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
        new = await asyncio.to_thread(versioning.retitled, story.title, source, shares)
    else:
        return
    version = make_version(story.id, source.number + 1, current().subject, new)
    await supersede(session, Action.UPDATE, story, source, version, new)


async def supersede(
    session: WriteSession, action: str, story: Story, source: Any, version: StoryVersion, draft: Draft
) -> None:
    """Makes the version the story's current one after `source`, and voids what was asked for that."""
    story.current_version_id = version.id
    await story_versions.insert_version(session, version, draft)
    await supersede_version(session, story, source)
    old = {"current_version_id": source.id, "number": source.number, "content_hash": source.content_hash}
    new = {"current_version_id": version.id, "number": version.number, "content_hash": version.content_hash}
    more = {"chem_ratio": rules.decimal_text(draft.chem_ratio), "seed": draft.seed}
    audit.write(session, action, "story", story.id, old=old, new=new | more)


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
