"""Attempts that are over are graded though nobody looks."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from kit.jobs import Repeating, Runner, Standing
from services.assessment.jobs import OVERDUE
from services.assessment.queries import attempts
from storyloom.assessment.v1.attempts_pb2 import Attempt
from storyloom.assessment.v1.events_pb2 import AttemptGraded
from storyloom.assessment.v1.quizzes_pb2 import DeleteQuizRequest, UndeleteQuizRequest
from storyloom.assessment.v1.quizzes_pb2_grpc import QuizServiceStub
from tests.assessment.calls import EXPIRED, OPEN, entries, get, save, start, submit
from tests.assessment.conftest import Bank, graded_events, owner_executes, picked, run_out
from tests.stack import School

STORED = "SELECT state, submit_time, revision FROM assessment.attempts WHERE id = $1"
SILENT = "UPDATE assessment.attempts SET updated_at = updated_at - interval '30 days' WHERE id = $1"


async def sweep(school: School) -> Standing:
    runner = Runner(school.stack.services["assessment"].db, OVERDUE, tell=lambda standing: None)
    return await runner.run(restart=True)


async def stored(school: School, attempt: Attempt) -> Any:
    (row,) = await owner_executes(school, STORED, attempt.id)
    return row


class TestCloseOverdueAttempts:
    async def test_grades_what_was_saved_as_whoever_looks_does(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        quiz = await bank.quiz(question, time_limit=timedelta(minutes=10))
        swept, looked_at = [await start(person, quiz) for person in (school.student, school.student2)]
        for person, attempt in ((school.student, swept), (school.student2, looked_at)):
            await save(person, attempt, picked(question, 0))
            await run_out(school, attempt)
        seen = await get(school.student2, looked_at)
        standing = await sweep(school)
        assert standing.state == "done"
        assert (await stored(school, swept))["state"] == "expired"
        closed = await get(school.student, swept)
        assert (closed.state, closed.etag, closed.submit_time) == (EXPIRED, seen.etag, closed.deadline_time)
        assert closed.result == seen.result
        actions = [[one.action for one in await entries(school, each)] for each in (swept, looked_at)]
        assert actions == [["create", "update", "expire"]] * 2
        (by_nobody,) = [one for one in await entries(school, swept) if one.action == "expire"]
        assert by_nobody.user_id == ""

    async def test_does_it_once_however_many_come_by(self, school: School, bank: Bank) -> None:
        quiz = await bank.quiz(await bank.choice_question(), time_limit=timedelta(minutes=10))
        async with graded_events(school) as events:
            for _ in range(4):
                attempt = await start(school.student, quiz)
                await run_out(school, attempt)
                await asyncio.gather(
                    sweep(school),
                    get(school.student, attempt),
                    get(school.teacher, attempt),
                    start(school.student, quiz),
                )
                assert [one.action for one in await entries(school, attempt)] == ["create", "expire"]
                assert [one.attempt_id for one in events].count(attempt.id) == 1

    async def test_is_not_done_again_by_who_starts_the_next_attempt_at_that_moment(
        self, school: School, bank: Bank, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        quiz = await bank.quiz(await bank.choice_question(), time_limit=timedelta(minutes=10))
        attempt, read = await start(school.student, quiz), attempts.get_quiz_to_take
        await run_out(school, attempt)

        async def overtaken(*asked: Any) -> Any:
            found = await read(*asked)
            await sweep(school)
            return found

        monkeypatch.setattr(attempts, "get_quiz_to_take", overtaken)
        assert (await start(school.student, quiz)).number == attempt.number + 1
        assert [one.action for one in await entries(school, attempt)] == ["create", "expire"]

    async def test_leaves_alone_what_is_not_over(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        limited = await start(school.student, await bank.quiz(question, time_limit=timedelta(minutes=10)))
        endless = await start(school.student, await bank.quiz(question))
        await sweep(school)
        for attempt in (limited, endless):
            assert await get(school.student, attempt) == attempt

    async def test_ends_attempts_without_deadline_after_thirty_silent_days(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        quiz = await bank.quiz(question)
        attempt = await start(school.student, quiz)
        saved = await save(school.student, attempt, picked(question, 0))
        await owner_executes(school, SILENT, attempt.id)
        await sweep(school)
        assert (await stored(school, attempt))["state"] == "expired"
        over = await get(school.student, attempt)
        assert (over.state, over.result.score) == (EXPIRED, "1")
        assert abs(over.submit_time.seconds - saved.update_time.seconds) <= 1
        assert (await start(school.student, quiz)).number == 2

    async def test_waits_while_the_quiz_is_deleted(self, school: School, bank: Bank) -> None:
        quiz = await bank.quiz(await bank.choice_question(), time_limit=timedelta(minutes=10))
        attempt = await start(school.student, quiz)
        await run_out(school, attempt)
        stub = school.teacher.stub(QuizServiceStub, "assessment")
        await stub.DeleteQuiz(DeleteQuizRequest(id=quiz.id))
        await sweep(school)
        assert (await stored(school, attempt))["state"] == "open"
        await stub.UndeleteQuiz(UndeleteQuizRequest(id=quiz.id))
        await sweep(school)
        assert (await stored(school, attempt))["state"] == "expired"

    async def test_is_done_now_and_then_by_the_service_itself(self, school: School, bank: Bank) -> None:
        quiz = await bank.quiz(await bank.choice_question(), time_limit=timedelta(minutes=10))
        attempt = await start(school.student, quiz)
        await run_out(school, attempt)
        sweeping = asyncio.create_task(Repeating(school.stack.services["assessment"].db, OVERDUE, seconds=0.01).run())
        async with asyncio.timeout(10):
            while (await stored(school, attempt))["state"] == "open":
                await asyncio.sleep(0.02)
        sweeping.cancel()
        with suppress(asyncio.CancelledError):
            await sweeping


class TestAttemptGraded:
    async def test_is_told_once_with_every_grade(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        quiz = await bank.quiz((question, "1.5"), pass_mark="60")
        async with graded_events(school) as events:
            attempt = await start(school.student, quiz)
            graded = await submit(school.student, attempt, picked(question, 0))
            await submit(school.student, attempt)
            await get(school.student, attempt)
        (event,) = [one for one in events if one.quiz_id == quiz.id]
        wanted = AttemptGraded(
            attempt_id=attempt.id,
            quiz_id=quiz.id,
            user_id=school.student.user_id,
            number=1,
            score="1.5",
            max_score="1.5",
            percent="100",
            passed=True,
            grade_time=graded.submit_time,
        )
        assert event == wanted

    async def test_is_not_told_of_open_attempts(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        async with graded_events(school) as events:
            attempt = await start(school.student, await bank.quiz(question))
            saved = await save(school.student, attempt, picked(question, 0))
        assert saved.state == OPEN
        assert attempt.id not in {one.attempt_id for one in events}
