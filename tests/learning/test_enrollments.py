"""Who takes which course."""

import asyncio
import time
from uuid import uuid4

import grpc
import pytest

from storyloom.content.v1.courses_pb2 import ArchiveCourseRequest
from storyloom.content.v1.courses_pb2_grpc import CourseServiceStub
from storyloom.content.v1.lessons_pb2 import GetLessonRequest, Lesson
from storyloom.content.v1.lessons_pb2_grpc import LessonServiceStub
from storyloom.learning.v1.enrollments_pb2 import (
    BatchCreateEnrollmentsRequest,
    CheckEnrollmentRequest,
    CreateEnrollmentRequest,
    Enrollment,
    EnrollmentState,
    GetEnrollmentRequest,
    ListEnrollmentsRequest,
    WithdrawEnrollmentRequest,
)
from storyloom.learning.v1.enrollments_pb2_grpc import EnrollmentServiceStub
from tests.learning.conftest import Course, ListEntries, MakeCourse
from tests.stack import Person, Refusal, School, refused

ACTIVE = EnrollmentState.ENROLLMENT_STATE_ACTIVE
WITHDRAWN = EnrollmentState.ENROLLMENT_STATE_WITHDRAWN
SOON = 2.0


def enrollments_of(person: Person) -> EnrollmentServiceStub:
    return person.stub(EnrollmentServiceStub, "learning")


def wanted(course_id: str, user_id: str) -> CreateEnrollmentRequest:
    return CreateEnrollmentRequest(enrollment=Enrollment(course_id=course_id, user_id=user_id))


async def lesson_as_seen_by(person: Person, lesson_id: str) -> Lesson | None:
    try:
        return await person.stub(LessonServiceStub, "content").GetLesson(GetLessonRequest(id=lesson_id))
    except grpc.aio.AioRpcError as error:
        if error.code() not in {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED}:
            raise
        return None


async def seconds_until(visible: bool, person: Person, lesson_id: str) -> float:
    started = time.monotonic()
    while (await lesson_as_seen_by(person, lesson_id) is not None) is not visible:
        assert time.monotonic() - started < SOON
        await asyncio.sleep(0.02)
    return time.monotonic() - started


class TestCreateEnrollment:
    async def test_gives_the_learner_the_lessons_of_the_course_within_two_seconds(
        self, school: School, make_course: MakeCourse
    ) -> None:
        course = await make_course()
        await school.settle()
        assert await lesson_as_seen_by(school.student, course.lesson_ids[0]) is None
        made = await course.enrol(school.student)
        assert made.state == ACTIVE
        assert (made.course_id, made.user_id, made.etag) == (course.id, school.student.user_id, "1")
        assert made.create_time.seconds
        assert not made.HasField("withdraw_time")
        assert await seconds_until(True, school.student, course.lesson_ids[0]) < SOON

    async def test_refuses_who_is_enrolled_already(self, course: Course, school: School) -> None:
        async with refused("RESOURCE_ALREADY_EXISTS"):
            await course.enrol(school.student)

    async def test_of_concurrent_calls_exactly_one_enrols(self, school: School, make_course: MakeCourse) -> None:
        course = await make_course(lessons=0)
        results = await asyncio.gather(*(course.enrol(school.student) for _ in range(5)), return_exceptions=True)
        assert sum(isinstance(one, Enrollment) for one in results) == 1
        codes = {one.code() for one in results if isinstance(one, grpc.aio.AioRpcError)}
        assert codes == {grpc.StatusCode.ALREADY_EXISTS}

    async def test_refuses_a_course_that_is_absent_foreign_or_hidden_in_the_same_way(
        self, school: School, make_course: MakeCourse
    ) -> None:
        foreign = await make_course(school.outsider_teacher, lessons=0)
        answers: list[Refusal] = []
        for course_id in (str(uuid4()), foreign.id):
            async with refused("REFERENCE_NOT_FOUND") as refusal:
                await enrollments_of(school.teacher).CreateEnrollment(wanted(course_id, school.student.user_id))
            assert refusal.metadata["field"] == "enrollment.course_id"
            answers.append(refusal)
        assert answers[0].status == answers[1].status

    async def test_refuses_a_user_that_is_absent_or_foreign_in_the_same_way(
        self, school: School, course: Course
    ) -> None:
        answers: list[Refusal] = []
        for user_id in (str(uuid4()), school.outsider.user_id):
            async with refused("REFERENCE_NOT_FOUND") as refusal:
                await enrollments_of(school.teacher).CreateEnrollment(wanted(course.id, user_id))
            assert refusal.metadata["field"] == "enrollment.user_id"
            answers.append(refusal)
        assert answers[0].status == answers[1].status

    async def test_refuses_a_course_that_takes_no_enrolments(self, school: School, make_course: MakeCourse) -> None:
        draft = await make_course(lessons=0, published=False)
        async with refused("WRONG_STATE") as refusal:
            await draft.enrol(school.student)
        assert refusal.metadata["state"] == "draft"
        archived = await make_course(lessons=0)
        courses = school.teacher.stub(CourseServiceStub, "content")
        await courses.ArchiveCourse(ArchiveCourseRequest(id=archived.id))
        async with refused("WRONG_STATE") as refusal:
            await archived.enrol(school.student)
        assert refusal.metadata["state"] == "archived"

    async def test_learners_do_not_enrol_themselves(self, school: School, make_course: MakeCourse) -> None:
        course = await make_course(lessons=0)
        async with refused("PERMISSION_REQUIRED"):
            await enrollments_of(school.student).CreateEnrollment(wanted(course.id, school.student.user_id))

    async def test_with_an_idempotency_key_answers_twice_and_enrols_once(
        self, school: School, make_course: MakeCourse
    ) -> None:
        course = await make_course(lessons=0)
        request = wanted(course.id, school.student2.user_id)
        key = (("idempotency-key", str(uuid4())),)
        first = await enrollments_of(school.teacher).CreateEnrollment(request, metadata=key)
        assert await enrollments_of(school.teacher).CreateEnrollment(request, metadata=key) == first

    @pytest.mark.parametrize("field", ["course_id", "user_id"])
    async def test_requires_both_ids(self, school: School, field: str) -> None:
        ids = {"course_id": str(uuid4()), "user_id": str(uuid4())} | {field: ""}
        async with refused("INVALID_FIELD", field="enrollment"):
            await enrollments_of(school.teacher).CreateEnrollment(wanted(**ids))


async def enrol_all(person: Person, course_id: str, *user_ids: str) -> list[Enrollment]:
    request = BatchCreateEnrollmentsRequest(course_id=course_id, user_ids=user_ids)
    return list((await enrollments_of(person).BatchCreateEnrollments(request)).enrollments)


class TestBatchCreateEnrollments:
    async def test_enrols_who_is_not_yet_and_answers_in_the_order_of_the_request(
        self, school: School, make_course: MakeCourse, entries_of: ListEntries
    ) -> None:
        course = await make_course()
        before = await course.enrol(school.student2)
        ids = [school.teacher2.user_id, school.student2.user_id, school.student.user_id]
        made = await enrol_all(school.teacher, course.id, *ids)
        assert [one.user_id for one in made] == ids
        assert made[1] == before
        assert {one.state for one in made} == {ACTIVE}
        assert await seconds_until(True, school.student, course.lesson_ids[0]) < SOON
        for one in (made[0], made[2]):
            [entry] = await entries_of(entity_type="enrollment", entity_id=one.id)
            alone = (await entries_of(entity_type="enrollment", entity_id=before.id))[0]
            assert entry.action == alone.action == "create"
            assert entry.new_values.keys() == alone.new_values.keys()
            assert entry.new_values["user_id"] == one.user_id

    async def test_enrols_all_or_none_and_tells_absent_and_foreign_users_alike(
        self, school: School, make_course: MakeCourse
    ) -> None:
        course = await make_course(lessons=0)
        for user_id in (school.outsider.user_id, str(uuid4())):
            async with refused("REFERENCE_NOT_FOUND") as refusal:
                await enrol_all(school.teacher, course.id, school.student.user_id, user_id)
            assert refusal.metadata == {"field": "user_ids", "ids": user_id}
        listed = await enrollments_of(school.teacher).ListEnrollments(ListEnrollmentsRequest(course_id=course.id))
        assert not listed.enrollments

    async def test_who_withdrew_starts_anew_and_the_record_stays(
        self, school: School, make_course: MakeCourse
    ) -> None:
        course = await make_course(lessons=0)
        stub = enrollments_of(school.teacher)
        [first] = await enrol_all(school.teacher, course.id, school.student.user_id)
        ended = await stub.WithdrawEnrollment(WithdrawEnrollmentRequest(id=first.id))
        [second] = await enrol_all(school.teacher, course.id, school.student.user_id)
        assert second.id != first.id
        assert await stub.GetEnrollment(GetEnrollmentRequest(id=first.id)) == ended

    async def test_refuses_courses_as_enrolling_one_does(self, school: School, make_course: MakeCourse) -> None:
        draft = await make_course(lessons=0, published=False)
        async with refused("WRONG_STATE"):
            await enrol_all(school.teacher, draft.id, school.student.user_id)
        answers: list[Refusal] = []
        for course_id in ((await make_course(school.outsider_teacher, lessons=0)).id, str(uuid4())):
            async with refused("REFERENCE_NOT_FOUND") as refusal:
                await enrol_all(school.teacher, course_id, school.student.user_id)
            answers.append(refusal)
        assert answers[0].status == answers[1].status

    async def test_is_not_for_learners(self, school: School, make_course: MakeCourse) -> None:
        course = await make_course(lessons=0)
        async with refused("PERMISSION_REQUIRED"):
            await enrol_all(school.student, course.id, school.student.user_id)


class TestGetEnrollment:
    async def test_learners_see_their_own_only(self, school: School, course: Course) -> None:
        mine = await course.enrol(school.student2)
        request = GetEnrollmentRequest(id=mine.id)
        assert await enrollments_of(school.student2).GetEnrollment(request) == mine
        assert await enrollments_of(school.teacher).GetEnrollment(request) == mine
        async with refused("PERMISSION_REQUIRED"):
            await enrollments_of(school.student).GetEnrollment(request)

    async def test_a_foreign_one_is_as_absent_as_any(self, school: School, course: Course) -> None:
        mine = await course.enrol(school.student2)
        answers: list[Refusal] = []
        for enrollment_id in (mine.id, str(uuid4())):
            async with refused("RESOURCE_NOT_FOUND") as refusal:
                await enrollments_of(school.outsider_admin).GetEnrollment(GetEnrollmentRequest(id=enrollment_id))
            answers.append(refusal)
        assert answers[0].status == answers[1].status


class TestListEnrollments:
    async def test_learners_list_their_own_only(self, school: School, course: Course) -> None:
        await course.enrol(school.student2)
        for filters in ({}, {"course_id": course.id}):
            listed = await enrollments_of(school.student).ListEnrollments(ListEnrollmentsRequest(**filters))
            assert {one.user_id for one in listed.enrollments} == {school.student.user_id}
        others = ListEnrollmentsRequest(user_id=school.student2.user_id)
        assert not (await enrollments_of(school.student).ListEnrollments(others)).enrollments

    async def test_a_roster_is_paged_newest_first_and_filtered_by_state(self, school: School, course: Course) -> None:
        second = await course.enrol(school.student2)
        third = await course.enrol(school.teacher2)
        stub = enrollments_of(school.teacher)
        first_page = await stub.ListEnrollments(ListEnrollmentsRequest(course_id=course.id, page_size=2))
        assert [one.id for one in first_page.enrollments] == [third.id, second.id]
        rest = await stub.ListEnrollments(
            ListEnrollmentsRequest(course_id=course.id, page_size=2, page_token=first_page.next_page_token)
        )
        assert [one.user_id for one in rest.enrollments] == [school.student.user_id]
        assert not rest.next_page_token
        await stub.WithdrawEnrollment(WithdrawEnrollmentRequest(id=second.id))
        active = await stub.ListEnrollments(ListEnrollmentsRequest(course_id=course.id, state=ACTIVE))
        assert second.id not in {one.id for one in active.enrollments}
        gone = await stub.ListEnrollments(ListEnrollmentsRequest(course_id=course.id, state=WITHDRAWN))
        assert [one.id for one in gone.enrollments] == [second.id]

    async def test_shows_nothing_of_another_tenant(self, school: School, course: Course) -> None:
        request = ListEnrollmentsRequest(course_id=course.id)
        assert not (await enrollments_of(school.outsider_admin).ListEnrollments(request)).enrollments


class TestWithdrawEnrollment:
    async def test_takes_the_lessons_away_keeps_the_record_and_allows_a_new_start(
        self, school: School, course: Course, entries_of: ListEntries
    ) -> None:
        stub = enrollments_of(school.teacher)
        [taken] = (await stub.ListEnrollments(ListEnrollmentsRequest(course_id=course.id))).enrollments
        await seconds_until(True, school.student, course.lesson_ids[0])
        ended = await stub.WithdrawEnrollment(WithdrawEnrollmentRequest(id=taken.id, etag=taken.etag))
        assert ended.state == WITHDRAWN
        assert ended.HasField("withdraw_time")
        assert ended.etag != taken.etag
        assert await seconds_until(False, school.student, course.lesson_ids[0]) < SOON
        again = await course.enrol(school.student)
        assert again.id != taken.id
        assert await seconds_until(True, school.student, course.lesson_ids[0]) < SOON
        assert await stub.GetEnrollment(GetEnrollmentRequest(id=taken.id)) == ended
        created, withdrawn = await entries_of(entity_type="enrollment", entity_id=taken.id)
        assert (created.action, withdrawn.action) == ("create", "withdraw")
        assert created.new_values["user_id"] == school.student.user_id
        assert (withdrawn.old_values["state"], withdrawn.new_values["state"]) == ("active", "withdrawn")
        assert withdrawn.user_id == school.teacher.user_id

    async def test_leaving_and_coming_back_in_quick_succession_ends_with_the_lessons(
        self, school: School, course: Course
    ) -> None:
        stub = enrollments_of(school.teacher)
        for _ in range(4):
            latest = await stub.ListEnrollments(ListEnrollmentsRequest(course_id=course.id, state=ACTIVE))
            await stub.WithdrawEnrollment(WithdrawEnrollmentRequest(id=latest.enrollments[0].id))
            await course.enrol(school.student)
        await school.settle()
        assert await lesson_as_seen_by(school.student, course.lesson_ids[0]) is not None

    async def test_refuses_a_second_time_and_a_stale_etag(self, school: School, course: Course) -> None:
        made = await course.enrol(school.student2)
        stub = enrollments_of(school.teacher)
        async with refused("STALE_ETAG"):
            await stub.WithdrawEnrollment(WithdrawEnrollmentRequest(id=made.id, etag="7"))
        await stub.WithdrawEnrollment(WithdrawEnrollmentRequest(id=made.id))
        async with refused("WRONG_STATE") as refusal:
            await stub.WithdrawEnrollment(WithdrawEnrollmentRequest(id=made.id))
        assert refusal.metadata["state"] == "withdrawn"

    async def test_learners_do_not_withdraw_by_themselves_nor_does_another_tenant(
        self, school: School, course: Course
    ) -> None:
        made = await course.enrol(school.student2)
        async with refused("PERMISSION_REQUIRED"):
            await enrollments_of(school.student2).WithdrawEnrollment(WithdrawEnrollmentRequest(id=made.id))
        async with refused("RESOURCE_NOT_FOUND"):
            await enrollments_of(school.outsider_admin).WithdrawEnrollment(WithdrawEnrollmentRequest(id=made.id))


class TestCheckEnrollment:
    async def test_answers_content_for_the_tenant_it_names(self, school: School, course: Course) -> None:
        stub = school.stack.services["content"].clients.stub(EnrollmentServiceStub, "learning")
        ids = {"tenant_id": school.student.tenant_id, "user_id": school.student.user_id, "course_id": course.id}
        for changed, active in (
            ({}, True),
            ({"user_id": school.student2.user_id}, False),
            ({"course_id": str(uuid4())}, False),
            ({"tenant_id": school.outsider.tenant_id}, False),
        ):
            assert (await stub.CheckEnrollment(CheckEnrollmentRequest(**ids | changed))).active is active

    async def test_refuses_users(self, school: School, course: Course) -> None:
        ids = {"tenant_id": school.admin.tenant_id, "user_id": school.admin.user_id, "course_id": course.id}
        async with refused("INVALID_TOKEN"):
            await enrollments_of(school.admin).CheckEnrollment(CheckEnrollmentRequest(**ids))
