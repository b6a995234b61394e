"""The weave through the API: what is woven, what is kept of it, and what stays of an editor's wishes."""

from decimal import Decimal
from threading import Lock
from time import sleep
from typing import Any

import asyncpg
import grpc
import pytest

from services.content import versioning
from storyloom.content.v1 import stories_pb2, story_versions_pb2, vocabularies_pb2
from storyloom.content.v1.story_versions_pb2 import ChunkKind
from tests.content.conftest import TEXT, Author, ListEntries, outcomes, undone
from tests.metrics import reading
from tests.stack import School, refused


def woven_words(version: story_versions_pb2.StoryVersion) -> list[str]:
    return [chunk.text for chunk in version.chunks if chunk.kind == ChunkKind.CHUNK_KIND_CHEM]


def woven_words_ids(version: story_versions_pb2.StoryVersion) -> list[str]:
    return [chunk.vocabulary_id for chunk in version.chunks if chunk.kind == ChunkKind.CHUNK_KIND_CHEM]


class TestWeaveStory:
    async def test_the_woven_story_undone_is_the_source_byte_for_byte(self, teacher: Author, words: Any) -> None:
        text = "Ông nội  chèo ghe\r\n\r\n\u200bDòng sông…\tdòng sông! "
        woven = await teacher.weave((await teacher.story(text=text)).id, "1")
        assert undone(woven.current_version) == woven.current_version.text == text
        assert woven_words(woven.current_version) == ["Grandfather", "boat", "River", "river"]

    async def test_takes_a_time_that_is_measured(self, school: School, teacher: Author, words: Any) -> None:
        story = await teacher.story()
        with reading(school.stack.services["content"].telemetry) as reader:
            await teacher.weave(story.id, "1")
            assert reader.value("storyloom.work.duration", work="weave") == 1

    async def test_counts_what_it_wove(self, teacher: Author, words: Any) -> None:
        version = (await teacher.weave((await teacher.story()).id, "0.4")).current_version
        (noun,) = [one for one in version.shares if one.part_of_speech == vocabularies_pb2.PART_OF_SPEECH_NOUN]
        assert noun.target == "0.4"
        assert noun.woven == len(woven_words(version))
        assert Decimal(noun.realised) == round(Decimal(noun.woven) / noun.occurrences, 6)
        assert 0 < Decimal(version.chem_ratio) < 1

    async def test_numbers_chunks_and_explains_a_word_once(self, teacher: Author, words: dict[str, str]) -> None:
        version = (await teacher.weave((await teacher.story()).id, "1")).current_version
        assert [chunk.position for chunk in version.chunks] == list(range(1, len(version.chunks) + 1))
        explained = [one.vocabulary_id for one in version.chunks if one.kind == ChunkKind.CHUNK_KIND_EXPLAIN]
        assert len(explained) == len(set(explained)) == len(set(woven_words_ids(version)))

    async def test_the_same_request_gives_the_same_weave(self, teacher: Author, words: Any) -> None:
        story = await teacher.story()
        first = (await teacher.weave(story.id, seed=7)).current_version
        again = (await teacher.weave(story.id, seed=7)).current_version
        assert (again.number, again.chunks, again.seed) == (first.number + 1, first.chunks, 7)
        assert again.content_hash == first.content_hash

    async def test_pins_and_bans_survive_editing_and_weaving_again(
        self, teacher: Author, words: dict[str, str]
    ) -> None:
        story = await teacher.story()
        pins = {"pinned_vocabulary_ids": [words["ghe"]], "banned_vocabulary_ids": [words["dòng sông"]]}
        await teacher.weave(story.id, "0", **pins)
        await teacher.rewrite(story.id, TEXT + " Ghe đi.")
        version = (await teacher.weave(story.id, "0")).current_version
        assert set(woven_words(version)) == {"boat", "Boat"}
        assert list(version.banned_vocabulary_ids) == [words["dòng sông"]]
        forgotten = (await teacher.weave(story.id, "0", replace_pins=True)).current_version
        assert not woven_words(forgotten)

    async def test_a_ban_takes_back_a_pin(self, teacher: Author, words: dict[str, str]) -> None:
        story = await teacher.story()
        await teacher.weave(story.id, "0", pinned_vocabulary_ids=[words["ghe"]])
        version = (await teacher.weave(story.id, "1", banned_vocabulary_ids=[words["ghe"]])).current_version
        assert "boat" not in woven_words(version)
        assert not version.pinned_vocabulary_ids

    async def test_keeps_to_the_storys_own_words_and_paragraphs(self, teacher: Author, words: dict[str, str]) -> None:
        story = await teacher.story(vocabulary_ids=[words["ông nội"]])
        version = (await teacher.weave(story.id, "1", paragraphs=[3, 99])).current_version
        assert woven_words(version) == ["Grandfather"]
        assert list(version.paragraphs) == [3, 99]

    async def test_refuses_words_of_other_languages(self, teacher: Author) -> None:
        word = vocabularies_pb2.Vocabulary(
            term="bateau", translation="boat", part_of_speech="PART_OF_SPEECH_NOUN", language="fr"
        )
        made = await teacher.words.CreateVocabulary(vocabularies_pb2.CreateVocabularyRequest(vocabulary=word))
        async with refused("REFERENCE_NOT_FOUND"):
            await teacher.weave((await teacher.story()).id, pinned_vocabulary_ids=[made.id])

    async def test_keeps_what_each_part_of_speech_was_to_have(
        self, teacher: Author, words: Any, tables: "asyncpg.Connection[asyncpg.Record]"
    ) -> None:
        version = (await teacher.weave((await teacher.story()).id, "0.4")).current_version
        kept = await tables.fetch(
            "SELECT part_of_speech, target, occurrences, woven FROM content.cloze_configs WHERE version_id = $1"
            " ORDER BY 1",
            version.id,
        )
        told = [(one.target, one.occurrences, one.woven) for one in version.shares]
        assert [(f"{one['target'].normalize():f}", one["occurrences"], one["woven"]) for one in kept] == told

    async def test_chunks_are_kept_as_they_are_shown(
        self, teacher: Author, words: Any, tables: "asyncpg.Connection[asyncpg.Record]"
    ) -> None:
        version = (await teacher.weave((await teacher.story()).id, "1")).current_version
        kept = await tables.fetch(
            "SELECT position, kind, text, source, coalesce(vocabulary_id::text, '') FROM content.story_chunks"
            " WHERE version_id = $1 ORDER BY position",
            version.id,
        )
        told = [
            (
                one.position,
                ChunkKind.Name(one.kind).removeprefix("CHUNK_KIND_").lower(),
                one.text,
                one.source,
                one.vocabulary_id,
            )
            for one in version.chunks
        ]
        assert [tuple(one) for one in kept] == told

    async def test_at_once_each_makes_its_version_or_is_told_to_try_again(self, teacher: Author, words: Any) -> None:
        story = await teacher.story()
        done = await outcomes(*(teacher.weave(story.id, seed=seed) for seed in range(3)))
        numbers = sorted(one.current_version.number for one in done if isinstance(one, stories_pb2.Story))
        refusals = [one for one in done if not isinstance(one, stories_pb2.Story)]
        assert numbers == list(range(2, 2 + len(numbers)))
        assert numbers
        assert all(one.code() is grpc.StatusCode.ABORTED for one in refusals)

    async def test_weaves_one_story_at_a_time(
        self, teacher: Author, words: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        alone, weave = Lock(), versioning.woven
        overlaps: list[str] = []

        def watched(title: str, *rest: Any) -> versioning.Draft:
            if not alone.acquire(blocking=False):
                overlaps.append(title)
                return weave(title, *rest)
            try:
                sleep(0.1)
                return weave(title, *rest)
            finally:
                alone.release()

        monkeypatch.setattr(versioning, "woven", watched)
        made = [await teacher.story(f"Cùng lúc {number}") for number in range(3)]
        done = await outcomes(*(teacher.weave(one.id) for one in made))
        assert [one.current_version.number for one in done] == [2, 2, 2]
        assert not overlaps

    @pytest.mark.slow
    async def test_weaves_a_long_story_without_holding_up_others(self, teacher: Author, words: Any) -> None:
        story = await teacher.story(text=("Ông nội chèo ghe trên dòng sông. " * 3000).strip())
        woven, *reads = await outcomes(teacher.weave(story.id, "1"), *(teacher.read(story.id) for _ in range(3)))
        assert len(woven_words(woven.current_version)) == 9000
        assert all(one.current_version.number == 1 for one in reads)

    async def test_tells_the_audit_log(self, teacher: Author, words: Any, entries_of: ListEntries) -> None:
        story = await teacher.story()
        woven = await teacher.weave(story.id, seed=3)
        entry = (await entries_of(entity_type="story", entity_id=story.id))[-1]
        assert entry.action == "weave"
        assert entry.old_values["number"] == 1
        assert entry.new_values["seed"] == 3
        assert entry.new_values["chem_ratio"] == woven.current_version.chem_ratio

    @pytest.mark.parametrize("ratio", ["1.5", "-0.1", "0.1234567", "NaN", ""])
    async def test_refuses_a_ratio_that_is_none(self, teacher: Author, ratio: str) -> None:
        async with refused("INVALID_FIELD", field="targets[0].ratio"):
            await teacher.weave((await teacher.story()).id, ratio)
