"""Statements on the versions of stories, their chunks and cloze configs."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Integer, Text, Uuid, and_, bindparam, column, func, insert, select, update

from kit.db import ReadSession, WriteSession
from kit.errors import NotFound
from kit.pagination import Page
from services.content.models import Base, ClozeConfig, Story, StoryVersion
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
    row = (await session.execute(statement)).first()
    if row is None:
        raise NotFound("story_version")
    return row


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
    statement = select(
        StoryVersion.id,
        StoryVersion.story_id,
        StoryVersion.number,
        StoryVersion.title,
        StoryVersion.text,
        StoryVersion.annotations,
        StoryVersion.seed,
        StoryVersion.paragraphs,
        StoryVersion.content_hash,
        StoryVersion.approval_id,
        StoryVersion.approved_hash,
        StoryVersion.pinned_vocabulary_ids,
        StoryVersion.banned_vocabulary_ids,
    ).where(
        StoryVersion.tenant_id == session.tenant_id,
        StoryVersion.story_id == story_id,
        StoryVersion.id == version_id,
    )
    row = (await session.execute(statement)).first()
    if row is None:
        raise NotFound("story_version")
    return row


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


# One statement with arrays: a long story has some ten thousand chunks, and a statement for each would take seconds.
CHUNK_COLUMNS: Mapping[str, Any] = {
    "position": Integer,
    "kind": Text,
    "text": Text,
    "source": Text,
    "vocabulary_id": Uuid,
}
CHUNKS = (
    func.unnest(*(bindparam(f"{name}s", type_=ARRAY(kind)) for name, kind in CHUNK_COLUMNS.items()))
    .table_valued(*(column(name, kind) for name, kind in CHUNK_COLUMNS.items()), name="chunk")
    .render_derived()
)
INSERT_CHUNKS = insert(Base.metadata.tables["content.story_chunks"]).from_select(
    ["tenant_id", "version_id", *CHUNK_COLUMNS],
    select(bindparam("tenant_id", type_=Uuid), bindparam("version_id", type_=Uuid), *CHUNKS.c),
    include_defaults=False,
)


async def insert_version(session: WriteSession, version: StoryVersion, draft: Draft) -> None:
    """Writes the version, its chunks and its cloze configs."""
    session.add(version)
    await session.flush()
    await insert_chunks(session, version.id, draft.chunks)
    keys: dict[str, Any] = {"tenant_id": session.tenant_id, "version_id": version.id}
    if draft.shares:
        shares = [keys | share_values(share) for share in draft.shares]
        await execute_for_each(session, insert(ClozeConfig), shares)


def share_values(share: Share) -> dict[str, Any]:
    """The columns of a cloze config, but for whose it is."""
    return {
        "part_of_speech": share.part_of_speech,
        "target": share.target,
        "occurrences": share.occurrences,
        "woven": share.woven,
    }


async def insert_chunks(session: WriteSession, version_id: UUID, chunks: Sequence[Chunk]) -> None:
    """Writes the chunks of a version."""
    keys = {"tenant_id": session.tenant_id, "version_id": version_id}
    await session.execute(INSERT_CHUNKS, keys | _columns_of(chunks))


def _columns_of(chunks: Sequence[Chunk]) -> dict[str, list[Any]]:
    rows = list(map(chunk_values, chunks))
    return {f"{name}s": [row[place] for row in rows] for place, name in enumerate(CHUNK_COLUMNS)}


def chunk_values(chunk: Chunk) -> tuple[Any, ...]:
    """The columns of a chunk, in the order of CHUNK_COLUMNS."""
    vocabulary_id = UUID(chunk.vocabulary_id) if chunk.vocabulary_id else None
    return chunk.position + 1, chunk.kind, chunk.text, chunk.source if chunk.kind == "chem" else "", vocabulary_id
