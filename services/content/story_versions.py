"""Versions of stories."""

from typing import Any
from uuid import UUID

from kit.access import may, require
from kit.db import Database
from kit.errors import NotFound
from kit.pagination import Page
from services.content.enums import CHUNK_KIND, PART_OF_SPEECH
from services.content.models import StoryVersion
from services.content.queries import stories, story_versions
from services.content.rules import decimal_text
from services.content.versioning import Draft, as_list
from storyloom.content.v1 import story_versions_pb2
from storyloom.content.v1.story_versions_pb2 import StoryVersion as VersionMessage
from storyloom.content.v1.story_versions_pb2 import View


class StoryVersionService:
    SERVICE = story_versions_pb2.DESCRIPTOR.services_by_name["StoryVersionService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def GetStoryVersion(self, request: story_versions_pb2.GetStoryVersionRequest, context: Any) -> VersionMessage:
        async with self.db.read() as session:
            row = await story_versions.get_story_version(session, UUID(request.id))
            story = await stories.get_story(session, row.story_id)
            authors = await story_versions.list_authors(session, row) if request.with_contributors else ()
        require("read", story, resource="story")
        if row.id != story.published_version_id and not may("update", story, resource="story"):
            raise NotFound("story_version")
        body = b"" if request.view == View.BASIC else row.body
        message = version_to_proto(row.summary + body, row.approval_id)
        if request.with_contributors:
            message.contributor_ids.extend(map(str, authors))
            message.superseded = row.id != story.current_version_id
        return message

    async def ListStoryVersions(
        self, request: story_versions_pb2.ListStoryVersionsRequest, context: Any
    ) -> story_versions_pb2.ListStoryVersionsResponse:
        page = Page.of(request)
        async with self.db.read() as session:
            story = await stories.get_story(session, UUID(request.story_id))
            require("list", story, resource="story")
            only = None
            if not may("update", story, resource="story"):
                only = story.published_version_id
            rows = await story_versions.list_story_versions(session, story.id, only, page)
        rows, token = page.split(rows, lambda row: (row.number,))
        return story_versions_pb2.ListStoryVersionsResponse(
            story_versions=(version_to_proto(row.summary, row.approval_id) for row in rows), next_page_token=token
        )


def version_to_proto(content: bytes, approval_id: UUID | None) -> VersionMessage:
    """Of the serialised parts of a version and what came after it was made."""
    message = VersionMessage()
    fill_version(message, content, approval_id)
    return message


def fill_version(message: VersionMessage, content: bytes, approval_id: UUID | None) -> None:
    """The same, into a message that is part of another."""
    message.MergeFromString(content)
    if approval_id is not None:
        message.approval_id, message.approved = str(approval_id), True


def make_version(story_id: UUID, number: int, author_id: UUID, draft: Draft) -> StoryVersion:
    """The row of a draft, with its message."""
    version = StoryVersion(
        story_id=story_id,
        number=number,
        title=draft.title,
        text=draft.text,
        annotations=[as_list(one) for one in draft.annotations],
        seed=draft.seed,
        paragraphs=list(draft.paragraphs),
        pinned_vocabulary_ids=list(draft.pinned),
        banned_vocabulary_ids=list(draft.banned),
        content_hash=draft.content_hash,
        author_id=author_id,
    )
    # Parts of one message, written one after the other, are the message.
    version.summary = _summary(version, draft).SerializeToString()
    version.body = _body(draft).SerializeToString()
    return version


def _summary(version: StoryVersion, draft: Draft) -> VersionMessage:
    message = VersionMessage(
        id=str(version.id),
        story_id=str(version.story_id),
        number=version.number,
        title=version.title,
        chem_ratio=decimal_text(draft.chem_ratio),
        word_count=draft.word_count,
        reading_minutes=draft.reading_minutes,
        content_hash=draft.content_hash,
        seed=draft.seed,
        author_id=str(version.author_id),
    )
    message.create_time.FromDatetime(version.created_at)
    return message


def _body(draft: Draft) -> VersionMessage:
    message = VersionMessage(
        text=draft.text,
        paragraphs=draft.paragraphs,
        pinned_vocabulary_ids=map(str, draft.pinned),
        banned_vocabulary_ids=map(str, draft.banned),
    )
    for share in draft.shares:
        message.shares.add(
            part_of_speech=PART_OF_SPEECH.number[share.part_of_speech],
            occurrences=share.occurrences,
            woven=share.woven,
            target=decimal_text(share.target),
            realised=decimal_text(share.realised),
        )
    for chunk in draft.chunks:
        message.chunks.add(
            position=chunk.position + 1,
            kind=CHUNK_KIND.number[chunk.kind],
            text=chunk.text,
            source=chunk.source if chunk.kind == "chem" else "",
            vocabulary_id=chunk.vocabulary_id,
        )
    return message
