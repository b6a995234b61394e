"""Entries, and trees that grow by them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from kit.ids import new_id
from storyloom.event.v1.changes_pb2 import ChangeRecorded
from storyloom.event.v1.events_pb2 import DeliverEventsRequest, DeliveryStatus, Event
from storyloom.event.v1.events_pb2_grpc import EventInboxServiceStub
from tests.stack import School

UNSIGNED = """
SELECT (SELECT count(*) FROM audit.tree_queue WHERE tenant_id = ANY ($1))
  + (SELECT count(*) FROM audit.trees WHERE tenant_id = ANY ($1) AND signed_size < size)
"""


def event(tenant_id: str, *, event_id: UUID | None = None, at: datetime | None = None, **change: Any) -> Event:
    """One change, as a service's relay sends it."""
    values: dict[str, Any] = {"action": "update", "entity_type": "story", "entity_id": str(uuid4())} | change
    made = Event(
        id=str(event_id or new_id()),
        tenant_id=tenant_id,
        aggregate_type=values["entity_type"],
        aggregate_id=values["entity_id"],
    )
    made.occur_time.FromDatetime(at or datetime.now(UTC))
    made.payload.Pack(ChangeRecorded(**values))
    return made


async def deliver(school: School, *events: Event) -> None:
    inbox = school.stack.services["content"].clients.stub(EventInboxServiceStub, "audit")
    for start in range(0, len(events), 200):
        response = await inbox.DeliverEvents(DeliverEventsRequest(events=events[start : start + 200]))
        assert {one.status for one in response.results} == {DeliveryStatus.DELIVERY_STATUS_HANDLED}


@asynccontextmanager
async def database(school: School) -> AsyncIterator[Any]:
    """As superuser."""
    connection = await asyncpg.connect(school.stack.cluster.superuser_url)
    try:
        yield connection
    finally:
        await connection.close()


async def grown(school: School, *tenant_ids: UUID) -> None:
    """Waits until every entry of the tenants (those of the school) is in its tree, and the trees are signed."""
    tenants = tenant_ids or [UUID(person.tenant_id) for person in (school.auditor, school.outsider_admin)]
    async with database(school) as superuser, asyncio.timeout(15):
        while await superuser.fetchval(UNSIGNED, tenants):
            await asyncio.sleep(0.05)
