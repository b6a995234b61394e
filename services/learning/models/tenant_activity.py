"""How many learners of a tenant are active, all together: nothing here says who."""

from datetime import date

from sqlalchemy import CheckConstraint, Date, Index, Integer, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from kit.models import TenantRow
from services.learning.models.base import Base
from storyloom.learning.v1 import tenant_analytics_pb2


class TenantActivity(TenantRow, Base):
    """How many learners did something in the day, week or month that begins on a day, as `daily_activity` has it.

    Of weeks, `cohort` is the first week of these learners; of days and months it is the day or month itself where it
    was their first, and `-infinity` elsewhere.
    """

    __tablename__ = "tenant_activity"
    __resource__ = "tenant_activity"
    __message__ = tenant_analytics_pb2.TenantActivity.DESCRIPTOR
    __table_args__ = (
        CheckConstraint("period IN ('day', 'week', 'month')", name="period"),
        Index(None, "tenant_id", "period", "begin_date", "cohort", unique=True),
    )

    period: Mapped[str] = mapped_column(Text)
    begin_date: Mapped[date] = mapped_column(Date)
    cohort: Mapped[date] = mapped_column(Date)
    learner_count: Mapped[int] = mapped_column(Integer, server_default=text("0"))
