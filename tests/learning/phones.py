"""Phones that were without a connection: the events they tell of, and what the server has of it."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from kit.ids import new_id
from storyloom.learning.v1.client_events_pb2 import (
    ClientEvent,
    ClientEventOutcome,
    ClientEventProblem,
    SyncClientEventsRequest,
    SyncClientEventsResponse,
)
from storyloom.learning.v1.client_events_pb2_grpc import ClientEventServiceStub
from tests.stack import Person

DEVICE = str(new_id())


def event(at: datetime, *, event_id: str = "", **happening: dict[str, Any]) -> ClientEvent:
    """An event of this time; `happening` is the one thing that it tells of, by its name."""
    told = ClientEvent(event_id=event_id or str(new_id()), **happening)
    told.event_time.FromDatetime(at)
    return told


async def sync(
    person: Person,
    events: Iterable[ClientEvent] = (),
    *,
    cursor: str = "",
    off: timedelta = timedelta(0),
    max_changes: int = 0,
    metadata: Sequence[tuple[str, str]] = (),
) -> SyncClientEventsResponse:
    """Sends the events, from a phone whose clock is off by this: ahead if it is positive."""
    request = SyncClientEventsRequest(device_id=DEVICE, events=events, cursor=cursor, max_changes=max_changes)
    request.send_time.FromDatetime(datetime.now(UTC) + off)
    return await person.stub(ClientEventServiceStub, "learning").SyncClientEvents(request, metadata=metadata)


async def pull(person: Person, cursor: str = "", *, most: int = 3) -> tuple[dict[str, Any], str]:
    """Everything that has changed since, by its id, in small parts; and where to go on."""
    found: dict[str, Any] = {}
    while True:
        answer = await sync(person, cursor=cursor, max_changes=most)
        for one in (*answer.vocabulary_progress, *answer.progress, *answer.learning_sessions):
            found[getattr(one, "id", "") or f"progress {one.lesson_id}"] = one
        cursor = answer.next_cursor
        if not answer.more:
            return found, cursor


def outcomes(answer: SyncClientEventsResponse) -> list[str]:
    """What became of the events: `accepted`, `duplicate`, or why it was rejected."""
    return [
        ClientEventProblem.Name(one.problem).removeprefix("CLIENT_EVENT_PROBLEM_").lower()
        if one.problem
        else ClientEventOutcome.Name(one.outcome).removeprefix("CLIENT_EVENT_OUTCOME_").lower()
        for one in answer.results
    ]


def ago(**time: float) -> datetime:
    """A moment before now, to the whole second."""
    return datetime.now(UTC).replace(microsecond=0) - timedelta(**time)


def some_id() -> str:
    return str(new_id())


def uuid(text: str) -> UUID:
    return UUID(text)
