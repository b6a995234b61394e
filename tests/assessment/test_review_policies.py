"""What learners see of attempts that are over, and when."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from storyloom.assessment.v1.answers_pb2 import AwardReason
from storyloom.assessment.v1.attempts_pb2 import Attempt, ListAttemptsRequest
from storyloom.assessment.v1.extensions_pb2 import CreateExtensionRequest, Extension
from storyloom.assessment.v1.extensions_pb2_grpc import ExtensionServiceStub
from storyloom.assessment.v1.quizzes_pb2 import GetQuizRequest, Quiz, UpdateQuizRequest
from storyloom.assessment.v1.quizzes_pb2_grpc import QuizServiceStub
from storyloom.assessment.v1.regrades_pb2 import CreateRegradeRequest, Regrade
from storyloom.assessment.v1.regrades_pb2_grpc import RegradeServiceStub
from storyloom.assessment.v1.review_policies_pb2 import ReviewPolicy, ReviewTime
from tests.assessment.calls import attempts, get, start, submit
from tests.assessment.conftest import Bank, filled, graded_events, picked
from tests.stack import Person, School

ASPECTS = ("score", "responses", "feedback", "correct_answers", "explanations")
HOUR = timedelta(hours=1)


def policy(default: str, **times: str) -> ReviewPolicy:
    wanted = dict.fromkeys(ASPECTS, default) | times
    return ReviewPolicy(**{name: f"REVIEW_TIME_{time.upper()}" for name, time in wanted.items()})


async def taken(school: School, bank: Bank, **fields: Any) -> tuple[Quiz, Attempt]:
    """A quiz whose questions the learner has answered, the first one wrongly."""
    choice = await bank.choice_question(right=("a", "b"), wrong=("c",), multiple=True)
    blank = await bank.blank_question(["river", "the river"], ["sea"])
    quiz = await bank.quiz(choice, blank, **fields)
    return quiz, await submit(
        school.student, await start(school.student, quiz), picked(choice, 0, 2), filled(blank, "River", "x")
    )


def seen(attempt: Attempt) -> set[str]:
    """The aspects that an answer shows anything of."""
    found = {"responses"} if attempt.responses else set()
    if attempt.result.score or attempt.result.percent or attempt.result.max_score or attempt.result.passed:
        found.add("score")
    for item in attempt.result.items:
        reasons = {AwardReason.Name(one.reason) for one in item.awards}
        shows = {
            "score": bool(item.score or item.max_score or item.correct),
            "feedback": "canary-feedback" in item.feedback,
            "explanations": "canary-explanation" in item.feedback,
            "correct_answers": item.HasField("correct_response") or "AWARD_REASON_MISSED_CHOICE" in reasons,
        }
        found |= {name for name, shown in shows.items() if shown}
        assert not reasons or {"score", "responses"} <= found
    return found


async def update(person: Person, quiz: Quiz, **fields: Any) -> Quiz:
    return await person.stub(QuizServiceStub, "assessment").UpdateQuiz(
        UpdateQuizRequest(quiz=Quiz(id=quiz.id, **fields))
    )


class TestReviewPolicy:
    async def test_is_told_with_its_defaults(self, school: School, bank: Bank) -> None:
        quiz = await bank.quiz(publish=False)
        default = policy("on_submit", correct_answers="no_attempts_left", explanations="no_attempts_left")
        assert quiz.review_policy == default
        changed = await update(school.teacher, quiz, review_policy={"score": "REVIEW_TIME_NEVER"})
        assert changed.review_policy.score == ReviewTime.REVIEW_TIME_NEVER
        assert changed.review_policy.responses == ReviewTime.REVIEW_TIME_ON_SUBMIT
        read = await school.teacher.stub(QuizServiceStub, "assessment").GetQuiz(GetQuizRequest(id=quiz.id))
        assert read == changed

    @pytest.mark.parametrize("aspect", ASPECTS)
    async def test_shows_each_aspect_for_itself(self, school: School, bank: Bank, aspect: str) -> None:
        """All that is never shown is absent from every answer, and all that is shown is there."""
        quiz, graded = await taken(school, bank, review_policy=policy("never", **{aspect: "on_submit"}))
        assert seen(graded) == seen(await get(school.student, graded)) == {aspect}
        await update(school.teacher, quiz, review_policy=policy("on_submit", **{aspect: "never"}))
        assert seen(await get(school.student, graded)) == {*ASPECTS} - {aspect}
        listed = await attempts(school.student).ListAttempts(ListAttemptsRequest(quiz_id=quiz.id))
        assert listed.attempts[0].HasField("result") == (aspect != "score")

    async def test_counts_at_once_and_for_results_that_were_shown_before(self, school: School, bank: Bank) -> None:
        quiz, graded = await taken(school, bank, review_policy=policy("on_submit"))
        assert seen(graded) == {*ASPECTS}
        await update(school.teacher, quiz, review_policy=policy("never"))
        again = await get(school.student, graded)
        assert not seen(again)
        assert not again.HasField("result")
        assert not (await submit(school.student, graded)).HasField("result")
        (listed,) = (await attempts(school.student).ListAttempts(ListAttemptsRequest(quiz_id=quiz.id))).attempts
        assert not listed.HasField("result")

    @pytest.mark.parametrize(("time", "hidden"), [("on_submit", False), ("after_close", True), ("never", True)])
    async def test_goes_with_the_result_to_other_services(
        self, school: School, bank: Bank, time: str, *, hidden: bool
    ) -> None:
        async with graded_events(school) as events:
            quiz, attempt = await taken(school, bank, review_policy=policy("on_submit", score=time))
            asked = await get(school.student, attempt)
            regrade = Regrade(
                quiz_id=quiz.id, question_id=asked.questions[0].question_id, kind="REGRADE_KIND_FULL_MARKS"
            )
            regrades = school.teacher.stub(RegradeServiceStub, "assessment")
            await regrades.CreateRegrade(CreateRegradeRequest(regrade=regrade))
        assert [(one.regraded, one.score_hidden) for one in events] == [(False, hidden), (True, hidden)]

    async def test_after_close_waits_for_the_last_extension(self, school: School, bank: Bank) -> None:
        quiz, graded = await taken(school, bank, review_policy=policy("after_close"))
        assert not seen(graded)
        other = Extension(quiz_id=quiz.id, user_id=school.student2.user_id, close_time=datetime.now(UTC) + HOUR)
        stub = school.teacher.stub(ExtensionServiceStub, "assessment")
        await stub.CreateExtension(CreateExtensionRequest(extension=other))
        await update(school.teacher, quiz, close_time=datetime.now(UTC) - HOUR)
        assert not seen(await get(school.student, graded))
        (listed,) = (await attempts(school.student).ListAttempts(ListAttemptsRequest(quiz_id=quiz.id))).attempts
        assert not listed.HasField("result")
        await update(school.teacher, quiz, review_policy=policy("no_attempts_left"))
        assert seen(await get(school.student, graded)) == {*ASPECTS}

    async def test_shows_others_score_and_responses_and_readers_of_questions_everything(
        self, school: School, bank: Bank
    ) -> None:
        quiz, graded = await taken(school, bank, review_policy=policy("never"))
        assert seen(await get(school.teacher, graded)) == {*ASPECTS}
        (listed,) = (await attempts(school.teacher).ListAttempts(ListAttemptsRequest(quiz_id=quiz.id))).attempts
        assert listed.result.score == "0.5"

    async def test_shows_the_right_answer_as_a_response_that_earns_all_points(
        self, school: School, bank: Bank
    ) -> None:
        quiz, graded = await taken(school, bank, attempts_allowed=2, review_policy=policy("on_submit"))
        right = [item.correct_response for item in graded.result.items]
        assert list(right[1].blanks) == ["river", "sea"]
        best = await submit(school.student, await start(school.student, quiz), *right)
        assert best.result.percent == "100"
        assert all(item.correct for item in best.result.items)
