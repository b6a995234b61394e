"""How well learners know words, and which of them are to be reviewed next."""

import csv
import io
from datetime import UTC, datetime, timedelta

from kit.ids import new_id
from storyloom.learning.v1.vocabulary_progress_pb2 import (
    BatchGetVocabularyProgressRequest,
    ExportVocabularyProgressRequest,
    GetReviewQueueRequest,
    GetVocabularyProgressRequest,
    ListVocabularyProgressRequest,
    RecordVocabularyExposuresRequest,
    RecordVocabularyExposuresResponse,
    ReviewQueue,
    VocabularyExportFormat,
    VocabularyExposure,
    VocabularyProgress,
    VocabularyStatus,
)
from storyloom.learning.v1.vocabulary_progress_pb2_grpc import VocabularyProgressServiceStub
from tests.learning.conftest import ListEntries
from tests.learning.reviewing import make_words
from tests.learning.test_learner_settings import update
from tests.learning.test_vocabulary_reviews import EASY, create, know, made, send
from tests.stack import Person, School, add_person, refused

NEW = VocabularyStatus.VOCABULARY_STATUS_NEW
REVIEWING = VocabularyStatus.VOCABULARY_STATUS_REVIEWING
ANKI = VocabularyExportFormat.VOCABULARY_EXPORT_FORMAT_ANKI


def progress_of(person: Person) -> VocabularyProgressServiceStub:
    return person.stub(VocabularyProgressServiceStub, "learning")


async def learner(school: School) -> Person:
    """A student who has not met any word."""
    return await add_person(school.admin, school.slug, f"learner-{new_id()}", "student")


async def see(
    person: Person, *words: str, event_id: str = "", at: datetime | None = None
) -> RecordVocabularyExposuresResponse:
    exposure = VocabularyExposure(event_id=event_id or str(new_id()), vocabulary_ids=words)
    if at:
        exposure.exposure_time.FromDatetime(at)
    request = RecordVocabularyExposuresRequest(exposures=[exposure])
    return await progress_of(person).RecordVocabularyExposures(request)


async def batch_get(person: Person, *words: str) -> list[VocabularyProgress]:
    request = BatchGetVocabularyProgressRequest(vocabulary_ids=words)
    return list((await progress_of(person).BatchGetVocabularyProgress(request)).vocabulary_progress)


async def listed(person: Person, **wanted: object) -> list[VocabularyProgress]:
    request = ListVocabularyProgressRequest(page_size=100, **wanted)  # type: ignore[arg-type]
    return list((await progress_of(person).ListVocabularyProgress(request)).vocabulary_progress)


async def queue(person: Person, limit: int = 0) -> ReviewQueue:
    return await progress_of(person).GetReviewQueue(GetReviewQueueRequest(limit=limit))


async def exported(person: Person, kind: VocabularyExportFormat | None = None) -> tuple[str, str]:
    stream = progress_of(person).ExportVocabularyProgress(ExportVocabularyProgressRequest(format=kind))
    bodies = [one.body async for one in stream]
    return bodies[0].content_type, b"".join(one.data for one in bodies).decode()


class TestGetVocabularyProgress:
    async def test_shows_learners_their_own_and_teachers_all(self, school: School) -> None:
        (word,) = await make_words(school.teacher)
        mine = (await create(school.student, made(word))).vocabulary_progress
        for person in (school.student, school.teacher, school.admin):
            stub = progress_of(person)
            assert await stub.GetVocabularyProgress(GetVocabularyProgressRequest(id=mine.id)) == mine
        async with refused("PERMISSION_REQUIRED"):
            await progress_of(school.student2).GetVocabularyProgress(GetVocabularyProgressRequest(id=mine.id))

    async def test_of_another_tenant_is_not_there(self, school: School) -> None:
        (word,) = await make_words(school.teacher)
        mine = (await create(school.student, made(word))).vocabulary_progress
        for id_ in (mine.id, str(new_id())):
            async with refused("RESOURCE_NOT_FOUND"):
                await progress_of(school.outsider_teacher).GetVocabularyProgress(GetVocabularyProgressRequest(id=id_))


class TestBatchGetVocabularyProgress:
    async def test_answers_in_the_order_of_the_request_without_words_never_met(self, school: School) -> None:
        words = await make_words(school.teacher, 4)
        await send(school.student, *(made(word) for word in words[:3]))
        await send(school.student2, made(words[3]))
        found = await batch_get(school.student, words[2], words[3], words[0])
        assert [one.vocabulary_id for one in found] == [words[2], words[0]]
        assert {one.user_id for one in found} == {school.student.user_id}


class TestListVocabularyProgress:
    async def test_by_status_word_and_learner(self, school: School) -> None:
        person = await learner(school)
        words = await make_words(school.teacher, 3)
        await see(person, *words)
        await create(person, made(words[1], EASY))
        assert {one.vocabulary_id for one in await listed(person, status=NEW)} == {words[0], words[2]}
        assert [one.vocabulary_id for one in await listed(person, status=REVIEWING)] == [words[1]]
        of_word = await listed(school.teacher, vocabulary_id=words[1])
        assert [one.user_id for one in of_word] == [person.user_id]
        assert len(await listed(school.teacher, user_id=person.user_id)) == 3
        assert await listed(school.student2, user_id=person.user_id) == []


class TestGetReviewQueue:
    async def test_gives_what_is_due_and_then_what_is_new(self, school: School) -> None:
        person = await learner(school)
        words = await make_words(school.teacher, 5)
        began = datetime.now(UTC) - timedelta(days=40)
        await see(person, words[3], at=began)
        await see(person, words[4], at=began - timedelta(days=1))
        # Due eight days after; the second has been due for longer, and the third is not due yet.
        await send(
            person,
            made(words[0], EASY, at=began + timedelta(days=2)),
            made(words[1], EASY, at=began),
            made(words[2], EASY),
        )
        found = await queue(person)
        assert [one.vocabulary_id for one in found.vocabulary_progress] == [words[1], words[0], words[4], words[3]]
        # Today one was begun.
        assert (found.due_count, found.new_remaining) == (2, 19)
        short = await queue(person, limit=1)
        assert [one.vocabulary_id for one in short.vocabulary_progress] == [words[1]]
        assert short.due_count == 2

    async def test_begins_no_more_new_words_than_the_learner_wants(self, school: School) -> None:
        person = await learner(school)
        words = await make_words(school.teacher, 4)
        await see(person, *words)
        await update(person, new_words_per_day=2)
        assert len((await queue(person)).vocabulary_progress) == 2
        await create(person, made(words[0]))
        found = await queue(person)
        assert (len(found.vocabulary_progress), found.new_remaining) == (1, 1)
        await create(person, made(words[1]))
        found = await queue(person)
        assert (len(found.vocabulary_progress), found.new_remaining) == (0, 0)

    async def test_counts_the_days_of_the_learner(self, school: School) -> None:
        person = await learner(school)
        await update(person, time_zone="Asia/Ho_Chi_Minh")
        words = await make_words(school.teacher, 2)
        local = datetime.now(UTC) + timedelta(hours=7)
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(hours=7)
        for word, seconds, remaining in zip(words, (-1, 1), (20, 19), strict=True):
            await create(person, made(word, at=midnight + timedelta(seconds=seconds)))
            assert (await queue(person)).new_remaining == remaining

    async def test_does_not_take_known_words_for_begun(self, school: School) -> None:
        person = await learner(school)
        await know(person, *(await make_words(school.teacher, 3)))
        assert (await queue(person)).new_remaining == 20

    async def test_is_the_learners_own(self, school: School) -> None:
        (word,) = await make_words(school.teacher)
        await create(school.student, made(word, EASY, at=datetime.now(UTC) - timedelta(days=90)))
        assert (await queue(await learner(school))).vocabulary_progress == []


class TestRecordVocabularyExposures:
    async def test_counts_readings_and_not_what_was_sent_twice(self, school: School, entries_of: ListEntries) -> None:
        person = await learner(school)
        words = await make_words(school.teacher, 2)
        at = datetime(2026, 3, 1, 12, tzinfo=UTC)
        event_id = str(new_id())
        first = await see(person, *words, event_id=event_id, at=at)
        assert (first.recorded_count, first.new_word_count) == (1, 2)
        again = await see(person, *words, event_id=event_id, at=at)
        assert (again.recorded_count, again.new_word_count) == (0, 0)
        earlier = await see(person, words[0], at=at - timedelta(days=1))
        assert (earlier.recorded_count, earlier.new_word_count) == (1, 0)
        one, two = await batch_get(person, *words)
        assert (one.exposure_count, two.exposure_count) == (2, 1)
        assert one.first_exposure_time.ToDatetime(UTC) == at - timedelta(days=1)
        assert one.last_exposure_time.ToDatetime(UTC) == at
        assert (one.status, one.HasField("due_time")) == (NEW, False)
        entries = await entries_of(entity_type="vocabulary_progress", user_id=person.user_id)
        assert [entry.action for entry in entries] == ["expose", "expose"]

    async def test_keeps_what_reviews_say(self, school: School) -> None:
        person = await learner(school)
        (word,) = await make_words(school.teacher)
        reviewed = (await create(person, made(word, EASY))).vocabulary_progress
        await see(person, word)
        (found,) = await batch_get(person, word)
        assert (found.status, found.due_time, found.exposure_count) == (REVIEWING, reviewed.due_time, 1)
        later = (await create(person, made(word))).vocabulary_progress
        assert (later.exposure_count, later.review_count) == (1, 2)

    async def test_leaves_out_words_that_there_are_not(self, school: School) -> None:
        person = await learner(school)
        (word,) = await make_words(school.teacher)
        (foreign,) = await make_words(school.outsider_teacher)
        answer = await see(person, str(new_id()), foreign, word)
        assert (answer.recorded_count, answer.new_word_count) == (1, 1)
        assert (await see(person, foreign)).recorded_count == 0

    async def test_refuses_a_time_that_cannot_be(self, school: School) -> None:
        async with refused("INVALID_FIELD", field="exposures[0].exposure_time"):
            await see(school.student, str(new_id()), at=datetime.now(UTC) + timedelta(days=2))


class TestExportVocabularyProgress:
    async def test_as_csv_has_every_word_with_its_texts(self, school: School) -> None:
        person = await learner(school)
        words = await make_words(school.teacher, 2, translation="=1+1")
        await see(person, words[0])
        await create(person, made(words[1], EASY))
        kind, text = await exported(person)
        assert kind.startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [row["vocabulary_id"] for row in rows] == words
        assert [row["status"] for row in rows] == ["new", "reviewing"]
        assert [row["translation"] for row in rows] == ["'=1+1 0", "'=1+1 1"]
        assert rows[1]["stability_days"] == "8.2956"
        assert rows[0]["part_of_speech"] == "noun"

    async def test_for_anki_has_notes_that_keep_their_identity(self, school: School) -> None:
        person = await learner(school)
        words = await make_words(school.teacher, 2, translation='a "tab\there"')
        await see(person, *words)
        kind, text = await exported(person, ANKI)
        assert kind.startswith("text/plain")
        header = [line for line in text.split("\n") if line.startswith("#")]
        assert header[:2] == ["#separator:tab", "#html:false"]
        assert "#guid column:1" in header
        notes = list(csv.reader((line for line in text.split("\n")[len(header) :] if line), delimiter="\t"))
        assert {note[0] for note in notes} == {f"storyloom-{word}" for word in words}
        assert {note[1] for note in notes} == {'a "tab here" 0', 'a "tab here" 1'}
        assert all(len(note) == 5 and note[4] == "storyloom::new" for note in notes)

    async def test_of_nothing_is_a_file_all_the_same(self, school: School) -> None:
        _, text = await exported(await learner(school))
        assert text.startswith("vocabulary_id,term,")
        assert text.count("\n") == 1

    async def test_goes_on_past_one_batch(self, school: School) -> None:
        person = await learner(school)
        words = await make_words(school.teacher, 100)
        for _ in range(5):
            words += await make_words(school.teacher, 100)
        for start in range(0, 600, 200):
            await see(person, *words[start : start + 200])
        _, text = await exported(person)
        assert {row["vocabulary_id"] for row in csv.DictReader(io.StringIO(text))} == set(words)
