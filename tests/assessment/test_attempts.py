"""Attempts: starting quizzes and seeing what became of them."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import grpc
import pytest

from storyloom.assessment.v1.attempts_pb2 import (
    ListAttemptsRequest,
)
from storyloom.assessment.v1.questions_pb2 import UpdateQuestionRequest
from storyloom.assessment.v1.questions_pb2_grpc import QuestionServiceStub
from storyloom.assessment.v1.quizzes_pb2 import (
    ArchiveQuizRequest,
    DeleteQuizRequest,
    Quiz,
    UndeleteQuizRequest,
)
from storyloom.assessment.v1.quizzes_pb2_grpc import QuizServiceStub
from tests.assessment.calls import EXPIRED, GRADED, OPEN, attempts, entries, get, save, start, submit, unasked
from tests.assessment.conftest import Bank, owner_executes, picked, run_out
from tests.stack import Person, School, refused


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
        assert unasked(await start(school.student, quiz)) == saved
        await school.teacher.stub(QuizServiceStub, "assessment").ArchiveQuiz(ArchiveQuizRequest(id=quiz.id))
        assert unasked(await start(school.student, quiz)) == saved

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
        assert (await get(school.student, attempt)).etag == over.etag
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
