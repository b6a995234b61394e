"""Histories of learners with several phones, the ways in which they can arrive, and what the server keeps of them."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from kit.access import Access, Snapshot
from kit.auth import Principal
from kit.call import Call, enter
from kit.db import WriteSession
from kit.ids import new_id
from kit.pagination import Sealer
from services.learning import policies, rules, syncing
from services.learning.client_events import read_events
from services.learning.models import Enrollment
from services.learning.queries import progress as progress_queries
from services.learning.queries.client_events import HELD
from services.learning.queries.learners import lock_learner
from services.learning.rules import Status
from services.learning.syncing import Batch
from storyloom.learning.v1.client_events_pb2 import ClientEvent, SyncClientEventsRequest
from tests.learning.phones import event
from tests.learning.reviewing import STATE

START = datetime(2026, 9, 7, 7, 30, tzinfo=UTC)
RATINGS = ("AGAIN", "HARD", "GOOD", "EASY")
STATUSES = ("UNSPECIFIED", "IN_PROGRESS", "COMPLETED")
LESSONS = """
SELECT lesson_id, status, position_percent, start_time, last_view_time, complete_time FROM learning.user_progress
WHERE tenant_id = $1 AND user_id = $2 ORDER BY lesson_id
"""
SESSIONS = f"""
SELECT id, client_session_id, {", ".join(HELD)}, end_time FROM learning.learning_sessions
WHERE tenant_id = $1 AND user_id = $2 ORDER BY id
"""
DAYS = """
SELECT day, active_duration, sessions, lessons_completed, reviews, reviews_forgotten, words_begun, words_learned,
       readings
FROM learning.daily_activity WHERE tenant_id = $1 AND user_id = $2
  AND (active_duration <> '0' OR sessions + lessons_completed + reviews + words_begun + words_learned + readings <> 0)
ORDER BY day
"""
TABLES = (
    *("client_events", "vocabulary_reviews", "vocabulary_exposures", "user_vocabulary_progress", "user_progress"),
    *("learning_sessions", "daily_activity"),
)
Writing = Callable[[], AbstractAsyncContextManager[WriteSession]]
State = dict[str, list[tuple[Any, ...]]]


@dataclass(frozen=True)
class Phone:
    """A phone whose clock is off by this, which is ahead when it is positive."""

    id: UUID
    off: timedelta


@dataclass(frozen=True)
class Done:
    """Something that the server did at a time: a report of the learner's, or, with a `teacher`, an override."""

    at: datetime
    lesson_id: UUID
    status: Status
    percent: int = 0
    teacher: bool = False


@dataclass(frozen=True)
class History:
    """What a learner did, by the true time, on which phone; what the server did; the words and lessons there are."""

    user_id: UUID
    events: Sequence[tuple[datetime, Phone, ClientEvent]]
    done: Sequence[Done]
    lessons: Sequence[UUID]
    words: Sequence[UUID]


def history(random: Random, lessons: Sequence[UUID], *, size: int = 30) -> History:
    """Some weeks of a learner with up to four phones; some things at the same moment."""
    phones = [Phone(new_id(), timedelta(minutes=random.choice((0, 0, -420, 61, 4_000)))) for _ in range(4)]
    phones = phones[: random.randint(1, 4)]
    words, sessions, at = [new_id() for _ in range(5)], [new_id() for _ in range(3)], START
    events, done = [], []
    for _ in range(size):
        at += random.choice((timedelta(0), timedelta(seconds=20), timedelta(seconds=95), timedelta(hours=7)))
        if random.random() < 0.12:
            at += timedelta(seconds=1)
            done.append(_done(random, at, random.choice(lessons)))
            at += timedelta(seconds=1)
            continue
        phone = random.choice(phones)
        happening = _happening(random, lessons, words, sessions)
        events.append((at, phone, event(at + phone.off, **happening)))
    return History(new_id(), events, done, lessons, words)


def _done(random: Random, at: datetime, lesson_id: UUID) -> Done:
    status = random.choice((*Status,))
    if random.random() < 0.5:
        return Done(at, lesson_id, status, teacher=True)
    return Done(at, lesson_id, *rules.advance(rules.NOTHING, (status, random.randint(0, 100))))


def _happening(
    random: Random, lessons: Sequence[UUID], words: Sequence[UUID], sessions: Sequence[UUID]
) -> dict[str, Any]:
    lesson, word, session = (str(random.choice(those)) for those in (lessons, words, sessions))
    status = f"PROGRESS_STATUS_{random.choice(STATUSES)}"
    several = random.sample([str(one) for one in words], random.randint(0, 3))
    return random.choice(
        (
            {"lesson_viewed": {"lesson_id": lesson}},
            {"lesson_progressed": {"lesson_id": lesson, "status": status, "position_percent": random.randint(0, 100)}},
            {"story_read": {"story_id": str(new_id()), "vocabulary_ids": several}},
            {"review_answered": {"vocabulary_id": word, "rating": f"REVIEW_RATING_{random.choice(RATINGS)}"}},
            {"session_started": {"session_id": session, "lesson_id": lesson}},
            {"session_heartbeat": {"session_id": session, "interactions": random.randint(0, 300)}},
            {"interacted": {"session_id": session, "interactions": random.randint(1, 900)}},
            {"session_ended": {"session_id": session}},
        )
    )


Step = Done | tuple[datetime, Phone, list[ClientEvent]]


def in_order(found: History) -> list[Step]:
    """Everything as it happened, one by one."""
    steps: list[tuple[datetime, Step]] = [(one.at, one) for one in found.done]
    steps += [(at, (at, phone, [told])) for at, phone, told in found.events]
    return [step for _, step in sorted(steps, key=lambda pair: pair[0])]


def arriving(random: Random, found: History) -> list[Step]:
    """The same as it may arrive: late, shuffled, some of it twice, in batches of any size; nothing too early."""
    slots: list[list[tuple[datetime, Phone, ClientEvent]]] = [[] for _ in range(len(found.done) + 1)]
    for one in (*found.events, *random.sample(list(found.events), len(found.events) // 3)):
        first = sum(server.at < one[0] for server in found.done)
        slots[random.randint(first, len(found.done))].append(one)
    steps: list[Step] = []
    for number, slot in enumerate(slots):
        if random.random() < 0.8:
            random.shuffle(slot)
        steps += _batches(random, slot)
        steps += found.done[number : number + 1]
    return steps


def _batches(random: Random, slot: Sequence[tuple[datetime, Phone, ClientEvent]]) -> Iterable[Step]:
    """Each from one phone."""
    waiting = list(slot)
    while waiting:
        phone, size = waiting[0][1], random.randint(1, 9)
        sent = [one for one in waiting if one[1] is phone][:size]
        waiting = [one for one in waiting if not any(one is other for other in sent)]
        yield max(one[0] for one in sent) + timedelta(hours=random.choice((0, 1, 30))), phone, [one[2] for one in sent]


async def play(writing: Writing, found: History, random: Random, steps: Iterable[Step]) -> None:
    """Does one step after the other, as the learner."""
    for step in steps:
        async with writing() as session:
            await take(session, found, random, step)


async def take(session: WriteSession, found: History, random: Random, step: Step) -> None:
    enter(call_of(session.tenant_id, found.user_id))
    if isinstance(step, Done):
        await _serve(session, found.user_id, step)
        return
    at, phone, events = step
    request = SyncClientEventsRequest(device_id=str(phone.id), events=events)
    request.send_time.FromDatetime(at + phone.off)
    # What a request is on its way is not what a clock is off.
    received = at + timedelta(seconds=random.uniform(0, 29))
    batch = Batch(
        user_id=found.user_id,
        device_id=phone.id,
        receive_time=received,
        events=list(read_events(found.user_id, request, received)),
        lessons={*found.lessons},
        words={*found.words},
    )
    await syncing.record(session, batch)
    assert {*batch.outcomes.values()} <= {"accepted", "duplicate"}, batch.outcomes


async def _serve(session: WriteSession, user_id: UUID, done: Done) -> None:
    standing = await progress_queries.get_standing(session, user_id, done.lesson_id)
    if not done.teacher:
        await progress_queries.upsert_progress(session, standing, done.status, done.percent, at=done.at, etag="")
        return
    change = await lock_learner(session, user_id)
    standing = await progress_queries.get_standing(session, user_id, done.lesson_id)
    status, percent = rules.override((standing.status, standing.position_percent), done.status)
    await progress_queries.override_progress(session, standing, status, percent, at=done.at, change=change)


async def enrol(session: WriteSession, user_id: UUID, course_id: UUID) -> None:
    session.add(Enrollment(user_id=user_id, course_id=course_id, created_at=START - timedelta(days=30)))
    await session.flush()


async def state(session: WriteSession, user_id: UUID) -> State:
    """All that follows from what the learner did, to the last bit; not how often it was written."""
    queries = {"words": STATE, "lessons": LESSONS, "sessions": SESSIONS, "days": DAYS}
    return {name: [tuple(row) for row in await session.fetch(query, user_id)] for name, query in queries.items()}


async def forget(session: WriteSession, user_id: UUID) -> None:
    """Makes it as if the learner had never done anything."""
    for table in TABLES:
        await session.fetch(f"DELETE FROM learning.{table} WHERE tenant_id = $1 AND user_id = $2", user_id)


def call_of(tenant_id: UUID, user_id: UUID) -> Call:
    snapshot = Snapshot(tenant_id=tenant_id, user_id=user_id, roles=frozenset({"student"}), permissions=frozenset())
    principal = Principal(tenant_id=tenant_id, home_tenant_id=tenant_id, user_id=user_id, snapshot=snapshot)
    return Call(
        rpc="/sync", request_id="sync", access=Access(policies.RULES), sealer=Sealer(b"0" * 32), principal=principal
    )
