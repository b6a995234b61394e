"""The log of reviews, and words that learners say they know."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from kit.ids import new_id
from storyloom.content.v1.vocabularies_pb2 import BatchGetVocabulariesRequest, DeleteVocabularyRequest
from storyloom.content.v1.vocabularies_pb2_grpc import VocabularyServiceStub
from storyloom.learning.v1.vocabulary_progress_pb2 import VocabularyStatus
from storyloom.learning.v1.vocabulary_reviews_pb2 import (
    BatchCreateVocabularyReviewsRequest,
    BatchCreateVocabularyReviewsResponse,
    CreateVocabularyReviewRequest,
    ImportKnownVocabularyRequest,
    ImportKnownVocabularyResponse,
    KnownVocabularyProblem,
    ListVocabularyReviewsRequest,
    ReviewRating,
    ReviewSource,
    VocabularyReview,
)
from storyloom.learning.v1.vocabulary_reviews_pb2_grpc import VocabularyReviewServiceStub
from tests.learning.conftest import ListEntries
from tests.learning.reviewing import make_words
from tests.stack import Person, School, refused

AGAIN, GOOD, EASY = (
    ReviewRating.REVIEW_RATING_AGAIN,
    ReviewRating.REVIEW_RATING_GOOD,
    ReviewRating.REVIEW_RATING_EASY,
)
LEARNING = VocabularyStatus.VOCABULARY_STATUS_LEARNING
MASTERED = VocabularyStatus.VOCABULARY_STATUS_MASTERED


def reviews_of(person: Person) -> VocabularyReviewServiceStub:
    return person.stub(VocabularyReviewServiceStub, "learning")


def made(word: str, rating: ReviewRating = GOOD, at: datetime | None = None, event_id: str = "") -> VocabularyReview:
    review = VocabularyReview(vocabulary_id=word, rating=rating, event_id=event_id or str(new_id()))
    review.review_time.FromDatetime(at or datetime.now(UTC))
    return review


async def create(person: Person, review: VocabularyReview) -> VocabularyReview:
    request = CreateVocabularyReviewRequest(vocabulary_review=review)
    return await reviews_of(person).CreateVocabularyReview(request)


async def send(person: Person, *reviews: VocabularyReview) -> BatchCreateVocabularyReviewsResponse:
    request = BatchCreateVocabularyReviewsRequest(vocabulary_reviews=reviews)
    return await reviews_of(person).BatchCreateVocabularyReviews(request)


async def know(person: Person, *ids: str, csv: str = "", **more: str) -> ImportKnownVocabularyResponse:
    request = ImportKnownVocabularyRequest(vocabulary_ids=ids, csv=csv.encode(), **more)
    return await reviews_of(person).ImportKnownVocabulary(request)


async def listed(person: Person, **wanted: str) -> list[VocabularyReview]:
    request = ListVocabularyReviewsRequest(page_size=100, **wanted)
    return list((await reviews_of(person).ListVocabularyReviews(request)).vocabulary_reviews)


class TestCreateVocabularyReview:
    async def test_records_it_and_says_what_follows(self, school: School, entries_of: ListEntries) -> None:
        (word,) = await make_words(school.teacher)
        review = await create(school.student, VocabularyReview(vocabulary_id=word, rating=GOOD))
        assert review.user_id == school.student.user_id
        assert review.source == ReviewSource.REVIEW_SOURCE_ONLINE
        assert review.desired_retention == 0.9
        progress = review.vocabulary_progress
        assert (progress.vocabulary_id, progress.status, progress.review_count) == (word, LEARNING, 1)
        assert progress.due_time.ToDatetime() - review.review_time.ToDatetime() == timedelta(minutes=10)
        [entry] = await entries_of(entity_type="vocabulary_review", entity_id=review.id)
        assert (entry.action, entry.user_id, entry.new_values["rating"]) == ("create", school.student.user_id, "good")

    async def test_sent_twice_is_recorded_once(self, school: School, entries_of: ListEntries) -> None:
        (word,) = await make_words(school.teacher)
        sent = made(word)
        first, second = await create(school.student, sent), await create(school.student, sent)
        assert first == second
        assert len(await entries_of(entity_type="vocabulary_review", entity_id=first.id)) == 1

    async def test_from_the_past_was_made_without_a_connection(self, school: School) -> None:
        (word,) = await make_words(school.teacher)
        review = await create(school.student, made(word, at=datetime.now(UTC) - timedelta(hours=3)))
        assert review.source == ReviewSource.REVIEW_SOURCE_OFFLINE
        assert review.receive_time.ToDatetime() - review.review_time.ToDatetime() > timedelta(hours=2)

    async def test_refuses_a_time_that_cannot_be(self, school: School) -> None:
        (word,) = await make_words(school.teacher)
        ahead = made(word, at=datetime.now(UTC) + timedelta(hours=25))
        async with refused("INVALID_FIELD", field="vocabulary_review.review_time"):
            await create(school.student, ahead)

    async def test_refuses_words_of_nobody_and_of_others_alike(self, school: School) -> None:
        (foreign,) = await make_words(school.outsider_teacher)
        for word in (str(new_id()), foreign):
            async with refused("REFERENCE_NOT_FOUND"):
                await create(school.student, made(word))

    async def test_goes_on_with_a_word_that_was_deleted(self, school: School) -> None:
        (word,) = await make_words(school.teacher)
        await create(school.student, made(word))
        words = school.teacher.stub(VocabularyServiceStub, "content")
        await words.DeleteVocabulary(DeleteVocabularyRequest(id=word))
        assert (await create(school.student, made(word))).vocabulary_progress.review_count == 2
        async with refused("REFERENCE_NOT_FOUND"):
            await create(school.student2, made(word))

    @pytest.mark.parametrize("field", ["vocabulary_id", "rating"])
    async def test_demands_the_word_and_the_rating(self, school: School, field: str) -> None:
        review = made(str(new_id()))
        review.ClearField(field)
        async with refused("INVALID_FIELD", field="vocabulary_review"):
            await create(school.student, review)


class TestWithContentDown:
    async def test_nothing_that_a_phone_recorded_is_lost(self, school: School) -> None:
        (word,) = await make_words(school.teacher)
        await school.stack.stop_service("content")
        try:
            assert (await send(school.student, made(word))).recorded_count == 1
            async with refused("DEPENDENCY_UNAVAILABLE"):
                await know(school.student, str(new_id()))
        finally:
            await school.stack.start_service("content")
            await school.settle()


class TestBatchCreateVocabularyReviews:
    async def test_takes_them_in_any_order(self, school: School, entries_of: ListEntries) -> None:
        words = await make_words(school.teacher, 3)
        began = datetime.now(UTC) - timedelta(days=30)
        sent = [made(word, at=began + timedelta(days=day)) for day in (0, 4, 9) for word in words]
        before = len(await entries_of(entity_type="vocabulary_review", user_id=school.student.user_id))
        late = await send(school.student, *reversed(sent[3:]))
        assert (late.recorded_count, len(late.vocabulary_progress)) == (6, 3)
        early = await send(school.student, *sent)
        assert (early.recorded_count, len(early.vocabulary_progress)) == (3, 3)
        in_order = await send(school.student2, *sent)
        found = {one.vocabulary_id: one for one in early.vocabulary_progress}
        for one in in_order.vocabulary_progress:
            mine = found[one.vocabulary_id]
            assert (one.stability_days, one.difficulty, one.due_time) == (
                mine.stability_days,
                mine.difficulty,
                mine.due_time,
            )
            assert one.review_count == 3
        entries = await entries_of(entity_type="vocabulary_review", user_id=school.student.user_id)
        assert [entry.action for entry in entries[before:]] == ["batch_create", "batch_create"]
        assert entries[-1].new_values["reviews"] == 3

    async def test_leaves_out_words_that_there_are_not(self, school: School) -> None:
        (word,) = await make_words(school.teacher)
        good, bad = made(word), made(str(new_id()))
        answer = await send(school.student, bad, good)
        assert (answer.recorded_count, list(answer.refused_event_ids)) == (1, [bad.event_id])

    async def test_by_two_devices_at_once_loses_nothing(self, school: School) -> None:
        words = await make_words(school.teacher, 5)
        began = datetime.now(UTC) - timedelta(days=30)
        batches = [
            [made(word, at=began + timedelta(hours=7 * number + device)) for number, word in enumerate(words)]
            for device in range(6)
        ]
        answers = await asyncio.gather(*(send(school.student, *batch) for batch in batches))
        assert sum(one.recorded_count for one in answers) == 30
        final = await send(school.student2, *(one for batch in batches for one in batch))
        for one in final.vocabulary_progress:
            latest = await create(school.student, made(one.vocabulary_id))
            assert latest.vocabulary_progress.review_count == 7
            assert latest.vocabulary_progress.stability_days == (
                await create(school.student2, made(one.vocabulary_id, at=latest.review_time.ToDatetime(UTC)))
            ).vocabulary_progress.stability_days

    async def test_demands_ids_and_times(self, school: School) -> None:
        review = made(str(new_id()))
        review.ClearField("review_time")
        async with refused("INVALID_FIELD", field="vocabulary_reviews"):
            await send(school.student, review)


class TestListVocabularyReviews:
    async def test_shows_learners_their_own_and_teachers_all(self, school: School) -> None:
        (word,) = await make_words(school.teacher)
        began = datetime.now(UTC) - timedelta(days=3)
        await send(school.student, *(made(word, at=began + timedelta(hours=at)) for at in range(3)))
        own = await listed(school.student, vocabulary_id=word)
        times = [one.review_time.ToDatetime() for one in own]
        assert len(own) == 3
        assert times == sorted(times, reverse=True)
        asked = {"user_id": school.student.user_id, "vocabulary_id": word}
        assert await listed(school.teacher, **asked) == own
        assert await listed(school.student2, **asked) == []
        assert await listed(school.outsider_teacher, **asked) == []

    async def test_goes_from_page_to_page(self, school: School) -> None:
        (word,) = await make_words(school.teacher)
        at = datetime.now(UTC) - timedelta(days=3)
        await send(school.student, *(made(word, at=at) for _ in range(5)))
        seen, token = [], ""
        while True:
            request = ListVocabularyReviewsRequest(page_size=2, page_token=token, vocabulary_id=word)
            page = await reviews_of(school.student).ListVocabularyReviews(request)
            seen += [one.id for one in page.vocabulary_reviews]
            if not (token := page.next_page_token):
                break
        assert len(seen) == len(set(seen)) == 5


class TestImportKnownVocabulary:
    async def test_makes_words_mastered(self, school: School, entries_of: ListEntries) -> None:
        words = await make_words(school.teacher, 2)
        answer = await know(school.student, *words)
        assert (answer.imported_count, list(answer.refusals)) == (2, [])
        again = await know(school.student, *words)
        assert again.imported_count == 0
        [review] = await listed(school.student, vocabulary_id=words[0])
        assert review.source == ReviewSource.REVIEW_SOURCE_KNOWN
        asked = await create(school.student, made(words[0], AGAIN))
        assert asked.vocabulary_progress.known
        assert asked.vocabulary_progress.status == LEARNING
        assert asked.vocabulary_progress.lapse_count == 1
        entries = await entries_of(entity_type="vocabulary_review", action="import_known")
        assert entries[-1].new_values["words"] == 2

    async def test_takes_ids_terms_and_translations_from_a_file(self, school: School) -> None:
        by_id, other = await make_words(school.teacher, 2, translation=f"word {new_id()}")
        (named,) = await make_words(school.teacher, translation=f"Gấu {new_id()}")
        for _ in range(2):
            await make_words(school.teacher, translation="same")
        content = school.teacher.stub(VocabularyServiceStub, "content")
        found = (await content.BatchGetVocabularies(BatchGetVocabulariesRequest(ids=[other, named]))).vocabularies
        rows = [
            "\ufeffvocabulary_id,term,translation,note",
            f"{by_id},,,x",
            f",{found[0].term.upper()},,",
            f",,{found[1].translation.upper()},",
            ",,same 0,",
            f"{new_id()},,,",
            "no id,,,",
            ",no such word,,",
        ]
        answer = await know(school.student, csv="\r\n".join(rows), language="vi", learning_language="en")
        assert answer.imported_count == 3
        problems = {one.row: KnownVocabularyProblem.Name(one.problem).rpartition("_")[2] for one in answer.refusals}
        assert problems == {5: "AMBIGUOUS", 6: "FOUND", 7: "UNREADABLE", 8: "FOUND"}
        assert {one.vocabulary_id for one in await listed(school.student)} >= {by_id, other, named}

    @pytest.mark.parametrize(
        "csv", ["name\nx\n", "term\n" + "x\n" * 201, "vocabulary_id\n" + "x\n" * 501, 'term\n"x'], ids=str.__len__
    )
    async def test_refuses_a_file_that_says_no_words_or_too_many(self, school: School, csv: str) -> None:
        async with refused("INVALID_FIELD", field="csv"):
            await know(school.student, csv=csv)

    async def test_takes_either_ids_or_a_file(self, school: School) -> None:
        for ids, csv in (((), ""), ((str(new_id()),), "term\nx\n")):
            async with refused("INVALID_FIELD"):
                await know(school.student, *ids, csv=csv)

    async def test_of_words_of_another_tenant_says_the_same_as_of_none(self, school: School) -> None:
        (foreign,) = await make_words(school.outsider_teacher)
        answers = [await know(school.student, one) for one in (foreign, str(new_id()))]
        assert answers[0] == answers[1]
        assert answers[0].imported_count == 0
