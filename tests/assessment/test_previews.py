"""Previews: quizzes as learners would see them."""

import pytest

from storyloom.assessment.v1.attempts_pb2 import AttemptResult, ListAttemptsRequest
from storyloom.assessment.v1.previews_pb2 import PreviewQuizRequest, PreviewQuizResponse
from storyloom.assessment.v1.previews_pb2_grpc import PreviewServiceStub
from storyloom.assessment.v1.quizzes_pb2 import Quiz, QuizDraw, QuizItem
from tests.assessment.calls import attempts, entries, start, submit
from tests.assessment.conftest import Bank, filled, owner_executes, picked
from tests.stack import Person, School, refused


async def preview(person: Person, quiz: Quiz, *responses: object, **fields: object) -> PreviewQuizResponse:
    stub = person.stub(PreviewServiceStub, "assessment")
    return await stub.PreviewQuiz(PreviewQuizRequest(id=quiz.id, responses=responses, **fields))


class TestPreviewQuiz:
    async def test_shows_what_an_attempt_would(self, school: School, bank: Bank) -> None:
        choice, blank = await bank.choice_question(), await bank.blank_question(["a"], ["b"])
        quiz = await bank.quiz(choice, (blank, "2"))
        seen = await preview(school.teacher, quiz)
        attempt = await start(school.student, quiz)
        assert list(seen.questions) == list(attempt.questions)
        assert not seen.HasField("result")

    @pytest.mark.parametrize("attempts_allowed", [0, 1])
    async def test_grades_as_an_attempt_would_be_and_shows_no_more(
        self, school: School, bank: Bank, attempts_allowed: int
    ) -> None:
        choice, blank = await bank.choice_question(), await bank.blank_question(["a"], ["b"])
        quiz = await bank.quiz(choice, (blank, "2"), attempts_allowed=attempts_allowed)
        responses = picked(choice, 1), filled(blank, "a", "x")
        seen = await preview(school.teacher, quiz, *responses, submit=True)
        graded = await submit(school.student, await start(school.student, quiz), *responses)
        assert seen.result == graded.result
        assert seen.result.score == "1"

    async def test_shows_no_result_that_the_review_policy_keeps_back(self, school: School, bank: Bank) -> None:
        choice = await bank.choice_question()
        names = ("score", "feedback", "correct_answers", "explanations")
        quiz = await bank.quiz(choice, review_policy=dict.fromkeys(names, "REVIEW_TIME_AFTER_CLOSE"))
        assert not (await preview(school.teacher, quiz, picked(choice, 0), submit=True)).HasField("result")

    async def test_keeps_nothing(self, school: School, bank: Bank) -> None:
        choice = await bank.choice_question()
        quiz = await bank.quiz(choice, attempts_allowed=1)
        for _ in range(2):
            await preview(school.teacher, quiz, picked(choice, 0), submit=True)
        assert not await owner_executes(school, "SELECT id FROM assessment.attempts WHERE quiz_id = $1", quiz.id)
        listed = await attempts(school.teacher).ListAttempts(ListAttemptsRequest(quiz_id=quiz.id))
        assert not listed.attempts
        attempt = await start(school.teacher, quiz)
        assert [one.action for one in await entries(school, attempt)] == ["create"]

    async def test_shows_drafts_and_the_same_again_for_its_seed(self, school: School, bank: Bank) -> None:
        pool = [await bank.choice_question() for _ in range(6)]
        item = QuizItem(draw=QuizDraw(count=3, question_ids=[one.id for one in pool]))
        quiz = await bank.quiz(item, publish=False, shuffle=True)
        seen = [await preview(school.teacher, quiz) for _ in range(6)]
        assert len({str(one.questions) for one in seen}) > 1
        again = await preview(school.teacher, quiz, seed=seen[0].seed)
        assert again == seen[0]
        (first,) = [one for one in pool if one.id == again.questions[0].question_id]
        graded = await preview(school.teacher, quiz, picked(first, 0), seed=seen[0].seed, submit=True)
        assert graded.questions == again.questions
        assert (graded.result.score, graded.result.max_score) == ("1", "3")

    async def test_is_for_those_who_may_update_the_quiz(self, school: School, bank: Bank) -> None:
        quiz = await bank.quiz(await bank.choice_question())
        assert (await preview(school.teacher2, quiz)).questions
        async with refused("PERMISSION_REQUIRED") as refusal:
            await preview(school.student, quiz)
        assert refusal.metadata["permission"] == "quiz:update"
        async with refused("RESOURCE_NOT_FOUND"):
            await preview(school.outsider_teacher, quiz)

    async def test_refuses_responses_as_attempts_do(self, school: School, bank: Bank) -> None:
        one, other = await bank.choice_question(), await bank.choice_question()
        quiz = await bank.quiz(one)
        async with refused("INVALID_FIELD", field="responses[0].question_id"):
            await preview(school.teacher, quiz, picked(other, 0))
        assert AttemptResult() == (await preview(school.teacher, quiz, picked(one, 0))).result
