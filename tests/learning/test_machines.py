"""Progress and sessions against plain models of them, whatever is done in whatever order, online and told of later."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
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

from services.learning import client_events, learning_sessions, progress
from storyloom.learning.v1.client_events_pb2 import ClientEvent, SyncClientEventsRequest
from storyloom.learning.v1.client_events_pb2_grpc import ClientEventServiceStub
from storyloom.learning.v1.learning_sessions_pb2 import LearningSession, LearningSessionState
from storyloom.learning.v1.progress_pb2 import GetProgressRequest, OverrideProgressRequest, ProgressStatus
from storyloom.learning.v1.progress_pb2_grpc import ProgressServiceStub
from tests.learning.conftest import Connection, Course, MakeCourse
from tests.learning.phones import DEVICE, event, outcomes, some_id
from tests.learning.test_client_events import take_long_ago
from tests.learning.test_learning_sessions import beat, begin, end, get
from tests.learning.test_progress import report
from tests.profile import PROOF
from tests.stack import Person, School

EXAMPLES, STEPS = (300, 40) if PROOF else (4, 20)
STATUSES = {0: "not_started", 1: "in_progress", 2: "completed"}
IDLE, ABANDONED = timedelta(seconds=60), timedelta(minutes=30)


class Clock:
    """The service's clock, which stands still until it is told to go on."""

    def __init__(self) -> None:
        self.at = datetime.now(UTC).replace(microsecond=0)

    def __call__(self) -> datetime:
        return self.at


class Machine(RuleBasedStateMachine):
    """What the machines have in common: a learner, a clock, and a loop in another thread."""

    loop: ClassVar[asyncio.AbstractEventLoop]
    school: ClassVar[School]
    make_course: ClassVar[Callable[..., Coroutine[Any, Any, Course]]]
    tables: ClassVar["Connection[Any]"]
    clock: ClassVar[Clock]
    person: Person
    course: Course

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def ask(self, person: Person, stub: Any, rpc: str, request: Any) -> Any:
        async def call() -> Any:
            return await getattr(person.stub(stub, "learning"), rpc)(request)

        return self.do(call())

    @initialize()
    def begin_a_course(self) -> None:
        # Of its own, so that no example knows of another.
        self.person, self.course = self.school.student2, self.do(self.make_course(lessons=2))
        self.do(self.course.enrol(self.person))
        self.do(self.school.settle())
        self.do(take_long_ago(self.tables, self.course))

    @rule(seconds=st.sampled_from((1, 20, 59, 60, 61, 300, 1799, 1801)))
    def time_passes(self, seconds: int) -> None:
        self.clock.at += timedelta(seconds=seconds)

    def tell(self, *events: ClientEvent) -> None:
        request = SyncClientEventsRequest(device_id=DEVICE, events=events, max_changes=1)
        request.send_time.CopyFrom(stamp(self.clock.at))
        answer = self.ask(self.person, ClientEventServiceStub, "SyncClientEvents", request)
        assert set(outcomes(answer)) <= {"accepted", "duplicate"}


def stamp(at: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(at)
    return made


class ProgressMachine(Machine):
    """The model keeps every fact with its time, and plays them through in order by rules that say it once more."""

    def __init__(self) -> None:
        super().__init__()
        self.facts: list[tuple[datetime, int, str, int, int]] = []

    def note(self, at: datetime, kind: str, status: int, percent: int) -> None:
        self.facts.append((at, len(self.facts), kind, status, percent))

    @rule(status=st.integers(0, 2), percent=st.integers(0, 100))
    def is_reported(self, status: int, percent: int) -> None:
        self.do(report(self.person, self.course.lesson_ids[0], percent, status + 1))
        self.note(self.clock.at, "told", status, percent)

    @rule(late=st.integers(0, 5_000), status=st.integers(0, 2), percent=st.integers(0, 100), twice=st.booleans())
    def is_told_of_later(self, late: int, status: int, percent: int, twice: bool) -> None:
        at = self.clock.at - timedelta(seconds=late, microseconds=500)
        lesson = {"lesson_id": self.course.lesson_ids[0], "status": status + 1, "position_percent": percent}
        told = event(at, lesson_progressed=lesson)
        self.tell(told, *([told] if twice else []))
        self.note(at, "told", status, percent)

    @rule(status=st.integers(0, 2))
    def is_overridden(self, status: int) -> None:
        request = OverrideProgressRequest(
            lesson_id=self.course.lesson_ids[0], user_id=self.person.user_id, status=status + 1, reason="x"
        )
        self.ask(self.school.teacher, ProgressServiceStub, "OverrideProgress", request)
        self.note(self.clock.at, "override", status, 0)
        # What happens after it is later than it.
        self.clock.at += timedelta(milliseconds=1)

    def model(self) -> tuple[int, int, datetime | None, datetime | None]:
        status, percent, start, done = 0, 0, None, None
        for at, _, kind, told, seen in sorted(self.facts):
            if kind == "override":
                status, percent = told, {0: 0, 1: percent, 2: 100}[told]
                start = None if told == 0 else start or at
                done = None if told != 2 else done or at
                continue
            status = max(status, told, 1 if seen else 0)
            percent = 100 if status == 2 else max(percent, seen)
            if told or seen:
                start = start or at
            if told == 2:
                done = done or at
        return status, percent, start, done

    @invariant()
    def is_what_the_facts_say(self) -> None:
        if not self.facts:
            return
        request = GetProgressRequest(lesson_id=self.course.lesson_ids[0])
        found = self.ask(self.person, ProgressServiceStub, "GetProgress", request)
        times = [time_of(found, name) for name in ("start_time", "complete_time")]
        status, percent, start, done = self.model()
        assert ProgressStatus.Name(found.status) == f"PROGRESS_STATUS_{STATUSES[status].upper()}"
        assert (found.position_percent, times) == (percent, [start, done])


class SessionMachine(Machine):
    """Sessions that are opened here, and one that a phone tells of in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions: dict[str, dict[str, Any]] = {}
        self.open = ""
        self.name, self.signs = some_id(), dict[datetime, tuple[str, int]]()

    def heard(self, interactions: int = 0) -> None:
        one = self.sessions[self.open]
        passed = self.clock.at - one["seen"]
        one["active"] += min(passed, IDLE)
        one["taps"] += min(interactions, int(passed.total_seconds() * 10))
        one["seen"] = self.clock.at

    def is_running(self) -> bool:
        return bool(self.open) and self.clock.at - self.sessions[self.open]["seen"] <= ABANDONED

    @rule()
    def is_opened(self) -> None:
        made = self.do(begin(self.person, self.course.lesson_ids[0]))
        if self.open:
            running = self.is_running()
            if running:
                self.heard()
            self.sessions[self.open]["state"] = "ENDED" if running else "ABANDONED"
        self.open = made.id
        self.sessions[made.id] = {"seen": self.clock.at, "active": timedelta(0), "taps": 0, "state": "OPEN"}

    @precondition(lambda self: self.open)
    @rule(interactions=st.integers(0, 900))
    def is_heard_of(self, interactions: int) -> None:
        running = self.is_running()
        if self.succeeds(beat(self.person, self.open, interactions)):
            assert running
            self.heard(interactions)
        else:
            assert not running

    @precondition(lambda self: self.open)
    @rule()
    def is_ended(self) -> None:
        running = self.is_running()
        if self.succeeds(end(self.person, self.open)):
            assert running
            self.heard()
            self.sessions[self.open]["state"], self.open = "ENDED", ""
        else:
            assert not running

    def succeeds(self, work: Coroutine[Any, Any, Any]) -> bool:
        try:
            self.do(work)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
            return False
        return True

    @rule(
        late=st.integers(0, 900),
        kind=st.sampled_from(("session_started", "session_heartbeat", "interacted", "session_ended")),
        taps=st.integers(1, 900),
    )
    def is_told_of_later(self, late: int, kind: str, taps: int) -> None:
        at = self.clock.at - timedelta(seconds=late)
        if at in self.signs:
            return
        said: dict[str, Any] = {"session_id": self.name}
        if kind == "session_started":
            said["lesson_id"] = self.course.lesson_ids[1]
        elif kind != "session_ended":
            said["interactions"] = taps
        self.tell(event(at, **{kind: said}))
        self.signs[at] = kind, taps if "interactions" in said else 0

    def told(self) -> dict[str, Any] | None:
        """The phone's session: from its first start to the end that follows."""
        found: dict[str, Any] | None = None
        for at in sorted(self.signs):
            kind, taps = self.signs[at]
            if found is None:
                if kind == "session_started":
                    found = {"seen": at, "active": timedelta(0), "taps": 0, "state": "ABANDONED"}
                continue
            if found["state"] == "ENDED":
                break
            passed = at - found["seen"]
            found["active"] += min(passed, IDLE)
            found["taps"] += min(taps, int(passed.total_seconds() * 10))
            found["seen"] = at
            if kind == "session_ended":
                found["state"] = "ENDED"
        return found

    @invariant()
    def are_as_the_model_has_them(self) -> None:
        for session_id, one in list(self.sessions.items())[-2:]:
            found = self.do(get(self.person, session_id))
            state = "ABANDONED" if session_id == self.open and not self.is_running() else one["state"]
            self.compare(found, one | {"state": state})
        query = "SELECT id FROM learning.learning_sessions WHERE client_session_id = $1"
        row_id = self.do(self.tables.fetchval(query, UUID(self.name)))
        wanted = self.told()
        assert (row_id is None) == (wanted is None)
        if wanted:
            self.compare(self.do(get(self.person, str(row_id))), wanted)

    def compare(self, found: LearningSession, wanted: dict[str, Any]) -> None:
        assert found.state == LearningSessionState.Value(f"LEARNING_SESSION_STATE_{wanted['state']}")
        assert found.active_duration.ToTimedelta() == wanted["active"]
        assert (found.interactions, time_of(found, "last_seen_time")) == (wanted["taps"], wanted["seen"])


def time_of(message: Any, name: str) -> datetime | None:
    return getattr(message, name).ToDatetime(UTC) if message.HasField(name) else None


@pytest.mark.timeout(3600 if PROOF else 60)
@pytest.mark.parametrize("machine", [ProgressMachine, SessionMachine])
async def test_does_what_the_model_does(
    machine: type[Machine],
    school: School,
    make_course: MakeCourse,
    tables: "Connection[Any]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    for module in (client_events, learning_sessions, progress):
        monkeypatch.setattr(module, "now", clock)
    machine.loop, machine.school, machine.tables = asyncio.get_running_loop(), school, tables
    machine.make_course, machine.clock = staticmethod(make_course), clock
    found = settings(
        max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)
    )
    await asyncio.to_thread(run_state_machine_as_test, machine, settings=found)
