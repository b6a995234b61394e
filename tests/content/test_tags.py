"""Tags: their names, what bears them, and lists narrowed by them."""

import asyncio
from typing import Any

import pytest

from storyloom.content.v1 import courses_pb2, lessons_pb2, stories_pb2, tags_pb2
from storyloom.content.v1.tags_pb2 import Tag
from storyloom.content.v1.tags_pb2_grpc import TagServiceStub
from tests.content.conftest import Author, ListEntries, PublishApproved, outcomes
from tests.stack import refused

NOWHERE = "01890000-0000-7000-8000-000000000000"


def tags_of(author: Author) -> Any:
    return author.person.stub(TagServiceStub, "content")


async def make(author: Author, name: str) -> Tag:
    return await tags_of(author).CreateTag(tags_pb2.CreateTagRequest(tag=Tag(name=name)))


async def listed(author: Author, **wanted: Any) -> list[str]:
    answer = await tags_of(author).ListTags(tags_pb2.ListTagsRequest(page_size=100, **wanted))
    return [one.name for one in answer.tags]


async def tag_story(author: Author, story_id: str, tag_id: str) -> Tag:
    return await tags_of(author).TagStory(tags_pb2.TagStoryRequest(story_id=story_id, tag_id=tag_id))


async def untag_story(author: Author, story_id: str, tag_id: str) -> Tag:
    return await tags_of(author).UntagStory(tags_pb2.UntagStoryRequest(story_id=story_id, tag_id=tag_id))


async def stories_with(author: Author, tag_id: str, **wanted: Any) -> list[str]:
    answer = await author.stories.ListStories(stories_pb2.ListStoriesRequest(tag_id=tag_id, **wanted))
    return [one.id for one in answer.stories]


class TestCreateTag:
    async def test_drops_white_space_around_the_name(self, teacher: Author) -> None:
        assert (await make(teacher, " \tMùa thu ")).name == "Mùa thu"

    @pytest.mark.parametrize("again", ["cổ tích", "CỔ TÍCH", "  Cổ   tích ", "Cổ tích"])
    async def test_refuses_a_name_that_is_there_however_it_is_written(self, teacher: Author, again: str) -> None:
        await outcomes(make(teacher, "Cổ tích"))
        async with refused("RESOURCE_ALREADY_EXISTS"):
            await make(teacher, again)

    async def test_tells_names_apart_by_their_accents(self, teacher: Author) -> None:
        assert {(await make(teacher, name)).name for name in ("Bò đen", "Bó đen")} == {"Bò đen", "Bó đen"}

    async def test_of_many_at_once_one_wins(self, teacher: Author) -> None:
        done = await outcomes(*(make(teacher, "Cuộc đua") for _ in range(4)))
        assert sum(isinstance(one, Tag) for one in done) == 1

    async def test_another_tenant_may_have_the_same_name(self, teacher: Author, outsider: Author) -> None:
        assert (await make(teacher, "Chung")).id != (await make(outsider, "Chung")).id

    @pytest.mark.parametrize("name", ["", " ", "x" * 51, "a\0b"])
    async def test_refuses_names_out_of_range(self, teacher: Author, name: str) -> None:
        async with refused("INVALID_FIELD"):
            await make(teacher, name)

    async def test_is_not_for_students(self, student: Author) -> None:
        async with refused("PERMISSION_REQUIRED"):
            await make(student, "Của tôi")


class TestUpdateTag:
    async def test_renames_it_and_refuses_a_stale_etag(self, teacher: Author) -> None:
        tag = await make(teacher, "Cũ")
        changed = await tags_of(teacher).UpdateTag(tags_pb2.UpdateTagRequest(tag=Tag(id=tag.id, name="Mới tinh")))
        assert (changed.name, changed.etag != tag.etag) == ("Mới tinh", True)
        async with refused("STALE_ETAG"):
            stale = Tag(id=tag.id, name="Nữa", etag=tag.etag)
            await tags_of(teacher).UpdateTag(tags_pb2.UpdateTagRequest(tag=stale))


class TestDeleteTag:
    async def test_takes_it_off_everything_and_undelete_puts_it_back(self, teacher: Author) -> None:
        tag, kept = await make(teacher, "Biến mất"), await make(teacher, "Ở lại")
        first, second = await teacher.story(), await teacher.story()
        for story in (first, second):
            await tag_story(teacher, story.id, tag.id)
        await tag_story(teacher, first.id, kept.id)
        await tags_of(teacher).DeleteTag(tags_pb2.DeleteTagRequest(id=tag.id))
        assert await stories_with(teacher, tag.id) == []
        assert await listed(teacher, story_id=first.id) == ["Ở lại"]
        async with refused("RESOURCE_NOT_FOUND"):
            await tags_of(teacher).GetTag(tags_pb2.GetTagRequest(id=tag.id))
        async with refused("REFERENCE_NOT_FOUND"):
            await tag_story(teacher, first.id, tag.id)
        await tags_of(teacher).UndeleteTag(tags_pb2.UndeleteTagRequest(id=tag.id))
        assert await stories_with(teacher, tag.id) == [second.id, first.id]
        assert await listed(teacher, story_id=first.id) == ["Biến mất", "Ở lại"]

    async def test_frees_its_name_and_then_does_not_come_back(self, teacher: Author) -> None:
        tag = await make(teacher, "Tên tự do")
        await tags_of(teacher).DeleteTag(tags_pb2.DeleteTagRequest(id=tag.id))
        await make(teacher, "tên tự do")
        async with refused("RESOURCE_ALREADY_EXISTS"):
            await tags_of(teacher).UndeleteTag(tags_pb2.UndeleteTagRequest(id=tag.id))

    async def test_undeleting_what_is_there_is_refused(self, teacher: Author) -> None:
        tag = await make(teacher, "Vẫn đây")
        async with refused("WRONG_STATE"):
            await tags_of(teacher).UndeleteTag(tags_pb2.UndeleteTagRequest(id=tag.id))


class TestTagging:
    async def test_twice_is_once_and_leaves_one_entry(self, teacher: Author, entries_of: ListEntries) -> None:
        tag, story = await make(teacher, "Một lần"), await teacher.story()
        await asyncio.gather(*(tag_story(teacher, story.id, tag.id) for _ in range(3)))
        assert await listed(teacher, story_id=story.id) == ["Một lần"]
        for _ in range(2):
            await untag_story(teacher, story.id, tag.id)
        assert await listed(teacher, story_id=story.id) == []
        entries = await entries_of(entity_type="story", entity_id=story.id)
        assert [one.action for one in entries] == ["create", "tag", "untag"]
        assert entries[1].new_values["tag"] == entries[2].old_values["tag"] == "Một lần"

    async def test_takes_the_right_to_update_the_story(
        self, teacher: Author, student: Author, publish_approved: PublishApproved
    ) -> None:
        tag, story = await make(teacher, "Quyền"), await teacher.story()
        await publish_approved(story.id)
        for change in (tag_story, untag_story):
            async with refused("PERMISSION_REQUIRED"):
                await change(student, story.id, tag.id)

    async def test_refuses_what_is_not_there(self, teacher: Author, outsider: Author) -> None:
        tag, story = await make(teacher, "Có thật"), await teacher.story()
        foreign = await make(outsider, "Của người khác")
        async with refused("RESOURCE_NOT_FOUND"):
            await tag_story(teacher, NOWHERE, tag.id)
        for absent in (NOWHERE, foreign.id):
            async with refused("REFERENCE_NOT_FOUND"):
                await tag_story(teacher, story.id, absent)
        async with refused("RESOURCE_NOT_FOUND"):
            await tag_story(outsider, story.id, foreign.id)

    async def test_of_courses_and_lessons_narrows_their_lists(self, teacher: Author) -> None:
        tag, course = await make(teacher, "Lớp 7"), await teacher.course()
        unit = await teacher.unit(course.id)
        lesson, _ = await teacher.lesson(unit.id), await teacher.lesson(unit.id)
        await tags_of(teacher).TagCourse(tags_pb2.TagCourseRequest(course_id=course.id, tag_id=tag.id))
        await tags_of(teacher).TagLesson(tags_pb2.TagLessonRequest(lesson_id=lesson.id, tag_id=tag.id))
        courses = await teacher.courses.ListCourses(courses_pb2.ListCoursesRequest(tag_id=tag.id))
        assert [one.id for one in courses.courses] == [course.id]
        lessons = await teacher.lessons.ListLessons(lessons_pb2.ListLessonsRequest(unit_id=unit.id, tag_id=tag.id))
        assert [one.id for one in lessons.lessons] == [lesson.id]
        assert await listed(teacher, course_id=course.id) == await listed(teacher, lesson_id=lesson.id) == ["Lớp 7"]
        await tags_of(teacher).UntagCourse(tags_pb2.UntagCourseRequest(course_id=course.id, tag_id=tag.id))
        await tags_of(teacher).UntagLesson(tags_pb2.UntagLessonRequest(lesson_id=lesson.id, tag_id=tag.id))
        assert await listed(teacher, course_id=course.id) == await listed(teacher, lesson_id=lesson.id) == []


class TestListTags:
    async def test_is_by_name_in_pages(self, teacher: Author) -> None:
        names = ["zz Bưởi", "ZZ an", "zz cam"]
        for name in names:
            await make(teacher, name)
        assert await listed(teacher, query="Zz ") == ["ZZ an", "zz Bưởi", "zz cam"]
        assert await listed(teacher, query="zz", order_by="create_time desc") == names[::-1]
        stub, found, token = tags_of(teacher), [], ""
        while True:
            page = await stub.ListTags(tags_pb2.ListTagsRequest(query="zz", page_size=1, page_token=token))
            found += [one.name for one in page.tags]
            if not (token := page.next_page_token):
                break
        assert found == ["ZZ an", "zz Bưởi", "zz cam"]

    async def test_of_what_the_caller_may_not_read_is_refused(self, teacher: Author, student: Author) -> None:
        draft = await teacher.story()
        async with refused("PERMISSION_REQUIRED"):
            await listed(student, story_id=draft.id)
        async with refused("RESOURCE_NOT_FOUND"):
            await listed(teacher, story_id=NOWHERE)

    async def test_of_stories_goes_on_in_pages(self, teacher: Author) -> None:
        tag = await make(teacher, "Nhiều trang")
        made = [(await teacher.story(f"Trang {number}")).id for number in range(3)]
        for one in made:
            await tag_story(teacher, one, tag.id)
        assert await stories_with(teacher, tag.id) == made[::-1]
        request = stories_pb2.ListStoriesRequest(tag_id=tag.id, page_size=2)
        first = await teacher.stories.ListStories(request)
        request.page_token = first.next_page_token
        second = await teacher.stories.ListStories(request)
        assert [one.id for one in (*first.stories, *second.stories)] == made[::-1]
