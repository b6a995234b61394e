"""Courses and what they are made of."""

from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from kit.models import Resource, SoftDeleted, TenantRow, Timed
from services.content.models.base import Base, one_per_place, title_key
from storyloom.content.v1 import courses_pb2, lessons_pb2, units_pb2


class Course(Resource, SoftDeleted, Base):
    """The outermost part of a tenant's teaching material."""

    __tablename__ = "courses"
    __resource__ = "course"
    __message__ = courses_pb2.Course.DESCRIPTOR
    title: Mapped[str]
    title_key: Mapped[str] = title_key()
    description: Mapped[str]
    story_language: Mapped[str]
    learning_language: Mapped[str]
    status: Mapped[str] = mapped_column(default="draft")
    author_id: Mapped[UUID]
    __table_args__ = (
        CheckConstraint("status IN ('draft', 'published', 'archived')", name="status"),
        Index(None, "tenant_id", "title_key", "id"),
    )


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
