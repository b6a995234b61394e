"""Attempts: handing them in, and what they are worth."""

import asyncio
import json
from datetime import timedelta
from uuid import uuid4

import grpc
from google.protobuf.json_format import MessageToDict

from storyloom.assessment.v1.answers_pb2 import AwardReason
from storyloom.assessment.v1.attempts_pb2 import Attempt, SubmitAttemptRequest
from tests.assessment.calls import EXPIRED, GRADED, OPEN, attempts, entries, get, save, start, submit, unasked
from tests.assessment.conftest import Bank, filled, owner_executes, picked, run_out, transactions
from tests.metrics import reading
from tests.stack import School, refused


class TestSubmitAttempt:
    async def test_grades_what_was_saved_and_what_is_sent_along(self, school: School, bank: Bank) -> None:
        single = await bank.choice_question()
        several = await bank.choice_question(right=("a", "b", "c"), wrong=("d",), multiple=True)
        blank = await bank.blank_question(["river", "the river"], ["ma"], ["sea"])
        left_open = await bank.choice_question()
        quiz = await bank.quiz(
            single, several, (blank, "0.3"), (left_open, "0.7"), pass_mark="65.56", attempts_allowed=1
        )
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
        assert unasked(await get(school.student, attempt)) == graded

    async def test_takes_a_time_that_is_measured(self, school: School, bank: Bank) -> None:
        attempt = await start(school.student, await bank.quiz(await bank.choice_question()))
        with reading(school.stack.services["assessment"].telemetry) as reader:
            await submit(school.student, attempt)
            assert reader.value("storyloom.work.duration", work="grade") == 1

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

    async def test_is_audited_with_the_score_and_what_was_answered(
        self, school: School, bank: Bank
    ) -> None:
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
        assert MessageToDict(told["responses"]) == {question.id: ["canary-typed"]}
        assert "canary-accepted" not in json.dumps([MessageToDict(created), MessageToDict(submitted)])

    async def test_takes_five_round_trips_to_the_database(self, school: School, bank: Bank) -> None:
        made = [await bank.choice_question() for _ in range(19)] + [await bank.blank_question(["river"])]
        quiz = await bank.quiz(*made)
        responses = [picked(one, 0) for one in made[:19]] + [filled(made[19], "river")]
        attempt = await start(school.student, quiz)
        async with transactions(school) as seen:
            await submit(school.student, attempt, *responses)
        (statements,) = [one for one in seen if any("quiz_results" in statement for statement in one)]
        assert sorted(" ".join(statement.split()[:2]) for statement in statements) == [
            "BEGIN; SET",
            "COMMIT",
            "INSERT INTO",
            "SELECT a.quiz_id,",
            "WITH counted",
        ]
