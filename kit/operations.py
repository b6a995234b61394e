"""What a service tells those who run the platform about its outbox: how delivery stands, and what is parked."""

from typing import Any
from uuid import UUID

from kit.db import Database, ReadSession
from kit.ids import SYSTEM_TENANT
from storyloom.event.v1 import outboxes_pb2
from storyloom.event.v1.outboxes_pb2 import (
    GetOutboxRequest,
    Outbox,
    OutboxStanding,
    ReplayEventsRequest,
    ReplayEventsResponse,
    WaitingEvent,
)

STANDINGS = """
SELECT consumer, count(*) AS waiting, count(parked_at) AS parked,
       min(created_at) FILTER (WHERE parked_at IS NULL) AS oldest
FROM {schema}.outbox WHERE $1 IN ('', consumer) GROUP BY consumer ORDER BY consumer
"""
# Never the payload: it is what people wrote.
PARKED = """
SELECT event_id, seq, consumer, tenant_id, aggregate_type, aggregate_id, payload_type, attempts, created_at, parked_at
FROM {schema}.outbox WHERE parked_at IS NOT NULL AND $1 IN ('', consumer) AND seq > $2 ORDER BY seq LIMIT $3
"""
REPLAY = """
UPDATE {schema}.outbox SET parked_at = NULL, attempts = 0, due_at = now()
WHERE parked_at IS NOT NULL AND $1 IN ('', consumer) AND ($2::uuid IS NULL OR event_id = $2)
RETURNING seq
"""


class OutboxService:
    SERVICE = outboxes_pb2.DESCRIPTOR.services_by_name["OutboxService"]

    def __init__(self, db: Database) -> None:
        self._db = db

    async def GetOutbox(self, request: GetOutboxRequest, context: Any = None) -> Outbox:
        async with self._db.read(SYSTEM_TENANT) as session:
            standings = await self._fetch(session, STANDINGS, request.consumer)
            parked = await self._fetch(session, PARKED, request.consumer, request.after_sequence, request.limit)
        return Outbox(standings=map(_standing_to_proto, standings), parked=map(_waiting_to_proto, parked))

    async def ReplayEvents(self, request: ReplayEventsRequest, context: Any = None) -> ReplayEventsResponse:
        event_id = UUID(request.event_id) if request.event_id else None
        async with self._db.write(SYSTEM_TENANT) as session:
            replayed = await self._fetch(session, REPLAY, request.consumer, event_id)
        for committed in self._db.committed_events.values():
            committed.set()
        return ReplayEventsResponse(replayed=len(replayed))

    async def _fetch(self, session: ReadSession, statement: str, *values: Any) -> list[Any]:
        # The outbox is no tenant's, though the transaction is that of the platform's own.
        return list(await session.driver.fetch(statement.replace("{schema}", self._db.service), *values))


def _standing_to_proto(row: Any) -> OutboxStanding:
    message = OutboxStanding(consumer=row["consumer"], waiting=row["waiting"], parked=row["parked"])
    if row["oldest"] is not None:
        message.oldest_time.FromDatetime(row["oldest"])
    return message


def _waiting_to_proto(row: Any) -> WaitingEvent:
    message = WaitingEvent(
        id=str(row["event_id"]),
        sequence=row["seq"],
        consumer=row["consumer"],
        tenant_id=str(row["tenant_id"]),
        aggregate_type=row["aggregate_type"],
        aggregate_id=str(row["aggregate_id"]),
        payload_type=row["payload_type"],
        attempts=row["attempts"],
    )
    message.create_time.FromDatetime(row["created_at"])
    message.park_time.FromDatetime(row["parked_at"])
    return message
