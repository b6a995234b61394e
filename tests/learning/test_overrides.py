"""What a teacher decides for a learner: the RPC `OverrideProgress` of ProgressService."""

import asyncio
from typing import Any
from uuid import uuid4

import grpc
import pytest

from storyloom.learning.v1.progress_pb2 import OverrideProgressRequest, Progress
from tests.learning.conftest import Course, ListEntries
from tests.learning.test_progress import (
    COMPLETED,
    IN_PROGRESS,
    NOT_STARTED,
    progress_of,
    recorded,
    report,
    withdraw,
)
from tests.stack import Person, Refusal, School, refused


async def override(
    person: Person, lesson_id: str, learner: Person, status: Any, *, reason: str = "was ill", etag: str = ""
) -> Progress:
    request = OverrideProgressRequest(
        lesson_id=lesson_id, user_id=learner.user_id, status=status, reason=reason, etag=etag
    )
    return await progress_of(person).OverrideProgress(request)


class TestOverrideProgress:
    async def test_completes_a_lesson_never_opened_and_so_unlocks_the_next(
        self, school: School, course: Course, entries_of: ListEntries
    ) -> None:
        first, second = course.lesson_ids
        async with refused("WRONG_STATE"):
            await report(school.student, second, 10)
        done = await override(school.teacher, first, school.student, COMPLETED)
        assert (done.status, done.position_percent, done.etag) == (COMPLETED, 100, "1")
        assert done.HasField("complete_time")
        assert not done.HasField("last_view_time")
        assert done == await recorded(school.student, first)
        assert (await report(school.student, second, 10)).status == IN_PROGRESS
        [entry] = [one for one in await entries_of(entity_type="progress", action="override") if entry_is(one, first)]
        assert entry.user_id == school.teacher.user_id
        assert entry.new_values["user_id"] == school.student.user_id
        assert entry.new_values["reason"] == "was ill"

    async def test_sets_back_and_locks_the_next_and_the_learner_goes_forward_again(
        self, school: School, course: Course, entries_of: ListEntries
    ) -> None:
        first, second = course.lesson_ids
        before = await report(school.student, first, status=COMPLETED)
        back = await override(school.teacher, first, school.student, IN_PROGRESS)
        assert (back.status, back.position_percent, back.start_time) == (IN_PROGRESS, 100, before.start_time)
        assert not back.HasField("complete_time")
        assert back.etag == "2"
        async with refused("WRONG_STATE"):
            await report(school.student, second, 10)
        none = await override(school.teacher, first, school.student, NOT_STARTED)
        assert (none.status, none.position_percent, none.HasField("start_time")) == (NOT_STARTED, 0, False)
        again = await report(school.student, first, 30)
        assert (again.status, again.position_percent) == (IN_PROGRESS, 30)
        entries = [one for one in await entries_of(entity_type="progress", action="override") if entry_is(one, first)]
        assert [one.old_values["status"] for one in entries] == ["completed", "in_progress"]
        assert [one.new_values["status"] for one in entries] == ["in_progress", "not_started"]

    async def test_a_view_that_was_on_its_way_does_not_take_it_back(self, school: School, course: Course) -> None:
        first = course.lesson_ids[0]
        await report(school.student, first, status=COMPLETED)
        views = [report(school.student, first, 20) for _ in range(5)]
        back = override(school.teacher, first, school.student, NOT_STARTED)
        results = await asyncio.gather(*views[:3], back, *views[3:], return_exceptions=True)
        if isinstance(results[3], BaseException):
            assert isinstance(results[3], grpc.aio.AioRpcError)
            assert results[3].code() is grpc.StatusCode.ABORTED
        else:
            assert (await recorded(school.student, first)).status != COMPLETED

    async def test_takes_who_has_left_the_course_with_progress_and_nobody_else(
        self, school: School, course: Course
    ) -> None:
        first, second = course.lesson_ids
        await report(school.student, first, 30)
        await withdraw(school, course, school.student)
        assert (await override(school.teacher, first, school.student, COMPLETED)).status == COMPLETED
        answers: list[Refusal] = []
        for lesson, learner in ((second, school.student), (first, school.student2), (first, school.outsider)):
            async with refused("WRONG_STATE") as refusal:
                await override(school.teacher, lesson, learner, COMPLETED)
            answers.append(refusal)
        assert answers[0].status == answers[1].status == answers[2].status
        assert answers[0].metadata == {"state": "not_enrolled"}

    async def test_is_not_for_learners_not_even_of_their_own(self, school: School, course: Course) -> None:
        async with refused("PERMISSION_REQUIRED"):
            await override(school.student, course.lesson_ids[0], school.student, COMPLETED)

    async def test_a_foreign_lesson_is_as_absent_as_any(self, school: School, course: Course) -> None:
        answers: list[Refusal] = []
        for lesson in (course.lesson_ids[0], str(uuid4())):
            async with refused("RESOURCE_NOT_FOUND") as refusal:
                await override(school.outsider_admin, lesson, school.student, COMPLETED)
            answers.append(refusal)
        assert answers[0].status == answers[1].status

    async def test_an_etag_is_a_condition(self, school: School, course: Course) -> None:
        first = course.lesson_ids[0]
        before = await report(school.student, first, 30)
        await report(school.student, first, 40)
        async with refused("STALE_ETAG"):
            await override(school.teacher, first, school.student, COMPLETED, etag=before.etag)

    @pytest.mark.parametrize(("field", "changed"), [("reason", {"reason": " "}), ("status", {"status": 0})])
    async def test_requires_a_reason_and_a_status(
        self, school: School, course: Course, field: str, changed: dict[str, Any]
    ) -> None:
        values: dict[str, Any] = {"status": COMPLETED, "reason": "was ill"} | changed
        async with refused("INVALID_FIELD", field=field):
            await override(school.teacher, course.lesson_ids[0], school.student, **values)


def entry_is(entry: Any, lesson_id: str) -> bool:
    """Whether the entry is about the lesson."""
    return bool(entry.new_values["lesson_id"] == lesson_id)
