"""What learners did, day by day."""

from datetime import date, timedelta
from uuid import UUID

from sqlalchemy import Boolean, Computed, Date, Index, Integer, Interval, text
from sqlalchemy.orm import Mapped, mapped_column

from kit.models import TenantRow, Timed
from services.learning.models.base import Base
from storyloom.learning.v1 import learner_analytics_pb2


def _count() -> Mapped[int]:
    return mapped_column(Integer, server_default=text("0"))


# As PostgreSQL spells it.
ACTIVE = "active_duration > '00:00:00'::interval OR reviews > 0 OR readings > 0 OR quizzes_passed > 0"


class DailyActivity(TenantRow, Timed, Base):
    """What a learner did on a day, as days are in the learner's time zone: sums of what other tables say one by one.

    Whoever changes those changes these in the same transaction: see `queries.daily_activity`. There are no constraints
    on the counts, because PostgreSQL would check them on what is to be added, and not on the sum.
    """

    __tablename__ = "daily_activity"
    __resource__ = "daily_activity"
    __message__ = learner_analytics_pb2.DailyActivity.DESCRIPTOR
    __table_args__ = (
        Index(None, "tenant_id", "user_id", "day", unique=True),
        Index(None, "tenant_id", "day", "user_id"),
    )

    user_id: Mapped[UUID]
    day: Mapped[date] = mapped_column(Date)
    active_duration: Mapped[timedelta] = mapped_column(Interval, server_default=text("'0'"))
    sessions: Mapped[int] = _count()
    lessons_completed: Mapped[int] = _count()
    reviews: Mapped[int] = _count()
    # Of the reviews, those of words that were not remembered: rated `again`.
    reviews_forgotten: Mapped[int] = _count()
    # Words reviewed for the first time, and words that a review made one to be asked for after days; without those
    # that the learner said to know.
    words_begun: Mapped[int] = _count()
    words_learned: Mapped[int] = _count()
    readings: Mapped[int] = _count()
    quizzes_passed: Mapped[int] = _count()
    # Whether the day counts for a streak. A lesson does not by itself, because a teacher may have set it to completed.
    active: Mapped[bool] = mapped_column(Boolean, Computed(ACTIVE, persisted=True))
