"""Which words and stories are hard: sums that follow from the logs, whatever happens, and tell of nobody."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest
from asyncpg import UniqueViolationError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.db import Database
from kit.ids import new_id
from kit.jobs import Runner
from kit.subjects import SubjectService
from services.learning.jobs import JOBS
from services.learning.queries.daily_activity import recount
from services.learning.queries.vocabulary_progress import NewExposure, NewReview, append_exposures
from services.learning.queries.vocabulary_reviews import append_reviews
from services.learning.subjects import HOLDINGS
from storyloom.learning.v1.difficulties_pb2 import ListStoryDifficultiesRequest, ListWordDifficultiesRequest
from storyloom.learning.v1.difficulties_pb2_grpc import DifficultyServiceStub
from storyloom.subject.v1.subjects_pb2 import EraseUserRequest
from tests.learning.conftest import Connection, ListEntries
from tests.learning.reviewing import RATINGS, START, send, writing
from tests.learning.summing import (
    Tables,
    add_up,
    check_sums,
    kept_activity,
    kept_stories,
    kept_story_words,
    kept_words,
    logged_words,
)
from tests.profile import PROOF
from tests.stack import Person, School, refused

KEPT = (kept_words, kept_stories, kept_story_words, kept_activity)
WORKLOADS = 400 if PROOF else 4
SUMS = [job for job in JOBS if job.name in {
    "rebuild_word_difficulties", "rebuild_story_difficulties", "rebuild_tenant_activity"
}]  # fmt: skip
SESSION = """
INSERT INTO learning.learning_sessions
  (tenant_id, user_id, lesson_id, story_id, state, start_time, last_seen_time, end_time, active_duration, interactions)
VALUES ($1, $2, $3, $4, $5, now(), now(), CASE WHEN $5 <> 'open' THEN now() END, $6, $7)
"""


class Broken(Exception):
    """What a transaction ends with that is not to be."""


def review(word: UUID, rating: str, days: float = 0.0) -> NewReview:
    return NewReview(
        event_id=new_id(),
        vocabulary_id=word,
        rating=rating,
        review_time=START + timedelta(days=days),
        source="offline",
    )


def forgotten(word: UUID) -> list[NewReview]:
    """Learned, and not remembered after three weeks."""
    return [review(word, "easy"), review(word, "again", 20)]


def reading(story: UUID | None, words: Sequence[UUID], days: float = 0.0) -> NewExposure:
    return NewExposure(
        event_id=new_id(), story_id=story, vocabulary_ids=words, exposure_time=START + timedelta(days=days)
    )


async def read(school: School, user_id: UUID, *readings: NewExposure) -> None:
    async with writing(school) as session:
        await append_exposures(session, user_id, readings)


def listing(person: Person) -> Any:
    return person.stub(DifficultyServiceStub, "learning")


async def words_of(person: Person, *ids: UUID, page_size: int = 100) -> list[Any]:
    """Those of the words that are listed at all, page by page, in the order of the list."""
    found: list[Any] = []
    token = ""
    while token or not found:
        request = ListWordDifficultiesRequest(page_size=page_size, page_token=token)
        answer = await listing(person).ListWordDifficulties(request)
        found += answer.word_difficulties
        token = answer.next_page_token
        if not token:
            break
    return [one for one in found if UUID(one.vocabulary_id) in ids]


async def stories_of(person: Person, *ids: UUID, page_size: int = 100) -> list[Any]:
    found: list[Any] = []
    token = ""
    while token or not found:
        request = ListStoryDifficultiesRequest(page_size=page_size, page_token=token)
        answer = await listing(person).ListStoryDifficulties(request)
        found += answer.story_difficulties
        token = answer.next_page_token
        if not token:
            break
    return [one for one in found if UUID(one.story_id) in ids]


def of(school: School) -> tuple[Database, UUID]:
    return school.stack.services["learning"].db, UUID(school.student.tenant_id)


async def erase(db: Database, tenant_id: UUID, user_id: UUID) -> None:
    request = EraseUserRequest(tenant_id=str(tenant_id), user_id=str(user_id), erasure_id=str(new_id()))
    await SubjectService(db, HOLDINGS).EraseUser(request, None)


async def rebuild(school: School) -> None:
    for job in SUMS:
        runner = Runner(school.stack.services["learning"].db, job, tell=lambda standing: None)
        assert (await runner.run(restart=True)).state == "done"


class Workload:
    """Learners who read and review the same few words and stories at the same time, some of it in vain; in a tenant of
    which no other test knows."""

    def __init__(self, school: School, tables: Tables, seed: int) -> None:
        self.db, self.tables, self.random = school.stack.services["learning"].db, tables, Random(seed)
        self.tenant_id = new_id()
        self.learners = [new_id() for _ in range(4)]
        self.words, self.stories = [[new_id() for _ in range(count)] for count in (6, 3)]

    async def do(self) -> None:
        for _ in range(6):
            doings = [self.learns(learner) for learner in self.learners] + [self.session()]
            await asyncio.gather(*doings)
        for learner in self.random.sample(self.learners, self.random.randint(0, 2)):
            await erase(self.db, self.tenant_id, learner)
        await add_up(self.db, self.tenant_id)

    async def learns(self, learner: UUID) -> None:
        random = self.random
        reviews = [
            review(random.choice(self.words), random.choice(RATINGS), random.random() * 90) for _ in range(6)
        ]
        readings = [
            reading(
                random.choice([*self.stories, None]),
                random.sample(self.words, random.randint(1, 6)),
                random.random() * 90,
            )
            for _ in range(2)
        ]
        with suppress(Broken):
            async with self.db.write(self.tenant_id) as session:
                # What is sent twice counts once.
                await append_exposures(session, learner, [*readings, *readings[:1]])
                await append_reviews(session, learner, [*reviews, *reviews[:2]])
                if random.random() < 0.25:
                    raise Broken

    async def session(self) -> None:
        random, tenant_id = self.random, self.tenant_id
        state = random.choice(("open", "ended", "abandoned"))
        learner, story = random.choice(self.learners), random.choice([*self.stories, None])
        # One session of a learner may be open.
        with suppress(UniqueViolationError):
            async with self.db.write(tenant_id) as session:
                await session.driver.execute(
                    SESSION, tenant_id, learner, new_id(), story, state,
                    timedelta(seconds=random.randint(0, 5000)), random.randint(0, 9),
                )  # fmt: skip
        if random.random() < 0.5:
            await self.tables.execute(f"SET app.tenant_id = '{tenant_id}'")
            await self.tables.execute(
                "UPDATE learning.learning_sessions SET state = 'ended', end_time = now(),"
                " interactions = interactions + 1 WHERE user_id = $1 AND state = 'open'", learner,
            )  # fmt: skip


class TestSums:
    @pytest.mark.timeout(1800 if PROOF else 60)
    async def test_are_what_the_logs_say_after_any_workload(self, school: School, tables: Connection) -> None:
        loop = asyncio.get_running_loop()

        async def run(seed: int) -> None:
            workload = Workload(school, tables, seed)
            await workload.do()
            await check_sums(tables, workload.tenant_id)
            assert all([await one(tables, workload.tenant_id) for one in KEPT])

        @settings(max_examples=WORKLOADS, deadline=None, suppress_health_check=list(HealthCheck))
        @given(seed=st.integers(0, 2**63))
        def generated(seed: int) -> None:
            asyncio.run_coroutine_threadsafe(run(seed), loop).result()

        await asyncio.to_thread(generated)

    async def test_of_learners_who_review_the_same_words_at_once_lose_nothing(
        self, school: School, tables: Connection
    ) -> None:
        words = [new_id() for _ in range(20)]
        learners = [new_id() for _ in range(30)]
        random = Random(1)
        await asyncio.gather(
            *(send(school, one, [review(word, "good") for word in random.sample(words, 20)]) for one in learners)
        )
        await add_up(*of(school))
        kept = await kept_words(tables, UUID(school.student.tenant_id))
        assert {kept[word][:2] for word in words} == {(30, 30)}


class TestRebuilding:
    async def test_finds_nothing_to_mend_and_mends_what_was_damaged(self, school: School, tables: Connection) -> None:
        workload = Workload(school, tables, 7)
        await workload.do()
        tenant_id = workload.tenant_id
        right = [await one(tables, tenant_id) for one in KEPT]
        await rebuild(school)
        assert right == [await one(tables, tenant_id) for one in KEPT]
        for damage in (
            "UPDATE learning.word_difficulties SET lapse_count = lapse_count + 1",
            "DELETE FROM learning.story_difficulties",
            "UPDATE learning.story_words SET exposure_count = 9",
            "UPDATE learning.tenant_activity SET learner_count = learner_count - 1",
        ):
            await tables.execute(f"{damage} WHERE tenant_id = $1", tenant_id)
        await tables.execute(
            "INSERT INTO learning.word_difficulties (tenant_id, id, learner_count) VALUES ($1, $2, 7)",
            tenant_id, new_id(),
        )  # fmt: skip
        await rebuild(school)
        await check_sums(tables, tenant_id)

    async def test_writes_down_what_it_mended(
        self, school: School, tables: Connection, entries_of: ListEntries
    ) -> None:
        word = new_id()
        await rebuild(school)
        before = len(await entries_of(action="rebuild", entity_type="word_difficulty"))
        await send(school, new_id(), [review(word, "good")])
        await rebuild(school)
        assert len(await entries_of(action="rebuild", entity_type="word_difficulty")) == before
        await add_up(*of(school))
        await tables.execute("UPDATE learning.word_difficulties SET review_count = 5 WHERE id = $1", word)
        await rebuild(school)
        *_, entry = await entries_of(action="rebuild", entity_type="word_difficulty")
        assert str(word) in str(entry.new_values["mended"])


class TestErasure:
    async def test_takes_what_a_learner_was_counted_for(self, school: School, tables: Connection) -> None:
        word, story = new_id(), new_id()
        learners = [new_id() for _ in range(3)]
        for one in learners:
            await send(school, one, forgotten(word))
            await read(school, one, reading(story, [word]))
        await erase(*of(school), learners[0])
        await add_up(*of(school))
        tenant_id = UUID(school.student.tenant_id)
        kept = await kept_words(tables, tenant_id)
        assert kept[word] == (await logged_words(tables, tenant_id))[word]
        assert kept[word][:3] == (2, 4, 2)
        assert (await kept_stories(tables, tenant_id))[story][:2] == (2, 2)
        for one in learners[1:]:
            await erase(*of(school), one)
        await add_up(*of(school))
        assert word not in await kept_words(tables, tenant_id)
        assert story not in await kept_stories(tables, tenant_id)
        assert not [one for one in await kept_story_words(tables, tenant_id) if one[0] == story]


class TestListWordDifficulties:
    async def test_tells_the_hardest_first_page_by_page(self, school: School) -> None:
        hard, easy, middling = (new_id() for _ in range(3))
        for _ in range(5):
            reviews = [*forgotten(hard), review(easy, "easy"), review(middling, "hard")]
            await send(school, new_id(), reviews)
        await add_up(*of(school))
        found = await words_of(school.teacher, hard, easy, middling)
        assert [one.vocabulary_id for one in found] == [str(hard), str(middling), str(easy)]
        assert [one.learner_count for one in found] == [5, 5, 5]
        assert (found[0].review_count, found[0].lapse_count, found[0].lapse_rate) == (10, 5, 0.5)
        assert 10 >= found[0].difficulty > found[1].difficulty > found[2].difficulty >= 1
        assert await words_of(school.teacher, hard, easy, middling, page_size=2) == found

    async def test_leaves_out_what_fewer_than_five_learners_did(self, school: School) -> None:
        word = new_id()
        for _ in range(4):
            await send(school, new_id(), [review(word, "again")])
        await add_up(*of(school))
        assert await words_of(school.teacher, word) == []
        await send(school, new_id(), [review(word, "again")])
        await add_up(*of(school))
        assert len(await words_of(school.teacher, word)) == 1
        assert await words_of(school.outsider_teacher, word) == []

    async def test_takes_the_permission(self, school: School) -> None:
        async with refused("PERMISSION_REQUIRED"):
            await words_of(school.student)
        assert isinstance(await words_of(school.admin), list)


class TestListStoryDifficulties:
    async def test_tells_how_hard_the_words_of_a_story_are(self, school: School) -> None:
        hard, easy, rare = (new_id() for _ in range(3))
        first, second, unknown, unread = (new_id() for _ in range(4))
        for number in range(5):
            learner = new_id()
            rarely = [review(rare, "again")] * (number < 4)
            await send(school, learner, [review(hard, "again"), review(easy, "easy"), *rarely])
            await read(
                school, learner, reading(first, [hard, easy]), reading(second, [hard, rare]), reading(unknown, [rare])
            )
            await read(school, learner, *[reading(unread, [hard])] * (number < 4))
        await add_up(*of(school))
        words = {one.vocabulary_id: one.difficulty for one in await words_of(school.teacher, hard, easy)}
        found = await stories_of(school.teacher, first, second, unknown, unread)
        assert [one.story_id for one in found] == [str(second), str(first), str(unknown)]
        # What fewer than five learners have reviewed says nothing of a story either.
        assert [one.word_count for one in found] == [1, 2, 0]
        assert found[0].difficulty == words[str(hard)]
        assert abs(found[1].difficulty - (words[str(hard)] + words[str(easy)]) / 2) < 0.1
        assert [one.reader_count for one in found] == [5, 5, 5]
        assert found[2].difficulty == 0
        assert not found[0].HasField("sessions")
        assert await stories_of(school.teacher, first, second, unknown, unread, page_size=1) == found
        assert await stories_of(school.outsider_teacher, first, second) == []

    async def test_tells_of_sessions_when_five_learners_had_one(self, school: School) -> None:
        story, tenant_id = new_id(), UUID(school.student.tenant_id)
        for number in range(5):
            learner = new_id()
            await read(school, learner, reading(story, [new_id()]))
            await add_up(*of(school))
            [told] = await stories_of(school.teacher, story) or [None]
            assert told is None or not told.HasField("sessions")
            async with writing(school) as session:
                await session.driver.execute(
                    SESSION, tenant_id, learner, new_id(), story, "ended", timedelta(seconds=10 * number), number
                )
                await recount(session, learner)
        await add_up(*of(school))
        [told] = await stories_of(school.teacher, story)
        assert (told.sessions.learner_count, told.sessions.session_count) == (5, 5)
        assert told.sessions.mean_interactions == 2
        assert told.sessions.mean_duration.ToTimedelta() == timedelta(seconds=20)

    async def test_takes_the_permission(self, school: School) -> None:
        async with refused("PERMISSION_REQUIRED"):
            await stories_of(school.student)
