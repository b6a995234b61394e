"""Pages of stories: what was serialised once is shown only as long as it is true, and only to those it is for."""

from typing import Any

import asyncpg
import pytest

from services.content.pages import Pages
from storyloom.content.v1 import stories_pb2, story_versions_pb2
from storyloom.content.v1.stories_pb2 import Story
from tests.content.conftest import Author, PublishApproved
from tests.stack import School


async def listed(author: Author, story_id: str, **wanted: Any) -> Story | None:
    answer = await author.stories.ListStories(stories_pb2.ListStoriesRequest(page_size=100, **wanted))
    found = [one for one in answer.stories if one.id == story_id]
    return found[0] if found else None


async def same_as_read(author: Author, story_id: str) -> bool:
    read = await author.read(story_id, story_versions_pb2.BASIC)
    return bool(await listed(author, story_id) == await listed(author, story_id) == read)


class TestPages:
    async def test_follow_every_change(self, teacher: Author, publish_approved: PublishApproved) -> None:
        story = await teacher.story("Đổi thay")
        assert await same_as_read(teacher, story.id)
        await teacher.retitle(story.id, "Đổi thay nữa")
        assert await same_as_read(teacher, story.id)
        await teacher.weave(story.id)
        assert await same_as_read(teacher, story.id)
        await publish_approved(story.id)
        assert await same_as_read(teacher, story.id)
        shown = await listed(teacher, story.id)
        assert shown
        assert shown.current_version.approved
        await teacher.rewrite(story.id, "Bản khác hẳn.")
        assert await same_as_read(teacher, story.id)
        await teacher.stories.ArchiveStory(stories_pb2.ArchiveStoryRequest(id=story.id))
        assert await same_as_read(teacher, story.id)

    async def test_follow_an_approval_which_changes_the_version_alone(
        self, school: School, teacher: Author, teacher2: Author
    ) -> None:
        story = await teacher.story("Duyệt")
        before = await listed(teacher, story.id)
        approval = await teacher.ask_approval(story.current_version.id)
        await teacher2.approve(approval.id)
        await school.settle()
        after = await listed(teacher, story.id)
        assert before
        assert after
        assert (before.etag, before.current_version.approved) == (after.etag, False)
        assert after.current_version.approval_id == approval.id

    async def test_show_nobody_the_draft_that_somebody_else_was_shown(
        self, teacher: Author, student: Author, publish_approved: PublishApproved
    ) -> None:
        story = await teacher.story("Bản một", text="Một.")
        await publish_approved(story.id)
        await teacher.retitle(story.id, "Bản hai")
        titles = []
        for author in (teacher, student, teacher, student):
            shown = await listed(author, story.id)
            assert shown
            titles.append((shown.title, shown.current_version.title, shown.current_version.number))
        assert titles == [("Bản hai", "Bản hai", 2), ("Bản một", "Bản một", 1)] * 2

    async def test_follow_what_is_written_past_the_service(
        self, teacher: Author, tables: "asyncpg.Connection[asyncpg.Record]"
    ) -> None:
        """As an erasure writes, which changes no revision."""
        story = await teacher.story("Không ai")
        assert await listed(teacher, story.id)
        nobody = "ffffffff-ffff-ffff-ffff-ffffffffffff"
        await tables.execute("UPDATE content.stories SET author_id = $1 WHERE id = $2", nobody, story.id)
        shown = await listed(teacher, story.id)
        assert shown
        assert shown.author_id == nobody

    @pytest.mark.parametrize("size", [1, 127, 128, 16_383, 16_384, 100_000])
    def test_are_the_same_message_whatever_the_size(self, size: int) -> None:
        from services.content.pages import _part

        story = Story(title="x" * size)
        parsed = stories_pb2.ListStoriesResponse.FromString(_part(story.SerializeToString()) * 2)
        assert list(parsed.stories) == [story, story]

    def test_forget_what_was_kept_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("services.content.pages.MOST", 2)
        pages = Pages(lambda row: Story())
        for number in range(5):
            pages._keep((number,), b"")
        assert list(pages._known) == [(3,), (4,)]
