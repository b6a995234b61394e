"""Courses: their life, and what deleting one hides."""

from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from storyloom.content.v1 import courses_pb2, lessons_pb2, stories_pb2, units_pb2
from storyloom.content.v1.courses_pb2 import CourseStatus
from tests.content.conftest import Author, ListEntries
from tests.stack import School, refused


async def delete(author: Author, course_id: str) -> courses_pb2.Course:
    return await author.courses.DeleteCourse(courses_pb2.DeleteCourseRequest(id=course_id))


async def undelete(author: Author, course_id: str) -> courses_pb2.Course:
    return await author.courses.UndeleteCourse(courses_pb2.UndeleteCourseRequest(id=course_id))


async def publish(author: Author, course_id: str, etag: str = "") -> courses_pb2.Course:
    return await author.courses.PublishCourse(courses_pb2.PublishCourseRequest(id=course_id, etag=etag))


async def archive(author: Author, course_id: str) -> courses_pb2.Course:
    return await author.courses.ArchiveCourse(courses_pb2.ArchiveCourseRequest(id=course_id))


async def read(author: Author, course_id: str) -> courses_pb2.Course:
    return await author.courses.GetCourse(courses_pb2.GetCourseRequest(id=course_id))


async def titles(author: Author, **wanted: Any) -> list[str]:
    request = courses_pb2.ListCoursesRequest(page_size=100, **wanted)
    return [one.title for one in (await author.courses.ListCourses(request)).courses]


class TestCreateCourse:
    async def test_makes_a_draft_of_the_caller_in_the_tenants_languages(self, teacher: Author) -> None:
        course = await teacher.course("Tiếng Anh lớp 6")
        assert course.status == CourseStatus.COURSE_STATUS_DRAFT
        assert course.author_id == teacher.person.user_id
        assert (course.story_language, course.learning_language) == ("vi", "en")
        assert await read(teacher, course.id) == course

    @pytest.mark.parametrize(("field", "value"), [("title", "  "), ("title", "x" * 201), ("description", "a\0b")])
    async def test_refuses_fields_out_of_range(self, teacher: Author, field: str, value: str) -> None:
        course = courses_pb2.Course(**({"title": "Title"} | {field: value}))
        async with refused("INVALID_FIELD", field=f"course.{field}"):
            await teacher.courses.CreateCourse(courses_pb2.CreateCourseRequest(course=course))

    async def test_is_not_for_students(self, student: Author) -> None:
        async with refused("PERMISSION_REQUIRED") as refusal:
            await student.course()
        assert refusal.metadata["permission"] == "course:create"


class TestGetCourse:
    async def test_shows_published_courses_to_anyone_and_drafts_to_few(self, teacher: Author, reader: Author) -> None:
        course = await teacher.course()
        async with refused("PERMISSION_REQUIRED"):
            await read(reader, course.id)
        await publish(teacher, course.id)
        assert (await read(reader, course.id)).id == course.id

    async def test_learners_see_a_course_that_they_take_to_the_end(
        self, school: School, teacher: Author, reader: Author
    ) -> None:
        taken, other = await teacher.course(published=True), await teacher.course(published=True)
        await teacher.enrol(taken.id, reader.person)
        await school.settle()
        for course in (taken, other):
            await archive(teacher, course.id)
        assert (await read(reader, taken.id)).status == CourseStatus.COURSE_STATUS_ARCHIVED
        async with refused("PERMISSION_REQUIRED"):
            await read(reader, other.id)

    async def test_another_tenants_course_is_absent(self, teacher: Author, outsider: Author) -> None:
        course = await teacher.course("Một khóa học của riêng trường này", published=True)
        async with refused("RESOURCE_NOT_FOUND"):
            await read(outsider, course.id)
        assert course.title not in await titles(outsider)


class TestListCourses:
    async def test_has_what_the_caller_may_see(self, teacher: Author, reader: Author) -> None:
        for title, published in (("Ẩn hiện 1", False), ("ẩn hiện 2", True)):
            await teacher.course(title, published=published)
        assert await titles(teacher, query="ẨN HIỆN") == ["ẩn hiện 2", "Ẩn hiện 1"]
        assert await titles(reader, query="ẩn hiện") == ["ẩn hiện 2"]
        assert await titles(teacher, query="ẩn", status="COURSE_STATUS_DRAFT") == ["Ẩn hiện 1"]

    async def test_goes_on_where_the_page_ended_also_by_title(self, teacher: Author) -> None:
        wanted = [f"Trang {number}" for number in range(5)]
        for title in (*wanted, wanted[2]):
            await teacher.course(title)
        request = courses_pb2.ListCoursesRequest(page_size=2, query="trang", order_by="title")
        found: list[str] = []
        while True:
            answer = await teacher.courses.ListCourses(request)
            found += [one.title for one in answer.courses]
            if not answer.next_page_token:
                break
            request.page_token = answer.next_page_token
        assert found == sorted([*wanted, wanted[2]])

    async def test_takes_one_statement(self, teacher: Author, statements: Any) -> None:
        with statements() as sent:
            await titles(teacher)
        assert len(sent) == 1, sent


class TestUpdateCourse:
    async def test_writes_what_the_mask_names(self, teacher: Author) -> None:
        course = await teacher.course()
        sent = courses_pb2.Course(id=course.id, title="Mới", description="Không ghi", etag=course.etag)
        request = courses_pb2.UpdateCourseRequest(course=sent, update_mask=FieldMask(paths=["title"]))
        changed = await teacher.courses.UpdateCourse(request)
        assert (changed.title, changed.description) == ("Mới", "")
        assert changed.etag != course.etag
        async with refused("STALE_ETAG", code=grpc.StatusCode.ABORTED):
            await teacher.courses.UpdateCourse(request)

    async def test_refuses_to_clear_the_title(self, teacher: Author) -> None:
        request = courses_pb2.UpdateCourseRequest(
            course=courses_pb2.Course(id=(await teacher.course()).id), update_mask=FieldMask(paths=["title"])
        )
        async with refused("INVALID_FIELD"):
            await teacher.courses.UpdateCourse(request)

    async def test_refuses_changes_of_an_archived_course_and_of_what_it_contains(self, teacher: Author) -> None:
        course = await teacher.course(published=True)
        unit = await teacher.unit(course.id)
        lesson = await teacher.lesson(unit.id)
        await archive(teacher, course.id)
        async with refused("WRONG_STATE"):
            changed = courses_pb2.Course(id=course.id, title="Mới")
            await teacher.courses.UpdateCourse(courses_pb2.UpdateCourseRequest(course=changed))
        async with refused("WRONG_STATE"):
            await teacher.unit(course.id)
        async with refused("WRONG_STATE"):
            await teacher.lesson(unit.id)
        async with refused("WRONG_STATE"):
            await teacher.lessons.PublishLesson(lessons_pb2.PublishLessonRequest(id=lesson.id))


class TestPublishCourse:
    async def test_goes_from_draft_to_published_to_archived_and_no_other_way(self, teacher: Author) -> None:
        course = await teacher.course()
        async with refused("WRONG_STATE"):
            await archive(teacher, course.id)
        published = await publish(teacher, course.id, course.etag)
        assert published.status == CourseStatus.COURSE_STATUS_PUBLISHED
        async with refused("WRONG_STATE"):
            await publish(teacher, course.id)
        await archive(teacher, course.id)
        async with refused("WRONG_STATE"):
            await publish(teacher, course.id)

    async def test_is_told_to_the_audit_log_with_old_and_new_status(
        self, teacher: Author, entries_of: ListEntries
    ) -> None:
        course = await teacher.course(published=True)
        created, published = await entries_of(entity_type="course", entity_id=course.id)
        assert (created.action, published.action) == ("create", "publish")
        assert dict(published.old_values) == {"status": "draft"}
        assert dict(published.new_values) == {"status": "published"}


class TestDeleteCourse:
    async def test_hides_what_it_contains_and_undeleting_restores_exactly_that(self, teacher: Author) -> None:
        course = await teacher.course()
        kept, removed = await teacher.unit(course.id), await teacher.unit(course.id)
        lesson, removed_lesson = await teacher.lesson(kept.id), await teacher.lesson(kept.id)
        story, removed_story = await teacher.story(lesson_id=lesson.id), await teacher.story(lesson_id=lesson.id)
        inner = await teacher.story(lesson_id=removed_lesson.id)
        await teacher.units.DeleteUnit(units_pb2.DeleteUnitRequest(id=removed.id))
        await teacher.lessons.DeleteLesson(lessons_pb2.DeleteLessonRequest(id=removed_lesson.id))
        await teacher.stories.DeleteStory(stories_pb2.DeleteStoryRequest(id=removed_story.id))

        assert (await delete(teacher, course.id)).HasField("delete_time")
        gone = [await absent(teacher, one) for one in (course, kept, lesson, story)]
        assert all(gone)

        await undelete(teacher, course.id)
        assert [await absent(teacher, one) for one in (course, kept, lesson, story)] == [False] * 4
        assert all([await absent(teacher, one) for one in (removed, removed_lesson, removed_story, inner)])

    async def test_a_part_does_not_come_back_without_the_whole(self, teacher: Author) -> None:
        course = await teacher.course()
        unit = await teacher.unit(course.id)
        lesson = await teacher.lesson(unit.id)
        story = await teacher.story(lesson_id=lesson.id)
        await delete(teacher, course.id)
        for undeletion in (
            teacher.units.UndeleteUnit(units_pb2.UndeleteUnitRequest(id=unit.id)),
            teacher.lessons.UndeleteLesson(lessons_pb2.UndeleteLessonRequest(id=lesson.id)),
            teacher.stories.UndeleteStory(stories_pb2.UndeleteStoryRequest(id=story.id)),
        ):
            async with refused("WRONG_STATE"):
                await undeletion

    async def test_each_part_hidden_is_in_the_audit_log(self, teacher: Author, entries_of: ListEntries) -> None:
        course = await teacher.course()
        unit = await teacher.unit(course.id)
        await delete(teacher, course.id)
        await undelete(teacher, course.id)
        actions = [one.action for one in await entries_of(entity_type="unit", entity_id=unit.id)]
        assert actions == ["create", "delete", "undelete"]

    async def test_undeleting_what_is_there_is_refused(self, teacher: Author) -> None:
        async with refused("WRONG_STATE"):
            await undelete(teacher, (await teacher.course()).id)

    async def test_learning_hears_of_every_lesson_that_is_hidden(
        self, school: School, teacher: Author, tables: "asyncpg.Connection[asyncpg.Record]"
    ) -> None:
        course = await teacher.course(published=True)
        lesson = await teacher.lesson((await teacher.unit(course.id)).id, published=True)

        async def known() -> tuple[bool, bool]:
            await school.settle()
            one = await tables.fetchval("SELECT deleted FROM learning.lesson_index WHERE id = $1", lesson.id)
            return one, await tables.fetchval("SELECT deleted FROM learning.course_index WHERE id = $1", course.id)

        assert await known() == (False, False)
        await delete(teacher, course.id)
        assert await known() == (True, True)
        await undelete(teacher, course.id)
        assert await known() == (False, False)


async def absent(author: Author, one: Any) -> bool:
    """Whether reading it says that there is no such thing."""
    get = {
        courses_pb2.Course: lambda: read(author, one.id),
        units_pb2.Unit: lambda: author.units.GetUnit(units_pb2.GetUnitRequest(id=one.id)),
        lessons_pb2.Lesson: lambda: author.lessons.GetLesson(lessons_pb2.GetLessonRequest(id=one.id)),
        stories_pb2.Story: lambda: author.read(one.id),
    }[type(one)]
    try:
        await get()
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return True
        raise
    return False
