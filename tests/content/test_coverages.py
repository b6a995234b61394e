"""How much of a story a list of words covers, for whom."""

from typing import Any

import pytest

from kit.ids import new_id
from storyloom.content.v1 import vocabularies_pb2
from storyloom.content.v1.coverages_pb2 import Coverage, GetCoverageRequest
from storyloom.content.v1.coverages_pb2_grpc import CoverageServiceStub
from storyloom.content.v1.vocabularies_pb2 import Vocabulary
from tests.content.conftest import Author, PublishApproved
from tests.stack import refused

TEXT = "Con rùa bò chậm. Con rùa và con thỏ chạy đua, con thỏ ngủ quên."
# A pair of its own, so that words of other tests are not found.
LANGUAGES = {"language": "vi", "learning_language": "fi"}
NOUNS = (("con rùa", "kilpikonna", "A1"), ("con thỏ", "jänis", "B1"), ("đua", "kilpailla", "C1"))


async def coverage(author: Author, story_id: str, **wanted: Any) -> Coverage:
    stub = author.person.stub(CoverageServiceStub, "content")
    return await stub.GetCoverage(GetCoverageRequest(story_id=story_id, **wanted))


@pytest.fixture(scope="session")
async def animals(teacher: Author) -> dict[str, str]:
    """The ids of the words, by term."""
    sent = [
        Vocabulary(term=term, translation=word, part_of_speech="PART_OF_SPEECH_NOUN", level=level, **LANGUAGES)
        for term, word, level in NOUNS
    ]
    request = vocabularies_pb2.BatchCreateVocabulariesRequest(vocabularies=sent)
    answer = await teacher.words.BatchCreateVocabularies(request)
    return {one.vocabulary.term: one.vocabulary.id for one in answer.results}


class TestGetCoverage:
    async def test_by_all_words_of_the_tenant(self, teacher: Author, animals: dict[str, str]) -> None:
        story = await teacher.story(text=TEXT, **LANGUAGES)
        found = await coverage(teacher, story.id)
        assert (found.version_id, found.running_words, found.covered_running_words) == (story.current_version.id, 15, 9)
        assert (found.running_share, found.distinct_words, found.covered_distinct_words) == ("0.6", 10, 4)
        assert [(one.word, one.occurrences) for one in found.missing_words] == [
            (word, 1) for word in ("bò", "chậm", "và", "chạy", "ngủ", "quên")
        ]

    async def test_by_a_list_and_up_to_a_level(self, teacher: Author, animals: dict[str, str]) -> None:
        story = await teacher.story(text=TEXT, **LANGUAGES)
        listed = await coverage(teacher, story.id, vocabulary_ids=[animals["con thỏ"]], missing_words_size=2)
        assert (listed.covered_running_words, len(listed.missing_words)) == (4, 2)
        assert listed.missing_words[0].word == "Con"
        counts = [
            (await coverage(teacher, story.id, max_level=level)).covered_running_words
            for level in ("A1", "A2", "B1", "C2", "N1")
        ]
        assert counts == [4, 4, 8, 9, 0]

    async def test_tells_the_level_whatever_the_list(self, teacher: Author, animals: dict[str, str]) -> None:
        story = await teacher.story(text=TEXT, **LANGUAGES)
        found = await coverage(teacher, story.id, vocabulary_ids=[animals["đua"]])
        assert found.level == "C1"
        assert [(one.level, one.occurrences, one.cumulative_share) for one in found.levels] == [
            ("A1", 2, "0.4"),
            ("B1", 2, "0.8"),
            ("C1", 1, "1"),
        ]

    async def test_of_the_version_that_the_caller_may_see(
        self, teacher: Author, reader: Author, animals: dict[str, str], publish_approved: PublishApproved
    ) -> None:
        story = await teacher.story(text=TEXT, **LANGUAGES)
        async with refused("PERMISSION_REQUIRED"):
            await coverage(reader, story.id)
        await publish_approved(story.id)
        await teacher.rewrite(story.id, "Con rùa.")
        assert (await coverage(teacher, story.id)).running_words == 2
        seen = await coverage(reader, story.id)
        # Whoever may read no words of the vocabulary hears nothing of them.
        assert (seen.version_id, seen.running_words) == (story.current_version.id, 15)
        assert (seen.covered_running_words, seen.level) == (0, "")
        async with refused("REFERENCE_NOT_FOUND"):
            await coverage(reader, story.id, vocabulary_ids=[animals["đua"]])

    async def test_refuses_words_that_are_not_there(self, teacher: Author, outsider: Author) -> None:
        story = await teacher.story(text=TEXT, **LANGUAGES)
        async with refused("REFERENCE_NOT_FOUND"):
            await coverage(teacher, story.id, vocabulary_ids=[str(new_id())])
        async with refused("RESOURCE_NOT_FOUND"):
            await coverage(outsider, story.id)
