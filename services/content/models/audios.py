"""Recordings, when their chunks are heard, and the files that are kept for them."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Interval,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.orm import Mapped, mapped_column

from kit.models import Resource, SoftDeleted, TenantRow, Timed
from services.content.models.base import Base
from services.content.models.stories import StoryVersion
from services.content.models.vocabularies import Vocabulary
from storyloom.content.v1 import audios_pb2


class Audio(Resource, SoftDeleted, Base):
    """A recording of a version of a story, or of a word. `storage_key` is its file's, once it has one."""

    __tablename__ = "audios"
    __resource__ = "audio"
    __message__ = audios_pb2.Audio.DESCRIPTOR
    story_id: Mapped[UUID | None]
    version_id: Mapped[UUID | None]
    vocabulary_id: Mapped[UUID | None]
    title: Mapped[str]
    language: Mapped[str]
    voice: Mapped[str]
    author_id: Mapped[UUID]
    status: Mapped[str] = mapped_column(default="draft")
    mime_type: Mapped[str] = mapped_column(default="")
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    sha256: Mapped[str] = mapped_column(default="")
    duration: Mapped[timedelta | None] = mapped_column(Interval)
    error: Mapped[str] = mapped_column(default="")
    storage_key: Mapped[str | None]
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "story_id", "version_id"],
            [StoryVersion.tenant_id, StoryVersion.story_id, StoryVersion.id],
        ),
        ForeignKeyConstraint(["tenant_id", "vocabulary_id"], [Vocabulary.tenant_id, Vocabulary.id]),
        Index(None, "tenant_id", "story_id", "version_id", "id"),
        Index(None, "tenant_id", "version_id", "id"),
        Index(None, "tenant_id", "vocabulary_id", "id"),
        Index(None, "tenant_id", "storage_key"),
        CheckConstraint("status IN ('draft', 'processed', 'published')", name="status"),
        CheckConstraint("(story_id IS NULL) = (version_id IS NULL)", name="version_id"),
        CheckConstraint("(story_id IS NULL) <> (vocabulary_id IS NULL)", name="vocabulary_id"),
        CheckConstraint("(status = 'draft') = (storage_key IS NULL)", name="file"),
        CheckConstraint("starts_with(storage_key, tenant_id::text || '/')", name="storage_key"),
    )


class AudioUpload(TenantRow, Timed, Base):
    """The file that is on its way to a recording, as it was announced. Each recording has one at most."""

    __tablename__ = "audio_uploads"
    audio_id: Mapped[UUID]
    mime_type: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    storage_key: Mapped[str]
    expires_at: Mapped[datetime]
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "audio_id"], [Audio.tenant_id, Audio.id]),
        UniqueConstraint("tenant_id", "audio_id"),
        CheckConstraint("starts_with(storage_key, tenant_id::text || '/')", name="storage_key"),
    )


class ChunkTimestamp(TenantRow, Base):
    """From when until when a chunk is heard in a recording of its version."""

    __tablename__ = "chunk_timestamps"
    audio_id: Mapped[UUID]
    version_id: Mapped[UUID]
    position: Mapped[int]
    start_offset: Mapped[timedelta] = mapped_column(Interval)
    end_offset: Mapped[timedelta] = mapped_column(Interval)
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "audio_id"], [Audio.tenant_id, Audio.id]),
        ForeignKeyConstraint(["tenant_id", "version_id"], [StoryVersion.tenant_id, StoryVersion.id]),
        UniqueConstraint("tenant_id", "audio_id", "position"),
        Index(None, "tenant_id", "version_id"),
        CheckConstraint("'0' <= start_offset AND start_offset < end_offset", name="offsets"),
    )


# Files that are, or are about to be, in the storage: written down before their first byte is. When one is due, it is
# looked whether a recording still has it. Read across tenants by one query, so infrastructure without policy.
stored_files = Table(
    "stored_files",
    Base.metadata,
    Column("key", Text, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("due_at", DateTime(timezone=True), nullable=False),
    Index(None, "due_at"),
)
