"""What other services tell."""

from uuid import UUID

from sqlalchemy import (
    Index,
)
from sqlalchemy import text as sql
from sqlalchemy.orm import Mapped

from kit.models import TenantRow, Timed
from services.content.models.base import Base


class CourseAccess(TenantRow, Timed, Base):
    """Projection of learning's enrolments, by their ids: a learner may have several of one course, one after another,
    and their events may arrive in any order."""

    __tablename__ = "course_access"
    user_id: Mapped[UUID]
    course_id: Mapped[UUID]
    active: Mapped[bool]
    __table_args__ = (
        Index(None, "tenant_id", "user_id", postgresql_where=sql("active")),
        Index("ix_course_access_learners", "tenant_id", "course_id", "user_id", postgresql_where=sql("active")),
    )


class TenantSettings(TenantRow, Timed, Base):
    """Projection of what identity says of the tenant; the id is the tenant's."""

    __tablename__ = "tenant_settings"
    story_language: Mapped[str]
    learning_language: Mapped[str]
    approval_required: Mapped[bool]
