"""Attempts are as the model has them, after any sequence of calls from several devices, at any time."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from services.assessment import attempts, extensions, jobs
from storyloom.assessment.v1.attempts_pb2 import Attempt, AttemptState
from storyloom.assessment.v1.events_pb2 import AttemptGraded
from storyloom.assessment.v1.extensions_pb2 import (
    CreateExtensionRequest,
    DeleteExtensionRequest,
    Extension,
    UpdateExtensionRequest,
)
from storyloom.assessment.v1.extensions_pb2_grpc import ExtensionServiceStub
from storyloom.assessment.v1.questions_pb2 import Question
from storyloom.assessment.v1.quizzes_pb2 import ArchiveQuizRequest, Quiz, UpdateQuizRequest
from storyloom.assessment.v1.quizzes_pb2_grpc import QuizServiceStub
from tests.assessment.calls import entries, get, save, start, submit
from tests.assessment.conftest import Bank, graded_events, picked
from tests.assessment.test_jobs import sweep
from tests.profile import PROOF
from tests.stack import Person, School

EXAMPLES, STEPS = (100, 60) if PROOF else (4, 25)
LIMIT, MINUTE = timedelta(minutes=10), timedelta(minutes=1)
ALLOWED = 2
WHO = st.sampled_from(["student", "student2"])
# The first question is answered by the first choice, the second by the second.
RIGHT = (0, 1)
PICKS = st.tuples(st.sampled_from(RIGHT), st.sampled_from(RIGHT))


@dataclass
class Taken:
    """An attempt in the model; `picks` are the choices by question."""

    id: str
    start: datetime
    deadline: datetime | None
    state: str = "open"
    picks: dict[int, int] = field(default_factory=dict)

    @property
    def score(self) -> str:
        return str(sum(self.picks.get(n) == right for n, right in enumerate(RIGHT)))


@dataclass
class Learner:
    person: Person
    taken: list[Taken] = field(default_factory=list)
    extension: Extension | None = None

    @property
    def open(self) -> Taken | None:
        return next((one for one in self.taken if one.state == "open"), None)


async def reason_or(call: Awaitable[Any]) -> Any:
    """The answer, or the name of the reason for which there is none."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        details = status_pb2.Status.FromString(dict(error.trailing_metadata() or ())["grpc-status-details-bin"]).details
        info = error_details_pb2.ErrorInfo()
        assert any(one.Unpack(info) for one in details)
        return info.reason


async def called(call: Callable[[], Awaitable[Any]]) -> Any:
    """Stubs make their calls in the thread of the loop."""
    return await call()


class Machine(RuleBasedStateMachine):
    """Set by the test: the loop in which the services run, the school, and the clock of the services."""

    loop: asyncio.AbstractEventLoop
    school: School
    questions: list[Question]
    clock: list[datetime]
    events: list[AttemptGraded]

    def await_(self, call: Awaitable[Any]) -> Any:
        async def awaited() -> Any:
            return await call

        return asyncio.run_coroutine_threadsafe(awaited(), self.loop).result(60)

    def together(self, *calls: Awaitable[Any]) -> list[Any]:
        async def all_of_them() -> list[Any]:
            return list(await asyncio.gather(*map(reason_or, calls)))

        return self.await_(all_of_them())

    @initialize()
    def begin(self) -> None:
        self.learners = {name: Learner(getattr(self.school, name)) for name in ("student", "student2")}
        self.close: datetime | None = None
        self.archived = False
        bank = Bank(self.school.teacher)
        self.quiz = self.await_(bank.quiz(*self.questions, time_limit=LIMIT, attempts_allowed=ALLOWED))

    @property
    def now(self) -> datetime:
        return self.clock[0]

    def closing(self, learner: Learner) -> datetime | None:
        own = learner.extension and learner.extension.HasField("close_time")
        return learner.extension.close_time.ToDatetime(tzinfo=UTC) if learner.extension and own else self.close

    def deadline(self, learner: Learner, begun: datetime) -> datetime:
        extra = learner.extension.extra_time.ToTimedelta() if learner.extension else timedelta(0)
        ends = [begun + LIMIT + extra, self.closing(learner)]
        return min(end for end in ends if end)

    def expire(self) -> None:
        """What time has brought about by now."""
        for learner in self.learners.values():
            if (taken := learner.open) and taken.deadline and self.now >= taken.deadline:
                taken.state = "expired"

    @rule(minutes=st.integers(1, 8))
    def let_pass(self, minutes: int) -> None:
        self.clock[0] += minutes * MINUTE
        self.expire()

    @rule(who=WHO, devices=st.integers(1, 2))
    def start(self, who: str, devices: int) -> None:
        learner = self.learners[who]
        found = self.together(*(start(learner.person, self.quiz) for _ in range(devices)))
        allowed = ALLOWED + (learner.extension.extra_attempts if learner.extension else 0)
        closing = self.closing(learner)
        if learner.open is None:
            if self.archived:
                assert set(found) <= {"WRONG_STATE", "PERMISSION_REQUIRED"}
                return
            if (closing and self.now >= closing) or len(learner.taken) >= allowed:
                assert set(found) == {"ATTEMPT_NOT_ALLOWED"}
                return
            learner.taken.append(Taken(found[0].id, self.now, self.deadline(learner, self.now)))
        assert {one.id for one in found} == {learner.taken[-1].id}
        assert found[0].number == len(learner.taken)

    @precondition(lambda self: any(one.taken for one in self.learners.values()))
    @rule(who=WHO, picks=PICKS, submits=st.booleans())
    def answer_on_two_devices(self, who: str, picks: tuple[int, int], submits: bool) -> None:
        """Each device answers one of the questions; perhaps the second one hands in with it."""
        learner = self.learners[who]
        if not learner.taken:
            return
        taken = learner.taken[-1]
        answers = [picked(question, pick) for question, pick in zip(self.questions, picks, strict=True)]
        second = (submit if submits else save)(learner.person, Attempt(id=taken.id), answers[1])
        first, last = self.together(save(learner.person, Attempt(id=taken.id), answers[0]), second)
        if taken.state == "open":
            # Who is late finds the attempt over, and what they had to say does not count.
            assert not isinstance(last, str)
            assert first == "WRONG_STATE" if isinstance(first, str) else True
            assert submits or not isinstance(first, str)
            taken.picks |= {1: picks[1]} if isinstance(first, str) else {0: picks[0], 1: picks[1]}
            taken.state = "graded" if submits else "open"
            return
        over = "ATTEMPT_NOT_ALLOWED" if taken.state == "expired" else "WRONG_STATE"
        assert first in {over, "WRONG_STATE"}
        if submits and taken.state == "graded":
            assert last.result.score == taken.score
        else:
            assert last in {over, "WRONG_STATE", "ATTEMPT_NOT_ALLOWED"} or last.result.score == taken.score

    @precondition(lambda self: any(one.open for one in self.learners.values()))
    @rule(who=WHO)
    def submit_twice_at_once(self, who: str) -> None:
        learner = self.learners[who]
        if (taken := learner.open) is None:
            return
        first, second = self.together(*(submit(learner.person, Attempt(id=taken.id)) for _ in range(2)))
        taken.state = "graded"
        assert first == second
        self.compare(learner, taken, first)

    @precondition(lambda self: not self.archived)
    @rule(who=WHO, minutes=st.integers(0, 20), more=st.integers(0, 1), closes=st.none() | st.integers(1, 30))
    def extend(self, who: str, minutes: int, more: int, closes: int | None) -> None:
        learner = self.learners[who]
        given = Extension(quiz_id=self.quiz.id, user_id=learner.person.user_id, extra_attempts=more)
        given.extra_time.FromTimedelta(minutes * MINUTE)
        if closes:
            given.close_time.FromDatetime(self.now + closes * MINUTE)
        stub = self.school.teacher.stub(ExtensionServiceStub, "assessment")
        if learner.extension is None:
            create = CreateExtensionRequest(extension=given)
            learner.extension = self.await_(called(lambda: stub.CreateExtension(create)))
        else:
            given.id = learner.extension.id
            request = UpdateExtensionRequest(extension=given)
            request.update_mask.paths.extend(["extra_time", "extra_attempts", "close_time"])
            learner.extension = self.await_(called(lambda: stub.UpdateExtension(request)))
        self.moved(learner)

    @rule(who=WHO)
    def take_back(self, who: str) -> None:
        learner = self.learners[who]
        if learner.extension is not None:
            stub = self.school.teacher.stub(ExtensionServiceStub, "assessment")
            self.await_(called(lambda: stub.DeleteExtension(DeleteExtensionRequest(id=learner.extension.id))))
            learner.extension = None
            self.moved(learner)

    def moved(self, learner: Learner) -> None:
        if taken := learner.open:
            taken.deadline = max(self.deadline(learner, taken.start), self.now)
            self.expire()

    @rule()
    def sweep(self) -> None:
        self.await_(sweep(self.school))

    @precondition(lambda self: not self.archived)
    @rule(minutes=st.integers(1, 40))
    def set_closing(self, minutes: int) -> None:
        """Attempts that are open keep their deadline."""
        changed = Quiz(id=self.quiz.id)
        self.close = self.now + minutes * MINUTE
        changed.close_time.FromDatetime(self.close)
        stub = self.school.teacher.stub(QuizServiceStub, "assessment")
        self.await_(called(lambda: stub.UpdateQuiz(UpdateQuizRequest(quiz=changed))))

    @precondition(lambda self: not self.archived and sum(len(one.taken) for one in self.learners.values()) > 2)
    @rule()
    def archive(self) -> None:
        stub = self.school.teacher.stub(QuizServiceStub, "assessment")
        self.await_(called(lambda: stub.ArchiveQuiz(ArchiveQuizRequest(id=self.quiz.id))))
        self.archived = True

    @rule(who=WHO)
    def look(self, who: str) -> None:
        learner = self.learners[who]
        for taken in learner.taken[-1:]:
            self.compare(learner, taken, self.await_(get(learner.person, Attempt(id=taken.id))))

    def compare(self, learner: Learner, taken: Taken, seen: Attempt) -> None:
        assert AttemptState.Name(seen.state) == f"ATTEMPT_STATE_{taken.state.upper()}"
        assert seen.deadline_time.ToDatetime(tzinfo=UTC) == taken.deadline
        wanted = [picked(self.questions[n], taken.picks[n]) for n in sorted(taken.picks)]
        assert list(seen.responses) == wanted
        assert seen.result.score == ("" if taken.state == "open" else taken.score)
        if taken.state == "expired":
            assert seen.submit_time == seen.deadline_time

    def teardown(self) -> None:
        if not hasattr(self, "quiz"):
            return
        ends = {"open": 0, "graded": 1, "expired": 1}
        for learner in self.learners.values():
            for taken in learner.taken:
                attempt = self.await_(get(learner.person, Attempt(id=taken.id)))
                self.compare(learner, taken, attempt)
                told = [one.attempt_id for one in self.events].count(taken.id)
                actions = [entry.action for entry in self.await_(entries(self.school, attempt))]
                assert (actions.count("submit") + actions.count("expire"), told) == (ends[taken.state],) * 2


class TestAttempts:
    @pytest.mark.slow
    @pytest.mark.timeout(3600 if PROOF else 180)
    async def test_are_as_the_model_has_them(
        self, school: School, bank: Bank, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = [datetime.now(UTC).replace(microsecond=0)]
        for module in (attempts, extensions, jobs):
            monkeypatch.setattr(module, "now", lambda: clock[0])
        first = await bank.choice_question()
        second = await bank.question(
            type="QUESTION_TYPE_MULTIPLE_CHOICE", choices=[{"text": "no"}, {"text": "yes", "correct": True}]
        )
        chances = settings(
            max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=[*HealthCheck]
        )
        async with graded_events(school) as events:
            made = {"loop": asyncio.get_running_loop(), "school": school, "questions": [first, second]}
            kind = type("AttemptMachine", (Machine,), {**made, "clock": clock, "events": events})
            await asyncio.to_thread(run_state_machine_as_test, kind, settings=chances)
