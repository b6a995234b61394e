"""Courses to learn from, made through content's own RPCs, and a look into learning's tables."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import asyncpg
import pytest

from storyloom.audit.v1.audit_logs_pb2 import AuditLog, ListAuditLogsRequest
from storyloom.audit.v1.audit_logs_pb2_grpc import AuditLogServiceStub
from storyloom.content.v1 import courses_pb2, lessons_pb2, units_pb2
from storyloom.content.v1.courses_pb2_grpc import CourseServiceStub
from storyloom.content.v1.lessons_pb2_grpc import LessonServiceStub
from storyloom.content.v1.units_pb2_grpc import UnitServiceStub
from storyloom.learning.v1 import enrollments_pb2
from storyloom.learning.v1.enrollments_pb2_grpc import EnrollmentServiceStub
from tests.stack import Person, School

Connection = asyncpg.Connection


@dataclass(frozen=True)
class Course:
    """A course with one unit and its lessons; `teacher` made it."""

    id: str
    unit_id: str
    lesson_ids: tuple[str, ...]
    teacher: Person

    async def add_lesson(
        self, title: str = "Lesson", *, unit_id: str = "", requires: tuple[str, ...] = (), published: bool = True
    ) -> str:
        lessons = self.teacher.stub(LessonServiceStub, "content")
        lesson = lessons_pb2.Lesson(unit_id=unit_id or self.unit_id, title=title, prerequisite_ids=requires)
        made = await lessons.CreateLesson(lessons_pb2.CreateLessonRequest(lesson=lesson))
        if published:
            await lessons.PublishLesson(lessons_pb2.PublishLessonRequest(id=made.id))
        return made.id

    async def add_unit(self) -> str:
        units = self.teacher.stub(UnitServiceStub, "content")
        unit = units_pb2.Unit(course_id=self.id, title="Another unit")
        return (await units.CreateUnit(units_pb2.CreateUnitRequest(unit=unit))).id

    async def enrol(self, person: Person) -> enrollments_pb2.Enrollment:
        enrollments = self.teacher.stub(EnrollmentServiceStub, "learning")
        wanted = enrollments_pb2.Enrollment(course_id=self.id, user_id=person.user_id)
        return await enrollments.CreateEnrollment(enrollments_pb2.CreateEnrollmentRequest(enrollment=wanted))


MakeCourse = Callable[..., Awaitable[Course]]


async def _make_course(teacher: Person, *, lessons: int = 1, published: bool = True) -> Course:
    """Each lesson after the first requires the one before it."""
    courses = teacher.stub(CourseServiceStub, "content")
    wanted = courses_pb2.Course(title="Tiếng Anh lớp 6", story_language="vi", learning_language="en")
    made = await courses.CreateCourse(courses_pb2.CreateCourseRequest(course=wanted))
    if published:
        await courses.PublishCourse(courses_pb2.PublishCourseRequest(id=made.id))
    units = teacher.stub(UnitServiceStub, "content")
    unit = await units.CreateUnit(units_pb2.CreateUnitRequest(unit=units_pb2.Unit(course_id=made.id, title="Đơn vị 1")))
    course = Course(made.id, unit.id, (), teacher)
    ids: list[str] = []
    for number in range(lessons):
        ids.append(await course.add_lesson(f"Bài {number + 1}", requires=tuple(ids[-1:])))
    return Course(made.id, unit.id, tuple(ids), teacher)


@pytest.fixture
def make_course(school: School) -> MakeCourse:
    """Makes courses of the school's teacher, or of the teacher given."""

    async def make(teacher: Person = school.teacher, *, lessons: int = 1, published: bool = True) -> Course:
        return await _make_course(teacher, lessons=lessons, published=published)

    return make


@pytest.fixture
async def course(school: School, make_course: MakeCourse) -> Course:
    """Two lessons, the second after the first; the school's student takes it, and learning has heard of it all."""
    made = await make_course(lessons=2)
    await made.enrol(school.student)
    await school.settle()
    return made


@pytest.fixture
async def tables(school: School) -> AsyncIterator["Connection[asyncpg.Record]"]:
    """The database as its superuser sees it: to move clocks, and to take away what an event has not brought yet."""
    connection = await asyncpg.connect(school.stack.cluster.superuser_url)
    yield connection
    await connection.close()


ListEntries = Callable[..., Awaitable[list[AuditLog]]]


@pytest.fixture
def entries_of(school: School) -> ListEntries:
    """Audit entries, oldest first."""

    async def entries(**wanted: str) -> list[AuditLog]:
        await school.settle()
        logs = school.auditor.stub(AuditLogServiceStub, "audit")
        found = await logs.ListAuditLogs(ListAuditLogsRequest(page_size=100, **wanted))
        return list(reversed(found.audit_logs))

    return entries
