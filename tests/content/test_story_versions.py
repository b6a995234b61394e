"""Versions of stories: who sees which, and that none ever changes."""

import hashlib
import json

import asyncpg
import pytest

from storyloom.content.v1 import story_versions_pb2, vocabularies_pb2
from storyloom.content.v1.story_versions_pb2 import ChunkKind
from tests.content.conftest import TEXT, Author, PublishApproved
from tests.stack import School, refused

NOWHERE = "00000000-0000-7000-8000-000000000000"


async def read(author: Author, version_id: str, view: str = "FULL") -> story_versions_pb2.StoryVersion:
    request = story_versions_pb2.GetStoryVersionRequest(id=version_id, view=view)
    return await author.versions.GetStoryVersion(request)


async def numbers(author: Author, story_id: str) -> list[int]:
    request = story_versions_pb2.ListStoryVersionsRequest(story_id=story_id, page_size=2)
    found: list[int] = []
    while True:
        answer = await author.versions.ListStoryVersions(request)
        found += [one.number for one in answer.story_versions]
        if not answer.next_page_token:
            return found
        request.page_token = answer.next_page_token


class TestGetStoryVersion:
    async def test_gives_every_version_as_it_was(self, teacher: Author, words: dict[str, str]) -> None:
        story = await teacher.story()
        woven = await teacher.weave(story.id)
        await teacher.rewrite(story.id, "Khác.")
        first, second = await read(teacher, story.current_version.id), await read(teacher, woven.current_version.id)
        assert (first.number, first.text, first.content_hash) == (1, TEXT, story.current_version.content_hash)
        assert second == woven.current_version

    async def test_basic_view_has_the_content_hash_and_no_text(self, teacher: Author) -> None:
        version = (await teacher.story()).current_version
        basic = await read(teacher, version.id, "BASIC")
        assert basic == version
        assert not basic.text
        assert not basic.chunks

    async def test_the_content_hash_can_be_made_of_what_is_shown(self, teacher: Author, words: dict[str, str]) -> None:
        version = (await teacher.weave((await teacher.story()).id, "1")).current_version
        annotations: list[list[object]] = []
        place = 0
        for chunk in version.chunks:
            if chunk.kind == ChunkKind.CHUNK_KIND_EXPLAIN:
                annotations[-1][-1] = chunk.text
            elif chunk.kind == ChunkKind.CHUNK_KIND_CHEM:
                annotations.append([place, place + len(chunk.source), chunk.vocabulary_id, chunk.text, ""])
                place += len(chunk.source)
            else:
                place += len(chunk.text)
        content = {"annotations": annotations, "text": version.text, "title": version.title}
        canonical = json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        assert hashlib.sha256(canonical.encode()).hexdigest() == version.content_hash

    async def test_shows_readers_the_published_version_only(
        self, teacher: Author, reader: Author, publish_approved: PublishApproved
    ) -> None:
        story = await teacher.story()
        async with refused("PERMISSION_REQUIRED"):
            await read(reader, story.current_version.id)
        await publish_approved(story.id)
        newer = await teacher.rewrite(story.id, "Bản nháp.")
        assert (await read(reader, story.current_version.id)).approved
        async with refused("RESOURCE_NOT_FOUND"):
            await read(reader, newer.current_version.id)
        assert await numbers(reader, story.id) == [1]
        assert await numbers(teacher, story.id) == [2, 1]

    async def test_another_tenants_version_is_as_absent_as_one_that_never_was(
        self, teacher: Author, outsider: Author
    ) -> None:
        story = await teacher.story()
        async with refused("RESOURCE_NOT_FOUND") as foreign:
            await read(outsider, story.current_version.id)
        async with refused("RESOURCE_NOT_FOUND") as absent:
            await read(outsider, NOWHERE)
        assert foreign.status == absent.status
        async with refused("RESOURCE_NOT_FOUND"):
            await numbers(outsider, story.id)


class TestListStoryVersions:
    async def test_has_the_highest_number_first(self, teacher: Author) -> None:
        story = await teacher.story()
        for number in range(2, 6):
            await teacher.rewrite(story.id, f"Bản {number}.")
        assert await numbers(teacher, story.id) == [5, 4, 3, 2, 1]

    async def test_is_not_for_those_who_may_not_see_the_story(self, teacher: Author, reader: Author) -> None:
        story = await teacher.story()
        async with refused("PERMISSION_REQUIRED"):
            await numbers(reader, story.id)


class TestImmutability:
    # Whole versions go with their tenant; what a version says nobody can change.
    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE content.story_versions SET text = 'x'",
            "UPDATE content.story_versions SET content_hash = 'x'",
            "UPDATE content.story_versions SET body = ''",
            "UPDATE content.story_chunks SET text = 'x'",
            "UPDATE content.cloze_configs SET woven = 0",
        ],
    )
    async def test_the_database_lets_the_service_change_no_version(
        self, school: School, teacher: Author, change: str
    ) -> None:
        service = await asyncpg.connect(school.stack.cluster.service_url("content"))
        try:
            await service.execute(f"SET app.tenant_id = '{teacher.person.tenant_id}'")
            with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.RestrictViolationError)):
                await service.execute(change)
        finally:
            await service.close()

    async def test_changing_a_word_changes_no_woven_story(self, teacher: Author) -> None:
        ids = await teacher.learn_words(("chong chóng", "pinwheel", "noun"))
        woven = await teacher.weave((await teacher.story(text="Cái chong chóng quay.")).id, "1")
        word = vocabularies_pb2.Vocabulary(id=ids["chong chóng"], translation="windmill")
        await teacher.words.UpdateVocabulary(vocabularies_pb2.UpdateVocabularyRequest(vocabulary=word))
        assert await read(teacher, woven.current_version.id) == woven.current_version
