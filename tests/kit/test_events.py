"""The outbox, its relay and the inbox: committed together, delivered in order, in effect once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest

from kit import outbox
from kit.db import Database
from kit.errors import Unavailable, from_exception
from kit.inbox import EventInbox, Together
from kit.outbox import MAX_ATTEMPTS, Relay, Unanswered
from kit.telemetry import Telemetry
from storyloom.event.v1.events_pb2 import (
    DeliverEventsRequest,
    DeliverEventsResponse,
    DeliveryResult,
    DeliveryStatus,
    Event,
)
from tests.kit.toy import Toy

HANDLED, FAILED = DeliveryStatus.DELIVERY_STATUS_HANDLED, DeliveryStatus.DELIVERY_STATUS_FAILED


class Consumer:
    """What a relay delivers to: remembers, and fails as the test says."""

    def __init__(self) -> None:
        self.seen: list[Event] = []
        self.down = False
        self.hangs = False
        self.poisonous: set[str] = set()

    async def __call__(self, request: DeliverEventsRequest) -> DeliverEventsResponse:
        if self.down:
            raise Unavailable("Another service cannot be reached; try again.")
        await asyncio.sleep(60 if self.hangs else 0)
        self.seen.extend(request.events)
        return DeliverEventsResponse(
            results=[
                DeliveryResult(event_id=one.id, status=FAILED if one.aggregate_id in self.poisonous else HANDLED)
                for one in request.events
            ]
        )


@pytest.fixture
async def db(toy: Toy) -> AsyncIterator[Database]:
    """A database whose notes are published to `learning`; its outbox is empty of those."""
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
    await toy.rows("DELETE FROM toy.outbox WHERE consumer = 'learning'")


@pytest.fixture
def consumer() -> Consumer:
    return Consumer()


@pytest.fixture
def relay(db: Database, consumer: Consumer, toy: Toy) -> Relay:
    return Relay(db, {"learning": consumer}, Telemetry(toy.settings))


async def publish(db: Database, toy: Toy, aggregate: UUID, *texts: str) -> None:
    async with db.write(toy.tenant) as session:
        for text in texts:
            outbox.publish(session, "note", aggregate, toy.pb.Note(text=text))


async def due_now(toy: Toy) -> None:
    await toy.rows("UPDATE toy.outbox SET due_at = now() WHERE consumer = 'learning'")


async def acknowledged(relay: Relay) -> int:
    """How many events of one round the consumer acknowledged."""
    try:
        return (await relay.deliver("learning")).acknowledged
    except Unanswered:
        return 0


async def waiting(toy: Toy) -> int:
    return int((await toy.rows("SELECT count(*) FROM toy.outbox WHERE consumer = 'learning'"))[0][0])


def texts(toy: Toy, events: list[Event]) -> list[str]:
    return [toy.pb.Note.FromString(one.payload.value).text for one in events]


class TestPublish:
    async def test_an_event_of_a_transaction_that_failed_is_never_sent(
        self, db: Database, toy: Toy, relay: Relay
    ) -> None:
        with pytest.raises(ValueError, match="stop"):
            async with db.write(toy.tenant) as session:
                outbox.publish(session, "note", uuid4(), toy.pb.Note(text="never"))
                raise ValueError("stop")
        assert await acknowledged(relay) == 0

    async def test_refuses_a_type_that_was_not_declared(self, db: Database, toy: Toy) -> None:
        with pytest.raises(KeyError):
            async with db.write(toy.tenant) as session:
                outbox.publish(session, "note", uuid4(), toy.pb.ListNotesRequest())


class TestRelay:
    async def test_delivers_in_the_order_of_commits(
        self, db: Database, toy: Toy, relay: Relay, consumer: Consumer
    ) -> None:
        aggregate = uuid4()
        for n in range(5):
            await publish(db, toy, aggregate, f"{n}a", f"{n}b")
        while await acknowledged(relay):
            pass
        assert texts(toy, consumer.seen) == [f"{n}{x}" for n in range(5) for x in "ab"]
        assert await waiting(toy) == 0

    async def test_keeps_everything_while_the_consumer_is_down(
        self, db: Database, toy: Toy, relay: Relay, consumer: Consumer
    ) -> None:
        consumer.down = True
        await publish(db, toy, uuid4(), "kept")
        for _ in range(MAX_ATTEMPTS + 2):
            assert await acknowledged(relay) == 0
            await due_now(toy)
        consumer.down = False
        assert await acknowledged(relay) == 1
        assert texts(toy, consumer.seen) == ["kept"]

    async def test_two_relays_at_once_keep_the_order_of_each_aggregate(
        self, db: Database, toy: Toy, relay: Relay, consumer: Consumer
    ) -> None:
        aggregates = [uuid4() for _ in range(5)]
        for n in range(10):
            for aggregate in aggregates:
                await publish(db, toy, aggregate, str(n))
        other = Relay(db, {"learning": consumer}, Telemetry(toy.settings))
        while await waiting(toy):
            await asyncio.gather(acknowledged(relay), acknowledged(other))
        for aggregate in aggregates:
            mine = [one for one in consumer.seen if one.aggregate_id == str(aggregate)]
            assert texts(toy, mine) == [str(n) for n in range(10)]

    async def test_parks_a_poisonous_event_and_its_aggregate_only(
        self, db: Database, toy: Toy, relay: Relay, consumer: Consumer
    ) -> None:
        bad, good = uuid4(), uuid4()
        consumer.poisonous.add(str(bad))
        await publish(db, toy, bad, "poison")
        for _ in range(MAX_ATTEMPTS):
            await acknowledged(relay)
            await due_now(toy)
        await publish(db, toy, bad, "behind the poison")
        await publish(db, toy, good, "unharmed")
        assert await acknowledged(relay) == 1
        assert texts(toy, consumer.seen[-1:]) == ["unharmed"]
        parked = await toy.rows("SELECT 1 FROM toy.outbox WHERE consumer = 'learning' AND parked_at IS NOT NULL")
        assert (len(parked), await waiting(toy)) == (1, 2)

    async def test_backs_off_from_an_event_that_failed(
        self, db: Database, toy: Toy, relay: Relay, consumer: Consumer
    ) -> None:
        aggregate = uuid4()
        consumer.poisonous.add(str(aggregate))
        await publish(db, toy, aggregate, "not yet")
        await acknowledged(relay)
        consumer.poisonous.clear()
        assert await acknowledged(relay) == 0
        await due_now(toy)
        assert await acknowledged(relay) == 1

    async def test_an_outage_however_long_leaves_an_event_all_its_tries(
        self, db: Database, toy: Toy, relay: Relay, consumer: Consumer
    ) -> None:
        aggregate = uuid4()
        consumer.down = True
        await publish(db, toy, aggregate, "unlucky")
        for _ in range(MAX_ATTEMPTS + 2):
            assert await acknowledged(relay) == 0
            await due_now(toy)
        consumer.down = False
        consumer.poisonous.add(str(aggregate))
        await acknowledged(relay)
        await due_now(toy)
        consumer.poisonous.clear()
        assert await acknowledged(relay) == 1

    async def test_a_delivery_that_was_cut_off_is_due_again_by_its_lease(
        self, db: Database, toy: Toy, relay: Relay, consumer: Consumer
    ) -> None:
        consumer.hangs = True
        await publish(db, toy, uuid4(), "cut off")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await acknowledged(relay)
        consumer.hangs = False
        assert await acknowledged(relay) == 0
        lease = await toy.rows("SELECT due_at - now() FROM toy.outbox WHERE consumer = 'learning'")
        assert outbox.LEASE - timedelta(seconds=5) < lease[0][0] <= outbox.LEASE
        await due_now(toy)
        assert await acknowledged(relay) == 1

    async def test_goes_on_after_the_server_closed_its_connections(
        self, db: Database, toy: Toy, relay: Relay, consumer: Consumer
    ) -> None:
        assert await acknowledged(relay) == 0
        await toy.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'storyloom_toy'")
        await asyncio.sleep(0.1)
        await publish(db, toy, uuid4(), "after")
        assert await acknowledged(relay) == 1

    async def test_wakes_at_the_commit(self, db: Database, toy: Toy, relay: Relay, consumer: Consumer) -> None:
        relay.start()
        await asyncio.sleep(0.1)
        await publish(db, toy, uuid4(), "soon")
        async with asyncio.timeout(0.5):
            while not consumer.seen:
                await asyncio.sleep(0.01)
        await relay.stop()


def event(toy: Toy, text: str, *, aggregate: UUID | None = None, id: UUID | None = None) -> Event:  # noqa: A002
    made = Event(
        id=str(id or uuid4()),
        tenant_id=str(toy.tenant),
        aggregate_type="note",
        aggregate_id=str(aggregate or uuid4()),
    )
    made.payload.Pack(toy.pb.Note(text=text))
    return made


class TestInbox:
    @pytest.fixture
    def inbox(self, db: Database, toy: Toy) -> EventInbox:
        async def on_note(session: Any, event: Event, payload: Any) -> None:
            if payload.text.startswith("poison"):
                raise ValueError("poison")
            session.add(toy.note(text=payload.text, secret="", author_id=UUID(event.aggregate_id)))

        return EventInbox(db, {toy.pb.Note: on_note})

    async def deliver(self, inbox: EventInbox, *events: Event) -> list[Any]:
        response = await inbox.DeliverEvents(DeliverEventsRequest(events=events), None)
        return [result.status for result in response.results]

    async def count(self, toy: Toy, text: str) -> int:
        return len(await toy.rows("SELECT 1 FROM toy.notes WHERE text = $1", text))

    async def test_takes_effect_once_however_often_delivered(self, inbox: EventInbox, toy: Toy) -> None:
        text = uuid4().hex[:20]
        one = event(toy, text)
        assert await self.deliver(inbox, one, one) == [HANDLED, HANDLED]
        assert await self.deliver(inbox, one) == [HANDLED]
        await asyncio.gather(*(self.deliver(inbox, one) for _ in range(3)))
        assert await self.count(toy, text) == 1

    async def test_a_poisonous_event_spoils_only_its_aggregate(self, inbox: EventInbox, toy: Toy) -> None:
        bad, text = uuid4(), uuid4().hex[:18]
        statuses = await self.deliver(
            inbox,
            event(toy, text + "a", aggregate=bad),
            event(toy, "poison", aggregate=bad),
            event(toy, text + "b", aggregate=bad),
            event(toy, text + "c"),
        )
        assert statuses == [HANDLED, FAILED, FAILED, HANDLED]
        assert [await self.count(toy, text + x) for x in "abc"] == [1, 0, 1]

    async def test_an_event_that_failed_takes_effect_when_delivered_again(self, inbox: EventInbox, toy: Toy) -> None:
        text, id = uuid4().hex[:20], uuid4()  # noqa: A001
        assert await self.deliver(inbox, event(toy, "poison", id=id)) == [FAILED]
        assert await self.deliver(inbox, event(toy, text, id=id)) == [HANDLED]
        assert await self.count(toy, text) == 1

    async def test_a_database_that_is_away_is_no_fault_of_the_event(self, toy: Toy) -> None:
        away = Database("postgresql:///x?host=/nowhere", service="toy", pool_size=1, telemetry=Telemetry(toy.settings))
        inbox = EventInbox(away, {})
        with pytest.raises(Exception) as caught:
            await self.deliver(inbox, event(toy, "x"), event(toy, "y"))
        assert from_exception(caught.value).code is grpc.StatusCode.UNAVAILABLE
        await away.close()

    async def test_gives_those_of_one_tenant_to_one_call_in_their_order(self, db: Database, toy: Toy) -> None:
        calls: list[tuple[UUID, list[str]]] = []

        async def on_notes(session: Any, notes: Any) -> None:
            calls.append((session.tenant_id, [payload.text for _, payload in notes]))

        inbox, other = EventInbox(db, {toy.pb.Note: Together(on_notes)}), uuid4()
        events = [event(toy, str(n)) for n in range(6)]
        for one in events[1::2]:
            one.tenant_id = str(other)
        assert await self.deliver(inbox, *events, events[0]) == [HANDLED] * 7
        assert calls == [(toy.tenant, ["0", "2", "4"]), (other, ["1", "3", "5"])]

    async def test_a_poisonous_event_among_many_spoils_no_other(self, db: Database, toy: Toy) -> None:
        async def on_notes(session: Any, notes: Any) -> None:
            for one, payload in notes:
                if payload.text == "poison":
                    raise ValueError("poison")
                session.add(toy.note(text=payload.text, secret="", author_id=UUID(one.aggregate_id)))

        inbox, text = EventInbox(db, {toy.pb.Note: Together(on_notes)}), uuid4().hex[:20]
        events = [event(toy, text), event(toy, "poison"), event(toy, text)]
        assert await self.deliver(inbox, *events) == [HANDLED, FAILED, HANDLED]
        assert await self.count(toy, text) == 2

    async def test_acknowledges_what_it_has_no_interest_in(self, inbox: EventInbox, toy: Toy) -> None:
        foreign = event(toy, "x")
        foreign.payload.Pack(toy.pb.ListNotesRequest())
        assert await self.deliver(inbox, foreign) == [HANDLED]
