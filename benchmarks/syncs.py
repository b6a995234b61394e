"""`python -m benchmarks.syncs`: what it costs to take five hundred events of a phone and to tell it what has changed;
on a PostgreSQL of its own, made for it and thrown away."""

import asyncio
import random
import sys
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any
from uuid import UUID

from benchmarks.__main__ import echo_cost
from benchmarks.report import REFERENCE_ECHO, table, verdict
from benchmarks.reviews import call_of
from benchmarks.trees import Server, own_server
from kit.auth import current
from kit.call import enter
from kit.ids import new_id
from kit.validation import validator
from services.learning.client_events import ClientEventService
from services.learning.projections import LessonIndex, Words
from services.learning.queries.vocabulary_progress import list_met
from storyloom.learning.v1.client_events_pb2 import ClientEvent, SyncClientEventsRequest

EVENTS, LESSONS, WORDS, SESSIONS, BEATS = 500, 20, 200, 10, 12
ROUNDS = 9
LIMIT_MS = 250.0
CHECK = validator(SyncClientEventsRequest)
COURSE = new_id()
LESSON = """
INSERT INTO learning.lesson_index (tenant_id, id, course_id, unit_id, title, status, position, prerequisite_ids)
VALUES ($1, $2, $3, uuidv7(), 'Bài', 'published', 1, '{}')
"""
ENROLMENT = """
INSERT INTO learning.enrollments (tenant_id, user_id, course_id, created_at)
VALUES ($1, $2, $3, now() - interval '90 d')
"""


class Taught(Words):
    """Words of which there are all: content is not asked."""

    async def existing(self, ids: Collection[UUID]) -> set[UUID]:
        async with self._db.read() as session:
            await list_met(session, current().subject, ids)
        return set(ids)


def events(lessons: Sequence[UUID], words: Sequence[UUID], day: float) -> list[ClientEvent]:
    """Five hundred, as of a day with a phone: half of them reviews."""
    at, made = datetime.now(UTC) - timedelta(days=day), []

    def note(seconds: float, **happening: dict[str, Any]) -> None:
        one = ClientEvent(event_id=str(new_id()), **happening)
        one.event_time.FromDatetime(at + timedelta(seconds=seconds))
        made.append(one)

    for number in range(SESSIONS):
        session, lesson, start = str(new_id()), str(lessons[number]), number * 600
        note(start, session_started={"session_id": session, "lesson_id": lesson})
        for beat in range(BEATS):
            note(start + 30 * beat, session_heartbeat={"session_id": session, "interactions": 7})
        note(start + 30 * BEATS, session_ended={"session_id": session})
    for number in range(60):
        lesson = str(lessons[number % LESSONS])
        note(number, lesson_progressed={"lesson_id": lesson, "position_percent": number})
    for number in range(50):
        seen = [str(one) for one in random.sample(words, 10)]
        note(number, story_read={"story_id": str(new_id()), "vocabulary_ids": seen})
    while len(made) < EVENTS:
        word = str(words[len(made) % WORDS])
        note(len(made), review_answered={"vocabulary_id": word, "rating": "REVIEW_RATING_GOOD"})
    random.shuffle(made)
    return made


async def spend(server: Server, service: ClientEventService, told: list[ClientEvent]) -> float:
    """Milliseconds of processor time, here and in the database, of a call as it comes from the network."""
    request = SyncClientEventsRequest(device_id=str(new_id()), events=told, max_changes=1_000)
    request.send_time.GetCurrentTime()
    sent = request.SerializeToString()
    before = server.used()
    read = SyncClientEventsRequest.FromString(sent)
    CHECK(read)
    answer = await service.SyncClientEvents(read, None)
    answer.SerializeToString()
    spent = (server.used() - before) / 1e3
    assert not any(one.problem for one in answer.results), answer.results
    return spent


async def measure(server: Server) -> list[tuple[str, float]]:
    tenant_id, lessons = new_id(), [new_id() for _ in range(LESSONS)]
    for lesson in lessons:
        await server.superuser.execute(LESSON, tenant_id, lesson, COURSE)
    service = ClientEventService(server.db, LessonIndex(server.db, None), Taught(server.db, None))
    spent: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        user_id, words = new_id(), [new_id() for _ in range(WORDS)]
        await server.superuser.execute(ENROLMENT, tenant_id, user_id, COURSE)
        enter(call_of(tenant_id, user_id))
        days = {day: events(lessons, words, day) for day in (30, 10, 20)}
        for name, told in (
            ("of a new learner", days[30]),
            ("three weeks later", days[10]),
            ("from between", days[20]),
            ("once more", days[20]),
            ("none: what has changed", []),
        ):
            spent.setdefault(name, []).append(await spend(server, service, told))
    return [(name, median(found)) for name, found in spent.items()]


async def main() -> int:
    echo = await asyncio.to_thread(echo_cost)
    async with own_server("learning") as server:
        rows = await measure(server)
    limit = LIMIT_MS * echo / REFERENCE_ECHO
    told = [(name, f"{spent:.0f}", f"{limit:.0f}", verdict(spent, limit)) for name, spent in rows]
    print("\n".join(table([(f"sync of {EVENTS} events, CPU ms", "found", "limit", "verdict"), *told])))
    print(f"An echo costs {echo:.0f} µs here and now; the limit of {LIMIT_MS:.0f} ms is for {REFERENCE_ECHO:.0f} µs.")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
