"""ParkedEventService: events that services could not deliver to each other, for those who run the platform."""

from typing import Any
from uuid import UUID

from kit import audit
from kit.access import denied
from kit.auth import current
from kit.clients import Clients
from kit.db import Database
from kit.ids import NIL, SYSTEM_TENANT
from kit.operations import OutboxService
from kit.pagination import Page
from kit.settings import SERVICES
from storyloom.event.v1.outboxes_pb2 import GetOutboxRequest, ReplayEventsRequest
from storyloom.event.v1.outboxes_pb2_grpc import OutboxServiceStub
from storyloom.identity.v1 import parked_events_pb2

SELF = "identity"


class ParkedEventService:
    SERVICE = parked_events_pb2.DESCRIPTOR.services_by_name["ParkedEventService"]

    def __init__(self, db: Database, clients: Clients) -> None:
        self.db = db
        self.outboxes: dict[str, Any] = {SELF: OutboxService(db)}
        self.outboxes |= {name: clients.stub(OutboxServiceStub, name) for name in SERVICES if name != SELF}

    async def ListParkedEvents(
        self, request: parked_events_pb2.ListParkedEventsRequest, context: Any
    ) -> parked_events_pb2.ListParkedEventsResponse:
        _require_staff()
        page = Page.of(request)
        after = int(page.after[0]) if page.after else 0
        asked = GetOutboxRequest(consumer=request.consumer, after_sequence=after, limit=page.size + 1)
        outbox = await self.outboxes[request.service].GetOutbox(asked)
        events, token = page.split(outbox.parked, key=lambda event: (event.sequence,))
        return parked_events_pb2.ListParkedEventsResponse(parked_events=events, next_page_token=token)

    async def GetOutboxStandings(
        self, request: parked_events_pb2.GetOutboxStandingsRequest, context: Any
    ) -> parked_events_pb2.GetOutboxStandingsResponse:
        _require_staff()
        outbox = await self.outboxes[request.service].GetOutbox(GetOutboxRequest())
        return parked_events_pb2.GetOutboxStandingsResponse(standings=outbox.standings)

    async def ReplayParkedEvents(
        self, request: parked_events_pb2.ReplayParkedEventsRequest, context: Any
    ) -> parked_events_pb2.ReplayParkedEventsResponse:
        _require_staff()
        asked = {"service": request.service, "consumer": request.consumer, "event_id": request.event_id}
        # Before it is done: nothing is replayed that the log does not tell of.
        async with self.db.write(SYSTEM_TENANT) as session:
            event_id = UUID(request.event_id) if request.event_id else NIL
            audit.write(session, "replay", "parked_event", event_id, new=asked)
        replay = ReplayEventsRequest(consumer=request.consumer, event_id=request.event_id)
        replayed = (await self.outboxes[request.service].ReplayEvents(replay)).replayed
        return parked_events_pb2.ReplayParkedEventsResponse(replayed=replayed)


def _require_staff() -> None:
    """Tenants' administrators hold `all:manage`, but within their tenant only."""
    if current().home_tenant_id != SYSTEM_TENANT:
        raise denied("tenant", "operate")
