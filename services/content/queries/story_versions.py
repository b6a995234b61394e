"""Statements on the versions of stories, their chunks and cloze configs."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy import and_, insert, select, update

from kit.db import ReadSession, WriteSession
from kit.errors import NotFound, existing
from kit.pagination import Page
from services.content.models import ClozeConfig, Story, StoryVersion
from services.content.queries.bulk import execute_for_each
from services.content.versioning import Draft
from services.content.weaving import Chunk, Share

COLUMNS: tuple[Any, ...] = (
    StoryVersion.id,
    StoryVersion.number,
    StoryVersion.summary,
    StoryVersion.approval_id,
    StoryVersion.approved_hash,
)
# What a version is made of: `versioning.remade` makes another one of it.
SOURCE: tuple[Any, ...] = (
    StoryVersion.id,
    StoryVersion.story_id,
    StoryVersion.number,
    StoryVersion.title,
    StoryVersion.text,
    StoryVersion.annotations,
    StoryVersion.seed,
    StoryVersion.paragraphs,
    StoryVersion.pinned_vocabulary_ids,
    StoryVersion.banned_vocabulary_ids,
    StoryVersion.content_hash,
)


async def get_story_version(session: ReadSession, version_id: UUID) -> Any:
    """The version's columns and the id of its story, which decides who may see it."""
    statement = (
        select(*COLUMNS, StoryVersion.body, StoryVersion.story_id)
        .join(Story, and_(Story.tenant_id == StoryVersion.tenant_id, Story.id == StoryVersion.story_id))
        .where(
            StoryVersion.tenant_id == session.tenant_id,
            StoryVersion.id == version_id,
            Story.deleted_at.is_(None),
        )
    )
    return existing((await session.execute(statement)).first(), "story_version")


async def list_authors(session: ReadSession, version: Any) -> Sequence[UUID]:
    """Who made this version of its story or an earlier one."""
    statement = select(StoryVersion.author_id).where(
        StoryVersion.tenant_id == session.tenant_id,
        StoryVersion.story_id == version.story_id,
        StoryVersion.number <= version.number,
    )
    return (await session.execute(statement.distinct())).scalars().all()


async def list_story_versions(session: ReadSession, story_id: UUID, only: UUID | None, page: Page) -> Sequence[Any]:
    """One row more than the page holds, highest number first; `only` narrows them to one version."""
    statement = select(*COLUMNS).where(StoryVersion.tenant_id == session.tenant_id, StoryVersion.story_id == story_id)
    if only is not None:
        statement = statement.where(StoryVersion.id == only)
    return (await session.execute(page.apply(statement, StoryVersion.number))).all()


async def get_source(session: ReadSession, story_id: UUID, version_id: UUID) -> Any:
    """What a version of the story is made of, to make another one."""
    statement = select(*SOURCE, StoryVersion.approval_id, StoryVersion.approved_hash).where(
        StoryVersion.tenant_id == session.tenant_id,
        StoryVersion.story_id == story_id,
        StoryVersion.id == version_id,
    )
    return existing((await session.execute(statement)).first(), "story_version")


async def list_compared(session: ReadSession, story_id: UUID, version_ids: Collection[UUID]) -> Mapping[UUID, Any]:
    """What readers are shown of these versions of the story, by id; NOT_FOUND unless it has all of them."""
    statement = select(*COLUMNS, StoryVersion.text, StoryVersion.title, StoryVersion.annotations).where(
        StoryVersion.tenant_id == session.tenant_id,
        StoryVersion.story_id == story_id,
        StoryVersion.id.in_(version_ids),
    )
    found = {row.id: row for row in await session.execute(statement)}
    if len(found) != len(set(version_ids)):
        raise NotFound("story_version")
    return found


async def find_before(session: ReadSession, story_id: UUID, number: int) -> UUID | None:
    """The version of the story before the one of this number."""
    statement = select(StoryVersion.id).where(
        StoryVersion.tenant_id == session.tenant_id,
        StoryVersion.story_id == story_id,
        StoryVersion.number == number - 1,
    )
    found: UUID | None = await session.scalar(statement)
    return found


async def list_current(session: ReadSession, story_ids: Collection[UUID]) -> Sequence[Any]:
    """Of the current versions of these stories, what approvals are of, and as `used` whether they are published."""
    used = and_(Story.published_version_id.is_not(None), Story.published_version_id == Story.current_version_id)
    statement = (
        select(StoryVersion.id, StoryVersion.content_hash, StoryVersion.approval_id, used.label("used"))
        .join(Story, and_(Story.tenant_id == StoryVersion.tenant_id, Story.current_version_id == StoryVersion.id))
        .where(StoryVersion.tenant_id == session.tenant_id, Story.id.in_(story_ids))
    )
    return (await session.execute(statement)).all()


async def lock_to_approve(session: WriteSession, version_id: UUID) -> Any:
    """The version's hash and what became of its story, or None. The story is locked: nobody edits it meanwhile."""
    statement = (
        select(
            StoryVersion.id,
            StoryVersion.content_hash,
            Story.current_version_id,
            Story.published_version_id,
            Story.deleted_at,
        )
        .join(Story, and_(Story.tenant_id == StoryVersion.tenant_id, Story.id == StoryVersion.story_id))
        .where(StoryVersion.tenant_id == session.tenant_id, StoryVersion.id == version_id)
        .with_for_update(of=Story)
    )
    return (await session.execute(statement)).first()


async def bind_approval(session: WriteSession, version_id: UUID, approval_id: UUID, content_hash: str) -> None:
    """Makes the version one whose content is approved."""
    await _write_approval(session, [version_id], approval_id=approval_id, approved_hash=content_hash)


async def unbind_approvals(session: WriteSession, version_ids: Collection[UUID]) -> None:
    """Takes back the approvals of versions."""
    if version_ids:
        await _write_approval(session, version_ids, approval_id=None, approved_hash=None)


async def _write_approval(session: WriteSession, version_ids: Collection[UUID], **values: Any) -> None:
    statement = (
        update(StoryVersion)
        .where(StoryVersion.tenant_id == session.tenant_id, StoryVersion.id.in_(version_ids))
        .values(values)
        .execution_options(synchronize_session=False)
    )
    await session.execute(statement)


async def list_shares(session: ReadSession, version_id: UUID) -> list[Share]:
    """How much of each part of speech the version has woven in, in their order."""
    statement = (
        select(ClozeConfig.part_of_speech, ClozeConfig.occurrences, ClozeConfig.woven, ClozeConfig.target)
        .where(ClozeConfig.tenant_id == session.tenant_id, ClozeConfig.version_id == version_id)
        .order_by(ClozeConfig.part_of_speech)
    )
    return [
        Share.of(row.part_of_speech, row.occurrences, row.woven, row.target) for row in await session.execute(statement)
    ]


# A long story has some ten thousand chunks, and a statement for each would take seconds. One of this length leaves the
# connection to others' heartbeats and stays far below its timeout.
CHUNKS_AT_ONCE = 10_000
INSERT_CHUNKS = """
INSERT INTO content.story_chunks (tenant_id, version_id, position, kind, text, source, vocabulary_id)
SELECT $1, chunk.* FROM unnest($2::uuid[], $3::int[], $4::text[], $5::text[], $6::text[], $7::uuid[]) AS chunk
"""


async def insert_chunks(session: WriteSession, made: Iterable[tuple[UUID, Draft]]) -> None:
    """Writes the chunks of versions, by the ids of these."""
    rows = ((version_id, *_chunk_values(chunk)) for version_id, draft in made for chunk in draft.chunks)
    while some := list(islice(rows, CHUNKS_AT_ONCE)):
        await session.fetch(INSERT_CHUNKS, *map(list, zip(*some, strict=True)))


def _chunk_values(chunk: Chunk) -> tuple[Any, ...]:
    """Position, kind, text, source and word, as they are stored."""
    vocabulary_id = UUID(chunk.vocabulary_id) if chunk.vocabulary_id else None
    return chunk.position + 1, chunk.kind, chunk.text, chunk.source if chunk.kind == "chem" else "", vocabulary_id


async def insert_versions(session: WriteSession, made: Sequence[tuple[StoryVersion, Draft]]) -> None:
    """Writes versions with their chunks and cloze configs, in few statements."""
    for version, _ in made:
        session.add(version)
    await session.flush()
    await insert_chunks(session, ((version.id, draft) for version, draft in made))
    shares = [
        {
            "tenant_id": session.tenant_id,
            "version_id": version.id,
            "part_of_speech": share.part_of_speech,
            "target": share.target,
            "occurrences": share.occurrences,
            "woven": share.woven,
        }
        for version, draft in made
        for share in draft.shares
    ]
    if shares:
        await execute_for_each(session, insert(ClozeConfig), shares)
