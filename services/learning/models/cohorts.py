"""Classes of learners."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKeyConstraint, Index, text
from sqlalchemy.orm import Mapped

from kit.models import Resource, SoftDeleted, TenantRow, Timed
from services.learning.models.base import Base
from storyloom.learning.v1 import cohorts_pb2


class Cohort(Resource, SoftDeleted, Base):
    __tablename__ = "cohorts"
    __resource__ = "cohort"
    __message__ = cohorts_pb2.Cohort.DESCRIPTOR

    name: Mapped[str]
    description: Mapped[str]
    author_id: Mapped[UUID]


class CohortMember(TenantRow, Timed, Base):
    """A user's being in a cohort, from when the row was made; it stays when they leave."""

    __tablename__ = "cohort_members"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "cohort_id"], [Cohort.tenant_id, Cohort.id], ondelete="CASCADE"),
        Index(
            "ix_cohort_members_once",
            "tenant_id", "cohort_id", "user_id",
            unique=True,
            postgresql_where=text("leave_time IS NULL"),
        ),
        Index(None, "tenant_id", "cohort_id", "id"),
        Index(None, "tenant_id", "user_id", "cohort_id"),
    )  # fmt: skip

    cohort_id: Mapped[UUID]
    user_id: Mapped[UUID]
    leave_time: Mapped[datetime | None]
