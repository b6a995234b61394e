"""What learning knows of content's lessons: by events, and by asking before the event is here."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from services.learning.projections import on_attempts_graded
from services.learning.queries.daily_activity import recount
from storyloom.assessment.v1.events_pb2 import AttemptGraded
from storyloom.content.v1.courses_pb2 import DeleteCourseRequest, ReorderUnitsRequest
from storyloom.content.v1.courses_pb2_grpc import CourseServiceStub
from storyloom.content.v1.lessons_pb2 import Lesson, UpdateLessonRequest
from storyloom.content.v1.lessons_pb2_grpc import LessonServiceStub
from storyloom.content.v1.units_pb2 import CreateUnitRequest, Unit, UpdateUnitRequest
from storyloom.content.v1.units_pb2_grpc import UnitServiceStub
from storyloom.event.v1.events_pb2 import Event
from storyloom.learning.v1.progress_pb2 import (
    GetCourseProgressRequest,
    Progress,
    ProgressStatus,
    UpdateProgressRequest,
)
from storyloom.learning.v1.progress_pb2_grpc import ProgressServiceStub
from tests.learning.conftest import Connection, Course, MakeCourse
from tests.learning.reviewing import writing
from tests.learning.test_home import next_of, statements
from tests.stack import Person, School, refused

INDEXED = "SELECT * FROM learning.lesson_index WHERE id = $1"
FORGET = "DELETE FROM learning.lesson_index WHERE id = $1"


async def report(person: Person, lesson_id: str, percent: int, status: Any = 0) -> Progress:
    told = Progress(lesson_id=lesson_id, position_percent=percent, status=status)
    return await person.stub(ProgressServiceStub, "learning").UpdateProgress(UpdateProgressRequest(progress=told))


class TestEvents:
    async def test_bring_lessons_with_what_unlocks_them(
        self, school: School, course: Course, tables: "Connection[Any]"
    ) -> None:
        first, second = course.lesson_ids
        row = await tables.fetchrow(INDEXED, second)
        assert row is not None
        assert (str(row["course_id"]), str(row["unit_id"])) == (course.id, course.unit_id)
        assert (row["title"], row["status"], row["deleted"]) == ("Bài 2", "published", False)
        assert [str(one) for one in row["prerequisite_ids"]] == [first]
        assert str(row["tenant_id"]) == school.teacher.tenant_id

    async def test_bring_changes(self, school: School, course: Course, tables: "Connection[Any]") -> None:
        second = course.lesson_ids[1]
        async with refused("WRONG_STATE"):
            await report(school.student, second, 10)
        lesson = Lesson(id=second, title="Bài hai")
        request = UpdateLessonRequest(lesson=lesson)
        request.update_mask.paths.extend(["title", "prerequisite_ids"])
        await school.teacher.stub(LessonServiceStub, "content").UpdateLesson(request)
        await school.settle()
        row = await tables.fetchrow(INDEXED, second)
        assert row is not None
        assert (row["title"], row["prerequisite_ids"]) == ("Bài hai", [])
        assert (await report(school.student, second, 10)).position_percent == 10

    async def test_hide_the_lessons_of_a_deleted_course(self, school: School, course: Course) -> None:
        await report(school.student, course.lesson_ids[0], 10)
        courses = school.teacher.stub(CourseServiceStub, "content")
        await courses.DeleteCourse(DeleteCourseRequest(id=course.id))
        await school.settle()
        async with refused("RESOURCE_NOT_FOUND"):
            await report(school.student, course.lesson_ids[0], 20)


class TestLessonIndex:
    async def test_asks_content_for_a_lesson_not_told_of_yet_and_keeps_the_answer(
        self, school: School, course: Course, tables: "Connection[Any]"
    ) -> None:
        first, second = course.lesson_ids
        before = await tables.fetchrow(INDEXED, second)
        await tables.execute(FORGET, second)
        async with refused("WRONG_STATE") as refusal:
            await report(school.student, second, 10)
        assert refusal.metadata["prerequisite_ids"] == first
        after = await tables.fetchrow(INDEXED, second)
        assert before is not None
        assert after is not None
        # Only the event tells the place of the unit.
        times = {"created_at", "updated_at", "unit_position"}
        assert {name: value for name, value in after.items() if name not in times} == {
            name: value for name, value in before.items() if name not in times
        }

    async def test_an_answer_that_was_rolled_back_is_asked_for_again(
        self, school: School, course: Course, tables: "Connection[Any]"
    ) -> None:
        second = course.lesson_ids[1]
        await tables.execute(FORGET, second)
        told = UpdateProgressRequest(progress=Progress(lesson_id=second, position_percent=10))
        stub = school.student.stub(ProgressServiceStub, "learning")
        async with refused("WRONG_STATE"):
            await stub.UpdateProgress(told, metadata=(("idempotency-key", str(uuid4())),))
        assert await tables.fetchrow(INDEXED, second) is None
        async with refused("WRONG_STATE"):
            await stub.UpdateProgress(told)
        assert await tables.fetchrow(INDEXED, second) is not None

    async def test_a_prerequisite_not_told_of_yet_still_binds(
        self, school: School, course: Course, tables: "Connection[Any]"
    ) -> None:
        first, second = course.lesson_ids
        await tables.execute(FORGET, first)
        async with refused("WRONG_STATE") as refusal:
            await report(school.student, second, 10)
        assert refusal.metadata["prerequisite_ids"] == first
        await report(school.student, first, 0, ProgressStatus.PROGRESS_STATUS_COMPLETED)
        assert (await report(school.student, second, 10)).position_percent == 10

    async def test_with_content_down_known_lessons_go_on_and_unknown_ones_are_unavailable(
        self, school: School, course: Course, tables: "Connection[Any]"
    ) -> None:
        first, second = course.lesson_ids
        await tables.execute(FORGET, second)
        await school.stack.stop_service("content")
        try:
            assert (await report(school.student, first, 10)).position_percent == 10
            async with refused("DEPENDENCY_UNAVAILABLE"):
                await report(school.student, second, 10)
        finally:
            await school.stack.start_service("content")


class TestPlacesOfUnits:
    async def test_order_the_lessons_of_home_and_the_units_of_a_course(
        self, school: School, make_course: MakeCourse
    ) -> None:
        course = await make_course()
        await course.enrol(school.student2)
        second = await course.add_unit()
        ahead = await course.add_lesson("Của đơn vị 2", unit_id=second)
        await school.settle()
        assert await next_of(school.student2, course) == course.lesson_ids[0]
        courses = school.teacher.stub(CourseServiceStub, "content")
        await courses.ReorderUnits(ReorderUnitsRequest(id=course.id, unit_ids=[second, course.unit_id]))
        await school.settle()
        assert await next_of(school.student2, course) == ahead
        assert await units_of(school.student2, course) == [second, course.unit_id]
        # A unit that comes in between moves those behind it.
        units = school.teacher.stub(UnitServiceStub, "content")
        between = await units.CreateUnit(CreateUnitRequest(unit=Unit(course_id=course.id, title="1a", position=1)))
        first = await course.add_lesson("Đầu tiên", unit_id=between.id)
        await school.settle()
        assert await next_of(school.student2, course) == first
        moved = UpdateUnitRequest(unit=Unit(id=between.id, position=4))
        moved.update_mask.paths.append("position")
        await units.UpdateUnit(moved)
        await school.settle()
        assert await next_of(school.student2, course) == ahead
        assert await units_of(school.student2, course) == [second, course.unit_id, between.id]


async def units_of(person: Person, course: Course) -> list[str]:
    progress = person.stub(ProgressServiceStub, "learning")
    found = await progress.GetCourseProgress(GetCourseProgressRequest(course_id=course.id))
    return [one.unit_id for one in found.units]


class TestGradedAttempts:
    KEPT = "SELECT * FROM learning.graded_attempts WHERE id = $1"
    DAYS = "SELECT coalesce(sum(quizzes_passed), 0) FROM learning.daily_activity WHERE user_id = $1"

    def graded(self, attempt_id: UUID, user_id: UUID, minute: int, *, passed: bool) -> AttemptGraded:
        told = AttemptGraded(
            attempt_id=str(attempt_id),
            quiz_id=str(uuid4()),
            user_id=str(user_id),
            number=2,
            score="7.25" if passed else "1",
            max_score="9",
            percent="80.56" if passed else "11.11",
            passed=passed,
            regraded=minute > 0,
        )
        told.grade_time.FromDatetime(datetime(2026, 10, 1, 9, minute, tzinfo=UTC))
        return told

    async def test_are_kept_as_last_graded_in_whatever_order_that_is_heard(
        self, school: School, tables: "Connection[Any]"
    ) -> None:
        for order in ((0, 1, 2), (2, 1, 0), (1, 1, 0, 2, 2)):
            attempt_id, user_id = uuid4(), uuid4()
            for minute in order:
                async with writing(school) as session:
                    told = self.graded(attempt_id, user_id, minute, passed=minute == 2)
                    await on_attempts_graded(session, [(Event(), told)])
            row = await tables.fetchrow(self.KEPT, attempt_id)
            assert row is not None
            assert (row["score"], row["max_score"], row["percent"]) == (Decimal("7.25"), 9, Decimal("80.56"))
            assert (row["passed"], row["regraded"], row["number"], row["lesson_id"]) == (True, True, 2, None)
            assert await tables.fetchval(self.DAYS, user_id) == 1

    async def test_are_taken_together_as_one_by_one(self, school: School, tables: "Connection[Any]") -> None:
        learners = [uuid4() for _ in range(6)]
        told = [self.graded(uuid4(), user_id, 0, passed=True) for user_id in learners for _ in range(2)]
        # Graded again: one is taken away, one of somebody else is told of twice.
        again = AttemptGraded.FromString(told[0].SerializeToString())
        again.grade_time.FromDatetime(datetime(2026, 10, 1, 9, 5, tzinfo=UTC))
        again.passed = False
        every = [*reversed(told), again, told[5]]
        with statements(school) as seen:
            async with writing(school) as session:
                await on_attempts_graded(session, [(Event(), one) for one in every])
        # The two that are of attempts in it for the second time take a statement more.
        assert len(seen) <= 6, seen
        days = [await tables.fetchval(self.DAYS, user_id) for user_id in learners]
        assert days == [1, 2, 2, 2, 2, 2]
        verbs = "SELECT verb FROM learning.statements WHERE registration = $1 ORDER BY id"
        noted = [row["verb"] for row in await tables.fetch(verbs, UUID(again.attempt_id))]
        assert noted == ["passed", "scored"]

    async def test_leave_no_trace_in_the_day_of_a_learner_who_may_not_know_them(
        self, school: School, tables: "Connection[Any]"
    ) -> None:
        user_id = uuid4()
        async with writing(school) as session:
            told = self.graded(uuid4(), user_id, 0, passed=True)
            told.score_hidden = True
            await on_attempts_graded(session, [(Event(), told)])
            assert await recount(session, user_id) == []
        assert await tables.fetchval(self.DAYS, user_id) == 0
        # A day with a quiz that was passed would be one of the streak.
        active = "SELECT bool_or(active) FROM learning.daily_activity WHERE user_id = $1"
        assert not await tables.fetchval(active, user_id)

    async def test_count_no_more_when_a_regrade_takes_the_pass_away(
        self, school: School, tables: "Connection[Any]"
    ) -> None:
        attempt_id, user_id = uuid4(), uuid4()
        for minute, counted in ((0, 1), (3, 0)):
            async with writing(school) as session:
                told = self.graded(attempt_id, user_id, minute, passed=minute == 0)
                await on_attempts_graded(session, [(Event(), told)])
            assert await tables.fetchval(self.DAYS, user_id) == counted
