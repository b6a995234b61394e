"""A story as one reader reads it: what learning knows decides, and without learning the version itself is read."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest

from kit.ids import new_id
from services.content.weaves import RENDERER
from storyloom.content.v1 import stories_pb2, vocabularies_pb2, weaves_pb2
from storyloom.content.v1.story_versions_pb2 import ChunkKind
from storyloom.content.v1.weaves_pb2 import FallbackReason, RenderedStory, WordStatus
from storyloom.learning.v1 import vocabulary_reviews_pb2
from storyloom.learning.v1.vocabulary_reviews_pb2_grpc import VocabularyReviewServiceStub
from tests.content.conftest import Author, PublishApproved, undone
from tests.stack import School, refused

NOUNS = {"barco": "boat", "río": "river", "abuelo": "grandfather", "sol": "sun", "sandía": "watermelon"}
SENTENCE = "El abuelo mira el sol sobre el río y sube al barco con una sandía muy grande. "
TEXT = (SENTENCE * 3).strip()


@pytest.fixture(scope="module")
async def nouns(teacher: Author) -> dict[str, str]:
    """The ids of Spanish words, by the word."""
    made = {}
    for term, translation in NOUNS.items():
        word = vocabularies_pb2.Vocabulary(
            term=term,
            translation=translation,
            part_of_speech="PART_OF_SPEECH_NOUN",
            explanation=f"{translation}: {term}",
            language="es",
            learning_language="en",
        )
        request = vocabularies_pb2.CreateVocabularyRequest(vocabulary=word)
        made[term] = (await teacher.words.CreateVocabulary(request)).id
    return made


@pytest.fixture(scope="module")
def student2(school: School) -> Author:
    return Author(school.student2)


@pytest.fixture
async def story(
    teacher: Author, nouns: dict[str, str], publish_approved: PublishApproved
) -> stories_pb2.Story:
    """A published story of 51 words, of which 15 could be woven and 9 are."""
    made = await teacher.story("El río", TEXT, language="es", learning_language="en")
    await teacher.weave(made.id, "0.6", seed=1)
    return await publish_approved(made.id)


async def render(reader: Author, story_id: str, **more: Any) -> RenderedStory:
    answer: RenderedStory = await reader.weaves.RenderStory(weaves_pb2.RenderStoryRequest(id=story_id, **more))
    return answer


async def review(reader: Author, vocabulary_id: str, days_ago: int, rating: str = "GOOD", times: int = 1) -> None:
    """Reviews the word, first so many days ago and then a day later each."""
    reviews = reader.person.stub(VocabularyReviewServiceStub, "learning")
    for time in range(times):
        one = vocabulary_reviews_pb2.VocabularyReview(
            vocabulary_id=vocabulary_id, rating=f"REVIEW_RATING_{rating}", event_id=str(uuid4())
        )
        one.review_time.FromDatetime(datetime.now(UTC) - timedelta(days=days_ago - time))
        await reviews.CreateVocabularyReview(
            vocabulary_reviews_pb2.CreateVocabularyReviewRequest(vocabulary_review=one)
        )


async def test_keeps_no_other_tenant_waiting(school: School, teacher: Author, story: stories_pb2.Story) -> None:
    gate, outsider = threading.Event(), Author(school.outsider)
    long = asyncio.create_task(RENDERER.do(gate.wait, 30))
    readers = [asyncio.create_task(render(teacher, story.id)) for _ in range(12)]
    await asyncio.sleep(1)
    try:
        await outsider.stories.ListStories(stories_pb2.ListStoriesRequest())
    finally:
        gate.set()
        await asyncio.gather(long, *readers, return_exceptions=True)


def woven(answer: RenderedStory) -> list[str]:
    return [chunk.source for chunk in answer.chunks if chunk.kind == ChunkKind.CHUNK_KIND_CHEM]


@asynccontextmanager
async def without_learning(school: School) -> AsyncIterator[None]:
    await school.stack.stop_service("learning")
    try:
        yield
    finally:
        await school.stack.start_service("learning")


@asynccontextmanager
async def silent_learning(school: School) -> AsyncIterator[None]:
    """In place of learning, somebody who takes calls and never answers."""
    host, _, port = school.stack.environments["learning"]["LISTEN_ADDRESS"].rpartition(":")
    await school.stack.stop_service("learning")
    taken: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: taken.append(writer), host, int(port))
    try:
        yield
    finally:
        server.close()
        for writer in taken:
            # Or the others would go on talking to it, for as long as their keepalive waits, instead of to learning.
            writer.transport.abort()
        await school.stack.start_service("learning")


class TestRenderStory:
    async def test_weaves_new_words_for_who_knows_none_up_to_their_share(
        self, student: Author, story: stories_pb2.Story
    ) -> None:
        answer = await render(student, story.id)
        assert answer.personal
        assert answer.fallback_reason == FallbackReason.FALLBACK_REASON_UNSPECIFIED
        assert undone(answer) == TEXT  # type: ignore[arg-type]
        assert len(woven(answer)) == 2
        assert answer.unknown_share == str(round(Decimal(2) / 51, 6))
        assert {word.status for word in answer.words} == {WordStatus.WORD_STATUS_NEW}
        assert [word.explained for word in answer.words] == [True] * len(answer.words)

    async def test_weaves_what_is_due_first_and_tells_how_well_it_is_known(
        self, student2: Author, story: stories_pb2.Story, nouns: dict[str, str]
    ) -> None:
        await review(student2, nouns["sol"], 60)
        await review(student2, nouns["río"], 60)
        answer = await render(student2, story.id)
        known = {word.vocabulary_id: word for word in answer.words}
        assert [known[nouns[term]].occurrences for term in ("sol", "río")] == [3, 3]
        assert all(known[nouns[term]].due for term in ("sol", "río"))
        assert known[nouns["sol"]].status in {WordStatus.WORD_STATUS_LEARNING, WordStatus.WORD_STATUS_REVIEWING}
        (share,) = answer.shares
        assert (share.target, share.occurrences, share.woven) == ("0.6", 15, len(woven(answer)))
        assert Decimal(answer.unknown_share) <= Decimal("0.05")

    async def test_reads_another_way_when_asked_and_the_same_otherwise(
        self, student: Author, story: stories_pb2.Story
    ) -> None:
        assert await render(student, story.id) == await render(student, story.id)
        variants = [await render(student, story.id, variant=number) for number in range(8)]
        assert len({tuple(woven(one)) for one in variants}) > 1
        assert all(undone(one) == TEXT for one in variants)  # type: ignore[arg-type]

    async def test_leaves_gaps_with_the_source_as_a_hint(self, student: Author, story: stories_pb2.Story) -> None:
        answer = await render(student, story.id, cloze=True)
        gaps = [chunk for chunk in answer.chunks if chunk.kind == ChunkKind.CHUNK_KIND_CHEM]
        assert gaps
        assert {chunk.text for chunk in gaps} == {"____"}
        assert {chunk.source for chunk in gaps} <= set(NOUNS)
        assert ChunkKind.CHUNK_KIND_EXPLAIN not in {chunk.kind for chunk in answer.chunks}
        assert woven(answer) == woven(await render(student, story.id))
        assert not any(word.explained for word in answer.words)

    async def test_obeys_pins_and_bans_of_the_version(
        self,
        teacher: Author,
        student: Author,
        story: stories_pb2.Story,
        nouns: dict[str, str],
        publish_approved: PublishApproved,
    ) -> None:
        pins = {"pinned_vocabulary_ids": [nouns["barco"]], "banned_vocabulary_ids": [nouns["sol"], nouns["río"]]}
        await teacher.weave(story.id, "0.2", **pins)
        await publish_approved(story.id)
        assert set(woven(await render(student, story.id))) == {"barco"}

    async def test_reads_the_published_version_to_learners_and_the_current_one_to_editors(
        self, teacher: Author, student: Author, story: stories_pb2.Story
    ) -> None:
        edited = await teacher.rewrite(story.id, "El sol.")
        published, current = await render(student, story.id), await render(teacher, story.id)
        assert undone(published) == TEXT  # type: ignore[arg-type]
        assert (published.version_id, current.version_id) == (
            story.published_version_id,
            edited.current_version.id,
        )
        assert current.fallback_reason == FallbackReason.FALLBACK_REASON_NOT_WOVEN
        assert (undone(current), woven(current)) == ("El sol.", [])  # type: ignore[arg-type]

    async def test_is_the_version_where_none_of_the_words_stand_any_more(
        self, teacher: Author, student: Author, publish_approved: PublishApproved, nouns: dict[str, str]
    ) -> None:
        made = await teacher.story("Nada", "Nada de nada.", language="es", learning_language="en")
        await teacher.weave(made.id, "1")
        await publish_approved(made.id)
        answer = await render(student, made.id)
        assert answer.fallback_reason == FallbackReason.FALLBACK_REASON_NO_WORDS
        assert [chunk.text for chunk in answer.chunks] == ["Nada de nada."]

    @pytest.mark.parametrize("broken", [without_learning, silent_learning])
    async def test_is_the_version_when_learning_does_not_answer_in_time(
        self, school: School, teacher: Author, student: Author, story: stories_pb2.Story, broken: Any
    ) -> None:
        version = (await teacher.read(story.id)).current_version
        async with broken(school):
            began = monotonic()
            answer, gaps = await render(student, story.id), await render(student, story.id, cloze=True)
            assert monotonic() - began < 2
        assert not answer.personal
        assert answer.fallback_reason == FallbackReason.FALLBACK_REASON_PROGRESS_UNAVAILABLE
        assert (list(answer.chunks), list(answer.shares)) == (list(version.chunks), list(version.shares))
        assert answer.unknown_share == ""
        assert {word.status for word in answer.words} == {WordStatus.WORD_STATUS_UNSPECIFIED}
        assert woven(gaps) == woven(answer)

    async def test_asks_learning_outside_of_any_transaction(
        self, school: School, student: Author, story: stories_pb2.Story
    ) -> None:
        async with silent_learning(school):
            # Until the connection is made anew, calls of learning are refused at once.
            for _ in range(40):
                pending = asyncio.ensure_future(render(student, story.id))
                await asyncio.sleep(0.15)
                if not pending.done():
                    break
                await pending
            pool: Any = school.stack.services["content"].db.engine.pool
            assert pool.checkedout() == 0
            assert not pending.done()
            assert not (await pending).personal

    async def test_refuses_what_the_reader_may_not_see(
        self, teacher: Author, teacher2: Author, student: Author, outsider: Author, nouns: dict[str, str]
    ) -> None:
        draft = await teacher.story("Borrador", TEXT, language="es", learning_language="en")
        await teacher.weave(draft.id, "1")
        for somebody, story_id in ((outsider, draft.id), (student, str(new_id()))):
            async with refused("RESOURCE_NOT_FOUND"):
                await render(somebody, story_id)
        async with refused("PERMISSION_REQUIRED"):
            await render(student, draft.id)

    @pytest.mark.parametrize("variant", [-1, 1_000_001])
    async def test_refuses_a_variant_that_is_none(self, student: Author, variant: int) -> None:
        async with refused("INVALID_FIELD", field="variant"):
            await render(student, str(new_id()), variant=variant)
