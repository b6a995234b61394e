"""Earlier versions made the latest again, and how versions differ."""

from typing import Any

import pytest

from storyloom.content.v1 import stories_pb2, story_versions_pb2
from storyloom.content.v1.story_versions_pb2 import SegmentKind, StoryVersionDiff
from storyloom.content.v1.vocabularies_pb2 import PartOfSpeech
from tests.content.conftest import TEXT, Author, ListEntries, PublishApproved, outcomes
from tests.stack import School, refused

NOWHERE = "00000000-0000-7000-8000-000000000000"
EQUAL, INSERT, DELETE = SegmentKind.SEGMENT_KIND_EQUAL, SegmentKind.SEGMENT_KIND_INSERT, SegmentKind.SEGMENT_KIND_DELETE


async def restore(author: Author, story_id: str, version_id: str, etag: str = "") -> story_versions_pb2.StoryVersion:
    request = story_versions_pb2.RestoreStoryVersionRequest(story_id=story_id, version_id=version_id, etag=etag)
    return (await author.versions.RestoreStoryVersion(request)).story_version


async def diff(author: Author, version_id: str, base_id: str = "") -> StoryVersionDiff:
    request = story_versions_pb2.GetStoryVersionDiffRequest(id=version_id, base_id=base_id)
    return await author.versions.GetStoryVersionDiff(request)


async def read(author: Author, version_id: str) -> story_versions_pb2.StoryVersion:
    return await author.versions.GetStoryVersion(story_versions_pb2.GetStoryVersionRequest(id=version_id))


def joined(segments: Any, *kinds: Any) -> str:
    return "".join(one.text for one in segments if one.kind in kinds)


class TestGetStoryVersionDiff:
    async def test_is_of_title_text_woven_words_and_shares(self, teacher: Author, words: dict[str, str]) -> None:
        story = await teacher.story()
        await teacher.weave(story.id, "1")
        await teacher.rewrite(story.id, TEXT.replace("Ghe của ông nội chở đầy dưa hấu", "Ghe chở đầy khoai"))
        await teacher.retitle(story.id, "Chợ cá")
        last = (await teacher.weave(story.id, "1")).current_version
        versions = await teacher.versions.ListStoryVersions(
            story_versions_pb2.ListStoryVersionsRequest(story_id=story.id)
        )
        woven = versions.story_versions[-2]
        found = await diff(teacher, last.id, woven.id)
        assert (found.base_version, found.version.id) == (woven, last.id)
        assert joined(found.text_segments, EQUAL, DELETE) == TEXT
        assert joined(found.text_segments, EQUAL, INSERT) == last.text
        assert [(one.kind, one.text) for one in found.title_segments] == [
            (EQUAL, "Chợ "),
            (DELETE, "nổi"),
            (INSERT, "cá"),
        ]
        assert (found.words.added, found.words.removed, found.words.changed) == (0, 4, 1)
        changes = {one.vocabulary_id: one for one in found.woven_words}
        assert changes.keys() == {words["dưa hấu"], words["ông nội"]}
        gone, fewer = changes[words["dưa hấu"]], changes[words["ông nội"]]
        assert (gone.kind, list(gone.base_texts), list(gone.texts)) == (2, ["watermelon"], [])
        assert (fewer.kind, fewer.base_occurrences, fewer.occurrences, fewer.kept_occurrences) == (3, 3, 2, 2)
        (nouns,) = (one for one in found.shares if one.share.part_of_speech == PartOfSpeech.PART_OF_SPEECH_NOUN)
        assert (nouns.base_share.target, nouns.share.target) == ("1", "1")
        assert nouns.base_share.occurrences - nouns.share.occurrences == 2

    async def test_is_with_the_version_before_unless_another_is_named(self, teacher: Author) -> None:
        story = await teacher.story(text="Một hai.")
        second = (await teacher.rewrite(story.id, "Một ba.")).current_version
        third = (await teacher.rewrite(story.id, "Một bốn.")).current_version
        assert (await diff(teacher, third.id)).base_version.id == second.id
        first = await diff(teacher, story.current_version.id)
        assert first.base_version.id == first.version.id == story.current_version.id
        assert [one.kind for one in first.text_segments] == [EQUAL]

    async def test_tells_readers_nothing_of_what_they_may_not_see(
        self, teacher: Author, reader: Author, publish_approved: PublishApproved
    ) -> None:
        story = await teacher.story(text="Bản đầu.")
        published = (await teacher.rewrite(story.id, "Bản đăng.")).current_version
        async with refused("PERMISSION_REQUIRED"):
            await diff(reader, published.id)
        await publish_approved(story.id)
        later = (await teacher.rewrite(story.id, "Bản nháp.")).current_version
        assert [one.text for one in (await diff(reader, published.id)).text_segments] == ["Bản đăng."]
        for version_id, base_id in (
            (published.id, story.current_version.id),
            (published.id, later.id),
            (later.id, published.id),
            (later.id, later.id),
            (later.id, ""),
        ):
            async with refused("RESOURCE_NOT_FOUND") as hidden:
                await diff(reader, version_id, base_id)
            async with refused("RESOURCE_NOT_FOUND") as absent:
                await diff(reader, published.id, NOWHERE)
            assert hidden.status == absent.status

    async def test_is_of_two_versions_of_one_story(self, teacher: Author, outsider: Author) -> None:
        story, other = await teacher.story(), await teacher.story()
        async with refused("RESOURCE_NOT_FOUND"):
            await diff(teacher, story.current_version.id, other.current_version.id)
        async with refused("RESOURCE_NOT_FOUND"):
            await diff(outsider, story.current_version.id)

    async def test_of_hostile_texts_does_not_keep_others_waiting(self, teacher: Author) -> None:
        story = await teacher.story(text="ab " * 33_000)
        last = (await teacher.rewrite(story.id, " ".join(f"{n % 7} ab" for n in range(20_000)))).current_version
        compared, *others = await outcomes(
            diff(teacher, last.id), *(teacher.read(story.id, story_versions_pb2.BASIC) for _ in range(20))
        )
        assert joined(compared.text_segments, EQUAL, DELETE) == "ab " * 33_000
        assert all(one.id == story.id for one in others)


class TestRestoreStoryVersion:
    async def test_makes_a_new_version_of_the_old_content(
        self, teacher: Author, words: dict[str, str], entries_of: ListEntries
    ) -> None:
        story = await teacher.story()
        pins = {"pinned_vocabulary_ids": [words["ghe"]], "banned_vocabulary_ids": [words["mặt trời"]]}
        woven = (await teacher.weave(story.id, "0.4", seed=7, paragraphs=[1, 2], **pins)).current_version
        await teacher.retitle(story.id, "Khác")
        await teacher.rewrite(story.id, "Khác hẳn.")
        made = await restore(teacher, story.id, woven.id)
        again, latest = await read(teacher, made.id), await teacher.read(story.id)
        assert latest.title == story.title
        assert latest.current_version == again
        assert again.number == 5
        own = ("id", "number", "create_time", "author_id")
        for version in (again, woven):
            for name in own:
                version.ClearField(name)
        assert again == woven
        last = (await entries_of(entity_type="story", entity_id=story.id))[-1]
        assert last.action == "restore"
        assert last.new_values["current_version_id"] == made.id

    async def test_of_the_latest_version_changes_nothing(self, teacher: Author) -> None:
        story = await teacher.story()
        assert await restore(teacher, story.id, story.current_version.id) == story.current_version
        assert (await teacher.read(story.id)).etag == story.etag

    async def test_tells_the_new_etag(self, teacher: Author) -> None:
        story = await teacher.story()
        await teacher.rewrite(story.id, "Khác.")
        request = story_versions_pb2.RestoreStoryVersionRequest(
            story_id=story.id, version_id=story.current_version.id
        )
        answer = await teacher.versions.RestoreStoryVersion(request)
        assert answer.etag == (await teacher.read(story.id)).etag != story.etag

    async def test_keeps_an_approval_that_the_old_version_has(
        self, school: School, teacher: Author, teacher2: Author, publish_approved: PublishApproved
    ) -> None:
        story = await teacher.story()
        published = (await publish_approved(story.id)).current_version
        await teacher.rewrite(story.id, "Khác.")
        made = await restore(teacher, story.id, published.id)
        assert (made.approved, made.approval_id) == (True, published.approval_id)
        assert made.content_hash == published.content_hash
        assert (await teacher.publish(story.id)).published_version_id == made.id

    async def test_does_not_revive_an_approval_that_an_edit_voided(
        self, school: School, teacher: Author, teacher2: Author
    ) -> None:
        story = await teacher.story()
        approval = await teacher.ask_approval(story.current_version.id)
        await teacher2.approve(approval.id)
        await school.settle()
        await teacher.rewrite(story.id, "Khác.")
        made = await restore(teacher, story.id, story.current_version.id)
        assert not made.approved
        async with refused("APPROVAL_REQUIRED"):
            await teacher.publish(story.id)

    async def test_is_for_those_who_may_change_the_story(
        self, teacher: Author, reader: Author, student: Author, outsider: Author, publish_approved: PublishApproved
    ) -> None:
        story = await teacher.story()
        await publish_approved(story.id)
        for person in (reader, student):
            async with refused("PERMISSION_REQUIRED"):
                await restore(person, story.id, story.current_version.id)
        async with refused("RESOURCE_NOT_FOUND"):
            await restore(outsider, story.id, story.current_version.id)

    async def test_refuses_stale_etags_other_stories_versions_and_archived_stories(
        self, teacher: Author, publish_approved: PublishApproved
    ) -> None:
        story, other = await teacher.story(), await teacher.story()
        newer = await teacher.rewrite(story.id, "Khác.")
        async with refused("STALE_ETAG"):
            await restore(teacher, story.id, story.current_version.id, story.etag)
        async with refused("RESOURCE_NOT_FOUND"):
            await restore(teacher, story.id, other.current_version.id)
        await restore(teacher, story.id, story.current_version.id, newer.etag)
        await publish_approved(story.id)
        await teacher.stories.ArchiveStory(stories_pb2.ArchiveStoryRequest(id=story.id))
        async with refused("WRONG_STATE"):
            await restore(teacher, story.id, newer.current_version.id)


class TestVersionNumbers:
    @pytest.mark.parametrize("run", range(2))
    async def test_are_dense_however_versions_are_made_at_once(
        self, teacher: Author, words: dict[str, str], run: int
    ) -> None:
        story = await teacher.story()
        first = story.current_version.id
        await teacher.rewrite(story.id, "Ghe.")
        made = await outcomes(
            *(restore(teacher, story.id, first) for _ in range(6)),
            *(teacher.rewrite(story.id, f"Ghe {n}.") for n in range(6)),
            *(teacher.weave(story.id) for _ in range(3)),
            *(teacher.retitle(story.id, f"Tên {n}") for n in range(3)),
        )
        for error in (one for one in made if isinstance(one, BaseException)):
            # Only a lost race, or its turn not had in time, never two versions of one number.
            assert any(one in str(error) for one in ("ABORTED", "meanwhile", "RESOURCE_EXHAUSTED")), error
        answer = await teacher.versions.ListStoryVersions(
            story_versions_pb2.ListStoryVersionsRequest(story_id=story.id, page_size=100)
        )
        numbers = [one.number for one in answer.story_versions]
        assert numbers == list(range(len(numbers), 0, -1))
        assert len(numbers) > 8
        assert (await teacher.read(story.id)).current_version.number == len(numbers)
