"""Events written in the transaction of the change itself, and the relay that delivers them over gRPC."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from google.protobuf.message import Message

from kit.errors import InvalidArgument, StoryloomError
from kit.ids import new_id
from kit.telemetry import Telemetry, current_traceparent
from storyloom.event.v1.changes_pb2 import ChangeRecorded
from storyloom.event.v1.events_pb2 import DeliverEventsRequest, DeliverEventsResponse, DeliveryStatus, Event

if TYPE_CHECKING:
    from kit.db import Database, WriteSession

log = logging.getLogger(__name__)

BATCH = 200
# Far below the 4 MB that gRPC takes at once.
BATCH_BYTES = 1_000_000
IDLE_SECONDS, LINGER_SECONDS = 1.0, 0.05
# Twice as long as a delivery may take.
LEASE = timedelta(seconds=10)
MAX_ATTEMPTS = 8
MAX_BACKOFF_SECONDS = 60.0
# A consumer that does not answer is asked ever less often, with one event; once it does, with ever more at a time, so
# that one that is merely slow gets as many as it can take.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 2.0
MEASURED_SECONDS = 10.0
TYPE_URL = "type.googleapis.com/"


@dataclass(frozen=True, slots=True)
class Pending:
    """One event for one consumer, not yet committed."""

    event_id: UUID
    tenant_id: UUID
    consumer: str
    aggregate_type: str
    aggregate_id: UUID
    payload_type: str
    payload: bytes
    traceparent: str


class Routes:
    """Which consumers get the events of a type; audit gets every `ChangeRecorded`."""

    def __init__(self, schema: str, publishes: Mapping[type[Message], tuple[str, ...]]) -> None:
        self.schema = schema
        self._consumers = {kind.DESCRIPTOR.full_name: names for kind, names in publishes.items()}
        self._consumers[ChangeRecorded.DESCRIPTOR.full_name] = ("audit",)

    def consumers(self, payload_type: str) -> tuple[str, ...]:
        """Raises KeyError for a type the service did not declare that it publishes."""
        return self._consumers[payload_type]

    @property
    def all(self) -> frozenset[str]:
        return frozenset(name for names in self._consumers.values() for name in names)


def publish(session: "WriteSession", aggregate_type: str, aggregate_id: UUID, payload: Message) -> None:
    """Tells the consumers of the payload's type, if and when the transaction commits.

    Events of one aggregate arrive in the order of their commits.
    """
    payload_type = payload.DESCRIPTOR.full_name
    event_id, data, traceparent = new_id(), payload.SerializeToString(), current_traceparent()
    session.events.extend(
        Pending(event_id, session.tenant_id, consumer, aggregate_type, aggregate_id, payload_type, data, traceparent)
        for consumer in session.routes.consumers(payload_type)
    )


async def insert(driver: Any, schema: str, events: Sequence[Pending]) -> None:
    """Writes the events on the driver connection: one statement, whatever their number."""
    if not events:
        return
    await driver.execute(
        f"INSERT INTO {schema}.outbox (event_id, tenant_id, consumer, aggregate_type, aggregate_id, payload_type,"  # noqa: S608
        " payload, traceparent) SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::uuid[],"
        " $6::text[], $7::bytea[], $8::text[])",
        [e.event_id for e in events],
        [e.tenant_id for e in events],
        [e.consumer for e in events],
        [e.aggregate_type for e in events],
        [e.aggregate_id for e in events],
        [e.payload_type for e in events],
        [e.payload for e in events],
        [e.traceparent for e in events],
    )


# A consumer's events are claimed at the head of each aggregate only: no event overtakes an earlier one of its
# aggregate, whichever process claims, and a parked event holds back its own aggregate and no other.
CLAIM = """
WITH heads AS (
  SELECT o.seq, o.aggregate_id FROM {schema}.outbox o
  WHERE o.consumer = $1 AND o.due_at <= now() AND o.parked_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM {schema}.outbox e
                    WHERE e.consumer = $1 AND e.aggregate_id = o.aggregate_id AND e.seq < o.seq)
  ORDER BY o.seq LIMIT $2 FOR UPDATE SKIP LOCKED
), following AS (
  SELECT f.seq, length(f.payload) AS size
  FROM {schema}.outbox f JOIN heads h ON f.aggregate_id = h.aggregate_id AND f.seq >= h.seq
  WHERE f.consumer = $1 AND f.parked_at IS NULL ORDER BY f.seq LIMIT $2
), claimed AS (
  SELECT seq, sum(size) OVER (ORDER BY seq) - size AS before FROM following
)
UPDATE {schema}.outbox o SET due_at = now() + $3 FROM claimed c WHERE o.seq = c.seq AND c.before < $4
RETURNING o.seq, o.event_id, o.tenant_id, o.aggregate_type, o.aggregate_id, o.payload_type, o.payload, o.traceparent,
          o.created_at
"""
FAIL = """
UPDATE {schema}.outbox SET attempts = attempts + 1,
       due_at = now() + make_interval(secs => least($2, 0.5 * 2 ^ least(attempts, 16))),
       parked_at = CASE WHEN attempts + 1 >= $3 THEN now() END
WHERE seq = ANY($1)
RETURNING parked_at IS NOT NULL AS parked
"""
# These were not tried: their consumer did not answer, or an earlier event of their aggregate failed.
RELEASE = "UPDATE {schema}.outbox SET due_at = now() WHERE seq = ANY($1)"
STANDING = """
SELECT consumer, count(*) AS waiting, count(parked_at) AS parked,
       coalesce(extract(epoch FROM now() - min(created_at) FILTER (WHERE parked_at IS NULL)), 0) AS lag
FROM {schema}.outbox GROUP BY consumer
"""


class Round(NamedTuple):
    """What came of a delivery: how many events the consumer acknowledged, and whether more are likely to be due."""

    acknowledged: int
    more: bool


class Unanswered(Exception):
    """The consumer as a whole did not answer, which says nothing about any one event."""


class Relay:
    """Delivers one service's outbox; one task for each consumer, so that one that is down delays no other."""

    def __init__(self, db: "Database", inboxes: Mapping[str, Any], telemetry: Telemetry) -> None:
        self._db, self._inboxes, self._telemetry = db, inboxes, telemetry
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._run(consumer)) for consumer in self._db.committed_events]
        self._tasks.append(asyncio.create_task(self._measure()))

    async def stop(self) -> None:
        """Ends after at most the delivery under way; what was claimed and not delivered is due again by its lease."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, consumer: str) -> None:
        pause, most = 0.0, BATCH
        while True:
            try:
                more = (await self.deliver(consumer, most=most)).more
                pause, most = 0.0, min(most * 2, BATCH)
            except Unanswered:
                pause, most = min(pause * 2 or FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS), 1
                await asyncio.sleep(pause)
            except Exception:
                # Whatever went wrong (the database restarting, say), the next round tries again.
                log.exception("relay round failed", extra={"consumer": consumer})
                await asyncio.sleep(IDLE_SECONDS)
            else:
                if not more:
                    await self._wait(self._db.committed_events[consumer])

    async def _wait(self, wake: asyncio.Event) -> None:
        # Not asyncio.wait_for: before Python 3.12 it swallows a cancellation that arrives with the event.
        with suppress(TimeoutError):
            async with asyncio.timeout(IDLE_SECONDS):
                await wake.wait()
                # What commits in these moments goes in the same delivery: one call for many events.
                await asyncio.sleep(LINGER_SECONDS)
        wake.clear()

    async def deliver(self, consumer: str, *, most: int = BATCH) -> Round:
        """Claims and delivers one batch of at most so many events. Raises `Unanswered`."""
        rows = await self._execute(CLAIM, consumer, most, LEASE, BATCH_BYTES)
        if not rows:
            return Round(0, more=False)
        rows.sort(key=lambda row: row["seq"])
        handled = await self._send(consumer, rows)
        await self._settle(consumer, rows, handled)
        full = len(rows) == most or sum(len(row["payload"]) for row in rows) >= BATCH_BYTES
        return Round(len(handled), more=full and bool(handled))

    async def _send(self, consumer: str, rows: Sequence[Any]) -> set[UUID]:
        """Ids of the events whose effect the consumer has committed."""
        request = DeliverEventsRequest(events=[_event(row) for row in rows])
        try:
            response: DeliverEventsResponse = await self._inboxes[consumer](request)
        except InvalidArgument as error:
            # One of them has a form that the consumer refuses: its companions must not wait with it for ever.
            if len(rows) > 1:
                return await self._send_each(consumer, rows)
            log.warning("event refused", extra={"consumer": consumer, "error": error.message})
            return set()
        except StoryloomError as error:
            log.warning("delivery failed", extra={"consumer": consumer, "error": error.message})
            self._telemetry.count_events(consumer, unanswered=len(rows))
            await self._execute(RELEASE, [row["seq"] for row in rows])
            raise Unanswered from error
        return {
            UUID(result.event_id)
            for result in response.results
            if result.status == DeliveryStatus.DELIVERY_STATUS_HANDLED
        }

    async def _send_each(self, consumer: str, rows: Sequence[Any]) -> set[UUID]:
        handled: set[UUID] = set()
        stopped: set[UUID] = set()
        for row in rows:
            if row["aggregate_id"] in stopped:
                continue
            if taken := await self._send(consumer, [row]):
                handled |= taken
                # At once: if the consumer goes away in the middle, what it has is not released to be sent again.
                await self._execute("DELETE FROM {schema}.outbox WHERE seq = $1", row["seq"])
            else:
                stopped.add(row["aggregate_id"])
        return handled

    async def _settle(self, consumer: str, rows: Sequence[Any], handled: set[UUID]) -> None:
        """Forgets what was handled. Of each aggregate the first other event failed, and those after it only waited."""
        done = [row["seq"] for row in rows if row["event_id"] in handled]
        left = [row for row in rows if row["event_id"] not in handled]
        first = {row["aggregate_id"]: row["seq"] for row in reversed(left)}
        failed = sorted(first.values())
        await self._execute("DELETE FROM {schema}.outbox WHERE seq = ANY($1)", done)
        parked = 0
        if left:
            await self._execute(RELEASE, [row["seq"] for row in left if row["seq"] not in failed])
            parked = sum(row["parked"] for row in await self._execute(FAIL, failed, MAX_BACKOFF_SECONDS, MAX_ATTEMPTS))
            log.warning("events failed", extra={"consumer": consumer, "count": len(failed), "parked": parked})
        self._telemetry.count_events(consumer, delivered=len(done), failed=len(failed), parked=parked)

    async def _measure(self) -> None:
        while self._telemetry.measures:
            with suppress(Exception):
                found = {row["consumer"]: row for row in await self._execute(STANDING)}
                for consumer in self._db.committed_events:
                    row = found.get(consumer) or {"waiting": 0, "parked": 0, "lag": 0}
                    self._telemetry.measure_outbox(consumer, row["waiting"], row["parked"], float(row["lag"]))
            await asyncio.sleep(MEASURED_SECONDS)

    async def _execute(self, statement: str, *values: Any) -> list[Any]:
        async with self._db.engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None  # noqa: S101
            # Planned for each execution: a plan made for the nearly empty table of quiet times, kept and used on a
            # backlog, takes seconds for what takes milliseconds.
            planned = await driver.prepare(statement.replace("{schema}", self._db.routes.schema))
            return list(await planned.fetch(*values))


def _event(row: Any) -> Event:
    event = Event(
        id=str(row["event_id"]),
        tenant_id=str(row["tenant_id"]),
        aggregate_type=row["aggregate_type"],
        aggregate_id=str(row["aggregate_id"]),
        sequence=row["seq"],
        traceparent=row["traceparent"],
    )
    event.occur_time.FromDatetime(row["created_at"])
    event.payload.type_url = TYPE_URL + row["payload_type"]
    event.payload.value = row["payload"]
    return event
