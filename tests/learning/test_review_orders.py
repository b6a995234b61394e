"""Whatever way reviews and exposures arrive, what follows from them is the same to the last bit."""

import asyncio
import math
from datetime import timedelta
from decimal import Decimal
from random import Random
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.errors import ResourceExhausted
from kit.ids import new_id
from services.learning.queries import vocabulary_reviews
from services.learning.queries.learners import insert_retention_change
from services.learning.queries.rebuilding import list_learners, rebuild_learner
from services.learning.queries.vocabulary_progress import NewReview, append_exposures
from services.learning.queries.vocabulary_reviews import append_reviews
from services.learning.scheduling import MOST_REVIEWS
from tests.learning.conftest import Connection
from tests.learning.reviewing import (
    START,
    STATE,
    delivered,
    exposures,
    history,
    kept,
    replayed,
    send,
    send_all,
    writing,
)
from tests.profile import PROOF
from tests.stack import School

HISTORIES = 4_000 if PROOF else 40


async def deliver(school: School, user_id: UUID, seed: int) -> None:
    """One history, as it was done and as it arrived."""
    random = Random(seed)
    reviews = history(random)
    seen = exposures(random, reviews)
    for batch in delivered(random, [*reviews, *seen]):
        async with writing(school) as session:
            await append_exposures(session, user_id, [one for one in batch if one in seen])
            await append_reviews(session, user_id, [one for one in batch if one not in seen])
    async with writing(school) as session:
        found = await kept(session, user_id)
        counts = {row.vocabulary_id: row.exposure_count for row in await session.fetch(STATE, user_id)}
        reviewed = {word: memory for word, memory in found.items() if memory.review_count}
        # Python's floats are compared bit for bit: equal ones are the same, and none is NaN or a negative zero.
        assert reviewed == replayed(user_id, reviews), f"seed {seed}"
        words = [word for one in seen for word in one.vocabulary_ids]
        assert counts == {word: words.count(word) for word in found}
        rebuilt = await rebuild_learner(session, user_id)
        assert (rebuilt.words, list(rebuilt.mended)) == (len(found), [])


class TestAnyOrder:
    @pytest.mark.timeout(1800 if PROOF else 60)
    async def test_gives_what_the_order_of_the_reviews_gives(self, school: School) -> None:
        loop = asyncio.get_running_loop()

        @settings(max_examples=HISTORIES, deadline=None, suppress_health_check=list(HealthCheck))
        @given(seed=st.integers(0, 2**63))
        def run(seed: int) -> None:
            asyncio.run_coroutine_threadsafe(deliver(school, new_id(), seed), loop).result()

        await asyncio.to_thread(run)

    async def test_is_the_same_for_batches_that_meet(self, school: School) -> None:
        for seed in range(12 if PROOF else 3):
            random, user_id = Random(seed), new_id()
            reviews = history(random, reviews=80)
            await send_all(school, user_id, delivered(random, reviews))
            async with writing(school) as session:
                assert await kept(session, user_id) == replayed(user_id, reviews)

    async def test_counts_each_change_once(self, school: School, tables: Connection) -> None:
        user_id = new_id()
        batches = [[one] for one in history(Random(1), reviews=12)]
        await send_all(school, user_id, batches)
        assert await tables.fetchval("SELECT changes FROM learning.learners WHERE id = $1", user_id) == 12
        rows = "SELECT count(DISTINCT change), max(change) FROM learning.user_vocabulary_progress WHERE user_id = $1"
        distinct, latest = await tables.fetchrow(rows, user_id)
        assert (distinct, latest) == (4, 12)

    async def test_means_the_retention_at_the_time_of_the_review(self, school: School) -> None:
        one, late, changed = (
            NewReview(event_id=new_id(), vocabulary_id=new_id(), rating="easy", review_time=at, source="offline")
            for at in (START, START, START + timedelta(days=2))
        )
        found = {}
        for order in ((one, late, changed), (changed, late, one)):
            user_id = new_id()
            for number, review in enumerate(order):
                await send(school, user_id, [review])
                if number == 0:
                    async with writing(school) as session:
                        await insert_retention_change(session, user_id, START + timedelta(days=1), Decimal("0.7"), None)
            async with writing(school) as session:
                found[order[0]] = {word: memory.due_time for word, memory in (await kept(session, user_id)).items()}
        # The first order is how it was: the change came after two of the reviews were done, and before the third.
        assert found[one][one.vocabulary_id] == found[one][late.vocabulary_id] == START + timedelta(days=8)
        assert found[changed][late.vocabulary_id] == START + timedelta(days=8)


class TestSentTwice:
    async def test_changes_nothing(self, school: School) -> None:
        user_id, reviews = new_id(), history(Random(5))
        await send(school, user_id, reviews)
        async with writing(school) as session:
            before = await kept(session, user_id)
            again = await append_reviews(session, user_id, reviews)
            assert (again.reviews, again.words) == ([], [])
            assert await kept(session, user_id) == before

    async def test_is_known_within_one_batch(self, school: School) -> None:
        (one,) = history(Random(2), reviews=1)
        async with writing(school) as session:
            appended = await append_reviews(session, new_id(), [one, one])
            assert len(appended.reviews) == 1
            assert appended.words[0].review_count == 1

    async def test_by_another_learner_is_another_review(self, school: School) -> None:
        (one,) = history(Random(2), reviews=1)
        for _ in range(2):
            async with writing(school) as session:
                assert len((await append_reviews(session, new_id(), [one])).reviews) == 1


class TestManyReviewsOfAWord:
    def reviews(self, count: int) -> list[NewReview]:
        word = new_id()
        return [
            NewReview(
                event_id=new_id(), vocabulary_id=word, rating="good", review_time=START + timedelta(hours=at),
                source="offline",
            )
            for at in range(count)
        ]  # fmt: skip

    async def test_end_at_what_a_word_may_have(self, school: School) -> None:
        user_id, reviews = new_id(), self.reviews(MOST_REVIEWS + 3)
        async with writing(school) as session:
            first = await append_reviews(session, user_id, reviews[:500])
            second = await append_reviews(session, user_id, reviews[500:])
            assert (len(first.reviews), list(first.refused)) == (500, [])
            assert list(second.refused) == [one.event_id for one in reviews[MOST_REVIEWS:]]
            assert second.words[0].review_count == MOST_REVIEWS
            third = await append_reviews(session, user_id, reviews[-5:])
            assert list(third.refused) == list(second.refused)

    async def test_that_come_too_late_are_to_be_sent_in_parts(
        self, school: School, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(vocabulary_reviews, "MOST_FOLDED_AT_ONCE", 30)
        user_id = new_id()
        words = [self.reviews(20), self.reviews(20)]
        for reviews in words:
            await send(school, user_id, reviews[1:])
        with pytest.raises(ResourceExhausted):
            await send(school, user_id, [reviews[0] for reviews in words])
        for reviews in words:
            await send(school, user_id, reviews[:1])
        async with writing(school) as session:
            assert await kept(session, user_id) == replayed(user_id, [one for reviews in words for one in reviews])


class TestRebuilding:
    async def test_mends_what_is_kept_otherwise(self, school: School, tables: Connection) -> None:
        user_id, random = new_id(), Random(8)
        reviews = history(random)
        await send(school, user_id, reviews)
        async with writing(school) as session:
            await append_exposures(session, user_id, exposures(random, reviews))
        before = [tuple(row) for row in await tables.fetch(STATE, UUID(school.student.tenant_id), user_id)]
        first, second, *_ = sorted(replayed(user_id, reviews))
        # The least that a double can differ by.
        stability = replayed(user_id, reviews)[first].stability_days
        assert stability
        await tables.execute(
            "UPDATE learning.user_vocabulary_progress SET stability_days = $3"
            " WHERE user_id = $1 AND vocabulary_id = $2",
            user_id, first, math.nextafter(stability, 0.0),
        )  # fmt: skip
        await tables.execute(
            "DELETE FROM learning.user_vocabulary_progress WHERE user_id = $1 AND vocabulary_id = $2", user_id, second
        )
        await tables.execute(
            "INSERT INTO learning.user_vocabulary_progress (tenant_id, user_id, vocabulary_id, status, phase,"
            " review_count, lapse_count, known, change) VALUES ($1, $2, $3, 'new', 'new', 0, 0, false, 1)",
            UUID(school.student.tenant_id), user_id, new_id(),
        )  # fmt: skip
        async with writing(school) as session:
            assert user_id in await list_learners(session, UUID(int=user_id.int - 1), 1)
            rebuilt = await rebuild_learner(session, user_id)
            assert len(rebuilt.mended) == 3
            assert {first, second} < set(rebuilt.mended)
        assert [tuple(row) for row in await tables.fetch(STATE, UUID(school.student.tenant_id), user_id)] == before


class TestTheLog:
    async def test_cannot_be_rewritten_by_the_service(self, school: School, tables: Connection) -> None:
        for table in ("vocabulary_reviews", "vocabulary_exposures"):
            assert not await tables.fetchval(
                "SELECT has_any_column_privilege('storyloom_learning', $1::text::regclass, 'UPDATE')",
                f"learning.{table}",
            )
