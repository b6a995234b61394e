"""Statements on recordings, the files on their way to them, and when their chunks are heard."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, insert, or_, select

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import existing
from kit.ids import new_id
from kit.pagination import Page
from services.content.models import Audio, AudioUpload, ChunkTimestamp, Story, StoryChunk, Vocabulary
from services.content.queries.bulk import execute_for_each
from storyloom.content.v1.audios_pb2 import ListAudiosRequest

Times = Sequence[tuple[int, timedelta, timedelta]]

# With what the recording is of: where the story has got to, and whether either is still there.
COLUMNS: Any = (
    select(
        *Audio.__table__.columns,
        Story.current_version_id,
        Story.published_version_id,
        Story.id.label("of_story"),
        Vocabulary.id.label("of_vocabulary"),
    )
    .outerjoin(
        Story,
        and_(Story.tenant_id == Audio.tenant_id, Story.id == Audio.story_id, Story.deleted_at.is_(None)),
    )
    .outerjoin(
        Vocabulary,
        and_(
            Vocabulary.tenant_id == Audio.tenant_id,
            Vocabulary.id == Audio.vocabulary_id,
            Vocabulary.deleted_at.is_(None),
        ),
    )
)


async def get_audio(session: ReadSession, audio_id: UUID, *, deleted: bool = False) -> Any:
    """The recording's columns, and of its story which versions are current and published."""
    row = (
        await session.execute(COLUMNS.where(Audio.tenant_id == session.tenant_id, Audio.id == audio_id))
    ).first()
    return existing(row, "audio", also_deleted=deleted)


async def list_audios(session: ReadSession, request: ListAudiosRequest, status: str, page: Page) -> Sequence[Any]:
    """One row more than the page holds, of the recordings that the caller may hear."""
    statement = COLUMNS.where(
        Audio.tenant_id == session.tenant_id, Audio.deleted_at.is_(None), visible("list", Audio), _of_what_is_seen()
    )
    for column, wanted in (
        (Audio.story_id, request.story_id),
        (Audio.version_id, request.version_id),
        (Audio.vocabulary_id, request.vocabulary_id),
    ):
        if wanted:
            statement = statement.where(column == UUID(wanted))
    if status:
        statement = statement.where(Audio.status == status)
    statement = page.apply(statement, Audio.id, descending=request.order_by != "create_time")
    return (await session.execute(statement)).all()


def _of_what_is_seen() -> ColumnElement[bool]:
    """What `audios._check_seen` lets through: who may not change a story sees its published version only."""
    version = or_(Audio.version_id == Story.published_version_id, visible("update", Story))
    return or_(and_(Story.id.is_not(None), visible("read", Story), version), and_(
        Vocabulary.id.is_not(None), visible("read", Vocabulary)
    ))  # fmt: skip


async def lock_audio(session: WriteSession, audio_id: UUID, *, deleted: bool = False) -> Audio:
    statement = select(Audio).where(Audio.tenant_id == session.tenant_id, Audio.id == audio_id).with_for_update()
    found: Audio | None = await session.scalar(statement)
    return existing(found, "audio", also_deleted=deleted)


async def find_upload(session: ReadSession, audio_id: UUID) -> Any:
    """The file that is on its way, or None."""
    statement = select(*AudioUpload.__table__.columns).where(
        AudioUpload.tenant_id == session.tenant_id, AudioUpload.audio_id == audio_id
    )
    return (await session.execute(statement)).first()


async def delete_upload(session: WriteSession, audio_id: UUID) -> str:
    """Ends the upload, whichever there is; the key of its file, or '' if there was none."""
    statement = delete(AudioUpload).where(AudioUpload.tenant_id == session.tenant_id, AudioUpload.audio_id == audio_id)
    return (await session.execute(statement.returning(AudioUpload.storage_key))).scalar() or ""


async def list_times(session: ReadSession, audio_id: UUID) -> Times:
    """When the chunks are heard: position, beginning and end of each, in their order."""
    statement = (
        select(ChunkTimestamp.position, ChunkTimestamp.start_offset, ChunkTimestamp.end_offset)
        .where(ChunkTimestamp.tenant_id == session.tenant_id, ChunkTimestamp.audio_id == audio_id)
        .order_by(ChunkTimestamp.position)
    )
    return [(row.position, row.start_offset, row.end_offset) for row in await session.execute(statement)]


async def replace_times(session: WriteSession, audio_id: UUID, version_id: UUID | None, times: Times) -> None:
    """Makes these the times of the recording's chunks."""
    await _delete(session, ChunkTimestamp, ChunkTimestamp.audio_id == audio_id)
    if times:
        keys = {"tenant_id": session.tenant_id, "audio_id": audio_id, "version_id": version_id}
        rows = [
            {**keys, "id": new_id(), "position": position, "start_offset": start, "end_offset": end}
            for position, start, end in times
        ]
        await execute_for_each(session, insert(ChunkTimestamp), rows)


async def list_chunks(session: ReadSession, version_id: UUID | None) -> Sequence[Any]:
    """Position, kind and text of the version's chunks, in their order."""
    statement = (
        select(StoryChunk.position, StoryChunk.kind, StoryChunk.text)
        .where(StoryChunk.tenant_id == session.tenant_id, StoryChunk.version_id == version_id)
        .order_by(StoryChunk.position)
    )
    return (await session.execute(statement)).all()


async def delete_parts(session: WriteSession, *which: ColumnElement[bool]) -> None:
    """Removes what belongs to these recordings."""
    ids = select(Audio.id).where(Audio.tenant_id == session.tenant_id, *which)
    for part in (ChunkTimestamp, AudioUpload):
        await _delete(session, part, part.audio_id.in_(ids))


async def _delete(session: WriteSession, model: Any, *which: ColumnElement[bool]) -> None:
    statement = delete(model).where(model.tenant_id == session.tenant_id, *which)
    await session.execute(statement.execution_options(synchronize_session=False))


async def find_used(session: ReadSession, keys: Sequence[str]) -> set[str]:
    """Which of these files recordings of the tenant have."""
    statement = select(Audio.storage_key).where(Audio.tenant_id == session.tenant_id, Audio.storage_key.in_(keys))
    return set((await session.execute(statement)).scalars())
