"""What a learner did day by day, and where it has brought them."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from kit.ids import new_id
from services.learning.jobs import JOBS
from services.learning.queries.vocabulary_progress import NewExposure, NewReview, append_exposures
from storyloom.learning.v1.client_events_pb2 import ClientEvent
from storyloom.learning.v1.learner_analytics_pb2 import DailyActivity, GetLearnerAnalyticsRequest, LearnerAnalytics
from storyloom.learning.v1.learner_analytics_pb2_grpc import LearnerAnalyticsServiceStub
from storyloom.learning.v1.progress_pb2 import ProgressStatus
from tests.learning.conftest import Connection, Course, ListEntries, MakeCourse
from tests.learning.phones import event, outcomes, some_id, sync
from tests.learning.reviewing import send, writing
from tests.learning.test_client_events import take_long_ago
from tests.learning.test_home import home
from tests.learning.test_jobs import run
from tests.learning.test_learner_settings import learner, update
from tests.learning.test_learning_sessions import begin, end, let_pass
from tests.learning.test_overrides import override
from tests.learning.test_progress import report
from tests.stack import Person, School, refused

(REBUILD,) = (job for job in JOBS if job.name == "rebuild_daily_activity")
SAIGON = ZoneInfo("Asia/Ho_Chi_Minh")
COMPLETED = ProgressStatus.PROGRESS_STATUS_COMPLETED
IN_PROGRESS = ProgressStatus.PROGRESS_STATUS_IN_PROGRESS


async def analytics(person: Person, user_id: str = "", **wanted: Any) -> LearnerAnalytics:
    request = GetLearnerAnalyticsRequest(user_id=user_id or person.user_id, **wanted)
    return await person.stub(LearnerAnalyticsServiceStub, "learning").GetLearnerAnalytics(request)


async def day_of(person: Person, day: str) -> DailyActivity:
    [found] = (await analytics(person, start_day=day, end_day=day)).days
    return found


def done(at: datetime, rating: str = "good", *, word: UUID | None = None, source: str = "offline") -> NewReview:
    return NewReview(
        event_id=new_id(), vocabulary_id=word or new_id(), rating=rating, review_time=at, source=source
    )


async def review(school: School, person: Person, *reviews: NewReview) -> None:
    await send(school, UUID(person.user_id), list(reviews))


async def read(school: School, person: Person, at: datetime) -> None:
    one = NewExposure(event_id=new_id(), story_id=None, vocabulary_ids=[new_id()], exposure_time=at)
    async with writing(school) as session:
        await append_exposures(session, UUID(person.user_id), [one])


async def taker(school: School, make_course: MakeCourse, tables: Connection) -> tuple[Person, Course]:
    """A learner who has been in a course for long, and learning has heard of it."""
    person, course = await learner(school), await make_course()
    await course.enrol(person)
    await school.settle()
    await take_long_ago(tables, course)
    return person, course


def held(course: Course, start: datetime, minutes: int) -> list[ClientEvent]:
    """A session of so many minutes on a phone, without a pause."""
    session = some_id()
    beats = [start + timedelta(minutes=number) for number in range(1, minutes)]
    return [
        event(start, session_started={"session_id": session, "lesson_id": course.lesson_ids[0]}),
        *(event(at, session_heartbeat={"session_id": session}) for at in beats),
        event(start + timedelta(minutes=minutes), session_ended={"session_id": session}),
    ]


def time_of(days: Iterable[DailyActivity]) -> timedelta:
    return sum((day.active_duration.ToTimedelta() for day in days), timedelta(0))


def ago(days: int) -> datetime:
    """Noon of that day, so that hours later or earlier it is the same day."""
    return datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=days)


class TestGetLearnerAnalytics:
    async def test_tells_what_was_done_on_each_day(self, school: School) -> None:
        person, word = await learner(school), new_id()
        await review(school, person, done(ago(3), "again", word=word), done(ago(3) + timedelta(hours=1), word=word))
        await review(school, person, done(ago(1), "easy"), done(ago(1), "easy", source="known"))
        await read(school, person, ago(3))
        found = await analytics(person)
        assert [day.day for day in found.days] == [str(ago(3).date()), str(ago(1).date())]
        first, second = found.days
        assert (first.reviews, first.reviews_forgotten, first.words_begun, first.readings) == (2, 1, 1, 1)
        # What was said to be known is no review, and neither begun nor learned.
        assert (second.reviews, second.words_begun, second.words_learned) == (1, 1, 1)
        assert (found.words.learning, found.words.fresh, found.words.reviewing, found.words.mastered) == (1, 1, 1, 1)

    async def test_counts_the_time_of_sessions(
        self, school: School, make_course: MakeCourse, tables: Connection
    ) -> None:
        person, course = await learner(school), await make_course()
        await course.enrol(person)
        await school.settle()
        opened = await begin(person, course.lesson_ids[0])
        await let_pass(tables, opened.id, timedelta(seconds=45))
        ended = await end(person, opened.id)
        days = (await analytics(person)).days
        assert sum(day.sessions for day in days) == 1
        assert timedelta(seconds=45) <= time_of(days) == ended.active_duration.ToTimedelta()

    async def test_counts_an_hour_once_in_however_many_sessions(
        self, school: School, make_course: MakeCourse, tables: Connection
    ) -> None:
        person, course = await taker(school, make_course, tables)
        hour = ago(3) - timedelta(hours=1)
        told = [one for late in range(0, 60 * 8, 60) for one in held(course, hour + timedelta(seconds=late), 60)]
        Random(5).shuffle(told)
        assert {*outcomes(await sync(person, told[::2]))} == {"accepted"}
        assert {*outcomes(await sync(person, told[1::2]))} == {"accepted"}
        day = await day_of(person, str(hour.date()))
        assert (day.sessions, day.active_duration.ToTimedelta()) == (8, timedelta(minutes=67))

    async def test_counts_once_what_was_spent_with_and_without_a_connection(
        self, school: School, make_course: MakeCourse, tables: Connection
    ) -> None:
        person, course = await taker(school, make_course, tables)
        opened = await begin(person, course.lesson_ids[0])
        # The phone's session lasts from 50 seconds before the other one's beginning to 10 seconds after it.
        await let_pass(tables, opened.id, timedelta(seconds=20))
        start = opened.start_time.ToDatetime(UTC) - timedelta(seconds=70)
        assert {*outcomes(await sync(person, held(course, start, 1)))} == {"accepted"}
        ended = await end(person, opened.id)
        total = time_of((await analytics(person)).days)
        assert total == ended.active_duration.ToTimedelta() + timedelta(seconds=50)

    async def test_gives_each_day_its_part_of_a_session(
        self, school: School, make_course: MakeCourse, tables: Connection
    ) -> None:
        person, course = await taker(school, make_course, tables)
        midnight = ago(3).replace(hour=0)
        answer = await sync(person, held(course, midnight - timedelta(minutes=12), 20))
        assert {*outcomes(answer)} == {"accepted"}
        before, after = (await analytics(person)).days
        assert (before.sessions, before.active_duration.ToTimedelta()) == (1, timedelta(minutes=12))
        assert (after.sessions, after.active_duration.ToTimedelta()) == (0, timedelta(minutes=8))
        # In Hà Nội all of it was on one morning.
        await update(person, "time_zone", time_zone="Asia/Ho_Chi_Minh")
        [found] = (await analytics(person)).days
        assert (found.sessions, found.active_duration.ToTimedelta()) == (1, timedelta(minutes=20))

    async def test_takes_back_a_lesson_that_a_teacher_sets_back(self, school: School, make_course: MakeCourse) -> None:
        person, course = await learner(school), await make_course()
        await course.enrol(person)
        await school.settle()
        today = (await analytics(person)).today
        await report(person, course.lesson_ids[0], status=COMPLETED)
        await report(person, course.lesson_ids[0], status=COMPLETED)
        assert (await day_of(person, today)).lessons_completed == 1
        await override(school.teacher, course.lesson_ids[0], person, IN_PROGRESS)
        assert not (await day_of(person, today)).lessons_completed
        await override(school.teacher, course.lesson_ids[0], person, COMPLETED)
        assert (await day_of(person, today)).lessons_completed == 1
        # No more than that: a teacher's word makes nobody active.
        assert not (await analytics(person)).streak.current_days

    async def test_a_late_review_lands_in_its_own_day_and_takes_the_word_with_it(self, school: School) -> None:
        person, word = await learner(school), new_id()
        await review(school, person, done(ago(2), "easy", word=word))
        await review(school, person, done(ago(9), "easy", word=word))
        found = {day.day: day for day in (await analytics(person)).days}
        early, late = found[str(ago(9).date())], found[str(ago(2).date())]
        assert (early.reviews, early.words_begun, early.words_learned) == (1, 1, 1)
        assert (late.reviews, late.words_begun, late.words_learned) == (1, 0, 0)

    async def test_a_word_said_to_be_known_is_begun_with_a_review_from_before(self, school: School) -> None:
        person, word = await learner(school), new_id()
        await review(school, person, done(ago(2), "easy", word=word, source="known"))
        await review(school, person, done(ago(1), word=word))
        assert [(day.reviews, day.words_begun) for day in (await analytics(person)).days] == [(1, 0)]
        await review(school, person, done(ago(3), "again", word=word))
        found = (await analytics(person)).days
        assert [(day.reviews, day.words_begun, day.words_learned) for day in found] == [(1, 1, 0), (1, 0, 1)]

    async def test_days_begin_at_midnight_where_the_learner_lives(self, school: School) -> None:
        person = await learner(school)
        # An hour after midnight there is the evening before in UTC.
        at = datetime.combine(datetime.now(SAIGON).date() - timedelta(days=2), datetime.min.time(), SAIGON)
        await review(school, person, done((at + timedelta(hours=1)).astimezone(UTC)))
        assert [day.day for day in (await analytics(person)).days] == [str(at.date() - timedelta(days=1))]
        await update(person, "time_zone", time_zone="Asia/Ho_Chi_Minh")
        moved = await analytics(person)
        assert ([day.day for day in moved.days], moved.time_zone) == ([str(at.date())], "Asia/Ho_Chi_Minh")
        await update(person, "time_zone", time_zone="UTC")
        assert [day.day for day in (await analytics(person)).days] == [str(at.date() - timedelta(days=1))]

    @pytest.mark.parametrize(
        ("at", "day"),
        [
            # In New York clocks go from 2 to 3 on 8 March 2026, and from 2 to 1 on 1 November 2026.
            ("2026-03-08T04:59:59+00:00", "2026-03-07"),
            ("2026-03-08T05:00:00+00:00", "2026-03-08"),
            ("2026-03-09T03:59:59+00:00", "2026-03-08"),
            ("2026-03-09T04:00:00+00:00", "2026-03-09"),
            ("2026-11-01T04:00:00+00:00", "2026-11-01"),
            ("2026-11-02T04:59:59+00:00", "2026-11-01"),
            ("2026-11-02T05:00:00+00:00", "2026-11-02"),
        ],
    )
    async def test_days_have_as_many_hours_as_the_zone_gives_them(self, school: School, at: str, day: str) -> None:
        person = await learner(school)
        await update(person, "time_zone", time_zone="America/New_York")
        await review(school, person, done(datetime.fromisoformat(at)))
        assert (await day_of(person, day)).reviews == 1

    async def test_foresees_what_falls_due(self, school: School) -> None:
        person = await learner(school)
        now = datetime.now(UTC)
        # Easy ones come again after eight days; one of these has been due since last week.
        await review(school, person, *(done(now - timedelta(days=days), "easy") for days in (0, 0, 5, 15)))
        found = await analytics(person, forecast_days=9)
        today = datetime.fromisoformat(found.today)
        due = {(datetime.fromisoformat(one.day) - today).days: one.count for one in found.forecast}
        assert due == {0: 1, 3: 1, 8: 2}
        assert [one.count for one in (await analytics(person, forecast_days=8)).forecast] == [1, 1]

    async def test_shows_a_range_of_at_most_366_days(self, school: School) -> None:
        person = await learner(school)
        await review(school, person, done(ago(400)), done(ago(40)), done(ago(29)))
        assert [day.day for day in (await analytics(person)).days] == [str(ago(29).date())]
        end_day = str(ago(40).date())
        found = await analytics(person, start_day=str(ago(405).date()), end_day=end_day)
        assert [day.day for day in found.days] == [str(ago(400).date()), end_day]
        for field, wanted in (
            ("start_day", {"start_day": str(ago(406).date()), "end_day": end_day}),
            ("end_day", {"start_day": "2026-03-02", "end_day": "2026-03-01"}),
            ("end_day", {"end_day": "2026-02-30"}),
            ("start_day", {"start_day": "yesterday"}),
            ("forecast_days", {"forecast_days": 91}),
        ):
            async with refused("INVALID_FIELD", field=field):
                await analytics(person, **wanted)

    async def test_is_the_learners_own_and_their_teachers(self, school: School) -> None:
        person = await learner(school)
        await review(school, person, done(ago(1)))
        for teacher in (school.teacher, school.admin):
            assert (await analytics(teacher, person.user_id)).days == (await analytics(person)).days
            for other in (school.outsider.user_id, str(new_id())):
                async with refused("RESOURCE_NOT_FOUND"):
                    await analytics(teacher, other)
        for other in (person.user_id, school.outsider.user_id, str(new_id())):
            async with refused("PERMISSION_REQUIRED"):
                await analytics(school.student2, other)
        async with refused("RESOURCE_NOT_FOUND"):
            await analytics(school.outsider_admin, person.user_id)


class TestStreak:
    async def test_goes_on_until_a_day_has_passed_without_anything(self, school: School) -> None:
        person = await learner(school)
        assert not (await analytics(person)).streak.longest_days
        await review(school, person, *(done(ago(days)) for days in (1, 2, 5, 6, 7, 8)))
        found = (await analytics(person)).streak
        assert (found.current_days, found.longest_days, found.last_active_day) == (2, 4, str(ago(1).date()))
        await read(school, person, ago(0))
        found = (await analytics(person)).streak
        assert (found.current_days, found.longest_days) == (3, 4)
        # What comes late closes the gap.
        await review(school, person, done(ago(3)), done(ago(4)))
        assert (await analytics(person)).streak.current_days == 9

    async def test_ends_when_the_day_before_yesterday_was_the_last(self, school: School) -> None:
        person = await learner(school)
        await review(school, person, done(ago(2)), done(ago(3)))
        found = (await analytics(person)).streak
        assert (found.current_days, found.longest_days, found.last_active_day) == (0, 2, str(ago(2).date()))

    async def test_does_not_count_days_to_come(self, school: School) -> None:
        person = await learner(school)
        await review(school, person, done(datetime.now(UTC) + timedelta(hours=23, minutes=59)), done(ago(1)))
        assert (await analytics(person)).streak.longest_days == 1

    async def test_is_shown_on_the_home_screen(self, school: School) -> None:
        person = await learner(school)
        await review(school, person, done(ago(1)), done(ago(2)))
        assert (await home(person)).streak == (await analytics(person)).streak
        assert (await home(person)).streak.current_days == 2


class TestRebuildDailyActivity:
    async def test_finds_that_days_are_what_they_should_be(self, school: School, entries_of: ListEntries) -> None:
        person = await learner(school)
        await review(school, person, done(ago(1)), done(ago(30), "easy"))
        assert (await run(school, REBUILD)).state == "done"
        # Other tests move what others did to another time.
        assert await entries_of(action="rebuild", entity_id=person.user_id) == []

    async def test_mends_and_writes_down_what_differs(
        self, school: School, tables: Connection, entries_of: ListEntries
    ) -> None:
        person = await learner(school)
        await review(school, person, done(ago(1)), done(ago(2)), done(ago(3)))
        right = await analytics(person)
        # What is kept of the tenant's days follows these.
        await tables.execute(f"SET app.tenant_id = '{person.tenant_id}'")
        for statement in (
            "UPDATE learning.daily_activity SET reviews = 7 WHERE user_id = $1 AND day = $2",
            "DELETE FROM learning.daily_activity WHERE user_id = $1 AND day = $2::date - 1",
            "UPDATE learning.daily_activity SET day = day - 90 WHERE user_id = $1 AND day = $2::date - 2",
        ):
            await tables.execute(statement, UUID(person.user_id), ago(1).date())
        await run(school, REBUILD)
        assert await analytics(person) == right
        [entry] = await entries_of(action="rebuild", entity_id=person.user_id)
        assert list(entry.new_values["days"]) == [str(ago(days).date()) for days in (93, 3, 2, 1)]
