"""Where a learner goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import event

from kit.ids import new_id
from storyloom.content.v1.courses_pb2 import ArchiveCourseRequest, DeleteCourseRequest
from storyloom.content.v1.courses_pb2_grpc import CourseServiceStub
from storyloom.learning.v1.enrollments_pb2 import WithdrawEnrollmentRequest
from storyloom.learning.v1.enrollments_pb2_grpc import EnrollmentServiceStub
from storyloom.learning.v1.home_pb2 import GetHomeRequest, Home, HomeCourse
from storyloom.learning.v1.home_pb2_grpc import HomeServiceStub
from storyloom.learning.v1.progress_pb2 import ProgressStatus
from tests.learning.conftest import Connection, Course, MakeCourse
from tests.learning.test_progress import report, round_trips
from tests.stack import Person, School

NOT_STARTED = ProgressStatus.PROGRESS_STATUS_NOT_STARTED
IN_PROGRESS = ProgressStatus.PROGRESS_STATUS_IN_PROGRESS
COMPLETED = ProgressStatus.PROGRESS_STATUS_COMPLETED
DUE = """
INSERT INTO learning.user_vocabulary_progress
  (tenant_id, user_id, vocabulary_id, status, phase, due_time, review_count, lapse_count, known, change)
VALUES ($1::text::uuid, $2::text::uuid, $3, 'reviewing', 'review', $4, 1, 0, false, 1)
"""


async def home(person: Person) -> Home:
    return await person.stub(HomeServiceStub, "learning").GetHome(GetHomeRequest())


async def shown(person: Person, course: Course) -> HomeCourse | None:
    return next((one for one in (await home(person)).courses if one.course_id == course.id), None)


async def next_of(person: Person, course: Course) -> str:
    found = await shown(person, course)
    assert found
    return found.next_lesson.lesson_id


@contextmanager
def statements(school: School) -> Iterator[list[str]]:
    """The same as `round_trips`, with those that go through SQLAlchemy, which the driver does not tell of."""
    engine = school.stack.services["learning"].db.engine.sync_engine

    def log(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if "learning.outbox" not in statement:
            seen.append(statement.split(maxsplit=1)[0])

    with round_trips(school) as seen:
        event.listen(engine, "before_cursor_execute", log)
        yield seen
        event.remove(engine, "before_cursor_execute", log)


class TestGetHome:
    async def test_shows_each_course_with_its_percent_and_next_lesson(self, school: School, course: Course) -> None:
        first, second = course.lesson_ids
        seen = await shown(school.student, course)
        assert seen
        assert (seen.title, seen.lesson_count, seen.completed_percent) == ("Tiếng Anh lớp 6", 2, 0)
        assert not seen.HasField("last_view_time")
        assert (seen.next_lesson.lesson_id, seen.next_lesson.unit_id) == (first, course.unit_id)
        assert (seen.next_lesson.title, seen.next_lesson.status) == ("Bài 1", NOT_STARTED)
        await report(school.student, first, 40)
        seen = await shown(school.student, course)
        assert seen
        assert (seen.next_lesson.lesson_id, seen.next_lesson.status) == (first, IN_PROGRESS)
        assert (seen.next_lesson.position_percent, seen.completed_percent) == (40, 0)
        await report(school.student, first, status=COMPLETED)
        seen = await shown(school.student, course)
        assert seen
        assert (seen.next_lesson.lesson_id, seen.completed_count, seen.completed_percent) == (second, 1, 50)
        await report(school.student, second, status=COMPLETED)
        seen = await shown(school.student, course)
        assert seen
        assert (seen.completed_percent, seen.HasField("next_lesson")) == (100, False)

    async def test_the_next_lesson_is_one_that_may_be_opened(self, school: School, course: Course) -> None:
        await report(school.student, course.lesson_ids[0], status=COMPLETED)
        await report(school.student, course.lesson_ids[1], status=COMPLETED)
        hidden = await course.add_lesson("Chưa xong", published=False)
        await course.add_lesson("Bị khoá", requires=(hidden,))
        free = await course.add_lesson("Tự do")
        await school.settle()
        assert await next_of(school.student, course) == free

    async def test_shows_the_course_last_opened_first(self, school: School, make_course: MakeCourse) -> None:
        courses = [await make_course() for _ in range(3)]
        for one in courses:
            await one.enrol(school.student2)
        await school.settle()
        mine = [one.id for one in reversed(courses)]
        await report(school.student2, courses[1].lesson_ids[0], 10)
        found = [one.course_id for one in (await home(school.student2)).courses if one.course_id in mine]
        assert found == [courses[1].id, courses[2].id, courses[0].id]

    async def test_leaves_out_what_the_learner_has_left_and_what_is_deleted(
        self, school: School, make_course: MakeCourse
    ) -> None:
        left, deleted, archived = [await make_course() for _ in range(3)]
        enrolment = await left.enrol(school.student)
        for one in (deleted, archived):
            await one.enrol(school.student)
        enrollments = school.teacher.stub(EnrollmentServiceStub, "learning")
        await enrollments.WithdrawEnrollment(WithdrawEnrollmentRequest(id=enrolment.id))
        courses = school.teacher.stub(CourseServiceStub, "content")
        await courses.DeleteCourse(DeleteCourseRequest(id=deleted.id))
        await courses.ArchiveCourse(ArchiveCourseRequest(id=archived.id))
        await school.settle()
        found = {one.course_id for one in (await home(school.student)).courses}
        assert found & {left.id, deleted.id, archived.id} == {archived.id}

    async def test_counts_the_words_that_are_due_and_names_those_due_longest(
        self, school: School, tables: Connection
    ) -> None:
        at, words = datetime.now(UTC), [new_id() for _ in range(13)]
        for number, word in enumerate(words):
            due = at - timedelta(hours=number) if number else at + timedelta(days=1)
            await tables.execute(DUE, school.teacher2.tenant_id, school.teacher2.user_id, word, due)
        seen = await home(school.teacher2)
        assert seen.due_count == 12
        assert list(seen.due_vocabulary_ids) == [str(one) for one in reversed(words)][:10]
        await tables.execute("DELETE FROM learning.user_vocabulary_progress WHERE vocabulary_id = ANY ($1)", words)
        assert not (await home(school.teacher2)).due_count

    async def test_is_the_callers_own_whatever_their_rights(self, school: School, course: Course) -> None:
        assert await shown(school.student, course)
        for person in (school.admin, school.teacher, school.outsider_admin):
            assert await shown(person, course) is None

    async def test_takes_at_most_three_statements_however_many_courses(
        self, school: School, course: Course, make_course: MakeCourse, tables: Connection
    ) -> None:
        for _ in range(2):
            await (await make_course()).enrol(school.student)
        word, due = new_id(), datetime.now(UTC) - timedelta(hours=1)
        await tables.execute(DUE, school.student.tenant_id, school.student.user_id, word, due)
        await school.settle()
        await home(school.student)
        with statements(school) as seen:
            assert (await home(school.student)).due_count
        await tables.execute("DELETE FROM learning.user_vocabulary_progress WHERE vocabulary_id = $1", word)
        assert len([verb for verb in seen if verb not in {"BEGIN;", "COMMIT"}]) == 3, seen
