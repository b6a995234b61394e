"""Lessons: who may read them, what comes before which, and their places."""

import asyncio
from collections.abc import Iterable
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from storyloom.content.v1 import lessons_pb2, units_pb2
from storyloom.content.v1.lessons_pb2 import LessonStatus
from storyloom.learning.v1.enrollments_pb2 import WithdrawEnrollmentRequest
from storyloom.learning.v1.enrollments_pb2_grpc import EnrollmentServiceStub
from tests.content.conftest import Author, ListEntries, outcomes
from tests.stack import School, refused

NOWHERE = "00000000-0000-7000-8000-000000000000"


async def read(author: Author, lesson_id: str) -> lessons_pb2.Lesson:
    return await author.lessons.GetLesson(lessons_pb2.GetLessonRequest(id=lesson_id))


async def require_first(author: Author, lesson_id: str, *before: str) -> lessons_pb2.Lesson:
    """Makes these the lesson's prerequisites."""
    lesson = lessons_pb2.Lesson(id=lesson_id, prerequisite_ids=before)
    mask = FieldMask(paths=["prerequisite_ids"])
    return await author.lessons.UpdateLesson(lessons_pb2.UpdateLessonRequest(lesson=lesson, update_mask=mask))


async def ids(author: Author, **wanted: Any) -> list[str]:
    request = lessons_pb2.ListLessonsRequest(page_size=2, **wanted)
    found: list[str] = []
    while True:
        answer = await author.lessons.ListLessons(request)
        found += [one.id for one in answer.lessons]
        if not answer.next_page_token:
            return found
        request.page_token = answer.next_page_token


async def delete(author: Author, lesson_id: str) -> lessons_pb2.Lesson:
    return await author.lessons.DeleteLesson(lessons_pb2.DeleteLessonRequest(id=lesson_id))


async def undelete(author: Author, lesson_id: str) -> lessons_pb2.Lesson:
    return await author.lessons.UndeleteLesson(lessons_pb2.UndeleteLessonRequest(id=lesson_id))


async def some_lessons(author: Author, count: int, *, published: bool = False) -> list[lessons_pb2.Lesson]:
    """Lessons of one new unit of a new published course."""
    unit = await author.unit((await author.course(published=True)).id)
    return [await author.lesson(unit.id, f"Bài {number + 1}", published=published) for number in range(count)]


class TestCreateLesson:
    async def test_makes_a_draft_at_the_end_of_the_unit(self, teacher: Author) -> None:
        first, second = await some_lessons(teacher, 2)
        assert (first.position, second.position) == (1, 2)
        assert second.status == LessonStatus.LESSON_STATUS_DRAFT
        assert await read(teacher, second.id) == second

    async def test_takes_prerequisites_of_the_same_course_only(self, teacher: Author) -> None:
        (first,) = await some_lessons(teacher, 1)
        other = (await some_lessons(teacher, 1))[0]
        unit = await teacher.unit(first.course_id)
        made = await teacher.lesson(unit.id, prerequisite_ids=[first.id])
        assert list(made.prerequisite_ids) == [first.id]
        for wrong in (other.id, NOWHERE):
            async with refused("REFERENCE_NOT_FOUND"):
                await teacher.lesson(unit.id, prerequisite_ids=[first.id, wrong])

    async def test_refuses_a_unit_that_is_not_there(self, teacher: Author, outsider: Author) -> None:
        foreign = await outsider.unit((await outsider.course()).id)
        deleted = await teacher.unit((await teacher.course()).id)
        await teacher.units.DeleteUnit(units_pb2.DeleteUnitRequest(id=deleted.id))
        for unit_id in (NOWHERE, foreign.id, deleted.id):
            async with refused("REFERENCE_NOT_FOUND") as refusal:
                await teacher.lesson(unit_id)
            assert refusal.metadata == {"resource": "unit"}

    async def test_made_at_once_each_gets_its_own_place(self, teacher: Author, teacher2: Author) -> None:
        unit = await teacher.unit((await teacher.course()).id)
        made = await outcomes(*(one.lesson(unit.id) for one in (teacher, teacher2) * 3))
        assert sorted(one.position for one in made) == list(range(1, 7))


class TestGetLesson:
    async def test_is_for_learners_of_the_course_once_it_is_published(
        self, school: School, teacher: Author, reader: Author
    ) -> None:
        draft, lesson = await some_lessons(teacher, 2)
        await teacher.lessons.PublishLesson(lessons_pb2.PublishLessonRequest(id=lesson.id))
        async with refused("PERMISSION_REQUIRED"):
            await read(reader, lesson.id)
        await teacher.enrol(lesson.course_id, reader.person)
        await school.settle()
        assert (await read(reader, lesson.id)).id == lesson.id
        async with refused("PERMISSION_REQUIRED"):
            await read(reader, draft.id)

    async def test_ends_with_the_enrolment(self, school: School, teacher: Author, reader: Author) -> None:
        (lesson,) = await some_lessons(teacher, 1, published=True)
        enrollment = await teacher.enrol(lesson.course_id, reader.person)
        await school.settle()
        enrollments = teacher.person.stub(EnrollmentServiceStub, "learning")
        await enrollments.WithdrawEnrollment(WithdrawEnrollmentRequest(id=enrollment.id))
        await school.settle()
        async with refused("PERMISSION_REQUIRED"):
            await read(reader, lesson.id)
        await teacher.enrol(lesson.course_id, reader.person)
        await school.settle()
        assert (await read(reader, lesson.id)).id == lesson.id

    @pytest.mark.slow
    async def test_asks_learning_what_its_events_have_not_told_and_refuses_without_an_answer(
        self, school: School, teacher: Author, reader: Author, tables: "asyncpg.Connection[asyncpg.Record]"
    ) -> None:
        (lesson,) = await some_lessons(teacher, 1, published=True)
        await teacher.enrol(lesson.course_id, reader.person)
        await school.settle()
        await tables.execute("DELETE FROM content.course_access WHERE course_id = $1", lesson.course_id)
        assert (await read(reader, lesson.id)).id == lesson.id

        await school.stack.stop_service("learning")
        try:
            async with refused("PERMISSION_REQUIRED"):
                await read(reader, lesson.id)
            assert (await read(teacher, lesson.id)).id == lesson.id
        finally:
            await school.stack.start_service("learning")
        await until_readable(reader, lesson.id)

    async def test_another_tenants_lesson_is_absent(self, teacher: Author, outsider: Author) -> None:
        (lesson,) = await some_lessons(teacher, 1, published=True)
        async with refused("RESOURCE_NOT_FOUND"):
            await read(outsider, lesson.id)
        assert await ids(outsider, course_id=lesson.course_id) == []


async def until_readable(author: Author, lesson_id: str) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await read(author, lesson_id)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.1)
            else:
                return


class TestListLessons:
    async def test_goes_by_place_of_unit_then_of_lesson(self, teacher: Author) -> None:
        course = await teacher.course()
        second, first = await teacher.unit(course.id), await teacher.unit(course.id, position=1)
        made = [await teacher.lesson(unit.id) for unit in (second, first, second, first)]
        wanted = [made[1].id, made[3].id, made[0].id, made[2].id]
        assert await ids(teacher, course_id=course.id) == wanted
        assert await ids(teacher, unit_id=first.id) == wanted[:2]

    async def test_shows_learners_what_is_published_in_their_course(
        self, school: School, teacher: Author, reader: Author
    ) -> None:
        _, lesson = await some_lessons(teacher, 2)
        await teacher.lessons.PublishLesson(lessons_pb2.PublishLessonRequest(id=lesson.id))
        assert await ids(reader, course_id=lesson.course_id) == []
        await teacher.enrol(lesson.course_id, reader.person)
        await school.settle()
        assert await ids(reader, course_id=lesson.course_id) == [lesson.id]
        assert await ids(teacher, course_id=lesson.course_id, status="LESSON_STATUS_PUBLISHED") == [lesson.id]

    async def test_wants_exactly_one_parent(self, teacher: Author) -> None:
        for wrong in ({}, {"unit_id": NOWHERE, "course_id": NOWHERE}):
            async with refused("INVALID_FIELD"):
                await ids(teacher, **wrong)

    async def test_takes_no_more_statements_for_more_lessons(self, teacher: Author, statements: Any) -> None:
        made = await some_lessons(teacher, 5)
        for one, before in zip(made[1:], made, strict=False):
            await require_first(teacher, one.id, before.id)
        with statements() as sent:
            request = lessons_pb2.ListLessonsRequest(course_id=made[0].course_id)
            answer = await teacher.lessons.ListLessons(request)
        assert [list(one.prerequisite_ids) for one in answer.lessons[1:]] == [[one.id] for one in made[:-1]]
        assert len(sent) <= 2, sent


class TestPrerequisites:
    async def test_are_replaced_as_a_whole(self, teacher: Author, entries_of: ListEntries) -> None:
        a, b, c = await some_lessons(teacher, 3)
        await require_first(teacher, c.id, a.id)
        changed = await require_first(teacher, c.id, b.id)
        assert list(changed.prerequisite_ids) == [b.id]
        assert (await require_first(teacher, c.id)).etag != changed.etag
        entry = (await entries_of(entity_type="lesson", entity_id=c.id))[-2]
        assert (list(entry.old_values["prerequisite_ids"]), list(entry.new_values["prerequisite_ids"])) == (
            [a.id],
            [b.id],
        )

    async def test_never_form_a_circle(self, teacher: Author) -> None:
        a, b, c = await some_lessons(teacher, 3)
        await require_first(teacher, b.id, a.id)
        await require_first(teacher, c.id, b.id)
        for before in (a.id, b.id, c.id):
            async with refused("WRONG_STATE") as refusal:
                await require_first(teacher, a.id, before)
            assert refusal.metadata == {"state": "circle"}
        assert not (await read(teacher, a.id)).prerequisite_ids

    async def test_never_form_a_circle_also_when_written_at_once(self, teacher: Author, teacher2: Author) -> None:
        for _ in range(3):
            made = await some_lessons(teacher, 4)
            turned = zip(made, made[1:] + made[:1], strict=True)
            authors: Iterable[Author] = (teacher, teacher2) * 2
            done = await outcomes(
                *(require_first(who, one.id, before.id) for who, (one, before) in zip(authors, turned, strict=True))
            )
            refusals = [one for one in done if isinstance(one, BaseException)]
            assert len(refusals) == 1
            needs = {one.id: list((await read(teacher, one.id)).prerequisite_ids) for one in made}
            assert sum(map(len, needs.values())) == 3

    async def test_that_are_deleted_do_not_count_until_they_come_back(
        self, school: School, teacher: Author, tables: "asyncpg.Connection[asyncpg.Record]"
    ) -> None:
        a, b = await some_lessons(teacher, 2)
        await require_first(teacher, b.id, a.id)
        await delete(teacher, a.id)
        assert not (await read(teacher, b.id)).prerequisite_ids
        await undelete(teacher, a.id)
        assert list((await read(teacher, b.id)).prerequisite_ids) == [a.id]
        await school.settle()
        told = await tables.fetchval("SELECT prerequisite_ids FROM learning.lesson_index WHERE id = $1", b.id)
        assert list(map(str, told)) == [a.id]


class TestUpdateLesson:
    async def test_moves_pushes_and_tells_learning_of_all(
        self, school: School, teacher: Author, tables: "asyncpg.Connection[asyncpg.Record]"
    ) -> None:
        made = await some_lessons(teacher, 3)
        lesson = lessons_pb2.Lesson(id=made[2].id, position=1, title="Đầu tiên")
        moved = await teacher.lessons.UpdateLesson(lessons_pb2.UpdateLessonRequest(lesson=lesson))
        assert (moved.position, moved.title) == (1, "Đầu tiên")
        assert await ids(teacher, unit_id=moved.unit_id) == [made[2].id, made[0].id, made[1].id]
        await school.settle()
        rows = await tables.fetch(
            "SELECT id, position FROM learning.lesson_index WHERE unit_id = $1 ORDER BY position", moved.unit_id
        )
        assert [(str(row["id"]), row["position"]) for row in rows] == [
            (made[2].id, 1),
            (made[0].id, 2),
            (made[1].id, 3),
        ]

    @pytest.mark.parametrize("path", ["status", "course_id", "contributor_ids"])
    async def test_never_writes_state_or_course(self, teacher: Author, path: str) -> None:
        (lesson,) = await some_lessons(teacher, 1)
        request = lessons_pb2.UpdateLessonRequest(
            lesson=lessons_pb2.Lesson(id=lesson.id), update_mask=FieldMask(paths=[path])
        )
        async with refused("INVALID_UPDATE_MASK"):
            await teacher.lessons.UpdateLesson(request)

    async def test_is_not_for_students(self, teacher: Author, student: Author) -> None:
        (lesson,) = await some_lessons(teacher, 1, published=True)
        async with refused("PERMISSION_REQUIRED"):
            await require_first(student, lesson.id)


class TestDeleteLesson:
    async def test_hides_its_stories_and_undeleting_restores_them(self, teacher: Author) -> None:
        (lesson,) = await some_lessons(teacher, 1)
        story = await teacher.story(lesson_id=lesson.id)
        await delete(teacher, lesson.id)
        async with refused("RESOURCE_NOT_FOUND"):
            await teacher.read(story.id)
        await undelete(teacher, lesson.id)
        assert (await teacher.read(story.id)).lesson_id == lesson.id

    async def test_leaves_no_story_behind_that_is_added_meanwhile(self, teacher: Author, teacher2: Author) -> None:
        for _ in range(3):
            (lesson,) = await some_lessons(teacher, 1)
            _, *stories = await outcomes(
                delete(teacher, lesson.id), *(teacher2.story(lesson_id=lesson.id) for _ in range(4))
            )
            for story in stories:
                if not isinstance(story, BaseException):
                    async with refused("RESOURCE_NOT_FOUND"):
                        await teacher.read(story.id)

    async def test_comes_back_last_when_its_place_is_taken(self, teacher: Author) -> None:
        first, second = await some_lessons(teacher, 2)
        await delete(teacher, first.id)
        await teacher.lesson(first.unit_id, position=1)
        assert (await undelete(teacher, first.id)).position == second.position + 1

    async def test_undeleting_what_is_there_is_refused(self, teacher: Author) -> None:
        async with refused("WRONG_STATE"):
            await undelete(teacher, (await some_lessons(teacher, 1))[0].id)


class TestPublishLesson:
    async def test_is_done_once(self, teacher: Author) -> None:
        (lesson,) = await some_lessons(teacher, 1)
        request = lessons_pb2.PublishLessonRequest(id=lesson.id, etag=lesson.etag)
        assert (await teacher.lessons.PublishLesson(request)).status == LessonStatus.LESSON_STATUS_PUBLISHED
        async with refused("STALE_ETAG"):
            await teacher.lessons.PublishLesson(request)
        async with refused("WRONG_STATE"):
            await teacher.lessons.PublishLesson(lessons_pb2.PublishLessonRequest(id=lesson.id))
