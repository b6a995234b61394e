"""Titles of stories: part of what is approved, like the text."""

from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from storyloom.content.v1 import stories_pb2, story_versions_pb2
from tests.content.conftest import TEXT, Author, PublishApproved
from tests.stack import School, refused


class TestAnotherTitle:
    async def test_makes_a_new_version_with_the_same_weave(self, teacher: Author, words: Any) -> None:
        story = await teacher.story("Cũ")
        woven = (await teacher.weave(story.id, "0.4", seed=7)).current_version
        retitled = await teacher.retitle(story.id, "Mới")
        version = (await teacher.read(story.id)).current_version
        assert (retitled.title, version.title, version.number) == ("Mới", "Mới", 3)
        assert version.content_hash != woven.content_hash
        for field in ("id", "number", "title", "content_hash", "create_time"):
            version.ClearField(field)
            woven.ClearField(field)
        assert version == woven

    async def test_with_another_text_makes_one_version(self, teacher: Author) -> None:
        story = await teacher.story("Cũ")
        changed = stories_pb2.Story(id=story.id, title="Mới", text="Khác.")
        both = await teacher.stories.UpdateStory(stories_pb2.UpdateStoryRequest(story=changed))
        assert (both.title, both.current_version.title, both.current_version.number) == ("Mới", "Mới", 2)

    async def test_the_same_makes_none(self, teacher: Author) -> None:
        story = await teacher.story("Cũ")
        changed = stories_pb2.Story(id=story.id, title="Cũ", text=TEXT)
        mask = FieldMask(paths=["title", "text"])
        again = await teacher.stories.UpdateStory(stories_pb2.UpdateStoryRequest(story=changed, update_mask=mask))
        assert again.current_version == story.current_version

    async def test_needs_an_approval_of_its_own(self, school: School, teacher: Author, teacher2: Author) -> None:
        story = await teacher.story("Đã duyệt")
        approval = await teacher.ask_approval(story.current_version.id)
        await teacher2.approve(approval.id)
        await school.settle()
        await teacher.retitle(story.id, "Chưa duyệt")
        async with refused("APPROVAL_REQUIRED"):
            await teacher.publish(story.id)

    async def test_is_not_shown_to_readers_before_it_is_published(
        self, teacher: Author, student: Author, publish_approved: PublishApproved
    ) -> None:
        story = await teacher.story("Đã duyệt")
        await publish_approved(story.id)
        await teacher.retitle(story.id, "Chưa duyệt")
        assert (await teacher.read(story.id)).title == "Chưa duyệt"
        for view in (story_versions_pb2.FULL, story_versions_pb2.BASIC):
            assert "Chưa" not in str(await student.read(story.id, view))
        answer = await student.stories.ListStories(stories_pb2.ListStoriesRequest(page_size=100))
        assert [one.title for one in answer.stories if one.id == story.id] == ["Đã duyệt"]
        await publish_approved(story.id)
        assert (await student.read(story.id)).title == "Chưa duyệt"
