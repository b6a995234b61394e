"""What learners did that no log has, for those who keep a record of it elsewhere."""

from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, Integer, Interval, Numeric, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from kit.models import TenantRow, now
from services.learning.models.base import Base
from storyloom.learning.v1 import statements_pb2


class Statement(TenantRow, Base):
    """That a learner began or ended a session, began or completed a lesson, or was given a result. Rows are only ever
    added, by triggers: what becomes of the session, the progress or the result later is a row of its own, or none."""

    __tablename__ = "statements"
    __resource__ = "statement"
    __message__ = statements_pb2.Statement.DESCRIPTOR
    __table_args__ = (
        CheckConstraint(
            "verb IN ('initialized', 'terminated', 'experienced', 'completed', 'passed', 'failed', 'scored')",
            name="verb",
        ),
        Index(
            "ix_statements_of_session",
            "tenant_id", "registration", "verb",
            unique=True,
            postgresql_where=text("verb IN ('initialized', 'terminated')"),
        ),
        Index(None, "tenant_id", "receive_time", "id"),
        Index(None, "tenant_id", "user_id", "receive_time", "id"),
    )  # fmt: skip

    user_id: Mapped[UUID]
    verb: Mapped[str] = mapped_column(Text)
    lesson_id: Mapped[UUID | None]
    story_id: Mapped[UUID | None]
    quiz_id: Mapped[UUID | None]
    # The session or the attempt.
    registration: Mapped[UUID | None]
    duration: Mapped[timedelta | None] = mapped_column(Interval)
    interactions: Mapped[int | None] = mapped_column(Integer)
    score: Mapped[Decimal | None] = mapped_column(Numeric)
    max_score: Mapped[Decimal | None] = mapped_column(Numeric)
    passed: Mapped[bool | None]
    event_time: Mapped[datetime]
    receive_time: Mapped[datetime] = mapped_column(default=now)
