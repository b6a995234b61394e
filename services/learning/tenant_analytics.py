"""How many learners a tenant has, and how many of them stay."""

from collections.abc import Iterator
from datetime import date, timedelta
from itertools import groupby
from typing import Any

from kit.access import require
from kit.db import Database
from kit.enums import stored_name
from kit.models import now
from services.learning.models import TenantActivity
from services.learning.queries import tenant_activity as queries
from services.learning.rules import day_range
from storyloom.learning.v1 import tenant_analytics_pb2
from storyloom.learning.v1.tenant_analytics_pb2 import ActivityPeriod, RetentionCohort
from storyloom.learning.v1.tenant_analytics_pb2 import TenantActivity as ActivityMessage

WEEK = timedelta(weeks=1)


class TenantAnalyticsService:
    SERVICE = tenant_analytics_pb2.DESCRIPTOR.services_by_name["TenantAnalyticsService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def GetTenantActivity(
        self, request: tenant_analytics_pb2.GetTenantActivityRequest, context: Any
    ) -> ActivityMessage:
        require("read", TenantActivity())
        start, end = day_range(request.start_day, request.end_day, now().date())
        period = request.period or ActivityPeriod.ACTIVITY_PERIOD_DAY
        name = stored_name(ActivityPeriod, period)
        begins = list(periods(name, start, end))
        async with self.db.read() as session:
            counts = await queries.list_activity(session, name, begins[0], end)
        message = ActivityMessage(period=period, start_day=str(begins[0]), end_day=str(end))
        for begin in begins:
            found = counts.get(begin)
            active, fresh = (found.active, found.fresh) if found else (0, 0)
            message.periods.add(start_day=str(begin), active_learner_count=active, new_learner_count=fresh)
        return message

    async def GetTenantRetention(
        self, request: tenant_analytics_pb2.GetTenantRetentionRequest, context: Any
    ) -> tenant_analytics_pb2.TenantRetention:
        require("read", TenantActivity())
        start, end = day_range(request.start_day, request.end_day, now().date())
        weeks = list(periods("week", start, end))
        async with self.db.read() as session:
            rows = await queries.list_retention(session, weeks[0], end)
        cohorts = groupby(rows, key=lambda row: row.cohort)
        return tenant_analytics_pb2.TenantRetention(
            start_day=str(weeks[0]),
            end_day=str(end),
            cohorts=[_cohort(first, {row.begin_date: row.active for row in those}, weeks) for first, those in cohorts],
        )


def periods(period: str, start: date, end: date) -> Iterator[date]:
    """The first days of the periods that the range touches."""
    begin = start
    if period == "week":
        begin = start - timedelta(days=start.weekday())
    elif period == "month":
        begin = start.replace(day=1)
    while begin <= end:
        yield begin
        if period == "month":
            begin = (begin + timedelta(days=31)).replace(day=1)
        else:
            begin += WEEK if period == "week" else timedelta(days=1)


def _cohort(first: date, active: dict[date, int], weeks: list[date]) -> RetentionCohort:
    counts = [active.get(week, 0) for week in weeks if week >= first]
    return RetentionCohort(start_day=str(first), learner_count=counts[0], active_learner_counts=counts)
