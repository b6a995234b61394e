"""What other services tell: `lesson_index` and `course_index` mirror content, `graded_attempts` assessment."""

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, Index, Integer, Numeric, Uuid, text
from sqlalchemy.orm import Mapped, mapped_column

from kit.models import TenantRow, Timed
from services.learning.models.base import Base


class IndexedLesson(TenantRow, Timed, Base):
    """What content told of a lesson, whose id is the row's. Prerequisites may be lessons not told of yet."""

    __tablename__ = "lesson_index"
    __table_args__ = (
        CheckConstraint("status IN ('draft', 'published')", name="status"),
        Index(None, "tenant_id", "course_id"),
    )

    course_id: Mapped[UUID]
    unit_id: Mapped[UUID]
    title: Mapped[str]
    status: Mapped[str]
    # 0 until content has told of the place.
    unit_position: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    position: Mapped[int]
    prerequisite_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    deleted: Mapped[bool] = mapped_column(server_default=text("false"))


class IndexedCourse(TenantRow, Timed, Base):
    """What content told of a course, whose id is the row's."""

    __tablename__ = "course_index"
    __table_args__ = (CheckConstraint("status IN ('draft', 'published', 'archived')", name="status"),)

    title: Mapped[str] = mapped_column(server_default="")
    status: Mapped[str]
    deleted: Mapped[bool] = mapped_column(server_default=text("false"))


class GradedAttempt(TenantRow, Timed, Base):
    """The latest result of an attempt, whose id is the row's."""

    __tablename__ = "graded_attempts"
    __table_args__ = (
        Index(None, "tenant_id", "user_id", "grade_time", "id"),
        Index(None, "tenant_id", "grade_time", "id"),
    )

    quiz_id: Mapped[UUID]
    lesson_id: Mapped[UUID | None]
    user_id: Mapped[UUID]
    number: Mapped[int]
    score: Mapped[Decimal] = mapped_column(Numeric)
    max_score: Mapped[Decimal] = mapped_column(Numeric)
    percent: Mapped[Decimal] = mapped_column(Numeric)
    passed: Mapped[bool]
    regraded: Mapped[bool]
    grade_time: Mapped[datetime]
    # Whether the learner may not know: then nothing that they see depends on it.
    score_hidden: Mapped[bool] = mapped_column(server_default=text("false"))
