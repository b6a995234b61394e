"""How far learners have come in their lessons."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import event

from storyloom.content.v1.lessons_pb2 import DeleteLessonRequest
from storyloom.content.v1.lessons_pb2_grpc import LessonServiceStub
from storyloom.learning.v1.enrollments_pb2 import ListEnrollmentsRequest, WithdrawEnrollmentRequest
from storyloom.learning.v1.enrollments_pb2_grpc import EnrollmentServiceStub
from storyloom.learning.v1.progress_pb2 import (
    GetCourseProgressRequest,
    GetProgressRequest,
    ListProgressRequest,
    Progress,
    ProgressStatus,
    UpdateProgressRequest,
)
from storyloom.learning.v1.progress_pb2_grpc import ProgressServiceStub
from tests.learning.conftest import Connection, Course, ListEntries, MakeCourse
from tests.stack import Person, Refusal, School, refused

NOT_STARTED = ProgressStatus.PROGRESS_STATUS_NOT_STARTED
IN_PROGRESS = ProgressStatus.PROGRESS_STATUS_IN_PROGRESS
COMPLETED = ProgressStatus.PROGRESS_STATUS_COMPLETED


def progress_of(person: Person) -> ProgressServiceStub:
    return person.stub(ProgressServiceStub, "learning")


async def report(
    person: Person, lesson_id: str, percent: int = 0, status: Any = 0, *, etag: str = "", paths: tuple[str, ...] = ()
) -> Progress:
    told = Progress(lesson_id=lesson_id, position_percent=percent, status=status, etag=etag)
    mask = FieldMask(paths=paths) if paths else None
    return await progress_of(person).UpdateProgress(UpdateProgressRequest(progress=told, update_mask=mask))


async def recorded(person: Person, lesson_id: str) -> Progress:
    return await progress_of(person).GetProgress(GetProgressRequest(lesson_id=lesson_id))


async def withdraw(school: School, course: Course, person: Person) -> None:
    stub = school.teacher.stub(EnrollmentServiceStub, "learning")
    [taken] = (
        await stub.ListEnrollments(ListEnrollmentsRequest(course_id=course.id, user_id=person.user_id))
    ).enrollments
    await stub.WithdrawEnrollment(WithdrawEnrollmentRequest(id=taken.id))


@contextmanager
def round_trips(school: School) -> Iterator[list[str]]:
    """The first words of what learning sends to its database, but for the relay's part."""
    pool = school.stack.services["learning"].db.engine.sync_engine.pool
    seen: list[str] = []
    listening: list[Any] = []

    def listen(connection: Any, record: Any, proxy: Any) -> None:
        if connection.driver_connection not in listening:
            listening.append(connection.driver_connection)
            connection.driver_connection.add_query_logger(log)

    def log(query: Any) -> None:
        verb = query.query.split()[0]
        is_relay = "learning.outbox" in query.query and verb != "INSERT"
        # What a driver asks on a new connection, to learn its types, concerns no table of ours.
        if verb in {"BEGIN;", "COMMIT"} or ("learning." in query.query and not is_relay):
            seen.append(verb)

    event.listen(pool, "checkout", listen)
    yield seen
    event.remove(pool, "checkout", listen)
    for driver in listening:
        driver.remove_query_logger(log)


class TestUpdateProgress:
    async def test_makes_the_progress_and_moves_it_forward(
        self, school: School, course: Course, entries_of: ListEntries
    ) -> None:
        lesson = course.lesson_ids[0]
        first = await report(school.student, lesson, 30)
        assert (first.status, first.position_percent, first.etag) == (IN_PROGRESS, 30, "1")
        assert (first.lesson_id, first.course_id, first.user_id) == (lesson, course.id, school.student.user_id)
        assert first.start_time == first.last_view_time
        assert not first.HasField("complete_time")
        done = await report(school.student, lesson, status=COMPLETED)
        assert (done.status, done.position_percent, done.etag) == (COMPLETED, 100, "2")
        assert done.start_time == first.start_time
        assert done.HasField("complete_time")
        assert await recorded(school.student, lesson) == done
        entries = await entries_of(entity_type="progress", user_id=school.student.user_id)
        created, updated = [one for one in entries if one.entity_id == entries[-1].entity_id]
        assert (created.action, updated.action) == ("create", "update")
        assert (created.new_values["lesson_id"], created.new_values["status"]) == (lesson, "in_progress")
        assert dict(updated.old_values) == {"status": "in_progress", "position_percent": 30, "complete_time": None}
        assert updated.new_values["position_percent"] == 100

    async def test_never_goes_back(self, school: School, course: Course) -> None:
        lesson = course.lesson_ids[0]
        assert (await report(school.student, lesson, 60)).position_percent == 60
        assert (await report(school.student, lesson, 40)).position_percent == 60
        assert (await report(school.student, lesson, 10, NOT_STARTED)).status == IN_PROGRESS
        completed = await report(school.student, lesson, 10, COMPLETED)
        back = await report(school.student, lesson, 10, IN_PROGRESS)
        assert (back.status, back.position_percent) == (COMPLETED, 100)
        assert back.complete_time == completed.complete_time

    async def test_concurrent_reports_lose_nothing_and_end_with_the_furthest(
        self, school: School, course: Course, entries_of: ListEntries
    ) -> None:
        lesson = course.lesson_ids[0]
        seed = random.randrange(2**32)
        percents = random.Random(seed).sample(range(1, 100), 16)
        answers = await asyncio.gather(*(report(school.student, lesson, percent) for percent in percents))
        for percent, answer in zip(percents, answers, strict=True):
            assert answer.position_percent >= percent, f"seed {seed}"
        final = await recorded(school.student, lesson)
        assert (final.position_percent, final.status) == (max(percents), IN_PROGRESS), f"seed {seed}"
        entries = await entries_of(entity_type="progress", user_id=school.student.user_id, request_id="")
        mine = [one for one in entries if one.entity_id == entries[-1].entity_id]
        assert mine[0].action == "create"
        # Each entry begins where another ended: no change is without one, and what was overtaken left none, unless it
        # had begun before all others.
        moved = [one for one in mine if "position_percent" in one.new_values]
        reached = [one.new_values["position_percent"] for one in moved]
        begun = [one.old_values["position_percent"] for one in moved[1:]]
        assert sorted(begun) == sorted(reached)[:-1], f"seed {seed}"

    async def test_repeating_a_report_changes_and_records_nothing(
        self, school: School, course: Course, entries_of: ListEntries
    ) -> None:
        lesson = course.lesson_ids[0]
        first = await report(school.student, lesson, 25)
        assert await report(school.student, lesson, 25) == first
        assert await report(school.student, lesson) == first
        entries = await entries_of(entity_type="progress", user_id=school.student.user_id)
        assert [one.action for one in entries if one.entity_id == entries[-1].entity_id] == ["create"]

    async def test_a_view_later_on_is_written_down_but_is_no_change(
        self, school: School, course: Course, entries_of: ListEntries, tables: "Connection[Any]"
    ) -> None:
        lesson = course.lesson_ids[0]
        await report(school.student, lesson, 25)
        await tables.execute(
            "UPDATE learning.user_progress SET last_view_time = last_view_time - $1::interval WHERE lesson_id = $2",
            timedelta(minutes=2), lesson,
        )  # fmt: skip
        before = await recorded(school.student, lesson)
        after = await report(school.student, lesson, 25)
        assert after.last_view_time.seconds - before.last_view_time.seconds >= 119
        assert (after.status, after.position_percent) == (before.status, before.position_percent)
        entries = await entries_of(entity_type="progress", user_id=school.student.user_id)
        assert [one.action for one in entries if one.entity_id == entries[-1].entity_id] == ["create"]

    async def test_takes_one_statement_to_read_one_to_write_and_one_for_its_event(
        self, school: School, course: Course
    ) -> None:
        lesson = course.lesson_ids[0]
        await report(school.student, lesson, 10)
        await school.settle()
        with round_trips(school) as seen:
            await report(school.student, lesson, 20)
        assert seen == ["BEGIN;", "SELECT", "WITH", "INSERT", "COMMIT"]

    async def test_a_lesson_stays_locked_until_its_prerequisites_are_completed(
        self, school: School, course: Course
    ) -> None:
        first, second = course.lesson_ids
        await report(school.student, first, 100)
        async with refused("WRONG_STATE") as refusal:
            await report(school.student, second, 10)
        assert refusal.metadata == {"state": "locked", "prerequisite_ids": first}
        await report(school.student, first, status=COMPLETED)
        assert (await report(school.student, second, 10)).position_percent == 10

    async def test_a_deleted_prerequisite_no_longer_counts(self, school: School, course: Course) -> None:
        first, second = course.lesson_ids
        lessons = school.teacher.stub(LessonServiceStub, "content")
        await lessons.DeleteLesson(DeleteLessonRequest(id=first))
        await school.settle()
        assert (await report(school.student, second, 10)).status == IN_PROGRESS
        async with refused("RESOURCE_NOT_FOUND"):
            await report(school.student, first, 10)

    async def test_refuses_who_does_not_take_the_course_whatever_their_rights(
        self, school: School, course: Course
    ) -> None:
        async with refused("PERMISSION_REQUIRED") as refusal:
            await report(school.student2, course.lesson_ids[0], 10)
        assert refusal.metadata["permission"] == "progress:update"
        async with refused("WRONG_STATE") as refusal:
            await report(school.admin, course.lesson_ids[0], 10)
        assert refusal.metadata["state"] == "not_enrolled"

    async def test_withdrawing_ends_reports_and_keeps_what_was_achieved(self, school: School, course: Course) -> None:
        lesson = course.lesson_ids[0]
        achieved = await report(school.student, lesson, 70)
        await withdraw(school, course, school.student)
        async with refused("PERMISSION_REQUIRED"):
            await report(school.student, lesson, 80)
        assert await recorded(school.student, lesson) == achieved

    async def test_refuses_a_lesson_that_is_not_published(self, school: School, course: Course) -> None:
        draft = await course.add_lesson(published=False)
        await school.settle()
        async with refused("WRONG_STATE") as refusal:
            await report(school.student, draft, 10)
        assert refusal.metadata["state"] == "draft"

    async def test_a_foreign_lesson_is_as_absent_as_any(self, school: School, make_course: MakeCourse) -> None:
        foreign = await make_course(school.outsider_teacher)
        await school.settle()
        answers: list[Refusal] = []
        for lesson_id in (foreign.lesson_ids[0], str(uuid4())):
            async with refused("RESOURCE_NOT_FOUND") as refusal:
                await report(school.student, lesson_id, 10)
            answers.append(refusal)
        assert answers[0].status == answers[1].status

    async def test_an_etag_is_a_condition(self, school: School, course: Course) -> None:
        lesson = course.lesson_ids[0]
        async with refused("STALE_ETAG", code=grpc.StatusCode.ABORTED):
            await report(school.student, lesson, 10, etag="1")
        first = await report(school.student, lesson, 10)
        second = await report(school.student, lesson, 20, etag=first.etag)
        async with refused("STALE_ETAG"):
            await report(school.student, lesson, 30, etag=first.etag)
        assert await recorded(school.student, lesson) == second

    async def test_of_concurrent_reports_with_one_etag_one_is_recorded(self, school: School, course: Course) -> None:
        lesson = course.lesson_ids[0]
        etag = (await report(school.student, lesson, 10)).etag
        results = await asyncio.gather(
            *(report(school.student, lesson, 20 + number, etag=etag) for number in range(4)), return_exceptions=True
        )
        assert sum(isinstance(one, Progress) for one in results) == 1

    async def test_writes_what_the_mask_names(self, school: School, course: Course) -> None:
        lesson = course.lesson_ids[0]
        made = await report(school.student, lesson, 40, COMPLETED, paths=("position_percent",))
        assert (made.status, made.position_percent) == (IN_PROGRESS, 40)
        async with refused("INVALID_UPDATE_MASK", field="update_mask"):
            await report(school.student, lesson, 40, paths=("user_id",))

    @pytest.mark.parametrize(("percent", "status"), [(101, 0), (-1, 0), (0, 9)])
    async def test_refuses_what_is_out_of_range(
        self, school: School, course: Course, percent: int, status: Any
    ) -> None:
        field = "progress.status" if status else "progress.position_percent"
        async with refused("INVALID_FIELD", field=field):
            await report(school.student, course.lesson_ids[0], percent, status)

    async def test_with_an_idempotency_key_answers_twice_and_records_once(self, school: School, course: Course) -> None:
        key = (("idempotency-key", str(uuid4())),)
        request = UpdateProgressRequest(progress=Progress(lesson_id=course.lesson_ids[0], position_percent=5))
        first = await progress_of(school.student).UpdateProgress(request, metadata=key)
        await report(school.student, course.lesson_ids[0], 50)
        assert await progress_of(school.student).UpdateProgress(request, metadata=key) == first


class TestGetProgress:
    async def test_nothing_recorded_is_not_started(self, school: School, course: Course) -> None:
        found = await recorded(school.student, course.lesson_ids[0])
        assert (found.status, found.position_percent, found.etag) == (NOT_STARTED, 0, "")
        assert not found.HasField("last_view_time")
        assert not found.HasField("create_time")

    async def test_is_refused_to_who_neither_takes_the_course_nor_has_a_record(
        self, school: School, course: Course
    ) -> None:
        async with refused("PERMISSION_REQUIRED"):
            await recorded(school.student2, course.lesson_ids[0])

    async def test_a_foreign_lesson_is_as_absent_as_any(self, school: School, course: Course) -> None:
        answers: list[Refusal] = []
        for lesson_id in (course.lesson_ids[0], str(uuid4())):
            async with refused("RESOURCE_NOT_FOUND") as refusal:
                await recorded(school.outsider, lesson_id)
            answers.append(refusal)
        assert answers[0].status == answers[1].status


class TestListProgress:
    async def test_learners_list_their_own_and_teachers_everyones(self, school: School, course: Course) -> None:
        await course.enrol(school.student2)
        first, second = course.lesson_ids
        await report(school.student, first, status=COMPLETED)
        await report(school.student2, first, 20)
        await report(school.student, second, 5)
        request = ListProgressRequest(course_id=course.id)
        own = (await progress_of(school.student).ListProgress(request)).progress
        assert [one.lesson_id for one in own] == [second, first]
        assert own[1] == await recorded(school.student, first)
        everyones = (await progress_of(school.teacher).ListProgress(request)).progress
        assert len(everyones) == 3
        of_one = ListProgressRequest(course_id=course.id, user_id=school.student2.user_id)
        assert [one.position_percent for one in (await progress_of(school.teacher).ListProgress(of_one)).progress] == [
            20
        ]
        assert not (await progress_of(school.student).ListProgress(of_one)).progress
        done = ListProgressRequest(course_id=course.id, status=COMPLETED)
        assert [one.lesson_id for one in (await progress_of(school.teacher).ListProgress(done)).progress] == [first]

    async def test_pages_without_gaps_and_binds_tokens_to_their_query(self, school: School, course: Course) -> None:
        await course.enrol(school.student2)
        for person in (school.student, school.student2):
            await report(person, course.lesson_ids[0], status=COMPLETED)
            await report(person, course.lesson_ids[1], 5)
        stub = progress_of(school.teacher)
        seen: list[tuple[str, str]] = []
        token = ""
        while True:
            page = await stub.ListProgress(ListProgressRequest(course_id=course.id, page_size=3, page_token=token))
            seen += [(one.user_id, one.lesson_id) for one in page.progress]
            if not page.next_page_token:
                break
            token = page.next_page_token
        assert len(seen) == len(set(seen)) == 4
        async with refused("INVALID_PAGE_TOKEN"):
            await stub.ListProgress(ListProgressRequest(page_token=token))

    async def test_shows_nothing_of_another_tenant(self, school: School, course: Course) -> None:
        await report(school.student, course.lesson_ids[0], 20)
        request = ListProgressRequest(course_id=course.id, user_id=school.student.user_id)
        assert not (await progress_of(school.outsider_admin).ListProgress(request)).progress


class TestGetCourseProgress:
    async def test_rolls_up_published_lessons_by_unit(self, school: School, course: Course) -> None:
        another_unit = await course.add_unit()
        third = await course.add_lesson(unit_id=another_unit)
        await course.add_lesson(unit_id=another_unit, published=False)
        await school.settle()
        request = GetCourseProgressRequest(course_id=course.id)
        nothing = await progress_of(school.student).GetCourseProgress(request)
        assert (nothing.lesson_count, nothing.completed_percent) == (3, 0)
        assert not nothing.HasField("last_view_time")
        await report(school.student, course.lesson_ids[0], status=COMPLETED)
        latest = await report(school.student, third, 50)
        found = await progress_of(school.student).GetCourseProgress(request)
        assert (found.course_id, found.user_id) == (course.id, school.student.user_id)
        assert (found.lesson_count, found.completed_count, found.in_progress_count) == (3, 1, 1)
        assert found.completed_percent == 33
        assert found.last_view_time == latest.last_view_time
        assert [(one.unit_id, one.lesson_count, one.completed_count, one.in_progress_count) for one in found.units] == [
            (course.unit_id, 2, 1, 0),
            (another_unit, 1, 0, 1),
        ]

    async def test_teachers_see_a_learners_and_other_learners_do_not(self, school: School, course: Course) -> None:
        await report(school.student, course.lesson_ids[0], status=COMPLETED)
        request = GetCourseProgressRequest(course_id=course.id, user_id=school.student.user_id)
        assert (await progress_of(school.teacher).GetCourseProgress(request)).completed_percent == 50
        async with refused("PERMISSION_REQUIRED"):
            await progress_of(school.student2).GetCourseProgress(request)

    async def test_without_an_enrolment_there_is_none_whether_foreign_or_absent(
        self, school: School, course: Course
    ) -> None:
        answers: list[Refusal] = []
        for course_id in (course.id, str(uuid4())):
            request = GetCourseProgressRequest(course_id=course_id, user_id=school.student.user_id)
            async with refused("RESOURCE_NOT_FOUND") as refusal:
                await progress_of(school.outsider_admin).GetCourseProgress(request)
            answers.append(refusal)
        assert answers[0].status == answers[1].status
