"""The relay when deliveries go wrong: who has to wait, who does not, and what those who run the platform see of it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from kit import outbox
from kit.db import Database
from kit.errors import InvalidArgument
from kit.operations import OutboxService
from kit.outbox import BATCH, MAX_ATTEMPTS, Relay
from kit.telemetry import Telemetry
from storyloom.event.v1.events_pb2 import DeliverEventsRequest, DeliverEventsResponse
from storyloom.event.v1.outboxes_pb2 import GetOutboxRequest, ReplayEventsRequest
from tests.kit.test_events import Consumer, acknowledged, due_now, publish, texts, waiting
from tests.kit.toy import Toy

OURS = "consumer = 'learning'"


@pytest.fixture
async def db(toy: Toy) -> AsyncIterator[Database]:
    made = Database(
        toy.settings.database_url,
        service="toy",
        pool_size=4,
        telemetry=Telemetry(toy.settings),
        publishes={toy.pb.Note: ("learning",)},
        pooler=toy.settings.database_pooler,
    )
    yield made
    await made.close()
    await toy.rows(f"DELETE FROM toy.outbox WHERE {OURS}")


class Choosy(Consumer):
    """Refuses a delivery as a whole when it has an event of a certain aggregate; notes the size of each."""

    def __init__(self) -> None:
        super().__init__()
        self.malformed: set[str] = set()
        self.sizes: list[int] = []
        self.slowest = BATCH

    async def __call__(self, request: DeliverEventsRequest) -> DeliverEventsResponse:
        self.sizes.append(len(request.events))
        if any(one.aggregate_id in self.malformed for one in request.events):
            raise InvalidArgument("events[0].traceparent: does not match.")
        self.down = self.down or len(request.events) > self.slowest
        try:
            return await super().__call__(request)
        finally:
            self.down = False if self.slowest < BATCH else self.down


@pytest.fixture
def consumer() -> Choosy:
    return Choosy()


@pytest.fixture
def relay(db: Database, consumer: Choosy, toy: Toy) -> Relay:
    return Relay(db, {"learning": consumer}, Telemetry(toy.settings))


async def attempts(toy: Toy, aggregate: UUID) -> list[int]:
    rows = await toy.rows(f"SELECT attempts FROM toy.outbox WHERE aggregate_id = '{aggregate}' ORDER BY seq")
    return [row[0] for row in rows]


async def park(toy: Toy, db: Database, relay: Relay, consumer: Choosy, *following: str) -> UUID:
    """An aggregate whose first event is parked, with others behind it."""
    aggregate = uuid4()
    consumer.poisonous.add(str(aggregate))
    await publish(db, toy, aggregate, "poison", *following)
    for _ in range(MAX_ATTEMPTS):
        await acknowledged(relay)
        await due_now(toy)
    return aggregate


class TestPoison:
    async def test_is_tried_eight_times_and_those_behind_it_not_once(
        self, db: Database, toy: Toy, relay: Relay, consumer: Choosy
    ) -> None:
        aggregate = await park(toy, db, relay, consumer, "behind", "behind that")
        assert await attempts(toy, aggregate) == [MAX_ATTEMPTS, 0, 0]
        parked = await toy.rows(f"SELECT parked_at IS NOT NULL FROM toy.outbox WHERE {OURS} ORDER BY seq")
        assert [row[0] for row in parked] == [True, False, False]
        before = len(consumer.sizes)
        assert await acknowledged(relay) == 0
        assert len(consumer.sizes) == before

    async def test_waits_twice_as_long_after_each_try(
        self, db: Database, toy: Toy, relay: Relay, consumer: Choosy
    ) -> None:
        aggregate = uuid4()
        consumer.poisonous.add(str(aggregate))
        await publish(db, toy, aggregate, "poison")
        waits = []
        for _ in range(MAX_ATTEMPTS - 1):
            await acknowledged(relay)
            wait = await toy.rows(f"SELECT extract(epoch FROM due_at - now()) FROM toy.outbox WHERE {OURS}")
            waits.append(float(wait[0][0]))
            await due_now(toy)
        assert waits == pytest.approx([0.5 * 2**n for n in range(MAX_ATTEMPTS - 1)], abs=0.2)

    async def test_a_refused_form_holds_back_its_aggregate_only(
        self, db: Database, toy: Toy, relay: Relay, consumer: Choosy
    ) -> None:
        bad, good = uuid4(), [uuid4() for _ in range(3)]
        consumer.malformed.add(str(bad))
        await publish(db, toy, good[0], "one")
        await publish(db, toy, bad, "malformed", "behind it")
        await publish(db, toy, good[1], "two")
        await publish(db, toy, good[2], "three")
        assert await acknowledged(relay) == 3
        assert texts(toy, consumer.seen) == ["one", "two", "three"]
        assert await attempts(toy, bad) == [1, 0]
        consumer.malformed.clear()
        await due_now(toy)
        assert await acknowledged(relay) == 2
        assert texts(toy, consumer.seen[-2:]) == ["malformed", "behind it"]


class TestOutage:
    async def test_counts_against_no_event(self, db: Database, toy: Toy, relay: Relay, consumer: Choosy) -> None:
        aggregate = uuid4()
        await publish(db, toy, aggregate, "a", "b")
        consumer.down = True
        for _ in range(3):
            assert await acknowledged(relay) == 0
        assert await attempts(toy, aggregate) == [0, 0]
        consumer.down = False
        # At once, without waiting for anything.
        assert await acknowledged(relay) == 2

    @pytest.mark.slow
    async def test_is_probed_with_one_event_ever_less_often(
        self, db: Database, toy: Toy, relay: Relay, consumer: Choosy
    ) -> None:
        for n in range(50):
            await publish(db, toy, uuid4(), str(n))
        consumer.down = True
        relay.start()
        await asyncio.sleep(1.2)
        tries = len(consumer.sizes)
        assert consumer.sizes[0] == 50
        assert set(consumer.sizes[1:]) == {1}
        assert 3 <= tries <= 6
        consumer.down = False
        async with asyncio.timeout(3):
            while await waiting(toy):
                await asyncio.sleep(0.05)
        assert len(consumer.seen) == 50
        # Ever more at a time.
        assert consumer.sizes[tries:] == [1, 2, 4, 8, 16, 19]
        await relay.stop()

    async def test_a_consumer_that_is_too_slow_for_a_batch_gets_smaller_ones(
        self, db: Database, toy: Toy, relay: Relay, consumer: Choosy
    ) -> None:
        for n in range(60):
            await publish(db, toy, uuid4(), str(n))
        consumer.slowest = 10
        relay.start()
        async with asyncio.timeout(10):
            while await waiting(toy):
                await asyncio.sleep(0.05)
        await relay.stop()
        assert sorted(map(int, texts(toy, consumer.seen))) == list(range(60))


class TestBatches:
    async def test_stay_far_below_what_grpc_takes_at_once(
        self, db: Database, toy: Toy, relay: Relay, consumer: Choosy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(outbox, "BATCH_BYTES", 100)
        for _ in range(4):
            await publish(db, toy, uuid4(), "x" * 60)
        relay.start()
        async with asyncio.timeout(3):
            while await waiting(toy):
                await asyncio.sleep(0.02)
        await relay.stop()
        assert consumer.sizes == [2, 2]


class TestOperations:
    async def test_tell_how_delivery_stands_and_what_is_parked(
        self, db: Database, toy: Toy, relay: Relay, consumer: Choosy
    ) -> None:
        aggregate = await park(toy, db, relay, consumer, "a secret")
        shown = await OutboxService(db).GetOutbox(GetOutboxRequest(consumer="learning", limit=10))
        (standing,) = shown.standings
        assert (standing.consumer, standing.waiting, standing.parked) == ("learning", 2, 1)
        assert standing.HasField("oldest_time")
        (event,) = shown.parked
        assert (event.aggregate_id, event.attempts, event.consumer) == (str(aggregate), MAX_ATTEMPTS, "learning")
        assert event.payload_type == toy.pb.Note.DESCRIPTOR.full_name
        assert b"secret" not in shown.SerializeToString()
        assert b"poison" not in shown.SerializeToString()

    async def test_come_in_pages(self, db: Database, toy: Toy, relay: Relay, consumer: Choosy) -> None:
        made = {str(await park(toy, db, relay, consumer)) for _ in range(2)}
        first = await OutboxService(db).GetOutbox(GetOutboxRequest(consumer="learning", limit=1))
        after = GetOutboxRequest(consumer="learning", limit=5, after_sequence=first.parked[0].sequence)
        second = await OutboxService(db).GetOutbox(after)
        assert {one.aggregate_id for one in (*first.parked, *second.parked)} == made

    async def test_replay_an_event_and_all_that_wait_behind_it_in_order(
        self, db: Database, toy: Toy, relay: Relay, consumer: Choosy
    ) -> None:
        await park(toy, db, relay, consumer, "behind", "behind that")
        other = await park(toy, db, relay, consumer)
        consumer.poisonous.clear()
        shown = await OutboxService(db).GetOutbox(GetOutboxRequest(limit=10, consumer="learning"))
        first = ReplayEventsRequest(event_id=shown.parked[0].id)
        assert (await OutboxService(db).ReplayEvents(first)).replayed == 1
        assert (await OutboxService(db).ReplayEvents(first)).replayed == 0
        assert await acknowledged(relay) == 3
        assert texts(toy, consumer.seen[-3:]) == ["poison", "behind", "behind that"]
        assert await attempts(toy, other) == [MAX_ATTEMPTS]
        assert (await OutboxService(db).ReplayEvents(ReplayEventsRequest(consumer="learning"))).replayed == 1
        assert await acknowledged(relay) == 1
        assert await waiting(toy) == 0

    async def test_an_event_that_is_still_poisonous_is_parked_again(
        self, db: Database, toy: Toy, relay: Relay, consumer: Choosy
    ) -> None:
        aggregate = await park(toy, db, relay, consumer)
        await OutboxService(db).ReplayEvents(ReplayEventsRequest())
        for _ in range(MAX_ATTEMPTS):
            assert await attempts(toy, aggregate) < [MAX_ATTEMPTS]
            await acknowledged(relay)
            await due_now(toy)
        shown = await OutboxService(db).GetOutbox(GetOutboxRequest(limit=10, consumer="learning"))
        assert [one.aggregate_id for one in shown.parked] == [str(aggregate)]


class TestMetrics:
    async def test_tell_of_waiting_parked_and_lag(
        self, db: Database, toy: Toy, relay: Relay, consumer: Choosy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[tuple[Any, ...]] = []
        monkeypatch.setattr(relay._telemetry, "measures", True)
        monkeypatch.setattr(relay._telemetry, "measure_outbox", lambda *values: seen.append(values))
        await park(toy, db, relay, consumer, "behind")
        await toy.rows(f"UPDATE toy.outbox SET created_at = now() - interval '1 minute' WHERE {OURS}")
        measuring = asyncio.create_task(relay._measure())
        async with asyncio.timeout(3):
            while not [one for one in seen if one[0] == "learning"]:
                await asyncio.sleep(0.02)
        measuring.cancel()
        _, number, parked, lag = next(one for one in seen if one[0] == "learning")
        assert (number, parked) == (2, 1)
        assert 60 <= lag < 70

    async def test_count_what_became_of_each_attempt(
        self, db: Database, toy: Toy, relay: Relay, consumer: Choosy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        counted: dict[str, int] = {}

        def count(_: str, **counts: int) -> None:
            for outcome, number in counts.items():
                counted[outcome] = counted.get(outcome, 0) + number

        monkeypatch.setattr(relay._telemetry, "count_events", count)
        await park(toy, db, relay, consumer)
        await publish(db, toy, uuid4(), "good")
        consumer.down = True
        await acknowledged(relay)
        consumer.down = False
        await acknowledged(relay)
        assert counted == {"delivered": 1, "failed": MAX_ATTEMPTS, "parked": 1, "unanswered": 1}
