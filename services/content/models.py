"""The tables of the content service."""

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
    Text,
    UniqueConstraint,
    Uuid,
    func,
)
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import JSONB, ExcludeConstraint
from sqlalchemy.orm import Mapped, mapped_column

from kit.models import Base as KitBase
from kit.models import Resource, SoftDeleted, TenantRow, Timed, metadata, now
from storyloom.content.v1 import courses_pb2, lessons_pb2, stories_pb2, units_pb2, vocabularies_pb2

UNDELETED = sql("deleted_at IS NULL")
PARTS_OF_SPEECH = (
    "part_of_speech IN ('noun', 'verb', 'adjective', 'adverb', 'pronoun', 'preposition', 'conjunction',"
    " 'interjection', 'phrase')"
)


class Base(KitBase):
    """Base of the tables in the schema `content`."""

    __abstract__ = True
    metadata = metadata("content")


def one_per_place(table: str, parent: str) -> ExcludeConstraint:
    """No two undeleted rows of a parent share a position at the end of a transaction.

    Rows that are moved on pass through each other's places, which a unique index forbids, and a unique constraint,
    which could wait, cannot leave out the deleted.
    """
    return ExcludeConstraint(
        ("tenant_id", "="),
        (parent, "="),
        ("position", "="),
        using="btree",
        where=UNDELETED,
        deferrable=True,
        initially="DEFERRED",
        name=f"ex_{table}_position",
    )


class Course(Resource, SoftDeleted, Base):
    """The outermost part of a tenant's teaching material."""

    __tablename__ = "courses"
    __resource__ = "course"
    __message__ = courses_pb2.Course.DESCRIPTOR
    title: Mapped[str]
    description: Mapped[str]
    story_language: Mapped[str]
    learning_language: Mapped[str]
    status: Mapped[str] = mapped_column(default="draft")
    author_id: Mapped[UUID]
    __table_args__ = (CheckConstraint("status IN ('draft', 'published', 'archived')", name="status"),)


Index("ix_courses_tenant_id_title", Course.tenant_id, func.lower(Course.title), Course.id)


class Unit(Resource, SoftDeleted, Base):
    """A chapter of a course."""

    __tablename__ = "units"
    __resource__ = "unit"
    __message__ = units_pb2.Unit.DESCRIPTOR
    course_id: Mapped[UUID]
    title: Mapped[str]
    description: Mapped[str]
    position: Mapped[int]
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "course_id"], [Course.tenant_id, Course.id]),
        UniqueConstraint("tenant_id", "course_id", "id"),
        CheckConstraint("position > 0", name="position"),
        one_per_place("units", "course_id"),
    )


class Lesson(Resource, SoftDeleted, Base):
    """A lesson of a unit. The course is here too so that keys can prove that prerequisites stay within it."""

    __tablename__ = "lessons"
    __resource__ = "lesson"
    __message__ = lessons_pb2.Lesson.DESCRIPTOR
    unit_id: Mapped[UUID]
    course_id: Mapped[UUID]
    title: Mapped[str]
    description: Mapped[str]
    position: Mapped[int]
    status: Mapped[str] = mapped_column(default="draft")
    approval_id: Mapped[UUID | None] = mapped_column(default=None)
    approved_hash: Mapped[str | None] = mapped_column(default=None)
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "course_id", "unit_id"], [Unit.tenant_id, Unit.course_id, Unit.id]),
        UniqueConstraint("tenant_id", "course_id", "id"),
        Index(None, "tenant_id", "course_id", "unit_id"),
        CheckConstraint("position > 0", name="position"),
        CheckConstraint("status IN ('draft', 'published')", name="status"),
        one_per_place("lessons", "unit_id"),
    )


class LessonAuthor(TenantRow, Timed, Base):
    """Somebody who wrote title or description of a lesson, last when the row was last changed."""

    __tablename__ = "lesson_authors"
    lesson_id: Mapped[UUID]
    user_id: Mapped[UUID]
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "lesson_id"], [Lesson.tenant_id, Lesson.id]),
        UniqueConstraint("tenant_id", "lesson_id", "user_id"),
    )


class LessonPrerequisite(TenantRow, Timed, Base):
    """A lesson to be completed before another one of the same course."""

    __tablename__ = "lesson_prerequisites"
    course_id: Mapped[UUID]
    lesson_id: Mapped[UUID]
    prerequisite_id: Mapped[UUID]
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "course_id", "lesson_id"], [Lesson.tenant_id, Lesson.course_id, Lesson.id]),
        ForeignKeyConstraint(
            ["tenant_id", "course_id", "prerequisite_id"], [Lesson.tenant_id, Lesson.course_id, Lesson.id]
        ),
        UniqueConstraint("tenant_id", "course_id", "lesson_id", "prerequisite_id", name="uq_lesson_prerequisites_pair"),
        Index(None, "tenant_id", "course_id", "prerequisite_id"),
        CheckConstraint("lesson_id <> prerequisite_id", name="itself"),
    )


class Story(Resource, SoftDeleted, Base):
    """A story; its text is in its versions, and its title is that of the current one.

    `vocabulary_ids` is a choice among the tenant's words, empty for all: a word deleted later merely drops out.
    """

    __tablename__ = "stories"
    __resource__ = "story"
    __message__ = stories_pb2.Story.DESCRIPTOR
    title: Mapped[str]
    language: Mapped[str]
    learning_language: Mapped[str]
    lesson_id: Mapped[UUID | None]
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
        CheckConstraint("status IN ('draft', 'published', 'archived')", name="status"),
        CheckConstraint("status <> 'published' OR published_version_id IS NOT NULL", name="published"),
    )


Index("ix_stories_tenant_id_title", Story.tenant_id, func.lower(Story.title), Story.id)


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


class Vocabulary(Resource, SoftDeleted, Base):
    """A word or phrase with its translation, in one of its senses. `term_key` is the term as spellings are compared."""

    __tablename__ = "vocabularies"
    __resource__ = "vocabulary"
    __message__ = vocabularies_pb2.Vocabulary.DESCRIPTOR
    term: Mapped[str]
    term_key: Mapped[str]
    translation: Mapped[str]
    part_of_speech: Mapped[str]
    sense: Mapped[int]
    level: Mapped[str]
    explanation: Mapped[str]
    forms: Mapped[list[str]] = mapped_column(ARRAY(Text))
    language: Mapped[str]
    learning_language: Mapped[str]
    __table_args__ = (
        Index(
            "ix_vocabularies_one_sense",
            "tenant_id",
            "language",
            "learning_language",
            "term_key",
            "part_of_speech",
            "sense",
            unique=True,
            postgresql_where=UNDELETED,
        ),
        Index(None, "tenant_id", "term_key", "id"),
        CheckConstraint(PARTS_OF_SPEECH, name="part_of_speech"),
        CheckConstraint("sense BETWEEN 1 AND 100", name="sense"),
    )


class CourseAccess(TenantRow, Timed, Base):
    """Projection of learning's enrolments, by their ids: a learner may have several of one course, one after another,
    and their events may arrive in any order."""

    __tablename__ = "course_access"
    user_id: Mapped[UUID]
    course_id: Mapped[UUID]
    active: Mapped[bool]
    __table_args__ = (Index(None, "tenant_id", "user_id", postgresql_where=sql("active")),)


class TenantSettings(TenantRow, Timed, Base):
    """Projection of what identity says of the tenant; the id is the tenant's."""

    __tablename__ = "tenant_settings"
    story_language: Mapped[str]
    learning_language: Mapped[str]
    approval_required: Mapped[bool]
