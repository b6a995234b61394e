"""Attempts: taking quizzes, and what they are worth."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.rpc import status_pb2
from sqlalchemy import event

from storyloom.assessment.v1.attempts_pb2 import (
    Attempt,
    AttemptState,
    AwardReason,
    CreateAttemptRequest,
    GetAttemptRequest,
    ListAttemptsRequest,
    Response,
    SaveResponsesRequest,
    SubmitAttemptRequest,
)
from storyloom.assessment.v1.attempts_pb2_grpc import AttemptServiceStub
from storyloom.assessment.v1.questions_pb2 import GetQuestionRequest, ListQuestionsRequest, UpdateQuestionRequest
from storyloom.assessment.v1.questions_pb2_grpc import QuestionServiceStub
from storyloom.assessment.v1.quizzes_pb2 import (
    ArchiveQuizRequest,
    DeleteQuizRequest,
    GetQuizRequest,
    ListQuizzesRequest,
    Quiz,
    UndeleteQuizRequest,
)
from storyloom.assessment.v1.quizzes_pb2_grpc import QuizServiceStub
from storyloom.audit.v1.audit_logs_pb2 import ListAuditLogsRequest
from storyloom.audit.v1.audit_logs_pb2_grpc import AuditLogServiceStub
from tests.assessment.conftest import Bank, filled, owner_executes, picked, run_out
from tests.stack import Person, School, refused

OPEN, GRADED, EXPIRED = (AttemptState.Value(f"ATTEMPT_STATE_{name}") for name in ("OPEN", "GRADED", "EXPIRED"))


def attempts(person: Person) -> AttemptServiceStub:
    return person.stub(AttemptServiceStub, "assessment")


async def start(person: Person, quiz: Quiz) -> Attempt:
    return await attempts(person).CreateAttempt(CreateAttemptRequest(quiz_id=quiz.id))


async def save(person: Person, attempt: Attempt, *responses: Response, **fields: Any) -> Attempt:
    return await attempts(person).SaveResponses(SaveResponsesRequest(id=attempt.id, responses=responses, **fields))


async def submit(person: Person, attempt: Attempt, *responses: Response, **fields: Any) -> Attempt:
    return await attempts(person).SubmitAttempt(SubmitAttemptRequest(id=attempt.id, responses=responses, **fields))


async def get(person: Person, attempt: Attempt) -> Attempt:
    return await attempts(person).GetAttempt(GetAttemptRequest(id=attempt.id))


async def entries(school: School, attempt: Attempt) -> list[Any]:
    """What the audit log has of the attempt, oldest first."""
    await school.settle()
    stub = school.auditor.stub(AuditLogServiceStub, "audit")
    listed = await stub.ListAuditLogs(ListAuditLogsRequest(entity_type="attempt", entity_id=attempt.id))
    return list(listed.audit_logs)[::-1]


class TestCreateAttempt:
    async def test_asks_the_questions_in_order(self, school: School, bank: Bank) -> None:
        choice = await bank.choice_question(right=("a", "b"), multiple=True)
        blank = await bank.blank_question(["x"], ["y"])
        quiz = await bank.quiz(choice, blank)
        attempt = await start(school.student, quiz)
        assert (attempt.quiz_id, attempt.user_id, attempt.number) == (quiz.id, school.student.user_id, 1)
        assert (attempt.state, attempt.etag) == (OPEN, "1")
        assert not attempt.responses
        assert not attempt.HasField("result")
        first, second = attempt.questions
        assert (first.question_id, first.version, first.prompt, first.multiple) == (choice.id, 1, choice.prompt, True)
        assert [(one.id, one.text) for one in first.choices] == [(one.id, one.text) for one in choice.choices]
        assert (second.question_id, second.blank_count, list(second.choices)) == (blank.id, 2, [])
        assert await get(school.student, attempt) == attempt

    async def test_resumes_the_open_attempt(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        quiz = await bank.quiz(question, attempts_allowed=1)
        attempt = await start(school.student, quiz)
        saved = await save(school.student, attempt, picked(question, 1))
        assert await start(school.student, quiz) == saved
        await school.teacher.stub(QuizServiceStub, "assessment").ArchiveQuiz(ArchiveQuizRequest(id=quiz.id))
        assert await start(school.student, quiz) == saved

    async def test_opens_one_however_many_ask_at_once(self, school: School, bank: Bank) -> None:
        quiz = await bank.quiz(await bank.choice_question())
        made = await asyncio.gather(*(start(school.student, quiz) for _ in range(4)))
        assert len({one.id for one in made}) == 1
        rows = await owner_executes(school, "SELECT id FROM assessment.attempts WHERE quiz_id = $1", quiz.id)
        assert len(rows) == 1
        assert [entry.action for entry in await entries(school, made[0])] == ["create"]

    async def test_is_each_learners_own(self, school: School, bank: Bank) -> None:
        quiz = await bank.quiz(await bank.choice_question(), attempts_allowed=1)
        first, second = await start(school.student, quiz), await start(school.student2, quiz)
        assert first.id != second.id
        assert (first.number, second.number) == (1, 1)

    async def test_counts_attempts_up_to_those_allowed(self, school: School, bank: Bank) -> None:
        quiz = await bank.quiz(await bank.choice_question(), attempts_allowed=2)
        for number in (1, 2):
            attempt = await start(school.student, quiz)
            assert attempt.number == number
            await submit(school.student, attempt)
        async with refused("ATTEMPT_NOT_ALLOWED", code=grpc.StatusCode.FAILED_PRECONDITION):
            await start(school.student, quiz)

    async def test_refuses_outside_the_window(self, school: School, bank: Bank) -> None:
        question, hour, now = await bank.choice_question(), timedelta(hours=1), datetime.now(UTC)
        for window in ({"open_time": now + hour}, {"close_time": now - hour}):
            quiz = await bank.quiz(question, **window)
            async with refused("ATTEMPT_NOT_ALLOWED"):
                await start(school.student, quiz)

    async def test_refuses_quizzes_that_are_not_published(self, school: School, bank: Bank) -> None:
        draft = await bank.quiz(await bank.choice_question(), publish=False)
        async with refused("WRONG_STATE"):
            await start(school.teacher, draft)
        async with refused("PERMISSION_REQUIRED"):
            await start(school.student, draft)

    async def test_finds_no_quiz_of_another_tenant_and_none_that_is_deleted(self, school: School, bank: Bank) -> None:
        quiz = await bank.quiz(await bank.choice_question())
        async with refused("RESOURCE_NOT_FOUND"):
            await start(school.outsider, quiz)
        await school.teacher.stub(QuizServiceStub, "assessment").DeleteQuiz(DeleteQuizRequest(id=quiz.id))
        async with refused("RESOURCE_NOT_FOUND"):
            await start(school.student, quiz)

    async def test_ends_by_the_time_limit_or_the_closing_of_the_quiz(self, school: School, bank: Bank) -> None:
        question, now = await bank.choice_question(), datetime.now(UTC)
        limited = await start(school.student, await bank.quiz(question, time_limit=timedelta(minutes=10)))
        assert limited.deadline_time.ToDatetime() - limited.create_time.ToDatetime() == timedelta(minutes=10)
        close = now + timedelta(minutes=5)
        capped = await start(
            school.student, await bank.quiz(question, time_limit=timedelta(minutes=10), close_time=close)
        )
        assert capped.deadline_time.ToDatetime(tzinfo=UTC) == close
        endless = await start(school.student, await bank.quiz(question))
        assert not endless.HasField("deadline_time")

    async def test_keeps_the_versions_it_started_with(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question(right=("yes",), wrong=("no",))
        quiz = await bank.quiz(question)
        attempt = await start(school.student, quiz)
        changed = type(question).FromString(question.SerializeToString())
        changed.prompt = "The other way round?"
        changed.choices[0].correct, changed.choices[1].correct = False, True
        await school.teacher.stub(QuestionServiceStub, "assessment").UpdateQuestion(
            UpdateQuestionRequest(question=changed)
        )
        assert (await get(school.student, attempt)).questions == attempt.questions
        assert (await submit(school.student, attempt, picked(question, 0))).result.score == "1"
        again = await start(school.student, quiz)
        assert (again.questions[0].version, again.questions[0].prompt) == (2, changed.prompt)
        assert (await submit(school.student, again, picked(question, 0))).result.score == "0"

    async def test_shuffles_each_attempt_in_an_order_of_its_own(self, school: School, bank: Bank) -> None:
        made = [await bank.choice_question(wrong="bcdef") for _ in range(5)]
        quiz = await bank.quiz(*made, shuffle=True)
        questions, choices = set(), set()
        for _ in range(5):
            attempt = await start(school.student, quiz)
            assert (await get(school.student, attempt)).questions == attempt.questions
            questions.add(tuple(one.question_id for one in attempt.questions))
            first = next(one for one in attempt.questions if one.question_id == made[0].id)
            choices.add(tuple(choice.text for choice in first.choices))
            await submit(school.student, attempt)
        assert all(sorted(order) == sorted(one.id for one in made) for order in questions)
        assert len(questions) > 1
        assert len(choices) > 1


class TestGetAttempt:
    async def test_is_for_the_learner_and_the_teachers(self, school: School, bank: Bank) -> None:
        attempt = await start(school.student, await bank.quiz(await bank.choice_question()))
        assert await get(school.teacher, attempt) == attempt
        async with refused("PERMISSION_REQUIRED"):
            await get(school.student2, attempt)
        for person in (school.outsider, school.outsider_admin):
            async with refused("RESOURCE_NOT_FOUND"):
                await get(person, attempt)
        attempt.id = str(uuid4())
        async with refused("RESOURCE_NOT_FOUND"):
            await get(school.student, attempt)

    async def test_grades_what_was_saved_when_time_has_run_out(self, school: School, bank: Bank) -> None:
        one, two = await bank.choice_question(), await bank.blank_question(["river"])
        quiz = await bank.quiz(one, two, time_limit=timedelta(minutes=10), attempts_allowed=2)
        attempt = await start(school.student, quiz)
        await save(school.student, attempt, picked(one, 0))
        await run_out(school, attempt)
        over = await get(school.teacher, attempt)
        assert (over.state, over.result.score, over.result.percent) == (EXPIRED, "1", "50")
        assert over.submit_time == over.deadline_time
        assert await get(school.student, attempt) == over
        assert [entry.action for entry in await entries(school, attempt)] == ["create", "update", "expire"]
        assert (await start(school.student, quiz)).number == 2

    async def test_is_hidden_while_the_quiz_is_deleted(self, school: School, bank: Bank) -> None:
        quiz = await bank.quiz(await bank.choice_question())
        attempt = await start(school.student, quiz)
        stub = school.teacher.stub(QuizServiceStub, "assessment")
        await stub.DeleteQuiz(DeleteQuizRequest(id=quiz.id))
        async with refused("RESOURCE_NOT_FOUND"):
            await get(school.student, attempt)
        listed = await attempts(school.teacher).ListAttempts(ListAttemptsRequest(quiz_id=quiz.id))
        assert not listed.attempts
        await stub.UndeleteQuiz(UndeleteQuizRequest(id=quiz.id))
        assert await get(school.student, attempt) == attempt


class TestListAttempts:
    @pytest.fixture
    async def quiz(self, school: School, bank: Bank) -> Quiz:
        """A quiz that one learner has graded and open, the other expired."""
        question = await bank.choice_question()
        quiz = await bank.quiz(question, time_limit=timedelta(minutes=10))
        await submit(school.student, await start(school.student, quiz), picked(question, 0))
        await start(school.student, quiz)
        await run_out(school, await start(school.student2, quiz))
        return quiz

    async def seen(self, person: Person, quiz: Quiz, **filters: Any) -> list[tuple[str, int]]:
        request = ListAttemptsRequest(quiz_id=quiz.id, **filters)
        return [(one.user_id, one.state) for one in (await attempts(person).ListAttempts(request)).attempts]

    async def test_shows_learners_their_own_and_teachers_all(self, school: School, quiz: Quiz) -> None:
        one, two = school.student.user_id, school.student2.user_id
        assert await self.seen(school.teacher, quiz) == [(two, EXPIRED), (one, OPEN), (one, GRADED)]
        assert await self.seen(school.student, quiz) == [(one, OPEN), (one, GRADED)]
        assert await self.seen(school.student, quiz, user_id=two) == []
        assert await self.seen(school.outsider_admin, quiz) == []

    async def test_filters_by_user_and_by_what_the_state_is_now(self, school: School, quiz: Quiz) -> None:
        one, two = school.student.user_id, school.student2.user_id
        assert await self.seen(school.teacher, quiz, user_id=two) == [(two, EXPIRED)]
        for state, expected in ((OPEN, one), (GRADED, one), (EXPIRED, two)):
            assert await self.seen(school.teacher, quiz, state=state) == [(expected, state)]

    async def test_has_results_without_questions_responses_and_items(self, school: School, quiz: Quiz) -> None:
        request = ListAttemptsRequest(quiz_id=quiz.id, state=GRADED)
        (listed,) = (await attempts(school.teacher).ListAttempts(request)).attempts
        assert (listed.result.score, listed.result.percent, listed.result.passed) == ("1", "100", True)
        assert not any((listed.questions, listed.responses, listed.result.items))

    async def test_pages(self, school: School, quiz: Quiz) -> None:
        request = ListAttemptsRequest(quiz_id=quiz.id, page_size=2)
        first = await attempts(school.teacher).ListAttempts(request)
        request.page_token = first.next_page_token
        second = await attempts(school.teacher).ListAttempts(request)
        assert [len(first.attempts), len(second.attempts), second.next_page_token] == [2, 1, ""]
        async with refused("INVALID_PAGE_TOKEN"):
            await attempts(school.teacher2).ListAttempts(request)


class TestSaveResponses:
    async def test_replaces_the_response_to_the_same_question(self, school: School, bank: Bank) -> None:
        choice, blank = await bank.choice_question(), await bank.blank_question(["x"], ["y"])
        attempt = await start(school.student, await bank.quiz(choice, blank))
        first = await save(school.student, attempt, picked(choice, 1), filled(blank, "", "đúng"))
        assert list(first.responses) == [picked(choice, 1), filled(blank, "", "đúng")]
        second = await save(school.student, attempt, picked(choice, 0))
        assert list(second.responses) == [picked(choice, 0), filled(blank, "", "đúng")]
        assert (first.etag, second.etag) == ("2", "3")
        assert await get(school.student, attempt) == second
        taken_back = await save(school.student, attempt, picked(choice))
        assert list(taken_back.responses) == [picked(choice), filled(blank, "", "đúng")]

    async def test_loses_nothing_of_two_at_once(self, school: School, bank: Bank) -> None:
        one, two = await bank.choice_question(), await bank.choice_question()
        attempt = await start(school.student, await bank.quiz(one, two))
        await asyncio.gather(
            save(school.student, attempt, picked(one, 0)), save(school.student, attempt, picked(two, 1))
        )
        assert list((await get(school.student, attempt)).responses) == [picked(one, 0), picked(two, 1)]

    async def test_names_the_response_that_does_not_fit(self, school: School, bank: Bank) -> None:
        question, other = await bank.choice_question(), await bank.choice_question()
        attempt = await start(school.student, await bank.quiz(question))
        for response, field in (
            (picked(other, 0), "responses[0].question_id"),
            (Response(question_id=question.id, choice_ids=[other.choices[0].id]), "responses[0].choice_ids[0]"),
            (picked(question, 0, 1), "responses[0].choice_ids"),
            (filled(question, "yes"), "responses[0].blanks"),
            (Response(question_id="x"), "responses[0].question_id"),
            (filled(question, "a\0b"), "responses[0].blanks[0]"),
        ):
            async with refused("INVALID_FIELD", field=field):
                await save(school.student, attempt, response)
        async with refused("INVALID_FIELD", field="responses"):
            await save(school.student, attempt)
        shouted = Response(question_id=question.id.upper())
        async with refused("INVALID_FIELD", field="responses[1].question_id"):
            await save(school.student, attempt, picked(question, 0), shouted)
        assert not (await get(school.student, attempt)).responses

    async def test_is_for_who_started_it_alone(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        attempt = await start(school.student, await bank.quiz(question))
        for person in (school.student2, school.teacher, school.admin):
            async with refused("PERMISSION_REQUIRED"):
                await save(person, attempt, picked(question, 0))
        async with refused("RESOURCE_NOT_FOUND"):
            await save(school.outsider_admin, attempt, picked(question, 0))

    async def test_ends_with_the_deadline_and_with_the_submission(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        quiz = await bank.quiz(question, time_limit=timedelta(minutes=10))
        attempt = await start(school.student, quiz)
        await run_out(school, attempt)
        async with refused("ATTEMPT_NOT_ALLOWED"):
            await save(school.student, attempt, picked(question, 0))
        attempt = await start(school.student, quiz)
        await submit(school.student, attempt)
        async with refused("WRONG_STATE"):
            await save(school.student, attempt, picked(question, 0))

    async def test_refuses_a_stale_etag(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        attempt = await start(school.student, await bank.quiz(question))
        await save(school.student, attempt, picked(question, 0), etag="1")
        async with refused("STALE_ETAG"):
            await save(school.student, attempt, picked(question, 0), etag="1")


class TestSubmitAttempt:
    async def test_grades_what_was_saved_and_what_is_sent_along(self, school: School, bank: Bank) -> None:
        single = await bank.choice_question()
        several = await bank.choice_question(right=("a", "b", "c"), wrong=("d",), multiple=True)
        blank = await bank.blank_question(["river", "the river"], ["ma"], ["sea"])
        left_open = await bank.choice_question()
        quiz = await bank.quiz(single, several, (blank, "0.3"), (left_open, "0.7"), pass_mark="65.56")
        attempt = await start(school.student, quiz)
        await save(school.student, attempt, picked(single, 1), picked(several, 0, 1))
        graded = await submit(school.student, attempt, picked(single, 0), filled(blank, " The  River ", "má", "SEA"))
        result = graded.result
        assert graded.state == GRADED
        assert (result.score, result.max_score) == ("1.866666666666666666666666667", "3")
        assert (result.percent, result.passed) == ("62.22", False)
        assert [item.score for item in result.items] == ["1", "0.6666666666666666666666666667", "0.2", "0"]
        assert [item.correct for item in result.items] == [True, False, False, False]
        assert result.items[0].feedback == "canary-feedback yes\ncanary-explanation"
        assert [(one.blank, AwardReason.Name(one.reason), one.points) for one in result.items[2].awards] == [
            (1, "AWARD_REASON_ACCEPTED", "0.1"),
            (2, "AWARD_REASON_NOT_ACCEPTED", "0"),
            (3, "AWARD_REASON_ACCEPTED", "0.1"),
        ]
        missed = several.choices[2].id
        assert [one.choice_id for one in result.items[1].awards if one.points == "0"] == [missed]
        assert graded.time_spent.ToTimedelta() == graded.submit_time.ToDatetime() - graded.create_time.ToDatetime()
        assert await get(school.student, attempt) == graded

    async def test_passes_at_the_pass_mark(self, school: School, bank: Bank) -> None:
        one, two, three = [await bank.choice_question() for _ in range(3)]
        quiz = await bank.quiz(one, two, three, pass_mark="66.666666")
        responses = picked(one, 0), picked(two, 0), picked(three, 1)
        graded = await submit(school.student, await start(school.student, quiz), *responses)
        assert (graded.result.percent, graded.result.passed) == ("66.67", True)

    async def test_is_the_same_the_second_time(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        attempt = await start(school.student, await bank.quiz(question))
        graded = await submit(school.student, attempt, picked(question, 0), etag="1")
        assert await submit(school.student, attempt, picked(question, 1), etag="1") == graded
        assert [entry.action for entry in await entries(school, attempt)] == ["create", "submit"]

    async def test_has_one_result_however_many_submit_at_once(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        attempt = await start(school.student, await bank.quiz(question))
        both = await asyncio.gather(*(submit(school.student, attempt, picked(question, n)) for n in (0, 1)))
        assert both[0] == both[1]
        rows = await owner_executes(
            school, "SELECT score FROM assessment.quiz_results WHERE attempt_id = $1", attempt.id
        )
        assert [str(row["score"]) for row in rows] == [both[0].result.score]
        assert [entry.action for entry in await entries(school, attempt)] == ["create", "submit"]

    async def test_loses_no_response_that_is_saved_at_the_same_moment(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        quiz = await bank.quiz(question)
        for _ in range(5):
            attempt = await start(school.student, quiz)
            saved, graded = await asyncio.gather(
                save(school.student, attempt, picked(question, 0)),
                submit(school.student, attempt),
                return_exceptions=True,
            )
            assert isinstance(graded, Attempt)
            assert graded.result.score == ("0" if isinstance(saved, BaseException) else "1")

    async def test_is_answered_again_by_its_idempotency_key(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        attempt = await start(school.student, await bank.quiz(question))
        request = SubmitAttemptRequest(id=attempt.id, responses=[picked(question, 0)])
        key = (("idempotency-key", str(uuid4())),)
        graded = await attempts(school.student).SubmitAttempt(request, metadata=key)
        assert await attempts(school.student).SubmitAttempt(request, metadata=key) == graded
        request.responses[0].CopyFrom(picked(question, 1))
        async with refused("IDEMPOTENCY_KEY_REUSED"):
            await attempts(school.student).SubmitAttempt(request, metadata=key)

    async def test_refuses_new_responses_after_the_deadline_and_grades_the_saved(
        self, school: School, bank: Bank
    ) -> None:
        one, two = await bank.choice_question(), await bank.choice_question()
        attempt = await start(school.student, await bank.quiz(one, two, time_limit=timedelta(minutes=10)))
        await save(school.student, attempt, picked(one, 0))
        await run_out(school, attempt)
        for _ in range(2):
            async with refused("ATTEMPT_NOT_ALLOWED", code=grpc.StatusCode.FAILED_PRECONDITION):
                await submit(school.student, attempt, picked(two, 0))
        graded = await submit(school.student, attempt)
        assert (graded.state, graded.result.score) == (EXPIRED, "1")
        assert list(graded.responses) == [picked(one, 0)]
        assert [entry.action for entry in await entries(school, attempt)] == ["create", "update", "expire"]

    async def test_is_for_who_started_it_alone(self, school: School, bank: Bank) -> None:
        attempt = await start(school.student, await bank.quiz(await bank.choice_question()))
        for person in (school.student2, school.teacher, school.admin):
            async with refused("PERMISSION_REQUIRED"):
                await submit(person, attempt)
        async with refused("RESOURCE_NOT_FOUND"):
            await submit(school.outsider, attempt)

    async def test_refuses_a_stale_etag_and_misfits_and_stays_open(self, school: School, bank: Bank) -> None:
        question, other = await bank.choice_question(), await bank.choice_question()
        attempt = await start(school.student, await bank.quiz(question))
        async with refused("STALE_ETAG"):
            await submit(school.student, attempt, etag="9")
        async with refused("INVALID_FIELD", field="responses[0].question_id"):
            await submit(school.student, attempt, picked(other, 0))
        assert (await get(school.student, attempt)).state == OPEN

    async def test_is_audited_with_the_score_and_without_the_answers(self, school: School, bank: Bank) -> None:
        question = await bank.blank_question(["canary-accepted"])
        attempt = await start(school.student, await bank.quiz(question))
        await submit(school.student, attempt, filled(question, "canary-typed"))
        created, submitted = await entries(school, attempt)
        assert dict(created.new_values)["state"] == "open"
        assert submitted.user_id == school.student.user_id
        assert dict(submitted.old_values) == {"state": "open"}
        told = dict(submitted.new_values)
        assert (told["state"], told["score"], told["max_score"], told["percent"]) == ("graded", "0", "1", "0")
        assert told["passed"] is False
        assert "canary" not in json.dumps([MessageToDict(created), MessageToDict(submitted)])

    async def test_takes_five_round_trips_to_the_database(self, school: School, bank: Bank) -> None:
        made = [await bank.choice_question() for _ in range(4)] + [await bank.blank_question(["river"])]
        quiz = await bank.quiz(*made)
        responses = [picked(one, 0) for one in made[:4]] + [filled(made[4], "river")]
        attempt = await start(school.student, quiz)
        async with transactions(school) as seen:
            await submit(school.student, attempt, *responses)
        (statements,) = [one for one in seen if any("quiz_results" in statement for statement in one)]
        assert sorted(" ".join(statement.split()[:2]) for statement in statements) == [
            "BEGIN; SET",
            "COMMIT",
            "INSERT INTO",
            "SELECT assessment.attempts.quiz_id,",
            "WITH changed",
        ]


@asynccontextmanager
async def transactions(school: School) -> AsyncIterator[list[list[str]]]:
    """What the service sends to the database meanwhile: the statements of each transaction that is committed.

    The driver tells of what is sent by hand, a moment later; the engine of what it sends prepared.
    """
    sent: dict[Any, list[str]] = {}
    done: list[list[str]] = []
    engine = school.stack.services["assessment"].db.engine.sync_engine
    listening: list[tuple[Any, Any]] = []

    def listen(connection: Any, record: Any, proxy: Any) -> None:
        driver = connection.driver_connection

        def log(logged: Any) -> None:
            sent.setdefault(driver, []).append(logged.query)
            if logged.query == "COMMIT":
                done.append(sent.pop(driver))

        driver.add_query_logger(log)
        listening.append((driver, log))

    def executed(connection: Any, cursor: Any, statement: str, *others: Any) -> None:
        sent.setdefault(connection.connection.driver_connection, []).append(statement)

    event.listen(engine, "checkout", listen)
    event.listen(engine, "before_cursor_execute", executed)
    try:
        yield done
    finally:
        event.remove(engine, "checkout", listen)
        event.remove(engine, "before_cursor_execute", executed)
        for driver, log in listening:
            driver.remove_query_logger(log)


class TestSecrecy:
    async def test_nothing_a_learner_receives_before_submitting_tells_the_answers(
        self, school: School, bank: Bank
    ) -> None:
        choice = await bank.choice_question(right=("a", "b"), multiple=True)
        blank = await bank.blank_question(["canary-accepted"])
        quiz = await bank.quiz(choice, blank, time_limit=timedelta(minutes=10))
        received = await self.received_before_submitting(school.student, quiz, [picked(choice, 0), filled(blank, "x")])
        assert len(received) >= 10
        for message in received:
            assert b"canary" not in message.SerializeToString()
            told = set(field_names(message))
            assert not told & {"correct", "feedback", "accepted", "explanation", "awards", "result", "score"}
            assert b"canary" not in json.dumps(MessageToDict(message)).encode()
        graded = await submit(school.student, await start(school.student, quiz))
        assert b"canary-explanation" in graded.SerializeToString()

    async def received_before_submitting(self, student: Person, quiz: Quiz, responses: list[Response]) -> list[Message]:
        """The answer, or the error, to each call that a learner can make of what has to do with the quiz."""
        stub, quizzes = attempts(student), student.stub(QuizServiceStub, "assessment")
        questions = student.stub(QuestionServiceStub, "assessment")
        attempt = await start(student, quiz)
        question_id = responses[0].question_id
        calls = [
            quizzes.GetQuiz(GetQuizRequest(id=quiz.id)),
            quizzes.ListQuizzes(ListQuizzesRequest(page_size=100)),
            stub.CreateAttempt(CreateAttemptRequest(quiz_id=quiz.id)),
            stub.SaveResponses(SaveResponsesRequest(id=attempt.id, responses=responses)),
            stub.SaveResponses(SaveResponsesRequest(id=attempt.id, responses=[filled_wrong(responses[0])])),
            stub.SubmitAttempt(SubmitAttemptRequest(id=attempt.id, responses=[filled_wrong(responses[0])])),
            stub.GetAttempt(GetAttemptRequest(id=attempt.id)),
            stub.ListAttempts(ListAttemptsRequest(quiz_id=quiz.id)),
            questions.GetQuestion(GetQuestionRequest(id=question_id)),
            questions.ListQuestions(ListQuestionsRequest()),
        ]
        return [attempt, *[await answer_to(call) for call in calls]]


def filled_wrong(response: Response) -> Response:
    """A response that the question cannot have, to see what the error says."""
    return Response(question_id=response.question_id, choice_ids=[str(uuid4())], blanks=["x"])


async def answer_to(call: Any) -> Message:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        return status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])


def field_names(message: Message) -> Iterator[str]:
    """The names of all fields that are set, at any depth."""
    for field, value in message.ListFields():
        yield field.name
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for one in value if field.is_repeated else (value,):
            yield from field_names(one)
