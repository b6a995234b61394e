"""What is kept of each day is what the rows say one by one, whatever happened to them and in whatever order."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kit.db import WriteSession
from kit.ids import NIL, new_id
from services.learning.learning_sessions import accrue
from services.learning.models import LearnerSettings, LearningSession
from services.learning.projections import on_attempts_graded
from services.learning.queries.daily_activity import COLUMNS, recount
from services.learning.queries.learners import find_settings_to_change, lock_learner
from services.learning.queries.learning_sessions import get_session_to_change, insert_session
from services.learning.queries.progress import override_progress, upsert_progress
from services.learning.queries.rebuilding import rebuild_learner
from services.learning.queries.vocabulary_progress import NewExposure, NewReview, append_exposures
from services.learning.queries.vocabulary_reviews import append_reviews
from services.learning.rules import Status
from storyloom.assessment.v1.events_pb2 import AttemptGraded
from storyloom.event.v1.events_pb2 import Event
from tests.learning.reviewing import RATINGS, writing
from tests.profile import PROOF
from tests.stack import School

# With days of 23 and 25 hours, of 23.5 and 24.5, at the edges of the world, and one that skipped a day.
ZONES = ("UTC", "Asia/Ho_Chi_Minh", "America/New_York", "Australia/Lord_Howe", "Pacific/Kiritimati", "America/St_Johns")
# Around the changes of clocks in spring of both halves of the world.
START = datetime(2026, 3, 6, 21, tzinfo=UTC)
TIMES = st.integers(0, 35 * 24 * 4).map(lambda quarters: START + timedelta(minutes=15 * quarters, microseconds=7))
# Few, so that several things happen to each.
WORDS = tuple(new_id() for _ in range(2))
ATTEMPTS = (1, 2, 3)
LESSONS = tuple(new_id() for _ in range(3))
SESSIONS = "SELECT active_times FROM learning.learning_sessions WHERE tenant_id = $1 AND user_id = $2"
KEPT = f"SELECT day, {', '.join(COLUMNS)} FROM learning.daily_activity WHERE tenant_id = $1 AND user_id = $2"


class Crash(Exception):
    """What happens to a process between two statements."""


class Days(RuleBasedStateMachine):
    """One learner of a real database, to whom things happen in any order, twice, and not after all."""

    school: School
    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        super().__init__()
        self.user_id, self.zone = new_id(), "UTC"
        self.sent: list[NewReview | NewExposure] = []
        self.sessions: list[UUID] = []
        self.begun: list[datetime] = []

    def run(self, work: Callable[[WriteSession], Coroutine[Any, Any, Any]], *, crash: bool = False) -> Any:
        """Does the work in a transaction; with `crash` it is done, rolled back, and done again."""

        async def write(*, fail: bool) -> Any:
            async with writing(self.school) as session:
                result = await work(session)
                if fail:
                    raise Crash
            return result

        async def all_of_it() -> Any:
            if crash:
                with suppress(Crash):
                    await write(fail=True)
            return await write(fail=False)

        return asyncio.run_coroutine_threadsafe(all_of_it(), self.loop).result()

    @initialize(zone=st.sampled_from(ZONES))
    def settle(self, zone: str) -> None:
        self.move(zone, False)

    @rule(
        told=st.lists(
            st.tuples(TIMES, st.sampled_from(("known", *RATINGS)), st.sampled_from(WORDS)), min_size=1, max_size=6
        ),
        again=st.integers(0, 3),
        crash=st.booleans(),
    )
    def review(self, told: list[tuple[datetime, str, UUID]], again: int, crash: bool) -> None:
        reviews = [
            NewReview(
                event_id=new_id(),
                vocabulary_id=word,
                rating="easy" if rating == "known" else rating,
                review_time=at,
                source="known" if rating == "known" else "offline",
            )
            for at, rating, word in told
        ]
        reviews += [one for one in self.sent if isinstance(one, NewReview)][:again]
        self.run(lambda session: append_reviews(session, self.user_id, reviews), crash=crash)
        self.sent = reviews + self.sent

    @rule(at=TIMES, words=st.sets(st.sampled_from(WORDS), min_size=1), again=st.integers(0, 2), crash=st.booleans())
    def read(self, at: datetime, words: set[UUID], again: int, crash: bool) -> None:
        new = NewExposure(event_id=new_id(), story_id=None, vocabulary_ids=sorted(words), exposure_time=at)
        seen = [new, *[one for one in self.sent if isinstance(one, NewExposure)][:again]]
        self.run(lambda session: append_exposures(session, self.user_id, seen), crash=crash)
        self.sent.append(new)

    @rule(at=TIMES, beside=st.booleans(), seconds=st.integers(0, 90), crash=st.booleans())
    def begin_session(self, at: datetime, beside: bool, seconds: int, crash: bool) -> None:
        """Some of them soon after another one began; some just before midnight."""
        at = self.begun[-1] + timedelta(seconds=seconds) if beside and self.begun else at - timedelta(seconds=seconds)

        async def work(session: WriteSession) -> UUID:
            change = await lock_learner(session, self.user_id)
            opened = LearningSession(
                user_id=self.user_id,
                lesson_id=LESSONS[0],
                start_time=at,
                last_seen_time=at,
                end_time=at,
                state="ended",
                change=change,
            )
            await insert_session(session, opened)
            return opened.id

        self.sessions.append(self.run(work, crash=crash))
        self.begun.append(at)

    @precondition(lambda self: self.sessions)
    @rule(which=st.integers(0, 99), seconds=st.integers(0, 60), crash=st.booleans())
    def go_on(self, which: int, seconds: int, crash: bool) -> None:
        async def work(session: WriteSession) -> None:
            await lock_learner(session, self.user_id)
            running = await get_session_to_change(session, self.sessions[which % len(self.sessions)])
            await accrue(session, running, running.last_seen_time + timedelta(seconds=seconds))

        self.run(work, crash=crash)

    @rule(at=TIMES, lesson=st.sampled_from(LESSONS), done=st.booleans(), crash=st.booleans())
    def report(self, at: datetime, lesson: UUID, done: bool, crash: bool) -> None:
        standing = SimpleNamespace(user_id=self.user_id, lesson_id=lesson, course_id=NIL)
        status = Status.COMPLETED if done else Status.IN_PROGRESS
        self.run(lambda session: upsert_progress(session, standing, status, 50, at=at, etag=""), crash=crash)

    @rule(at=TIMES, lesson=st.sampled_from(LESSONS), status=st.sampled_from(list(Status)), crash=st.booleans())
    def override(self, at: datetime, lesson: UUID, status: Status, crash: bool) -> None:
        async def work(session: WriteSession) -> None:
            change = await lock_learner(session, self.user_id)
            row = await session.fetchrow(
                "SELECT revision FROM learning.user_progress WHERE tenant_id = $1 AND user_id = $2 AND lesson_id = $3",
                self.user_id,
                lesson,
            )
            standing = SimpleNamespace(
                user_id=self.user_id, lesson_id=lesson, course_id=NIL, revision=row.revision if row else 0
            )
            await override_progress(session, standing, status, 50, at=at, change=change)

        self.run(work, crash=crash)

    @rule(at=TIMES, attempt=st.sampled_from(ATTEMPTS), passed=st.booleans(), crash=st.booleans())
    def grade(self, at: datetime, attempt: int, passed: bool, crash: bool) -> None:
        graded = AttemptGraded(
            attempt_id=str(uuid5(self.user_id, str(attempt))),
            quiz_id=str(NIL),
            user_id=str(self.user_id),
            number=attempt,
            score="1",
            max_score="2",
            percent="50",
            passed=passed,
        )
        graded.grade_time.FromDatetime(at)
        self.run(lambda session: on_attempts_graded(session, [(Event(), graded)]), crash=crash)

    @rule(zone=st.sampled_from(ZONES), crash=st.booleans())
    def move(self, zone: str, crash: bool) -> None:
        async def work(session: WriteSession) -> None:
            await lock_learner(session, self.user_id)
            chosen = await find_settings_to_change(session, self.user_id)
            if chosen is None:
                chosen = LearnerSettings(user_id=self.user_id)
                session.add(chosen)
            chosen.time_zone = zone
            await session.flush()
            await recount(session, self.user_id)

        self.run(work, crash=crash)
        self.zone = zone

    @rule()
    def rebuild_words(self) -> None:
        """What is computed anew from the logs is what is kept: nothing is mended."""
        assert not self.run(lambda session: rebuild_learner(session, self.user_id)).mended

    @invariant()
    def days_are_what_the_rows_say(self) -> None:
        async def work(session: WriteSession) -> tuple[dict[Any, Any], dict[Any, Any], list[Any]]:
            rows = await session.fetch(KEPT, self.user_id)
            kept = {row.day: {name: row[name] for name in COLUMNS if row[name]} for row in rows}
            counted = await count_days(session, self.user_id, ZoneInfo(self.zone))
            await lock_learner(session, self.user_id)
            kept = {day: values for day, values in kept.items() if values}
            return kept, counted, await recount(session, self.user_id)

        kept, counted, differing = self.run(work)
        assert kept == counted
        assert differing == []


async def count_days(session: WriteSession, user_id: UUID, zone: ZoneInfo) -> dict[Any, dict[str, Any]]:
    """The days of a learner counted once more, without what the service counts them with."""
    days: dict[Any, Counter[str]] = {}

    async def each(table: str, at: str, add: Callable[[Any], dict[str, Any]]) -> None:
        for row in await session.fetch(
            f"SELECT * FROM learning.{table} WHERE tenant_id = $1 AND user_id = $2", user_id
        ):
            if row[at] is not None:
                days.setdefault(row[at].astimezone(zone).date(), Counter()).update(add(row))

    await each("learning_sessions", "start_time", lambda row: {"sessions": 1})
    sessions = await session.fetch(SESSIONS, user_id)
    for begin, end in joined((one.lower, one.upper) for row in sessions for one in row.active_times or ()):
        for day, active in _by_day(begin.astimezone(zone), end.astimezone(zone)):
            days.setdefault(day, Counter()).update(active=active // timedelta.resolution)
    await each("user_progress", "complete_time", lambda row: {"lessons_completed": 1})
    await each("vocabulary_reviews", "review_time", _counted_review)
    await each("vocabulary_exposures", "exposure_time", lambda row: {"readings": 1})
    await each("user_vocabulary_progress", "first_review_time", lambda row: {"words_begun": int(not row.known)})
    await each("user_vocabulary_progress", "learn_time", lambda row: {"words_learned": int(not row.known)})
    await each("graded_attempts", "grade_time", lambda row: {"quizzes_passed": int(row.passed)})
    found = {}
    for day, counts in days.items():
        values: dict[str, Any] = {name: count for name, count in counts.items() if count}
        if active := values.pop("active", 0):
            values["active_duration"] = timedelta(microseconds=active)
        if values:
            found[day] = values
    return found


def joined(spans: Iterable[tuple[datetime, datetime]]) -> Iterator[tuple[datetime, datetime]]:
    """Begins and ends of the times in which any of them lasted."""
    changes = sorted((at, by) for begin, end in spans for at, by in ((begin, 1), (end, -1)))
    lasting = 0
    for (at, by), following in pairwise(changes):
        lasting += by
        if lasting:
            yield at, following[0]


def _by_day(begin: datetime, end: datetime) -> Iterator[tuple[date, timedelta]]:
    """Of a time, how much of it lay in each day."""
    day, at = begin.date(), begin.astimezone(UTC)
    while at < end:
        day += timedelta(days=1)
        midnight = datetime.combine(day, time(), tzinfo=begin.tzinfo).astimezone(UTC)
        yield day - timedelta(days=1), max(min(end.astimezone(UTC), midnight) - at, timedelta(0))
        at = max(at, midnight)


def _counted_review(row: Any) -> dict[str, int]:
    if row.source == "known":
        return {}
    return {"reviews": 1, "reviews_forgotten": int(row.rating == "again")}


class TestWhateverHappens:
    @pytest.mark.timeout(3600 if PROOF else 180)
    async def test_days_are_what_the_rows_say(self, school: School) -> None:
        Days.school, Days.loop = school, asyncio.get_running_loop()
        examples, steps = (500, 50) if PROOF else (8, 20)
        found = settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
        )
        await asyncio.to_thread(run_state_machine_as_test, Days, settings=found)
