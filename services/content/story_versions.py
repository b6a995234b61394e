"""Versions of stories."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

from kit import audit
from kit.access import may, require
from kit.auth import current
from kit.db import Database, ReadSession, WriteSession
from kit.errors import NotFound
from kit.models import check_etag
from kit.pagination import Page
from kit.turns import Worker
from services.content import diffing, rules, versioning
from services.content.announcements import supersede_version
from services.content.enums import CHUNK_KIND, PART_OF_SPEECH, SEGMENT_KIND
from services.content.models import Story, StoryVersion
from services.content.queries import stories, story_versions
from services.content.rules import decimal_text
from services.content.versioning import Draft, as_list, as_notes
from services.content.weaving import Chunk, Share
from storyloom.content.v1 import story_versions_pb2
from storyloom.content.v1.story_versions_pb2 import StoryVersion as VersionMessage
from storyloom.content.v1.story_versions_pb2 import View

# Long texts take a processor for a while.
COMPARER, PARSER = Worker("compare"), Worker("parse")


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
        _check_seen(story, row.id)
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

    async def GetStoryVersionDiff(
        self, request: story_versions_pb2.GetStoryVersionDiffRequest, context: Any
    ) -> story_versions_pb2.StoryVersionDiff:
        async with self.db.read() as session:
            row = await story_versions.get_story_version(session, UUID(request.id))
            story = await stories.get_story(session, row.story_id)
            require("read", story, resource="story")
            _check_seen(story, row.id)
            base_id = UUID(request.base_id) if request.base_id else await _base_of(session, story, row)
            _check_seen(story, base_id)
            found = await story_versions.list_compared(session, story.id, {base_id, row.id})
            shares = [await story_versions.list_shares(session, one) for one in (base_id, row.id)]
        return await COMPARER.do(diff_to_proto, found[base_id], found[row.id], story.language, shares)

    async def RestoreStoryVersion(
        self, request: story_versions_pb2.RestoreStoryVersionRequest, context: Any
    ) -> story_versions_pb2.RestoreStoryVersionResponse:
        async with self.db.read() as session:
            row = await stories.get_story(session, UUID(request.story_id))
            require("update", row, resource="story")
            rules.check_open("story", row.status)
            old = await story_versions.get_source(session, row.id, UUID(request.version_id))
            shares = await story_versions.list_shares(session, old.id)
        # What a version says never changes, so that this need not wait for the story to be locked.
        draft = await PARSER.do(versioning.remade, old.title, row.language, old, shares)
        async with self.db.write() as session:
            story = await stories.lock_story(session, row.id)
            require("update", story)
            check_etag(story, request.etag)
            rules.check_open("story", story.status)
            if story.current_version_id != old.id:
                await _restore(session, story, old.id, draft)
            made = await story_versions.get_story_version(session, story.current_version_id)
        latest = version_to_proto(made.summary, made.approval_id)
        return story_versions_pb2.RestoreStoryVersionResponse(story_version=latest, etag=story.etag)


def _check_seen(story: Any, version_id: UUID) -> None:
    """NOT_FOUND for a version that is not published, unless the caller may update the story."""
    if version_id != story.published_version_id and not may("update", story, resource="story"):
        raise NotFound("story_version")


async def _base_of(session: ReadSession, story: Any, version: Any) -> UUID:
    """What a version is compared with unless the caller says: the one before it that they may see, or else itself."""
    before = await story_versions.find_before(session, story.id, version.number)
    own: UUID = version.id
    return before if before is not None and may("update", story, resource="story") else own


async def _restore(session: WriteSession, story: Story, old_id: UUID, draft: Draft) -> None:
    """Makes the content of the old version the story's latest, with the approval that it has by now."""
    current_one = await story_versions.get_source(session, story.id, story.current_version_id)
    old = await story_versions.get_source(session, story.id, old_id)
    version = make_version(story.id, current_one.number + 1, current().subject, draft)
    if old.approved_hash == version.content_hash:
        version.approval_id, version.approved_hash = old.approval_id, old.approved_hash
    story.title = draft.title
    await supersede(session, "restore", story, current_one, version, draft)


async def supersede(
    session: WriteSession, action: str, story: Story, source: Any, version: StoryVersion, draft: Draft
) -> None:
    """Makes the version the story's current one after `source`, and voids what was asked for that."""
    story.current_version_id = version.id
    await story_versions.insert_versions(session, [(version, draft)])
    await supersede_version(session, story, source)
    old = {"current_version_id": source.id, "number": source.number, "content_hash": source.content_hash}
    new = {"current_version_id": version.id, "number": version.number, "content_hash": version.content_hash}
    more = {"chem_ratio": rules.decimal_text(draft.chem_ratio), "seed": draft.seed}
    audit.write(session, action, "story", story.id, old=old, new=new | more)


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
    version.summary, version.body = messages_of(version, draft)
    return version


def messages_of(version: Any, draft: Draft) -> tuple[bytes, bytes]:
    """What BASIC view shows of a version, and what FULL view adds. Written one after the other they are one message."""
    return _summary(version, draft).SerializeToString(), _body(draft).SerializeToString()


def _summary(version: Any, draft: Draft) -> VersionMessage:
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
    message.shares.extend(map(share_to_proto, draft.shares))
    add_chunks(message, draft.chunks)
    return message


def add_chunks(message: Any, chunks: Iterable[Chunk]) -> None:
    """Adds the chunks to a message that has a field for them."""
    for chunk in chunks:
        message.chunks.add(
            position=chunk.position + 1,
            kind=CHUNK_KIND.number[chunk.kind],
            text=chunk.text,
            source=chunk.source if chunk.kind == "chem" else "",
            vocabulary_id=chunk.vocabulary_id,
        )


def share_to_proto(share: Share) -> story_versions_pb2.WeaveShare:
    return story_versions_pb2.WeaveShare(
        part_of_speech=PART_OF_SPEECH.number[share.part_of_speech],
        occurrences=share.occurrences,
        woven=share.woven,
        target=decimal_text(share.target),
        realised=decimal_text(share.realised),
    )


def diff_to_proto(
    base: Any, version: Any, language: str, shares: Sequence[Sequence[Share]]
) -> story_versions_pb2.StoryVersionDiff:
    """Of the columns of `list_compared`, and the shares of both."""
    words = diffing.compare(base.text, version.text, language)
    message = story_versions_pb2.StoryVersionDiff(
        base_version=version_to_proto(base.summary, base.approval_id),
        version=version_to_proto(version.summary, version.approval_id),
        words=changes_to_proto((words.added, words.removed, words.changed)),
        woven_words=map(
            _woven_to_proto,
            diffing.compare_weaves(as_notes(base.annotations), as_notes(version.annotations), words),
        ),
        shares=_shares_to_proto(*shares),
    )
    titles = diffing.compare(base.title, version.title, language)
    for kind, piece in diffing.segments(base.title, version.title, titles):
        message.title_segments.add(kind=SEGMENT_KIND.number[kind], text=piece)
    for kind, piece in diffing.segments(base.text, version.text, words):
        message.text_segments.add(kind=SEGMENT_KIND.number[kind], text=piece)
    return message


def changes_to_proto(counts: tuple[int, int, int]) -> story_versions_pb2.WordChanges:
    """Of how many were added, removed and changed."""
    return story_versions_pb2.WordChanges(added=counts[0], removed=counts[1], changed=counts[2])


def _woven_to_proto(change: diffing.WordChange) -> story_versions_pb2.WovenWordChange:
    base, now = change.base, change.now
    kind: Any = "CHANGED" if base.occurrences and now.occurrences else "ADDED" if now.occurrences else "REMOVED"
    return story_versions_pb2.WovenWordChange(
        vocabulary_id=change.vocabulary_id,
        kind=f"WOVEN_WORD_CHANGE_KIND_{kind}",
        base_texts=base.texts,
        texts=now.texts,
        base_explanation=base.explanation,
        explanation=now.explanation,
        base_occurrences=base.occurrences,
        occurrences=now.occurrences,
        kept_occurrences=change.kept,
    )


def _shares_to_proto(base: Sequence[Share], now: Sequence[Share]) -> Iterator[story_versions_pb2.WeaveShareChange]:
    before, after = ({share.part_of_speech: share_to_proto(share) for share in shares} for shares in (base, now))
    for part in sorted({*before, *after}):
        yield story_versions_pb2.WeaveShareChange(base_share=before.get(part), share=after.get(part))
