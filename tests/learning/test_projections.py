"""What learning knows of content's lessons: by events, and by asking before the event is here."""

from typing import Any
from uuid import uuid4

from storyloom.content.v1.courses_pb2 import DeleteCourseRequest
from storyloom.content.v1.courses_pb2_grpc import CourseServiceStub
from storyloom.content.v1.lessons_pb2 import Lesson, UpdateLessonRequest
from storyloom.content.v1.lessons_pb2_grpc import LessonServiceStub
from storyloom.learning.v1.progress_pb2 import Progress, ProgressStatus, UpdateProgressRequest
from storyloom.learning.v1.progress_pb2_grpc import ProgressServiceStub
from tests.learning.conftest import Connection, Course
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
        times = {"created_at", "updated_at"}
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
