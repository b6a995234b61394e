"""What follows from the events that phones tell of, in whatever order they arrive: pure functions of sets of events."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from services.learning.rules import NOTHING, Activity, Span, Status, active_times, advance

# What a phone's clock may be off: a wrong date, not a wrong year. Beyond, its times say nothing.
MOST_SKEW = timedelta(days=31)
# Clocks are corrected by whole minutes: what is less is the way of the request.
PRECISION = timedelta(minutes=1)
# What happened longer ago is not recorded: a phone that was off for so long starts anew.
OLDEST = timedelta(days=365)
# A day of heartbeats, and more.
MOST_SIGNS = 5_000


def skew(send_time: datetime, receive_time: datetime) -> timedelta | None:
    """What to add to the times of a client whose clock said `send_time` when the request came; None when that is too
    much to be believed.

    Rounded to whole minutes, so that it is the same for each batch however long that was on its way.
    """
    off = receive_time - send_time
    return None if abs(off) > MOST_SKEW else (off + PRECISION / 2) // PRECISION * PRECISION


def corrected(event_time: datetime, send_time: datetime, skew: timedelta) -> datetime:
    """The time of an event by the server's clock. Nothing happened after it was told of."""
    return min(event_time, send_time) + skew


def was_taken(begins: Sequence[datetime], ends: Sequence[datetime | None], at: datetime) -> bool:
    """Whether a course was taken at the time, by when each enrolment in it began and ended, None for not yet.

    It does not depend on when that is asked, once the time has come; a minute's grace is for the clock's precision.
    """
    return any(
        begin - PRECISION <= at and (end is None or at <= end + PRECISION)
        for begin, end in zip(begins, ends, strict=True)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An event as a phone told of it, its time corrected. `id` is made of the user and `event_id`; `kind` is the name
    of what happened; `digest` tells whether two events that have one `event_id` are one."""

    id: UUID
    event_id: UUID
    kind: str
    at: datetime
    digest: bytes
    lesson_id: UUID | None = None
    story_id: UUID | None = None
    vocabulary_id: UUID | None = None
    session_id: UUID | None = None
    status: str | None = None
    position_percent: int | None = None
    interactions: int | None = None
    rating: str = ""
    duration: timedelta = timedelta(0)
    words: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class LessonEvent:
    """What the learner did in a lesson; `status` is empty when the event tells none."""

    at: datetime
    status: str
    position_percent: int


@dataclass(frozen=True, slots=True)
class Advance:
    """How far events brought a learner in a lesson; joined with what is recorded by the greater status and percentage,
    the earlier start and completion and the later view."""

    status: Status
    position_percent: int
    start_time: datetime | None
    last_view_time: datetime
    complete_time: datetime | None


def advanced(
    events: Iterable[LessonEvent], reset_time: datetime | None = None, reopen_time: datetime | None = None
) -> Advance:
    """How far the events, at least one, brought the learner, as if all of them had come in time.

    What happened before a teacher set the lesson back to its beginning (`reset_time`) is a view and nothing else; what
    completed it before it was set back at all (`reopen_time`) brought the learner to its end.
    """
    status, percent = NOTHING
    starts, completions, views = [], [], []
    for one in events:
        views.append(one.at)
        if reset_time and one.at <= reset_time:
            continue
        told, seen = one.status, one.position_percent
        if told == Status.COMPLETED:
            if reopen_time and one.at <= reopen_time:
                told, seen = Status.IN_PROGRESS, 100
            else:
                completions.append(one.at)
        status, percent = advance((status, percent), (told, seen))
        if advance(NOTHING, (told, seen))[0] is not Status.NOT_STARTED:
            starts.append(one.at)
    return Advance(
        status=Status(status),
        position_percent=percent,
        start_time=min(starts, default=None),
        last_view_time=max(views),
        complete_time=min(completions, default=None),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """An event of a session, a sign of life. `kind` is that of the event; `id` tells apart those of one moment."""

    id: UUID
    kind: str
    at: datetime
    interactions: int = 0
    lesson_id: UUID | None = None
    story_id: UUID | None = None

    @property
    def place(self) -> tuple[datetime, UUID]:
        """Where it stands among the signs."""
        return self.at, self.id


def sign_of(event: Any) -> Sign:
    """Of a `Told`, or a row with its fields."""
    return Sign(
        id=event.id,
        kind=event.kind,
        at=event.at,
        interactions=event.interactions or 0,
        lesson_id=event.lesson_id,
        story_id=event.story_id,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A session as its signs of life tell of it. Its state is `ended` or, without an end, `abandoned`."""

    lesson_id: UUID
    story_id: UUID | None
    start_time: datetime
    last_seen_time: datetime
    active_duration: timedelta
    active_times: Sequence[Span]
    interactions: int
    state: str


def held(signs: Iterable[Sign]) -> Held | None:
    """The session of these signs, in any order; None before its start is told of.

    It lasts from its first start to the first end after that; what else there is does not belong to it. Signs of one
    moment are one. Time and interactions count as online (`rules.Activity`).
    """
    ordered = sorted(signs, key=lambda one: one.place)
    start = next((one for one in ordered if one.kind == "session_started" and one.lesson_id), None)
    if start is None or start.lesson_id is None:
        return None
    end = next((one for one in ordered if one.kind == "session_ended" and one.at >= start.at), None)
    moments: dict[datetime, int] = {}
    for one in ordered:
        if start.at <= one.at and (end is None or one.at <= end.at):
            moments[one.at] = moments.get(one.at, 0) + one.interactions
    account = Activity(timedelta(0), start.at, 0)
    for at, interactions in moments.items():
        account = account.accrue(at, interactions)
    return Held(
        lesson_id=start.lesson_id,
        story_id=start.story_id,
        start_time=start.at,
        last_seen_time=account.last_seen,
        active_duration=account.active,
        active_times=active_times(moments),
        interactions=account.interactions,
        state="ended" if end else "abandoned",
    )
