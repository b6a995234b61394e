"""The answer key: who learns of it, and when."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.rpc import status_pb2

from storyloom.assessment.v1.attempts_pb2 import (
    Attempt,
    AwardReason,
    CreateAttemptRequest,
    GetAttemptRequest,
    ListAttemptsRequest,
    Response,
    SaveResponsesRequest,
    SubmitAttemptRequest,
)
from storyloom.assessment.v1.questions_pb2 import GetQuestionRequest, ListQuestionsRequest
from storyloom.assessment.v1.questions_pb2_grpc import QuestionServiceStub
from storyloom.assessment.v1.quizzes_pb2 import (
    ArchiveQuizRequest,
    GetQuizRequest,
    ListQuizzesRequest,
    Quiz,
    UpdateQuizRequest,
)
from storyloom.assessment.v1.quizzes_pb2_grpc import QuizServiceStub
from tests.assessment.calls import attempts, get, start, submit
from tests.assessment.conftest import Bank, filled, picked
from tests.stack import Person, School


async def taken(school: School, bank: Bank, **fields: Any) -> tuple[Quiz, Attempt]:
    """A quiz that the learner has answered wrongly, once."""
    question = await bank.choice_question()
    quiz = await bank.quiz(question, **fields)
    return quiz, await submit(school.student, await start(school.student, quiz), picked(question, 1))


def told(attempt: Attempt) -> bool:
    """Whether the result of a wrong answer says what would have been right, and why."""
    (item,) = attempt.result.items
    reasons = [AwardReason.Name(one.reason).removeprefix("AWARD_REASON_") for one in item.awards]
    explained = item.feedback == "canary-feedback no\ncanary-explanation"
    assert explained or item.feedback == "canary-feedback no"
    assert reasons == (["MISSED_CHOICE", "WRONG_CHOICE"] if explained else ["WRONG_CHOICE"])
    return explained


class TestAnswerKey:
    async def test_is_told_when_all_attempts_allowed_are_over(self, school: School, bank: Bank) -> None:
        quiz, graded = await taken(school, bank, attempts_allowed=2)
        assert not told(graded)
        last = await start(school.student, quiz)
        assert not told(await get(school.student, graded))
        await submit(school.student, last)
        assert told(await get(school.student, graded))

    async def test_is_told_with_the_only_attempt(self, school: School, bank: Bank) -> None:
        _, graded = await taken(school, bank, attempts_allowed=1)
        assert told(graded)
        assert told(await get(school.student, graded))

    async def test_is_told_when_the_quiz_is_archived_and_no_attempt_is_open(self, school: School, bank: Bank) -> None:
        quiz, graded = await taken(school, bank)
        last = await start(school.student, quiz)
        await school.teacher.stub(QuizServiceStub, "assessment").ArchiveQuiz(ArchiveQuizRequest(id=quiz.id))
        assert not told(await get(school.student, graded))
        await submit(school.student, last)
        assert told(await get(school.student, graded))

    async def test_is_told_when_the_quiz_has_closed(self, school: School, bank: Bank) -> None:
        quiz, graded = await taken(school, bank)
        assert not told(await get(school.student, graded))
        closed = Quiz(id=quiz.id, close_time=datetime.now(UTC) - timedelta(seconds=1))
        await school.teacher.stub(QuizServiceStub, "assessment").UpdateQuiz(UpdateQuizRequest(quiz=closed))
        assert told(await get(school.student, graded))

    async def test_is_told_to_teachers_at_once(self, school: School, bank: Bank) -> None:
        _, graded = await taken(school, bank)
        assert told(await get(school.teacher, graded))

    async def test_attempts_of_others_do_not_count(self, school: School, bank: Bank) -> None:
        quiz, graded = await taken(school, bank, attempts_allowed=1)
        await start(school.student2, quiz)
        assert told(await get(school.student, graded))


class TestSecrecy:
    async def test_nothing_a_learner_receives_before_submitting_tells_the_answers(
        self, school: School, bank: Bank
    ) -> None:
        choice = await bank.choice_question(right=("a", "b"), multiple=True)
        blank = await bank.blank_question(["canary-accepted"])
        quiz = await bank.quiz(choice, blank, time_limit=timedelta(minutes=10), attempts_allowed=1)
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
