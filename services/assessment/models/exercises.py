"""Exercises: something to read, that questions are about."""

from uuid import UUID

from sqlalchemy import CheckConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from kit.models import Resource, SoftDeleted
from services.assessment.models.base import Base
from storyloom.assessment.v1 import exercises_pb2


class Exercise(Resource, SoftDeleted, Base):
    """Questions name it in their versions, which are never changed: so no foreign key does."""

    __tablename__ = "exercises"
    __resource__ = "exercise"
    __message__ = exercises_pb2.Exercise.DESCRIPTOR
    __table_args__ = (
        CheckConstraint("status IN ('draft', 'published', 'archived')", name="status"),
        Index(None, "tenant_id", "lesson_id", "id"),
    )

    title: Mapped[str]
    instructions: Mapped[str] = mapped_column(default="")
    passage: Mapped[str] = mapped_column(default="")
    lesson_id: Mapped[UUID | None]
    status: Mapped[str] = mapped_column(default="draft")
    author_id: Mapped[UUID]
