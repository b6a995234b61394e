"""What other services tell: `lesson_index` and `course_index` mirror content."""

from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, Index, Uuid, text
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
