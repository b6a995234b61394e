"""Whatever way events arrive, what follows from them is what follows from them in order, to the last bit."""

import asyncio
from datetime import timedelta
from functools import partial
from random import Random
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.ids import new_id
from services.learning.queries.daily_activity import recount
from services.learning.queries.learners import lock_learner
from services.learning.queries.rebuilding import rebuild_learner
from tests.learning import histories
from tests.learning.conftest import Connection, Course
from tests.learning.histories import History, Step, arriving, forget, history, in_order, play, state
from tests.learning.phones import event
from tests.learning.reviewing import replayed, together, writing
from tests.learning.test_home import statements
from tests.profile import PROOF
from tests.stack import School

HISTORIES = 2_000 if PROOF else 12


async def prepare(school: School, course: Course, random: Random, size: int = 30) -> History:
    found = history(random, [UUID(one) for one in course.lesson_ids], size=size)
    async with writing(school) as session:
        await histories.enrol(session, found.user_id, UUID(course.id))
    return found


async def deliver(school: School, course: Course, seed: int) -> None:
    """One history as it arrived, and the same as it was."""
    random = Random(seed)
    found = await prepare(school, course, random)
    await play(partial(writing, school), found, random, arriving(random, found))
    async with writing(school) as session:
        arrived = await state(session, found.user_id)
        # What is counted by the day, and what is known of words, is what the tables say one by one.
        await lock_learner(session, found.user_id)
        assert await recount(session, found.user_id) == [], f"seed {seed}"
        assert not (await rebuild_learner(session, found.user_id)).mended
        await forget(session, found.user_id)
    await play(partial(writing, school), found, random, in_order(found))
    async with writing(school) as session:
        assert arrived == await state(session, found.user_id), f"seed {seed}"


class TestAnyOrder:
    @pytest.mark.timeout(3600 if PROOF else 60)
    async def test_gives_what_the_order_of_the_events_gives(self, school: School, course: Course) -> None:
        loop = asyncio.get_running_loop()

        @settings(max_examples=HISTORIES, deadline=None, suppress_health_check=list(HealthCheck))
        @given(seed=st.integers(0, 2**63))
        def run(seed: int) -> None:
            asyncio.run_coroutine_threadsafe(deliver(school, course, seed), loop).result()

        await asyncio.to_thread(run)

    async def test_is_the_same_for_batches_that_meet(self, school: School, course: Course) -> None:
        for seed in range(12 if PROOF else 3):
            random = Random(seed)
            found = await prepare(school, course, random, size=60)
            found = History(found.user_id, found.events, (), found.lessons, found.words)
            steps = arriving(random, found)
            await together(play(partial(writing, school), found, random, [step]) for step in steps)
            async with writing(school) as session:
                met = await state(session, found.user_id)
                await forget(session, found.user_id)
            await play(partial(writing, school), found, random, in_order(found))
            async with writing(school) as session:
                assert met == await state(session, found.user_id)

    async def test_that_begins_again_after_a_crash_gives_the_same(self, school: School, course: Course) -> None:
        random = Random(7)
        found = await prepare(school, course, random)
        steps = [step for step in arriving(random, found) if not isinstance(step, histories.Done)]

        async def crash(step: Step) -> None:
            async with writing(school) as session:
                await histories.take(session, found, random, step)
                raise ConnectionError

        for step in steps:
            with pytest.raises(ConnectionError):
                await crash(step)
            # The second time the answer is lost, and the phone sends it once more.
            await play(partial(writing, school), found, random, [step, step])
        async with writing(school) as session:
            kept = await state(session, found.user_id)
            await forget(session, found.user_id)
        only = History(found.user_id, found.events, (), found.lessons, found.words)
        await play(partial(writing, school), found, random, in_order(only))
        async with writing(school) as session:
            assert kept == await state(session, found.user_id)

    async def test_knows_words_as_their_reviews_alone_make_them(self, school: School, course: Course) -> None:
        random = Random(3)
        found = await prepare(school, course, random, size=60)
        await play(partial(writing, school), found, random, arriving(random, found))
        async with writing(school) as session:
            rows = await session.fetch(
                "SELECT * FROM learning.vocabulary_reviews WHERE tenant_id = $1 AND user_id = $2", found.user_id
            )
            assert rows
            memories = replayed(found.user_id, rows)
            words = (await state(session, found.user_id))["words"]
        assert {row[0]: row[9] for row in words if row[0] in memories}.keys() == memories.keys()


class TestTheLog:
    async def test_cannot_be_rewritten_by_the_service(self, tables: Connection) -> None:
        assert not await tables.fetchval(
            "SELECT has_any_column_privilege('storyloom_learning', 'learning.client_events', 'UPDATE')"
        )

    async def test_is_written_in_as_many_statements_however_many_events(self, school: School, course: Course) -> None:
        found, counts = await prepare(school, course, Random(1)), []
        phone = histories.Phone(new_id(), timedelta(0))
        for size in (2, 60):
            # What the service does by itself meanwhile is counted as well: not each time.
            counts.append(min([await self.statements_of(school, found, phone, size) for _ in range(3)]))
        assert counts[0] == counts[1] <= 25, counts

    async def statements_of(self, school: School, found: History, phone: histories.Phone, size: int) -> int:
        """How many a sync takes that tells of so many words."""
        at, words = histories.START, [new_id() for _ in range(size)]
        mine = History(found.user_id, (), (), found.lessons, words)
        events = []
        for number, word in enumerate(words):
            lesson, session_id = str(found.lessons[number % 2]), str(new_id())
            events += [
                event(at, lesson_viewed={"lesson_id": lesson}),
                event(at, story_read={"story_id": str(new_id()), "vocabulary_ids": [str(word)]}),
                event(at, review_answered={"vocabulary_id": str(word), "rating": "REVIEW_RATING_GOOD"}),
                event(at, session_started={"session_id": session_id, "lesson_id": lesson}),
                event(at, session_ended={"session_id": session_id}),
            ]
        with statements(school) as seen:
            await play(partial(writing, school), mine, Random(1), [(at, phone, events)])
        return len(seen)
