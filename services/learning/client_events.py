"""What phones tell of that had no connection, and what they are told in turn."""

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from kit.auth import current
from kit.call import current_call
from kit.db import Database
from kit.enums import stored_name
from kit.errors import InvalidArgument
from kit.models import now
from services.learning import offline, syncing
from services.learning.learning_sessions import session_to_proto
from services.learning.offline import Told
from services.learning.progress import progress_to_proto
from services.learning.projections import LessonIndex, Words
from services.learning.queries.changes import Changes, Cursor, list_changes
from services.learning.rules import own_id
from services.learning.syncing import Batch
from services.learning.vocabulary_progress import vocabulary_progress_to_proto
from storyloom.learning.v1 import client_events_pb2
from storyloom.learning.v1.client_events_pb2 import ClientEvent, ClientEventResult
from storyloom.learning.v1.progress_pb2 import ProgressStatus
from storyloom.learning.v1.vocabulary_reviews_pb2 import ReviewRating
from storyloom.type.v1.errors_pb2 import ErrorReason

DEFAULT_CHANGES, MOST_CHANGES = 200, 1_000
# Content is asked for those that are new, in so many as it takes at once.
MOST_WORDS, MOST_LESSONS = 2_000, 100
# Readings may have the same words: each of them is kept, and counted, for each reading.
MOST_SEEN = 10_000
VIEWED = "in_progress"


class ClientEventService:
    SERVICE = client_events_pb2.DESCRIPTOR.services_by_name["ClientEventService"]

    def __init__(self, db: Database, index: LessonIndex, words: Words) -> None:
        self.db, self._index, self._words = db, index, words

    async def SyncClientEvents(
        self, request: client_events_pb2.SyncClientEventsRequest, context: Any
    ) -> client_events_pb2.SyncClientEventsResponse:
        user_id, at = current().subject, now()
        since = _opened(request.cursor)
        batch = await self._batch(user_id, request, at)
        most = min(request.max_changes or DEFAULT_CHANGES, MOST_CHANGES)
        if batch.events:
            async with self.db.write() as session:
                await syncing.record(session, batch)
                changes = await list_changes(session, user_id, since, most)
        else:
            async with self.db.read() as reading:
                changes = await list_changes(reading, user_id, since, most)
        return _answer(batch, changes, at)

    async def _batch(
        self, user_id: UUID, request: client_events_pb2.SyncClientEventsRequest, at: datetime
    ) -> Batch:
        """The events with their times corrected, and which of their lessons and words there are."""
        events = list(read_events(user_id, request, at))
        lessons = {one.lesson_id for one in events if one.lesson_id}
        words = {word for one in events for word in (one.vocabulary_id, *one.words) if word}
        seen = sum(len(one.words) for one in events)
        if len(words) > MOST_WORDS or seen > MOST_SEEN or len(lessons) > MOST_LESSONS:
            told = f"name more than {MOST_WORDS:,} words, {MOST_SEEN:,} in all readings, or {MOST_LESSONS} lessons"
            raise InvalidArgument.fields([("events", f"{told}; send fewer")])
        return Batch(
            user_id=user_id,
            device_id=UUID(request.device_id),
            receive_time=at,
            events=events,
            lessons=await self._index.known(lessons) if lessons else lessons,
            words=await self._words.existing(words) if words else words,
        )


def read_events(
    user_id: UUID, request: client_events_pb2.SyncClientEventsRequest, at: datetime
) -> Iterable[Told]:
    """The events, their times corrected by what the client's clock is off."""
    sent = request.send_time.ToDatetime(UTC)
    skew = offline.skew(sent, at)
    if skew is None:
        told = f"is more than {offline.MOST_SKEW.days} days from the server's clock"
        raise InvalidArgument.fields([("send_time", told)])
    return (_event(user_id, one, sent, skew) for one in request.events)


def _event(user_id: UUID, event: ClientEvent, sent: datetime, skew: timedelta) -> Told:
    kind = event.WhichOneof("happening")
    happening: Any = getattr(event, kind)
    event_id = UUID(event.event_id)
    said: dict[str, Any] = {name: UUID(value) for name, value in _ids(happening) if value}
    return Told(
        id=own_id(user_id, event_id),
        event_id=event_id,
        kind=kind,
        at=offline.corrected(event.event_time.ToDatetime(UTC), sent, skew),
        digest=hashlib.sha256(event.SerializeToString(deterministic=True)).digest(),
        **said,
        **READ.get(kind, _nothing)(happening),
    )


def _ids(happening: Any) -> Iterable[tuple[str, str]]:
    for name in ("lesson_id", "story_id", "vocabulary_id", "session_id"):
        if name in happening.DESCRIPTOR.fields_by_name:
            yield name, getattr(happening, name)


def _nothing(happening: Any) -> dict[str, Any]:
    return {}


def _moved(happening: client_events_pb2.LessonProgressed) -> dict[str, Any]:
    status = stored_name(ProgressStatus, happening.status)
    return {"status": status, "position_percent": happening.position_percent}


def _answered(happening: client_events_pb2.ReviewAnswered) -> dict[str, Any]:
    rating = stored_name(ReviewRating, happening.rating)
    return {"rating": rating, "duration": happening.duration.ToTimedelta()}


def _alive(happening: Any) -> dict[str, Any]:
    return {"interactions": happening.interactions}


# What an event says besides ids, by its kind.
READ: dict[str, Any] = {
    "lesson_viewed": lambda _: {"status": VIEWED, "position_percent": 0},
    "lesson_progressed": _moved,
    "story_read": lambda happening: {"words": tuple(dict.fromkeys(map(UUID, happening.vocabulary_ids)))},
    "interacted": _alive,
    "review_answered": _answered,
    "session_heartbeat": _alive,
}


def _answer(batch: Batch, changes: Changes, at: datetime) -> client_events_pb2.SyncClientEventsResponse:
    words, lessons, sessions = changes.rows
    return client_events_pb2.SyncClientEventsResponse(
        results=[_result(one, batch.outcomes[number]) for number, one in enumerate(batch.events)],
        vocabulary_progress=map(vocabulary_progress_to_proto, words),
        progress=map(progress_to_proto, lessons),
        learning_sessions=[session_to_proto(one, at) for one in sessions],
        next_cursor=_sealed(changes.next),
        more=changes.more,
    )


def _result(one: Told, outcome: str) -> ClientEventResult:
    if outcome in {syncing.ACCEPTED, syncing.DUPLICATE}:
        result = ClientEventResult(event_id=str(one.event_id), outcome=f"CLIENT_EVENT_OUTCOME_{outcome.upper()}")
    else:
        result = ClientEventResult(
            event_id=str(one.event_id),
            outcome="CLIENT_EVENT_OUTCOME_REJECTED",
            problem=f"CLIENT_EVENT_PROBLEM_{outcome.upper()}",
        )
    if outcome == syncing.ACCEPTED:
        result.event_time.FromDatetime(one.at)
    return result


def _bound() -> bytes:
    """What a cursor is good for: this user's changes, and nothing else."""
    return f"changes|{current().tenant_id}|{current().subject}".encode()


def _sealed(cursor: Cursor) -> str:
    call = current_call()
    assert call is not None  # noqa: S101  # this is an RPC
    return call.sealer.seal(json.dumps([cursor.change, cursor.kind, cursor.id.hex]).encode(), _bound())


def _opened(sealed: str) -> Cursor:
    call = current_call()
    if not sealed or call is None:
        return Cursor()
    try:
        change, kind, row_id = json.loads(call.sealer.open(sealed, _bound()))
    except InvalidArgument as error:
        told = [("cursor", "is damaged or was made for another user")]
        raise InvalidArgument.fields(told, reason=ErrorReason.INVALID_PAGE_TOKEN) from error
    return Cursor(change, kind, UUID(row_id))
