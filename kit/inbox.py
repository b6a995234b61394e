"""Events received: each takes effect exactly once, in the transaction that remembers its id."""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any
from uuid import UUID

from google.protobuf.message import Message

from kit.call import current_call
from kit.db import Database, WriteSession
from kit.errors import PermissionDenied, Unavailable, from_exception
from kit.outbox import TYPE_URL
from kit.settings import SERVICES
from storyloom.event.v1 import events_pb2
from storyloom.event.v1.events_pb2 import (
    DeliverEventsRequest,
    DeliverEventsResponse,
    DeliveryResult,
    DeliveryStatus,
    Event,
)
from storyloom.type.v1.errors_pb2 import ErrorReason

log = logging.getLogger(__name__)

KEPT = "30 days"
Handle = Callable[[WriteSession, Event, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Together:
    """A handler of many events at once, each with its payload: all of its type that stand together in a delivery."""

    handle: Callable[[WriteSession, Sequence[tuple[Event, Any]]], Awaitable[None]]


class EventInbox:
    """The EventInboxService of one service: a handler for each payload type; other types are of no interest."""

    SERVICE = events_pb2.DESCRIPTOR.services_by_name["EventInboxService"]

    def __init__(self, db: Database, handlers: Mapping[type[Message], Handle | Together]) -> None:
        self._db = db
        self._handlers = {TYPE_URL + kind.DESCRIPTOR.full_name: (kind, handle) for kind, handle in handlers.items()}

    async def DeliverEvents(self, request: DeliverEventsRequest, context: Any) -> DeliverEventsResponse:
        _refuse_foreign(request.events)
        response = DeliverEventsResponse()
        # A transaction has one tenant: events of each are taken together, however they are mixed.
        by_tenant: dict[str, list[Event]] = {}
        for event in request.events:
            by_tenant.setdefault(event.tenant_id, []).append(event)
        for tenant_id, events in by_tenant.items():
            response.results.extend(await self._take_all(UUID(tenant_id), events))
        return response

    async def _take_all(self, tenant_id: UUID, events: list[Event]) -> Iterable[DeliveryResult]:
        """One transaction for all; when that fails, one for each, so that a poisonous event spoils no other."""
        try:
            await self._take(tenant_id, events)
        except Exception as error:
            if isinstance(from_exception(error), Unavailable):
                # The database is away: that says nothing about any event, so none of them failed.
                raise
            if len(events) == 1:
                log.exception("event failed", extra={"event_id": events[0].id})
                return [_result(events[0], DeliveryStatus.DELIVERY_STATUS_FAILED)]
            return await self._take_each(tenant_id, events)
        return [_result(event, DeliveryStatus.DELIVERY_STATUS_HANDLED) for event in events]

    async def _take_each(self, tenant_id: UUID, events: list[Event]) -> Iterable[DeliveryResult]:
        results: list[DeliveryResult] = []
        stopped: set[str] = set()
        for event in events:
            if event.aggregate_id in stopped:
                results.append(_result(event, DeliveryStatus.DELIVERY_STATUS_FAILED))
                continue
            results.extend(await self._take_all(tenant_id, [event]))
            if results[-1].status == DeliveryStatus.DELIVERY_STATUS_FAILED:
                stopped.add(event.aggregate_id)
        return results

    async def _take(self, tenant_id: UUID, events: list[Event]) -> None:
        async with self._db.write(tenant_id) as session:
            fresh = await self._remember(session, events)
            # The same event may stand twice in one delivery.
            wanted = {event.id: event for event in events if UUID(event.id) in fresh}
            for type_url, group in groupby(wanted.values(), key=attrgetter("payload.type_url")):
                if known := self._handlers.get(type_url):
                    await _hand_over(session, *known, group)

    async def _remember(self, session: WriteSession, events: list[Event]) -> set[UUID]:
        """The ids not seen before, now remembered. A concurrent delivery of the same event waits here."""
        rows = await session.driver.fetch(
            f"INSERT INTO {self._db.service}.inbox (event_id) SELECT unnest($1::uuid[])"
            " ON CONFLICT DO NOTHING RETURNING event_id",
            [UUID(event.id) for event in events],
        )
        if UUID(events[0].id).bytes[-1] == 0:
            # Now and then: nobody delivers again what was acknowledged so long ago.
            await session.driver.execute(
                f"DELETE FROM {self._db.service}.inbox WHERE handled_at < now() - interval '{KEPT}'"  # noqa: S608
            )
        return {row["event_id"] for row in rows}


async def _hand_over(
    session: WriteSession, kind: type[Message], handle: Handle | Together, events: Iterable[Event]
) -> None:
    read = ((event, kind.FromString(event.payload.value)) for event in events)
    if isinstance(handle, Together):
        await handle.handle(session, list(read))
        return
    for event, payload in read:
        await handle(session, event, payload)


def _refuse_foreign(events: Iterable[Event]) -> None:
    """A service tells what happened in itself: nobody else may say that an approval was given."""
    call = current_call()
    caller = call.principal.service if call and call.principal else ""
    for event in events:
        package = event.payload.type_url.removeprefix(TYPE_URL).split(".")
        if caller and package[0] == "storyloom" and package[1] in SERVICES and package[1] != caller:
            raise PermissionDenied(
                f"The service {caller} may not tell of {event.payload.type_url}.",
                reason=ErrorReason.SERVICE_NOT_ALLOWED,
            )


def _result(event: Event, status: Any) -> DeliveryResult:
    return DeliveryResult(event_id=event.id, status=status)
