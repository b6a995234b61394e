"""How many learners a tenant has, and how many stay."""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from kit.ids import new_id
from services.learning.queries.rebuilding import rebuild_learner
from services.learning.queries.vocabulary_progress import NewReview
from services.learning.tenant_analytics import periods
from storyloom.learning.v1.tenant_analytics_pb2 import (
    ActivityPeriod,
    GetTenantActivityRequest,
    GetTenantRetentionRequest,
    TenantActivity,
    TenantRetention,
)
from storyloom.learning.v1.tenant_analytics_pb2_grpc import TenantAnalyticsServiceStub
from tests.learning.conftest import Connection
from tests.learning.reviewing import send, writing
from tests.learning.summing import add_up
from tests.stack import Person, School, refused

DAY, WEEK, MONTH = (
    ActivityPeriod.ACTIVITY_PERIOD_DAY,
    ActivityPeriod.ACTIVITY_PERIOD_WEEK,
    ActivityPeriod.ACTIVITY_PERIOD_MONTH,
)


async def activity(person: Person, start: str, end: str, period: Any = DAY) -> TenantActivity:
    analytics = person.stub(TenantAnalyticsServiceStub, "learning")
    request = GetTenantActivityRequest(period=period, start_day=start, end_day=end)
    return await analytics.GetTenantActivity(request)


async def retention(person: Person, start: str, end: str) -> TenantRetention:
    analytics = person.stub(TenantAnalyticsServiceStub, "learning")
    return await analytics.GetTenantRetention(GetTenantRetentionRequest(start_day=start, end_day=end))


def counts(found: TenantActivity) -> list[tuple[str, int, int]]:
    return [(one.start_day, one.active_learner_count, one.new_learner_count) for one in found.periods]


class Year:
    """Learners of a school who are active on days of one year, which no other test knows of."""

    def __init__(self, school: School, tables: Connection, year: int) -> None:
        self.school, self.tables, self.year = school, tables, year
        self.tenant_id = UUID(school.student.tenant_id)

    async def active(self, learner: UUID, *days: str) -> None:
        """On days such as `11-23`."""
        for day in days:
            at = datetime.fromisoformat(f"{self.year}-{day}T12:00:00Z")
            word = new_id()
            review = NewReview(event_id=word, vocabulary_id=word, rating="good", review_time=at, source="offline")
            await send(self.school, learner, [review])

    async def inactive(self, learner: UUID, day: str) -> None:
        """What was done on the day is gone from the log, and all that follows from it."""
        await self.tables.execute(
            "DELETE FROM learning.vocabulary_reviews WHERE user_id = $1 AND review_time::date = $2",
            learner, date.fromisoformat(f"{self.year}-{day}"),
        )  # fmt: skip
        async with writing(self.school) as session:
            await rebuild_learner(session, learner)

    async def add_up(self) -> None:
        await add_up(self.school.stack.services["learning"].db, self.tenant_id)


@pytest.fixture
def year(school: School, tables: Connection, request: pytest.FixtureRequest) -> Year:
    return Year(school, tables, int(request.param))


class TestGetTenantActivity:
    @pytest.mark.parametrize("year", [2001], indirect=True)
    async def test_counts_learners_by_day_week_and_month(self, school: School, year: Year) -> None:
        one, two, three = (new_id() for _ in range(3))
        await year.active(one, "03-30", "03-31", "04-02")
        await year.active(two, "03-31")
        await year.active(three, "04-08")
        await year.active(one, "03-30")
        await year.add_up()
        days = counts(await activity(school.admin, "2001-03-30", "2001-04-02"))
        assert days == [
            ("2001-03-30", 1, 1), ("2001-03-31", 2, 1), ("2001-04-01", 0, 0), ("2001-04-02", 1, 0),
        ]  # fmt: skip
        # 30 March 2001 is a Friday.
        weeks = await activity(school.admin, "2001-03-30", "2001-04-08", WEEK)
        assert (weeks.start_day, weeks.end_day) == ("2001-03-26", "2001-04-08")
        assert counts(weeks) == [("2001-03-26", 2, 2), ("2001-04-02", 2, 1)]
        months = counts(await activity(school.admin, "2001-03-30", "2001-04-08", MONTH))
        assert months == [("2001-03-01", 2, 2), ("2001-04-01", 2, 1)]

    @pytest.mark.parametrize("year", [2002], indirect=True)
    async def test_follows_what_is_told_late_and_what_is_taken_back(
        self, school: School, year: Year
    ) -> None:
        learner = new_id()
        await year.active(learner, "05-20", "05-27")
        await year.active(learner, "05-06")
        await year.add_up()
        weeks = counts(await activity(school.admin, "2002-05-06", "2002-05-28", WEEK))
        assert weeks == [
            ("2002-05-06", 1, 1), ("2002-05-13", 0, 0), ("2002-05-20", 1, 0), ("2002-05-27", 1, 0),
        ]  # fmt: skip
        await year.inactive(learner, "05-06")
        await year.add_up()
        weeks = counts(await activity(school.admin, "2002-05-06", "2002-05-28", WEEK))
        assert weeks == [
            ("2002-05-06", 0, 0), ("2002-05-13", 0, 0), ("2002-05-20", 1, 1), ("2002-05-27", 1, 0),
        ]  # fmt: skip

    async def test_refuses_ranges_that_are_none_or_too_long(self, school: School) -> None:
        async with refused("INVALID_FIELD", field="end_day"):
            await activity(school.admin, "2003-01-02", "2003-01-01")
        async with refused("INVALID_FIELD", field="start_day"):
            await activity(school.admin, "2003-01-01", "2004-01-02")
        assert len((await activity(school.admin, "2004-01-01", "2004-12-31")).periods) == 366

    async def test_takes_an_administrator(self, school: School) -> None:
        for person in (school.student, school.teacher, school.auditor):
            async with refused("PERMISSION_REQUIRED"):
                await activity(person, "2003-01-01", "2003-01-02")

    @pytest.mark.parametrize("year", [2005], indirect=True)
    async def test_knows_nothing_of_other_tenants(self, school: School, year: Year) -> None:
        await year.active(new_id(), "06-01")
        await year.add_up()
        assert counts(await activity(school.admin, "2005-06-01", "2005-06-01")) == [("2005-06-01", 1, 1)]
        assert counts(await activity(school.outsider_admin, "2005-06-01", "2005-06-01")) == [("2005-06-01", 0, 0)]


class TestGetTenantRetention:
    @pytest.mark.parametrize("year", [2007], indirect=True)
    async def test_tells_of_each_week_how_many_of_its_learners_came_back(self, school: School, year: Year) -> None:
        one, two, three = (new_id() for _ in range(3))
        # 1 January 2007 is a Monday.
        await year.active(one, "01-01", "01-02", "01-09", "01-22")
        await year.active(two, "01-07", "01-15")
        await year.active(three, "01-18", "01-23")
        await year.add_up()
        found = await retention(school.admin, "2007-01-03", "2007-01-23")
        assert (found.start_day, found.end_day) == ("2007-01-01", "2007-01-23")
        told = [(row.start_day, row.learner_count, list(row.active_learner_counts)) for row in found.cohorts]
        assert told == [("2007-01-01", 2, [2, 1, 1, 1]), ("2007-01-15", 1, [1, 1])]
        # Who began before the range is not in it.
        assert [row.start_day for row in (await retention(school.admin, "2007-01-08", "2007-01-23")).cohorts] == [
            "2007-01-15"
        ]

    async def test_takes_an_administrator(self, school: School) -> None:
        async with refused("PERMISSION_REQUIRED"):
            await retention(school.teacher, "2007-01-01", "2007-01-20")


class TestPeriods:
    @pytest.mark.parametrize(
        ("period", "wanted"),
        [
            ("day", [date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 1)]),
            ("week", [date(2024, 2, 26)]),
            ("month", [date(2024, 2, 1), date(2024, 3, 1)]),
        ],
    )
    def test_are_those_that_the_range_touches(self, period: str, wanted: Iterable[date]) -> None:
        assert list(periods(period, date(2024, 2, 28), date(2024, 3, 1))) == wanted

    def test_of_a_year_are_all_its_months(self) -> None:
        months = list(periods("month", date(2023, 1, 31), date(2023, 1, 31) + timedelta(days=365)))
        assert [one.day for one in months] == [1] * 13
