"""Statements of the jobs that bring old rows up to what new ones have."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, exists, func, select, update

from kit.db import ReadSession, WriteSession
from services.content.models import Story, StoryChunk, StoryVersion
from services.content.queries.story_versions import SOURCE


def _without_chunks() -> ColumnElement[bool]:
    mine = and_(StoryChunk.tenant_id == StoryVersion.tenant_id, StoryChunk.version_id == StoryVersion.id)
    return ~exists().where(mine)


async def count_without_chunks(session: ReadSession) -> int:
    """How many versions of the tenant have no chunks."""
    statement = select(func.count()).where(StoryVersion.tenant_id == session.tenant_id, _without_chunks())
    return int(await session.scalar(statement))


async def list_without_chunks(session: WriteSession, after: UUID, most: int) -> Sequence[Any]:
    """The next versions without chunks, with the language of their stories; nobody else changes them meanwhile."""
    statement = (
        select(*SOURCE, StoryVersion.author_id, StoryVersion.created_at, Story.language)
        .join(Story, and_(Story.tenant_id == StoryVersion.tenant_id, Story.id == StoryVersion.story_id))
        .where(StoryVersion.tenant_id == session.tenant_id, StoryVersion.id > after, _without_chunks())
        .order_by(StoryVersion.id)
        .limit(most)
        .with_for_update(of=StoryVersion)
    )
    return (await session.execute(statement)).all()


async def write_messages(session: WriteSession, version_id: UUID, summary: bytes, body: bytes) -> None:
    """Replaces what was serialised of a version."""
    statement = (
        update(StoryVersion)
        .where(StoryVersion.tenant_id == session.tenant_id, StoryVersion.id == version_id)
        .values(summary=summary, body=body)
        .execution_options(synchronize_session=False)
    )
    await session.execute(statement)
