"""Tags, what bears them, and what searches look into."""

from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, UniqueConstraint
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from kit.models import Resource, SoftDeleted, TenantRow, Timed
from services.content.models.base import UNDELETED, Base
from services.content.models.hierarchy import Course, Lesson
from services.content.models.stories import Story
from storyloom.content.v1 import tags_pb2


class Tag(Resource, SoftDeleted, Base):
    """What a tenant sorts its material by. `name_key` is the name as spellings are compared.

    What bears a deleted tag goes on bearing it, unseen, so that it can come back.
    """

    __tablename__ = "tags"
    __resource__ = "tag"
    __message__ = tags_pb2.Tag.DESCRIPTOR
    name: Mapped[str]
    name_key: Mapped[str]
    __table_args__ = (
        Index("ix_tags_one_name", "tenant_id", "name_key", unique=True, postgresql_where=UNDELETED),
    )


class CourseTag(TenantRow, Timed, Base):
    """A course and a tag of it."""

    __tablename__ = "course_tags"
    course_id: Mapped[UUID]
    tag_id: Mapped[UUID]
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "course_id"], [Course.tenant_id, Course.id], ondelete="CASCADE"),
        ForeignKeyConstraint(["tenant_id", "tag_id"], [Tag.tenant_id, Tag.id], ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "course_id", "tag_id"),
        Index(None, "tenant_id", "tag_id", "course_id"),
    )


class LessonTag(TenantRow, Timed, Base):
    """A lesson and a tag of it."""

    __tablename__ = "lesson_tags"
    lesson_id: Mapped[UUID]
    tag_id: Mapped[UUID]
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "lesson_id"], [Lesson.tenant_id, Lesson.id], ondelete="CASCADE"),
        ForeignKeyConstraint(["tenant_id", "tag_id"], [Tag.tenant_id, Tag.id], ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "lesson_id", "tag_id"),
        Index(None, "tenant_id", "tag_id", "lesson_id"),
    )


class StoryTag(TenantRow, Timed, Base):
    """A story and a tag of it."""

    __tablename__ = "story_tags"
    story_id: Mapped[UUID]
    tag_id: Mapped[UUID]
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "story_id"], [Story.tenant_id, Story.id], ondelete="CASCADE"),
        ForeignKeyConstraint(["tenant_id", "tag_id"], [Tag.tenant_id, Tag.id], ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "story_id", "tag_id"),
        Index(None, "tenant_id", "tag_id", "story_id"),
    )


def _gin(column: str, operators: str = "") -> Index:
    classes = {"tenant_id": "extensions.uuid_ops"} | ({column: operators} if operators else {})
    return Index(None, "tenant_id", column, postgresql_using="gin", postgresql_ops=classes)


class SearchDocument(TenantRow, Base):
    """What can be found of a story, course, lesson or vocabulary, whose id it has. Triggers keep it.

    `words` are a tsvector without positions: each word of title and text without accents, and as it is spelled with `=`
    before it; those of the title alone again, with `^` before them. `published_…` are of a story's published version,
    where that is not the current one.
    """

    __tablename__ = "search_documents"
    kind: Mapped[str]
    title_key: Mapped[str]
    words: Mapped[str] = mapped_column(TSVECTOR)
    published_title_key: Mapped[str | None]
    published_words: Mapped[str | None] = mapped_column(TSVECTOR)
    __table_args__ = (
        CheckConstraint("kind IN ('story', 'course', 'lesson', 'vocabulary')", name="kind"),
        _gin("words"),
        _gin("published_words"),
        _gin("title_key", "extensions.gin_trgm_ops"),
        _gin("published_title_key", "extensions.gin_trgm_ops"),
    )
