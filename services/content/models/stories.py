"""Stories, their versions and the pieces of these."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from kit.models import Resource, SoftDeleted, TenantRow, now
from services.content.models.base import PARTS_OF_SPEECH, Base, one_per_place, title_key
from services.content.models.hierarchy import Lesson
from storyloom.content.v1 import stories_pb2


class Story(Resource, SoftDeleted, Base):
    """A story; its text is in its versions, and its title is that of the current one.

    `vocabulary_ids` is a choice among the tenant's words, empty for all: a word deleted later merely drops out.
    """

    __tablename__ = "stories"
    __resource__ = "story"
    __message__ = stories_pb2.Story.DESCRIPTOR
    title: Mapped[str]
    title_key: Mapped[str] = title_key()
    language: Mapped[str]
    learning_language: Mapped[str]
    lesson_id: Mapped[UUID | None]
    position: Mapped[int | None]
    vocabulary_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    author_id: Mapped[UUID]
    status: Mapped[str] = mapped_column(default="draft")
    current_version_id: Mapped[UUID]
    published_version_id: Mapped[UUID | None]
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "lesson_id"], [Lesson.tenant_id, Lesson.id]),
        # Story and first version point at each other: the keys are checked when both are there.
        ForeignKeyConstraint(
            ["tenant_id", "id", "current_version_id"],
            ["content.story_versions.tenant_id", "content.story_versions.story_id", "content.story_versions.id"],
            name="fk_stories_current_version",
            deferrable=True,
            initially="DEFERRED",
            use_alter=True,
        ),
        ForeignKeyConstraint(
            ["tenant_id", "id", "published_version_id"],
            ["content.story_versions.tenant_id", "content.story_versions.story_id", "content.story_versions.id"],
            name="fk_stories_published_version",
            use_alter=True,
        ),
        Index(None, "tenant_id", "lesson_id", "id"),
        Index(None, "tenant_id", "title_key", "id"),
        CheckConstraint("status IN ('draft', 'published', 'archived')", name="status"),
        CheckConstraint("status <> 'published' OR published_version_id IS NOT NULL", name="published"),
        CheckConstraint("position > 0", name="position"),
        CheckConstraint("(lesson_id IS NULL) = (position IS NULL)", name="place"),
        one_per_place("stories", "lesson_id"),
    )


class StoryVersion(TenantRow, Base):
    """One state of a story's title and text and of the words woven in; only an approval is ever added.

    `annotations` are [start, end, vocabulary id, replacement, explanation], code points of `text`. Because the rest
    never changes, its message is serialised once, when the version is made: `summary` is what BASIC view shows, `body`
    what FULL view adds, so that reading a story costs one row however many chunks it has. Both can be made again of
    title, text, annotations and cloze_configs.
    """

    __tablename__ = "story_versions"
    story_id: Mapped[UUID]
    number: Mapped[int]
    title: Mapped[str]
    text: Mapped[str]
    annotations: Mapped[list[list[Any]]] = mapped_column(JSONB)
    seed: Mapped[int | None]
    paragraphs: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    pinned_vocabulary_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    banned_vocabulary_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    content_hash: Mapped[str]
    approval_id: Mapped[UUID | None]
    approved_hash: Mapped[str | None]
    author_id: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(default=now, server_default=sql("now()"))
    summary: Mapped[bytes] = mapped_column(LargeBinary)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "story_id"], [Story.tenant_id, Story.id]),
        UniqueConstraint("tenant_id", "story_id", "id"),
        UniqueConstraint("tenant_id", "story_id", "number"),
        CheckConstraint("number > 0", name="number"),
    )


class StoryChunk(TenantRow, Base):
    """A piece of a version's text, as it is shown: derived of text and annotations, ordered, without gaps."""

    __tablename__ = "story_chunks"
    version_id: Mapped[UUID]
    position: Mapped[int]
    kind: Mapped[str]
    text: Mapped[str]
    source: Mapped[str]
    vocabulary_id: Mapped[UUID | None]
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "version_id"], [StoryVersion.tenant_id, StoryVersion.id]),
        UniqueConstraint("tenant_id", "version_id", "position"),
        CheckConstraint("kind IN ('normal', 'chem', 'explain')", name="kind"),
        CheckConstraint("(kind = 'normal') = (vocabulary_id IS NULL)", name="vocabulary_id"),
        CheckConstraint("kind <> 'explain' OR source = ''", name="source"),
    )


class ClozeConfig(TenantRow, Base):
    """The share of a part of speech asked for in a woven version, and what was reached."""

    __tablename__ = "cloze_configs"
    version_id: Mapped[UUID]
    part_of_speech: Mapped[str]
    target: Mapped[Decimal] = mapped_column(Numeric(7, 6))
    occurrences: Mapped[int]
    woven: Mapped[int]
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "version_id"], [StoryVersion.tenant_id, StoryVersion.id]),
        UniqueConstraint("tenant_id", "version_id", "part_of_speech"),
        CheckConstraint(PARTS_OF_SPEECH, name="part_of_speech"),
        CheckConstraint("target BETWEEN 0 AND 1", name="target"),
        CheckConstraint("woven BETWEEN 0 AND occurrences", name="woven"),
    )
