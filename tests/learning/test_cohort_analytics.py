"""How a class is doing, and which of its learners need somebody."""

from datetime import datetime
from typing import Any

import pytest

from kit.ids import new_id
from storyloom.identity.v1.roles_pb2 import CreateRoleRequest, Permission, Role
from storyloom.identity.v1.roles_pb2_grpc import RoleServiceStub
from storyloom.learning.v1 import cohort_analytics_pb2
from storyloom.learning.v1.cohort_analytics_pb2 import CohortAnalytics, CohortLearner, Risk
from storyloom.learning.v1.cohort_analytics_pb2_grpc import CohortAnalyticsServiceStub
from storyloom.learning.v1.cohorts_pb2 import DeleteCohortRequest
from storyloom.learning.v1.progress_pb2 import ProgressStatus
from tests.learning.conftest import Course, MakeCourse
from tests.learning.test_cohorts import add, cohorts_of, enroll, make, remove
from tests.learning.test_learner_analytics import ago, done, review
from tests.learning.test_learner_settings import learner
from tests.learning.test_overrides import override
from tests.stack import Person, School, add_person, refused

COMPLETED = ProgressStatus.PROGRESS_STATUS_COMPLETED
INACTIVE, BEHIND, FORGETTING = Risk.RISK_INACTIVE, Risk.RISK_BEHIND, Risk.RISK_FORGETTING


def analytics_of(person: Person) -> CohortAnalyticsServiceStub:
    return person.stub(CohortAnalyticsServiceStub, "learning")


async def whole(person: Person, cohort_id: str, **wanted: Any) -> CohortAnalytics:
    request = cohort_analytics_pb2.GetCohortAnalyticsRequest(cohort_id=cohort_id, **wanted)
    return await analytics_of(person).GetCohortAnalytics(request)


async def page(person: Person, cohort_id: str, **wanted: Any) -> cohort_analytics_pb2.ListCohortLearnersResponse:
    request = cohort_analytics_pb2.ListCohortLearnersRequest(cohort_id=cohort_id, **wanted)
    return await analytics_of(person).ListCohortLearners(request)


async def learners(person: Person, cohort_id: str, **wanted: Any) -> dict[str, CohortLearner]:
    return {one.user_id: one for one in (await page(person, cohort_id, **wanted)).learners}


@pytest.fixture
async def members(school: School) -> list[Person]:
    return [await learner(school) for _ in range(3)]


class TestGetCohortAnalytics:
    async def test_tells_what_the_class_did_together(self, school: School, members: list[Person]) -> None:
        cohort = await make(school.teacher, *members)
        first, second, _ = members
        await review(school, first, done(ago(3)), done(ago(3), "easy"), done(ago(40)))
        await review(school, second, done(ago(3)), done(ago(1)))
        found = await whole(school.teacher, cohort.id)
        assert (found.learner_count, found.active_learner_count, found.at_risk_count) == (3, 2, 1)
        assert (found.reviews, found.words_learned) == (4, 1)
        days = [(day.day, day.active_learner_count, day.reviews, day.words_learned) for day in found.days]
        assert days == [(str(ago(3).date()), 2, 3, 1), (str(ago(1).date()), 1, 1, 0)]
        earlier = await whole(school.teacher, cohort.id, end_day=str(ago(30).date()))
        assert (earlier.reviews, earlier.active_learner_count, earlier.at_risk_count) == (1, 1, 3)

    async def test_is_of_those_who_are_members_now(self, school: School, members: list[Person]) -> None:
        cohort = await make(school.teacher, *members)
        for one in members:
            await review(school, one, done(ago(1)))
        await remove(school.teacher, cohort.id, members[0])
        found = await whole(school.teacher, cohort.id)
        assert (found.learner_count, found.reviews) == (2, 2)
        assert members[0].user_id not in await learners(school.teacher, cohort.id)

    async def test_completion_is_the_medians_of_the_course_or_of_all_that_each_takes(
        self, school: School, members: list[Person], make_course: MakeCourse
    ) -> None:
        cohort = await make(school.teacher, *members)
        course, other = await make_course(lessons=3), await make_course(lessons=1)
        await enroll(school.teacher, cohort.id, course.id)
        await other.enrol(members[0])
        await school.settle()
        await complete(school, course, members[0], 3)
        await complete(school, course, members[1], 1)
        assert await percents(school.teacher, cohort.id, members, course_id=course.id) == [100, 33, 0]
        assert await percents(school.teacher, cohort.id, members) == [75, 33, 0]
        assert (await whole(school.teacher, cohort.id)).median_completed_percent == 33
        assert (await whole(school.teacher, cohort.id)).lessons_completed == 4
        # Of a course, it is about those who take it.
        assert await percents(school.teacher, cohort.id, members[:1], course_id=other.id) == [0]
        assert (await whole(school.teacher, cohort.id, course_id=other.id)).learner_count == 1
        assert not (await whole(school.teacher, cohort.id, course_id=str(new_id()))).learner_count

    async def test_an_empty_class_has_done_nothing(self, school: School) -> None:
        cohort = await make(school.teacher)
        found = await whole(school.teacher, cohort.id)
        assert (found.learner_count, len(found.days), found.median_completed_percent) == (0, 0, 0)
        assert not found.active_duration.ToTimedelta()

    async def test_is_for_those_who_may_see_the_class(self, school: School, members: list[Person]) -> None:
        cohort = await make(school.teacher, *members)
        for call in (whole, page):
            for person in (school.student, members[0]):
                async with refused("PERMISSION_REQUIRED"):
                    await call(person, cohort.id)
            async with refused("RESOURCE_NOT_FOUND"):
                await call(school.outsider_admin, cohort.id)
            async with refused("RESOURCE_NOT_FOUND"):
                await call(school.teacher, str(new_id()))
        await cohorts_of(school.teacher).DeleteCohort(DeleteCohortRequest(id=cohort.id))
        async with refused("RESOURCE_NOT_FOUND"):
            await whole(school.teacher, cohort.id)

    async def test_leaves_out_learners_whose_days_the_caller_may_not_see(
        self, school: School, members: list[Person]
    ) -> None:
        cohort = await make(school.teacher, *members)
        await review(school, members[0], done(ago(1)))
        roles = school.admin.stub(RoleServiceStub, "identity")
        reads = [Permission(resource="cohort", action="read")]
        role = Role(slug=f"class-reader-{new_id()}", name="Class reader", permissions=reads)
        await roles.CreateRole(CreateRoleRequest(role=role))
        reader = await add_person(school.admin, school.slug, f"reader-{new_id()}", role.slug)
        found = await whole(reader, cohort.id)
        assert (found.learner_count, found.reviews, len(found.days)) == (0, 0, 0)
        assert not await learners(reader, cohort.id)
        # Among the learners of a class, they see themselves.
        await add(school.teacher, cohort.id, reader)
        assert list(await learners(reader, cohort.id)) == [reader.user_id]

    async def test_refuses_a_range_that_is_none(self, school: School) -> None:
        cohort = await make(school.teacher)
        async with refused("INVALID_FIELD", field="end_day"):
            await whole(school.teacher, cohort.id, start_day="2026-03-02", end_day="2026-03-01")
        async with refused("INVALID_FIELD", field="start_day"):
            await page(school.teacher, cohort.id, start_day="2025-01-01", end_day="2026-01-02")


class TestListCohortLearners:
    async def test_tells_what_each_did_and_what_they_are_at_risk_of(
        self, school: School, members: list[Person], make_course: MakeCourse
    ) -> None:
        cohort, course = await make(school.teacher, *members), await make_course(lessons=1)
        await enroll(school.teacher, cohort.id, course.id)
        await school.settle()
        first, second, third = members
        await complete(school, course, first, 1)
        await complete(school, course, second, 1)
        await review(school, first, *many(25, ago(20)), *many(20, ago(2)), *many(5, ago(2), "again"))
        await review(school, second, *many(20, ago(20)), *many(20, ago(7)))
        found = await learners(school.teacher, cohort.id)
        assert list(found) == sorted(one.user_id for one in members)
        one = found[first.user_id]
        assert (one.reviews, one.remembered_percent, one.active_days) == (50, 90, 2)
        assert (one.last_active_day, one.completed_percent, list(one.risks)) == (str(ago(2).date()), 100, [FORGETTING])
        assert list(found[second.user_id].risks) == [INACTIVE]
        idle = found[third.user_id]
        assert (idle.reviews, idle.remembered_percent, idle.last_active_day) == (0, 0, "")
        assert list(idle.risks) == [INACTIVE, BEHIND]

    async def test_lists_only_those_at_risk_if_asked(self, school: School, members: list[Person]) -> None:
        cohort = await make(school.teacher, *members)
        await review(school, members[0], done(ago(6)))
        at_risk = await learners(school.teacher, cohort.id, at_risk=True)
        assert set(at_risk) == {one.user_id for one in members[1:]}

    async def test_pages_through_the_class(self, school: School, members: list[Person]) -> None:
        cohort = await make(school.teacher, *members)
        seen, token = [], ""
        for _ in range(3):
            found = await page(school.teacher, cohort.id, page_size=1, page_token=token)
            seen += [one.user_id for one in found.learners]
            token = found.next_page_token
        assert (seen, token) == (sorted(one.user_id for one in members), "")


async def complete(school: School, course: Course, person: Person, lessons: int) -> None:
    for lesson in course.lesson_ids[:lessons]:
        await override(school.teacher, lesson, person, COMPLETED)


async def percents(person: Person, cohort_id: str, members: list[Person], **wanted: Any) -> list[int]:
    found = await learners(person, cohort_id, **wanted)
    return [found[one.user_id].completed_percent for one in members]


def many(count: int, at: datetime, rating: str = "good") -> list[Any]:
    return [done(at, rating) for _ in range(count)]
