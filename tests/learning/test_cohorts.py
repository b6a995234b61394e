"""Classes of learners."""

import asyncio
from uuid import UUID, uuid4

from kit.ids import new_id
from storyloom.learning.v1 import cohorts_pb2
from storyloom.learning.v1.cohorts_pb2 import Cohort
from storyloom.learning.v1.cohorts_pb2_grpc import CohortServiceStub
from storyloom.learning.v1.enrollments_pb2 import ListEnrollmentsRequest, WithdrawEnrollmentRequest
from storyloom.learning.v1.enrollments_pb2_grpc import EnrollmentServiceStub
from tests.learning.conftest import Connection, Course, ListEntries, MakeCourse
from tests.learning.test_enrollments import SOON, seconds_until
from tests.stack import Person, Refusal, School, refused


def cohorts_of(person: Person) -> CohortServiceStub:
    return person.stub(CohortServiceStub, "learning")


async def make(person: Person, *members: Person, name: str = "6A") -> Cohort:
    wanted = Cohort(name=name, description="Buổi sáng")
    made = await cohorts_of(person).CreateCohort(cohorts_pb2.CreateCohortRequest(cohort=wanted))
    return await add(person, made.id, *members) if members else made


async def add(person: Person, cohort_id: str, *members: Person, etag: str = "") -> Cohort:
    ids = [one.user_id for one in members]
    request = cohorts_pb2.AddCohortMembersRequest(id=cohort_id, user_ids=ids, etag=etag)
    return await cohorts_of(person).AddCohortMembers(request)


async def remove(person: Person, cohort_id: str, *members: Person) -> Cohort:
    ids = [one.user_id for one in members]
    request = cohorts_pb2.RemoveCohortMembersRequest(id=cohort_id, user_ids=ids)
    return await cohorts_of(person).RemoveCohortMembers(request)


async def get(person: Person, cohort_id: str) -> Cohort:
    return await cohorts_of(person).GetCohort(cohorts_pb2.GetCohortRequest(id=cohort_id))


async def members_of(person: Person, cohort_id: str, **more: bool) -> list[str]:
    request = cohorts_pb2.ListCohortMembersRequest(cohort_id=cohort_id, **more)
    return [one.user_id for one in (await cohorts_of(person).ListCohortMembers(request)).members]


async def enroll(person: Person, cohort_id: str, course_id: str) -> tuple[int, int]:
    request = cohorts_pb2.EnrollCohortRequest(id=cohort_id, course_id=course_id)
    answer = await cohorts_of(person).EnrollCohort(request)
    return answer.enrolled_count, answer.present_count


class TestCreateCohort:
    async def test_makes_an_empty_one_of_the_callers(self, school: School, entries_of: ListEntries) -> None:
        made = await make(school.teacher, name=" 6A ")
        assert (made.name, made.description, made.author_id) == ("6A", "Buổi sáng", school.teacher.user_id)
        assert (made.member_count, made.etag) == (0, "1")
        assert await get(school.teacher2, made.id) == made
        [entry] = await entries_of(entity_type="cohort", entity_id=made.id)
        assert (entry.action, entry.new_values["name"]) == ("create", "6A")

    async def test_is_not_for_learners(self, school: School) -> None:
        async with refused("PERMISSION_REQUIRED"):
            await make(school.student)

    async def test_requires_a_name(self, school: School) -> None:
        async with refused("INVALID_FIELD", field="cohort"):
            await make(school.teacher, name="")


class TestGetCohort:
    async def test_a_foreign_one_is_as_absent_as_any(self, school: School) -> None:
        made = await make(school.teacher)
        answers: list[Refusal] = []
        for cohort_id in (made.id, str(uuid4())):
            async with refused("RESOURCE_NOT_FOUND") as refusal:
                await get(school.outsider_admin, cohort_id)
            answers.append(refusal)
        assert answers[0].status == answers[1].status

    async def test_is_not_for_learners_not_even_its_members(self, school: School) -> None:
        made = await make(school.teacher, school.student)
        async with refused("PERMISSION_REQUIRED"):
            await get(school.student, made.id)


class TestListCohorts:
    async def test_is_newest_first_in_pages_and_of_one_member(self, school: School) -> None:
        first, second = await make(school.teacher, school.student), await make(school.teacher)
        stub = cohorts_of(school.teacher)
        page = await stub.ListCohorts(cohorts_pb2.ListCohortsRequest(page_size=1))
        assert list(page.cohorts) == [second]
        more = await stub.ListCohorts(
            cohorts_pb2.ListCohortsRequest(page_size=1, page_token=page.next_page_token)
        )
        assert list(more.cohorts) == [first]
        theirs = await stub.ListCohorts(cohorts_pb2.ListCohortsRequest(user_id=school.student.user_id))
        assert first in theirs.cohorts
        assert second not in theirs.cohorts
        await remove(school.teacher, first.id, school.student)
        theirs = await stub.ListCohorts(cohorts_pb2.ListCohortsRequest(user_id=school.student.user_id))
        assert first.id not in {one.id for one in theirs.cohorts}

    async def test_shows_nothing_of_another_tenant(self, school: School) -> None:
        await make(school.teacher)
        assert not (await cohorts_of(school.outsider_admin).ListCohorts(cohorts_pb2.ListCohortsRequest())).cohorts


class TestUpdateCohort:
    async def test_writes_what_is_populated_under_a_current_etag(self, school: School) -> None:
        made = await make(school.teacher)
        stub = cohorts_of(school.teacher)
        wanted = Cohort(id=made.id, name="6B", etag=made.etag)
        changed = await stub.UpdateCohort(cohorts_pb2.UpdateCohortRequest(cohort=wanted))
        assert (changed.name, changed.description, changed.etag) == ("6B", "Buổi sáng", "2")
        async with refused("STALE_ETAG"):
            await stub.UpdateCohort(cohorts_pb2.UpdateCohortRequest(cohort=wanted))


class TestDeleteCohort:
    async def test_hides_it_until_it_is_undeleted_with_its_members(self, school: School) -> None:
        made = await make(school.teacher, school.student)
        stub = cohorts_of(school.teacher)
        deleted = await stub.DeleteCohort(cohorts_pb2.DeleteCohortRequest(id=made.id, etag=made.etag))
        assert deleted.HasField("delete_time")
        for call in (get(school.teacher, made.id), members_of(school.teacher, made.id)):
            async with refused("RESOURCE_NOT_FOUND"):
                await call
        async with refused("RESOURCE_NOT_FOUND"):
            await add(school.teacher, made.id, school.student2)
        back = await stub.UndeleteCohort(cohorts_pb2.UndeleteCohortRequest(id=made.id))
        assert (back.member_count, back.HasField("delete_time")) == (1, False)
        async with refused("WRONG_STATE"):
            await stub.UndeleteCohort(cohorts_pb2.UndeleteCohortRequest(id=made.id))


class TestAddCohortMembers:
    async def test_adds_each_once_and_says_who_in_the_log(self, school: School, entries_of: ListEntries) -> None:
        made = await make(school.teacher)
        first = await add(school.teacher, made.id, school.student)
        both = await add(school.teacher, made.id, school.student, school.student2)
        assert (first.member_count, both.member_count) == (1, 2)
        assert int(both.etag) > int(first.etag) > int(made.etag)
        assert await add(school.teacher, made.id, school.student) == both
        assert await members_of(school.teacher, made.id) == [school.student2.user_id, school.student.user_id]
        entries = await entries_of(entity_type="cohort", entity_id=made.id, action="add_members")
        assert [list(one.new_values["joined"]) for one in entries] == [
            [school.student.user_id],
            [school.student2.user_id],
        ]

    async def test_adds_all_or_none_and_tells_absent_and_foreign_users_alike(self, school: School) -> None:
        made = await make(school.teacher)
        answers: list[Refusal] = []
        for user_id in (school.outsider.user_id, str(uuid4())):
            request = cohorts_pb2.AddCohortMembersRequest(id=made.id, user_ids=[school.student.user_id, user_id])
            async with refused("REFERENCE_NOT_FOUND") as refusal:
                await cohorts_of(school.teacher).AddCohortMembers(request)
            assert refusal.metadata == {"field": "user_ids", "ids": user_id}
            answers.append(refusal)
        assert (await get(school.teacher, made.id)).member_count == 0

    async def test_concurrent_calls_with_one_etag_add_once(self, school: School) -> None:
        made = await make(school.teacher)
        calls = (add(school.teacher, made.id, one, etag=made.etag) for one in (school.student, school.student2))
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(one, Cohort) for one in results) == 1
        assert (await get(school.teacher, made.id)).member_count == 1

    async def test_refuses_more_than_500_members(self, school: School, tables: Connection) -> None:
        made = await make(school.teacher, school.student)
        rows = [(UUID(school.teacher.tenant_id), UUID(made.id), new_id()) for _ in range(499)]
        await tables.executemany(
            "INSERT INTO learning.cohort_members (tenant_id, cohort_id, user_id) VALUES ($1, $2, $3)", rows
        )
        async with refused("WRONG_STATE") as refusal:
            await add(school.teacher, made.id, school.student2)
        assert refusal.metadata["state"] == "full"
        assert (await add(school.teacher, made.id, school.student)).member_count == 500


class TestRemoveCohortMembers:
    async def test_keeps_that_they_were_members(self, school: School, entries_of: ListEntries) -> None:
        made = await make(school.teacher, school.student, school.student2)
        left = await remove(school.teacher, made.id, school.student, school.teacher2)
        assert left.member_count == 1
        assert await members_of(school.teacher, made.id) == [school.student2.user_id]
        everybody = await members_of(school.teacher, made.id, show_left=True)
        assert sorted(everybody) == sorted([school.student.user_id, school.student2.user_id])
        assert await remove(school.teacher, made.id, school.student) == left
        assert (await add(school.teacher, made.id, school.student)).member_count == 2
        assert (await members_of(school.teacher, made.id, show_left=True)).count(school.student.user_id) == 2
        [entry] = await entries_of(entity_type="cohort", entity_id=made.id, action="remove_members")
        assert list(entry.new_values["left"]) == [school.student.user_id]


class TestListCohortMembers:
    async def test_comes_in_pages(self, school: School) -> None:
        made = await make(school.teacher, school.student)
        await add(school.teacher, made.id, school.student2)
        stub = cohorts_of(school.teacher)
        page = await stub.ListCohortMembers(cohorts_pb2.ListCohortMembersRequest(cohort_id=made.id, page_size=1))
        assert [one.user_id for one in page.members] == [school.student2.user_id]
        rest = await stub.ListCohortMembers(
            cohorts_pb2.ListCohortMembersRequest(cohort_id=made.id, page_size=1, page_token=page.next_page_token)
        )
        assert [one.user_id for one in rest.members] == [school.student.user_id]
        assert rest.members[0].HasField("join_time")
        assert not rest.members[0].HasField("leave_time")
        assert not rest.next_page_token


class TestEnrollCohort:
    async def test_gives_every_member_the_lessons_within_two_seconds(
        self, school: School, make_course: MakeCourse, entries_of: ListEntries
    ) -> None:
        course = await make_course()
        await school.settle()
        made = await make(school.teacher, school.student, school.student2)
        assert await enroll(school.teacher, made.id, course.id) == (2, 0)
        for learner in (school.student, school.student2):
            assert await seconds_until(True, learner, course.lesson_ids[0]) < SOON
        taken = await school.teacher.stub(EnrollmentServiceStub, "learning").ListEnrollments(
            ListEnrollmentsRequest(course_id=course.id)
        )
        for one in taken.enrollments:
            [entry] = await entries_of(entity_type="enrollment", entity_id=one.id)
            assert (entry.action, entry.new_values["user_id"]) == ("create", one.user_id)

    async def test_enrols_who_joined_later_when_called_again(self, school: School, make_course: MakeCourse) -> None:
        course = await make_course(lessons=0)
        made = await make(school.teacher, school.student)
        assert await enroll(school.teacher, made.id, course.id) == (1, 0)
        await add(school.teacher, made.id, school.student2)
        assert await enroll(school.teacher, made.id, course.id) == (1, 1)
        assert await enroll(school.teacher, made.id, course.id) == (0, 2)

    async def test_leaving_or_deleting_the_cohort_leaves_enrolments_and_withdrawing_leaves_members(
        self, school: School, make_course: MakeCourse
    ) -> None:
        course = await make_course(lessons=0)
        made = await make(school.teacher, school.student, school.student2)
        await enroll(school.teacher, made.id, course.id)
        enrollments = school.teacher.stub(EnrollmentServiceStub, "learning")
        await remove(school.teacher, made.id, school.student)
        taken = (await enrollments.ListEnrollments(ListEnrollmentsRequest(course_id=course.id))).enrollments
        assert len(taken) == 2
        [theirs] = [one for one in taken if one.user_id == school.student2.user_id]
        await enrollments.WithdrawEnrollment(WithdrawEnrollmentRequest(id=theirs.id))
        assert await members_of(school.teacher, made.id) == [school.student2.user_id]

    async def test_of_concurrent_calls_each_member_is_enrolled_by_one(
        self, school: School, make_course: MakeCourse
    ) -> None:
        course = await make_course(lessons=0)
        made = await make(school.teacher, school.student, school.student2)
        answers = await asyncio.gather(*(enroll(school.teacher, made.id, course.id) for _ in range(4)))
        assert sorted(answers) == [(0, 2), (0, 2), (0, 2), (2, 0)]

    async def test_refuses_courses_as_enrolling_one_does(self, school: School, make_course: MakeCourse) -> None:
        made = await make(school.teacher, school.student)
        draft = await make_course(lessons=0, published=False)
        async with refused("WRONG_STATE") as refusal:
            await enroll(school.teacher, made.id, draft.id)
        assert refusal.metadata["state"] == "draft"
        foreign = await make_course(school.outsider_teacher, lessons=0)
        answers: list[Refusal] = []
        for course_id in (foreign.id, str(uuid4())):
            async with refused("REFERENCE_NOT_FOUND") as refusal:
                await enroll(school.teacher, made.id, course_id)
            answers.append(refusal)
        assert answers[0].status == answers[1].status

    async def test_is_not_for_learners(self, school: School, course: Course) -> None:
        made = await make(school.teacher, school.student)
        async with refused("PERMISSION_REQUIRED"):
            await enroll(school.student, made.id, course.id)
