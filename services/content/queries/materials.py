"""Statements that read a course with everything in it, and find what a tenant has of that already."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import and_, func, or_, select

from kit.access import visible
from kit.db import ReadSession, WriteSession
from services.content.material import MOST
from services.content.models import (
    Audio,
    ChunkTimestamp,
    ClozeConfig,
    CourseOrigin,
    Lesson,
    Story,
    StoryOrigin,
    StoryVersion,
    Tag,
    Unit,
    Vocabulary,
)
from services.content.queries import lessons, units, vocabularies
from services.content.queries.story_versions import SOURCE
from services.content.queries.tags import JOINS


async def hold_still(session: ReadSession) -> None:
    """Lets every statement of the transaction see the same state. Only before the first of them."""
    await session.driver.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")


async def list_units(session: ReadSession, course_id: UUID) -> Sequence[Any]:
    """All units of the course in their order."""
    statement = select(*units.COLUMNS).where(
        Unit.tenant_id == session.tenant_id, Unit.course_id == course_id, Unit.deleted_at.is_(None)
    )
    return (await session.execute(statement.order_by(Unit.position, Unit.id))).all()


async def list_lessons(session: ReadSession, course_id: UUID) -> Sequence[Any]:
    """All lessons of the course, in the order of their units and their own."""
    statement = (
        select(*lessons.COLUMNS)
        .join(Unit, and_(Unit.tenant_id == Lesson.tenant_id, Unit.id == Lesson.unit_id))
        .where(Lesson.tenant_id == session.tenant_id, Lesson.course_id == course_id, Lesson.deleted_at.is_(None))
        .order_by(Unit.position, Lesson.position, Lesson.id)
    )
    return (await session.execute(statement)).all()


async def list_stories(session: ReadSession, lesson_ids: Collection[UUID]) -> Sequence[Any]:
    """All stories of the lessons, those of each in their order."""
    statement = select(*Story.__table__.c).where(
        Story.tenant_id == session.tenant_id, Story.lesson_id.in_(lesson_ids), Story.deleted_at.is_(None)
    )
    return (await session.execute(statement.order_by(Story.lesson_id, Story.position, Story.id))).all()


async def measure(session: ReadSession, version_ids: Collection[UUID]) -> Mapping[str, int]:
    """How much there is in the versions, before it is read."""
    statement = select(
        func.coalesce(func.sum(func.octet_length(StoryVersion.text)), 0).label("text"),
        func.coalesce(func.sum(func.jsonb_array_length(StoryVersion.annotations)), 0).label("annotations"),
    ).where(StoryVersion.tenant_id == session.tenant_id, StoryVersion.id.in_(version_ids))
    row = (await session.execute(statement)).one()
    return {"bytes of text": int(row.text), "woven words": int(row.annotations)}


async def list_versions(session: ReadSession, version_ids: Collection[UUID]) -> Mapping[UUID, Any]:
    """What the versions are made of, by their ids."""
    statement = select(*SOURCE).where(
        StoryVersion.tenant_id == session.tenant_id, StoryVersion.id.in_(version_ids)
    )
    return {row.id: row for row in await session.execute(statement)}


async def list_shares(session: ReadSession, version_ids: Collection[UUID]) -> Mapping[UUID, list[Any]]:
    """How much of each part of speech the versions have woven in, by their ids."""
    statement = select(
        ClozeConfig.version_id,
        ClozeConfig.part_of_speech,
        ClozeConfig.target,
        ClozeConfig.occurrences,
        ClozeConfig.woven,
    ).where(ClozeConfig.tenant_id == session.tenant_id, ClozeConfig.version_id.in_(version_ids))
    found: dict[UUID, list[Any]] = {}
    for row in await session.execute(statement):
        found.setdefault(row.version_id, []).append(row)
    return found


async def list_words(session: ReadSession, vocabulary_ids: Collection[UUID]) -> Sequence[Any]:
    """These words, deleted ones too: what is woven in stays when its word goes."""
    statement = select(*vocabularies.COLUMNS).where(
        Vocabulary.tenant_id == session.tenant_id, Vocabulary.id.in_(vocabulary_ids)
    )
    return (await session.execute(statement)).all()


async def list_recordings(
    session: ReadSession, version_ids: Collection[UUID], vocabulary_ids: Collection[UUID]
) -> Sequence[Any]:
    """Those of these versions and words that have a file."""
    statement = select(*Audio.__table__.c).where(
        Audio.tenant_id == session.tenant_id,
        or_(Audio.version_id.in_(version_ids), Audio.vocabulary_id.in_(vocabulary_ids)),
        Audio.storage_key.is_not(None),
        Audio.deleted_at.is_(None),
    )
    return (await session.execute(statement)).all()


async def list_times(session: ReadSession, audio_ids: Collection[UUID]) -> Mapping[UUID, list[Any]]:
    """When chunks are heard in these recordings, in their order, by the ids of the recordings."""
    statement = select(
        ChunkTimestamp.audio_id, ChunkTimestamp.position, ChunkTimestamp.start_offset, ChunkTimestamp.end_offset
    ).where(ChunkTimestamp.tenant_id == session.tenant_id, ChunkTimestamp.audio_id.in_(audio_ids))
    found: dict[UUID, list[Any]] = {}
    for row in await session.execute(statement.order_by(ChunkTimestamp.position)):
        found.setdefault(row.audio_id, []).append(row)
    return found


async def list_tags(session: ReadSession, kind: str, bearer_ids: Collection[UUID]) -> Mapping[UUID, list[Any]]:
    """The tags that the caller may see, in their order, by the ids of the courses, lessons or stories."""
    join, bearer = JOINS[kind]
    statement = (
        select(bearer.label("bearer_id"), Tag.id, Tag.name, Tag.name_key)
        .join(Tag, and_(Tag.tenant_id == join.tenant_id, Tag.id == join.tag_id))
        .where(
            join.tenant_id == session.tenant_id,
            bearer.in_(bearer_ids),
            Tag.deleted_at.is_(None),
            visible("read", Tag),
        )
        .order_by(Tag.name_key, Tag.id)
    )
    found: dict[UUID, list[Any]] = {}
    for row in await session.execute(statement):
        found.setdefault(row.bearer_id, []).append(row)
    return found


async def find_tags(session: ReadSession, keys: Collection[str]) -> Mapping[str, UUID]:
    """The tenant's tags of these names, as spellings are compared."""
    statement = select(Tag.id, Tag.name_key).where(
        Tag.tenant_id == session.tenant_id, Tag.name_key.in_(keys), Tag.deleted_at.is_(None)
    )
    return {row.name_key: row.id for row in await session.execute(statement)}


async def keep_files(session: WriteSession, keys: Collection[str]) -> set[str]:
    """Those of the files that a recording has; that has it until this transaction ends."""
    statement = select(Audio.storage_key).where(Audio.tenant_id == session.tenant_id, Audio.storage_key.in_(keys))
    return set((await session.execute(statement.with_for_update(read=True))).scalars())


async def find_origin(session: ReadSession, course_id: UUID) -> Any:
    """Where the course comes from, or None."""
    statement = select(*CourseOrigin.__table__.c).where(
        CourseOrigin.tenant_id == session.tenant_id, CourseOrigin.course_id == course_id
    )
    return (await session.execute(statement)).first()


async def list_story_origins(session: ReadSession, course_id: UUID) -> Sequence[Any]:
    """Where those of the course's stories that the caller may see come from, in their order."""
    statement = (
        select(*StoryOrigin.__table__.c)
        .join(Story, and_(Story.tenant_id == StoryOrigin.tenant_id, Story.id == StoryOrigin.story_id))
        .join(Lesson, and_(Lesson.tenant_id == Story.tenant_id, Lesson.id == Story.lesson_id))
        .join(Unit, and_(Unit.tenant_id == Lesson.tenant_id, Unit.id == Lesson.unit_id))
        .where(
            StoryOrigin.tenant_id == session.tenant_id,
            Lesson.course_id == course_id,
            Story.deleted_at.is_(None),
            visible("list", Story),
        )
        .order_by(Unit.position, Lesson.position, Story.position, StoryOrigin.id)
        .limit(MOST["stories"])
    )
    return (await session.execute(statement)).all()
