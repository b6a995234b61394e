"""Stories: their versions, the weave, and publishing what was approved."""

from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from services.content import versioning
from storyloom.content.v1 import stories_pb2, story_versions_pb2, units_pb2
from storyloom.content.v1.stories_pb2 import StoryStatus
from tests.content.conftest import TEXT, Author, ListEntries, PublishApproved, outcomes, undone
from tests.stack import Refusal, refused

NOWHERE = "00000000-0000-7000-8000-000000000000"


async def listed(author: Author, **wanted: Any) -> list[str]:
    """The ids of all stories that the list has, page by page."""
    ids: list[str] = []
    request = stories_pb2.ListStoriesRequest(page_size=3, **wanted)
    while True:
        answer = await author.stories.ListStories(request)
        ids += [one.id for one in answer.stories]
        if not answer.next_page_token:
            return ids
        request.page_token = answer.next_page_token


class TestMainJob:
    async def test_a_story_is_woven_approved_published_and_read(
        self, teacher: Author, student: Author, words: Any, publish_approved: PublishApproved
    ) -> None:
        course = await teacher.course(published=True)
        unit = await teacher.unit(course.id)
        lesson = await teacher.lesson(unit.id, published=True)
        story = await teacher.story(lesson_id=lesson.id)
        woven = await teacher.weave(story.id)
        published = await publish_approved(story.id)
        assert published.status == StoryStatus.STORY_STATUS_PUBLISHED
        assert await listed(student, lesson_id=lesson.id) == [story.id]
        read = await student.read(story.id)
        assert read.current_version.chunks == woven.current_version.chunks
        assert read.current_version.approved


class TestCreateStory:
    async def test_makes_a_draft_with_its_text_as_version_1(self, teacher: Author) -> None:
        story = await teacher.story("Chợ nổi")
        version = story.current_version
        assert (story.status, story.author_id) == (StoryStatus.STORY_STATUS_DRAFT, teacher.person.user_id)
        assert (story.language, story.learning_language) == ("vi", "en")
        assert (version.number, version.chem_ratio, version.word_count) == (1, "0", 44)
        assert not version.text
        assert not version.chunks
        assert not version.HasField("seed")

    async def test_without_woven_words_the_chunks_are_the_paragraphs(self, teacher: Author) -> None:
        story = await teacher.read((await teacher.story()).id)
        assert [chunk.position for chunk in story.current_version.chunks] == [1, 2, 3]
        assert undone(story.current_version) == story.current_version.text == TEXT

    @pytest.mark.parametrize("field", ["lesson_id", "vocabulary_ids"])
    async def test_refuses_references_to_what_is_not_there(self, teacher: Author, field: str) -> None:
        async with refused("REFERENCE_NOT_FOUND"):
            await teacher.story(**{field: NOWHERE if field == "lesson_id" else [NOWHERE]})

    async def test_refuses_a_lesson_of_another_tenant(self, teacher: Author, outsider: Author) -> None:
        unit = await outsider.unit((await outsider.course()).id)
        lesson = await outsider.lesson(unit.id)
        async with refused("REFERENCE_NOT_FOUND"):
            await teacher.story(lesson_id=lesson.id)

    async def test_refuses_a_deleted_lesson(self, teacher: Author) -> None:
        unit = await teacher.unit((await teacher.course()).id)
        lesson = await teacher.lesson(unit.id)
        await teacher.units.DeleteUnit(units_pb2.DeleteUnitRequest(id=unit.id))
        async with refused("REFERENCE_NOT_FOUND"):
            await teacher.story(lesson_id=lesson.id)

    @pytest.mark.parametrize(("field", "value"), [("text", " \n"), ("title", ""), ("language", "v!"), ("text", "a\0b")])
    async def test_refuses_fields_out_of_range(self, teacher: Author, field: str, value: str) -> None:
        sent = {"title": "Title", "text": "Text"} | {field: value}
        request = stories_pb2.CreateStoryRequest(story=stories_pb2.Story(**sent))
        async with refused("INVALID_FIELD", code=grpc.StatusCode.INVALID_ARGUMENT):
            await teacher.stories.CreateStory(request)

    async def test_is_not_for_students(self, student: Author) -> None:
        async with refused("PERMISSION_REQUIRED"):
            await student.story()

    async def test_the_same_key_makes_one_story(self, teacher: Author) -> None:
        request = stories_pb2.CreateStoryRequest(story=stories_pb2.Story(title="Once", text="Một lần."))
        key = (("idempotency-key", "create-story-once"),)
        first = await teacher.stories.CreateStory(request, metadata=key)
        assert await teacher.stories.CreateStory(request, metadata=key) == first


class TestGetStory:
    async def test_refuses_drafts_of_others(self, teacher: Author, student: Author) -> None:
        story = await teacher.story()
        async with refused("PERMISSION_REQUIRED"):
            await student.read(story.id)

    async def test_a_reader_of_a_published_story_sees_nothing_of_its_newer_draft(
        self, teacher: Author, student: Author, publish_approved: PublishApproved
    ) -> None:
        story = await teacher.story(text="Bản đã duyệt.")
        await publish_approved(story.id)
        await teacher.rewrite(story.id, "Bản nháp mới.")
        for view in (story_versions_pb2.FULL, story_versions_pb2.BASIC):
            read = await student.read(story.id, view)
            assert read.current_version.id == read.published_version_id
            assert "nháp" not in str(read)
        assert (await student.read(story.id)).current_version.text == "Bản đã duyệt."
        assert (await teacher.read(story.id)).current_version.text == "Bản nháp mới."
        (in_list,) = [one for one in await pages(student) if one.id == story.id]
        assert in_list.current_version.number == 1

    async def test_basic_view_has_no_text(self, teacher: Author) -> None:
        story = await teacher.read((await teacher.story()).id, story_versions_pb2.BASIC)
        assert not story.current_version.text
        assert not story.current_version.chunks

    async def test_another_tenants_story_is_as_absent_as_one_that_never_was(
        self, teacher: Author, outsider: Author
    ) -> None:
        story = await teacher.story()
        answers: list[Refusal] = []
        for story_id in (story.id, NOWHERE):
            async with refused("RESOURCE_NOT_FOUND") as refusal:
                await outsider.read(story_id)
            answers.append(refusal)
        assert answers[0].status == answers[1].status

    async def test_takes_one_statement_however_many_chunks_there_are(
        self, teacher: Author, words: Any, statements: Any
    ) -> None:
        story = await teacher.story()
        await teacher.weave(story.id, "1")
        with statements() as sent:
            read = await teacher.read(story.id)
        assert len(read.current_version.chunks) > 20
        assert len(sent) == 1, sent


async def pages(author: Author) -> list[stories_pb2.Story]:
    answer = await author.stories.ListStories(stories_pb2.ListStoriesRequest(page_size=100))
    return list(answer.stories)


class TestListStories:
    async def test_has_each_story_once_newest_first(self, teacher: Author) -> None:
        made = [(await teacher.story(f"Trang {number}", language="fr")).id for number in range(7)]
        assert await listed(teacher, language="fr") == made[::-1]
        assert await listed(teacher, language="fr", order_by="create_time") == made

    async def test_orders_by_title_whatever_the_case(self, teacher: Author) -> None:
        titles = ["Đò", "an", "AN", "bến", "Bến", "ân"]
        ids = {(await teacher.story(title, language="de")).id: title for title in titles}
        up = [ids[one] for one in await listed(teacher, language="de", order_by="title")]
        down = [ids[one] for one in await listed(teacher, language="de", order_by="title desc")]
        assert [title.lower() for title in up] == sorted(title.lower() for title in titles)
        assert down == up[::-1]

    async def test_finds_titles_by_their_beginning(self, teacher: Author) -> None:
        wanted = [await teacher.story(title) for title in ("100% Tết", "100% TẾT vui")]
        await teacher.story("1000 Tết")
        assert await listed(teacher, query="100% tết", order_by="create_time") == [one.id for one in wanted]

    async def test_filters_by_status(self, teacher: Author, publish_approved: PublishApproved) -> None:
        draft, published = await teacher.story(language="it"), await teacher.story(language="it")
        await publish_approved(published.id)
        assert await listed(teacher, language="it", status="STORY_STATUS_DRAFT") == [draft.id]
        assert await listed(teacher, language="it", status="STORY_STATUS_PUBLISHED") == [published.id]

    async def test_shows_students_what_is_published(
        self, teacher: Author, student: Author, publish_approved: PublishApproved
    ) -> None:
        draft, published = await teacher.story(language="es"), await teacher.story(language="es")
        await publish_approved(published.id)
        both = {draft.id, published.id}
        assert both & set(await listed(student, language="es")) == {published.id}
        assert both <= set(await listed(teacher, language="es"))

    async def test_takes_two_statements_for_a_page_and_one_once_it_was_shown(
        self, teacher: Author, words: Any, statements: Any
    ) -> None:
        for number in range(20):
            await teacher.story(f"Trang {number}")
        for most in (2, 1):
            with statements() as sent:
                answer = await teacher.stories.ListStories(stories_pb2.ListStoriesRequest())
            assert len(answer.stories) == 20
            assert len(sent) == most, sent

    async def test_refuses_a_token_of_another_query(self, teacher: Author) -> None:
        for _ in range(2):
            await teacher.story()
        first = await teacher.stories.ListStories(stories_pb2.ListStoriesRequest(page_size=1))
        request = stories_pb2.ListStoriesRequest(page_token=first.next_page_token, order_by="title")
        async with refused("INVALID_PAGE_TOKEN"):
            await teacher.stories.ListStories(request)


class TestUpdateStory:
    async def test_another_text_makes_a_new_version_and_the_same_does_not(self, teacher: Author) -> None:
        story = await teacher.story()
        again = await teacher.rewrite(story.id, TEXT)
        assert again.current_version == story.current_version
        rewritten = await teacher.rewrite(story.id, "Khác hẳn.")
        assert rewritten.current_version.number == 2
        assert rewritten.current_version.content_hash != story.current_version.content_hash
        assert rewritten.etag != story.etag

    async def test_writes_what_the_mask_names(self, teacher: Author, words: dict[str, str]) -> None:
        story = await teacher.story(vocabulary_ids=[words["ghe"]])
        request = stories_pb2.UpdateStoryRequest(
            story=stories_pb2.Story(id=story.id, title="Mới"), update_mask=FieldMask(paths=["title", "vocabulary_ids"])
        )
        changed = await teacher.stories.UpdateStory(request)
        assert (changed.title, list(changed.vocabulary_ids)) == ("Mới", [])

    async def test_parses_no_text_of_those_who_may_not_write_it(
        self, teacher: Author, student: Author, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        story = await teacher.story()
        parsed: list[str] = []
        plain = versioning.plain

        def noted(title: str, text: str, language: str) -> versioning.Draft:
            parsed.append(text)
            return plain(title, text, language)

        monkeypatch.setattr(versioning, "plain", noted)
        async with refused("PERMISSION_REQUIRED"):
            await student.rewrite(story.id, "Chen vào.")
        async with refused("RESOURCE_NOT_FOUND"):
            await teacher.rewrite(NOWHERE, "Không có.")
        await teacher.rewrite(story.id, "Của cô.")
        assert parsed == ["Của cô."]

    @pytest.mark.parametrize("path", ["status", "published_version_id", "author_id", "language", "current_version"])
    async def test_never_writes_state(self, teacher: Author, path: str) -> None:
        story = await teacher.story()
        request = stories_pb2.UpdateStoryRequest(story=stories_pb2.Story(id=story.id))
        request.update_mask.paths.append(path)
        async with refused("INVALID_UPDATE_MASK", field="update_mask"):
            await teacher.stories.UpdateStory(request)

    async def test_refuses_a_stale_etag(self, teacher: Author) -> None:
        story = await teacher.story()
        await teacher.rewrite(story.id, "Hai.")
        changed = stories_pb2.Story(id=story.id, title="Ba", etag=story.etag)
        async with refused("STALE_ETAG", code=grpc.StatusCode.ABORTED):
            await teacher.stories.UpdateStory(stories_pb2.UpdateStoryRequest(story=changed))

    async def test_of_many_at_once_with_one_etag_one_wins(self, teacher: Author) -> None:
        story = await teacher.story()
        changes = [stories_pb2.Story(id=story.id, text=f"Bản {n}.", etag=story.etag) for n in range(4)]
        calls = (teacher.stories.UpdateStory(stories_pb2.UpdateStoryRequest(story=one)) for one in changes)
        won = [one for one in await outcomes(*calls) if isinstance(one, stories_pb2.Story)]
        assert [one.current_version.number for one in won] == [2]

    async def test_at_once_without_etag_each_makes_its_version(self, teacher: Author) -> None:
        story = await teacher.story()
        done = await outcomes(*(teacher.rewrite(story.id, f"Bản {n}.") for n in range(4)))
        assert sorted(one.current_version.number for one in done) == [2, 3, 4, 5]

    async def test_tells_the_audit_log_which_version_took_the_place_of_which(
        self, teacher: Author, entries_of: ListEntries
    ) -> None:
        story = await teacher.story()
        rewritten = await teacher.rewrite(story.id, "Khác hẳn.")
        created, updated = await entries_of(entity_type="story", entity_id=story.id)
        assert (created.action, updated.action) == ("create", "update")
        assert created.new_values["title"] == "Chợ nổi"
        old, new = updated.old_values, updated.new_values
        assert old["content_hash"] == story.current_version.content_hash
        assert new["content_hash"] == rewritten.current_version.content_hash
        assert new["current_version_id"] == rewritten.current_version.id


class TestArchiveStory:
    async def test_hides_it_from_learners_and_from_changes(
        self, teacher: Author, student: Author, publish_approved: PublishApproved
    ) -> None:
        story = await teacher.story()
        await publish_approved(story.id)
        archived = await teacher.stories.ArchiveStory(stories_pb2.ArchiveStoryRequest(id=story.id))
        assert archived.status == StoryStatus.STORY_STATUS_ARCHIVED
        async with refused("PERMISSION_REQUIRED"):
            await student.read(story.id)
        async with refused("WRONG_STATE"):
            await teacher.rewrite(story.id, "Khác.")
        async with refused("WRONG_STATE"):
            await teacher.weave(story.id)
        async with refused("WRONG_STATE"):
            await teacher.publish(story.id)

    async def test_refuses_a_draft(self, teacher: Author) -> None:
        story = await teacher.story()
        async with refused("WRONG_STATE") as refusal:
            await teacher.stories.ArchiveStory(stories_pb2.ArchiveStoryRequest(id=story.id))
        assert refusal.metadata == {"state": "draft"}


class TestDeleteStory:
    async def test_hides_it_until_it_is_undeleted(self, teacher: Author) -> None:
        story = await teacher.story(language="pt")
        deleted = await teacher.stories.DeleteStory(stories_pb2.DeleteStoryRequest(id=story.id))
        assert deleted.HasField("delete_time")
        assert await listed(teacher, language="pt") == []
        async with refused("RESOURCE_NOT_FOUND"):
            await teacher.read(story.id)
        back = await teacher.stories.UndeleteStory(stories_pb2.UndeleteStoryRequest(id=story.id))
        assert back.current_version == story.current_version
        assert await listed(teacher, language="pt") == [story.id]

    async def test_undeleting_what_is_there_is_refused(self, teacher: Author) -> None:
        async with refused("WRONG_STATE"):
            await teacher.stories.UndeleteStory(stories_pb2.UndeleteStoryRequest(id=(await teacher.story()).id))


class TestAuthors:
    async def test_may_work_on_their_own_story_until_it_is_published(
        self,
        teacher: Author,
        student: Author,
        publish_approved: PublishApproved,
        words: Any,
        tables: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        story = await teacher.story(language="vi")
        # No default role lets students write: this one wrote while they still might.
        await tables.execute(
            "UPDATE content.stories SET author_id = $1 WHERE id = $2", student.person.user_id, story.id
        )
        assert (await student.rewrite(story.id, "Của em.")).current_version.number == 2
        assert (await student.weave(story.id)).current_version.number == 3
        assert story.id in await listed(student)
        await publish_approved(story.id)
        async with refused("PERMISSION_REQUIRED"):
            await student.rewrite(story.id, "Nữa.")
        async with refused("PERMISSION_REQUIRED"):
            await student.stories.DeleteStory(stories_pb2.DeleteStoryRequest(id=story.id))
