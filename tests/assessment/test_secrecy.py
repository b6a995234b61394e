"""The answer key: who learns of it, and when."""

import json
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.rpc import status_pb2
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from services.assessment import grading, papers, rules
from storyloom.assessment.v1.answers_pb2 import AttemptQuestion, AwardReason, Response
from storyloom.assessment.v1.attempts_pb2 import (
    Attempt,
    CreateAttemptRequest,
    GetAttemptRequest,
    ListAttemptsRequest,
    SaveResponsesRequest,
    SubmitAttemptRequest,
)
from storyloom.assessment.v1.previews_pb2 import PreviewQuizRequest
from storyloom.assessment.v1.previews_pb2_grpc import PreviewServiceStub
from storyloom.assessment.v1.question_parts_pb2 import QuestionType
from storyloom.assessment.v1.questions_pb2 import GetQuestionRequest, ListQuestionsRequest, Question
from storyloom.assessment.v1.questions_pb2_grpc import QuestionServiceStub
from storyloom.assessment.v1.quizzes_pb2 import (
    ArchiveQuizRequest,
    DuplicateQuizRequest,
    GetQuizRequest,
    ListQuizzesRequest,
    Quiz,
    UpdateQuizRequest,
)
from storyloom.assessment.v1.quizzes_pb2_grpc import QuizServiceStub
from storyloom.assessment.v1.review_policies_pb2 import ReviewPolicy
from tests.assessment.calls import attempts, get, start, submit
from tests.assessment.conftest import Bank, filled, picked, transactions
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


async def one_of_each(bank: Bank) -> list[Question]:
    """A question of each type; everything of it that a learner may not see early has `canary` in it, or the number
    424242."""
    feedback = {"feedback": "canary-feedback"}
    accepted = [{"text": "canary-accepted", **feedback}, {"text": "canary-partly", "percent": "50"}]
    options = [{"accepted": [{"text": "sea", **feedback}], "options": ["river", "sea", "lake"]}]
    sides = {"stems": [{"text": f"stem {n}", "target": n} for n in (1, 2, 3)]}
    return [
        await bank.choice_question(right=("a", "b"), wrong=("c", "d"), multiple=True),
        await bank.blank_question(["canary-accepted"]),
        await bank.question(type="QUESTION_TYPE_FILL_BLANK", prompt="The ___.", blanks=options),
        await bank.question(type="QUESTION_TYPE_SHORT_ANSWER", accepted=accepted),
        await bank.question(type="QUESTION_TYPE_NUMERIC", numbers=[{"value": "424242", **feedback}]),
        await bank.question(
            type="QUESTION_TYPE_MATCHING", targets=[{"text": f"target {n}"} for n in (1, 2, 3, 4)], **sides
        ),
        await bank.question(type="QUESTION_TYPE_ORDERING", items=[{"text": f"item {n}"} for n in range(6)]),
    ]


def answers(questions: Sequence[AttemptQuestion]) -> list[Response]:
    """Something that fits each question."""
    found = []
    for one in questions:
        fields: dict[str, Any] = {
            "QUESTION_TYPE_MULTIPLE_CHOICE": lambda one=one: {"choice_ids": [one.choices[0].id]},
            "QUESTION_TYPE_FILL_BLANK": lambda one=one: {"blanks": ["river"]},
            "QUESTION_TYPE_SHORT_ANSWER": lambda: {"text": "x"},
            "QUESTION_TYPE_NUMERIC": lambda: {"text": "7"},
            "QUESTION_TYPE_MATCHING": lambda one=one: {
                "matches": [{"stem_id": one.stems[0].id, "target_id": one.targets[0].id}]
            },
            "QUESTION_TYPE_ORDERING": lambda one=one: {"item_ids": [item.id for item in one.items]},
        }[QuestionType.Name(one.type)]()
        found.append(Response(question_id=one.question_id, **fields))
    return found


# What no message may have set before release. An attempt has no result then.
TELLING = {
    *("correct", "feedback", "accepted", "explanation", "awards", "result", "score", "correct_response"),
    *("numbers", "value", "tolerance", "percent", "target", "pairs", "passed"),
}


class TestSecrecy:
    async def test_nothing_of_a_whole_session_tells_the_answers_before_they_are_released(
        self, school: School, bank: Bank, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        caplog.set_level(logging.INFO)
        spans = spans_of(school, monkeypatch)
        made = await one_of_each(bank)
        quiz = await bank.quiz(*made, time_limit=timedelta(minutes=10), attempts_allowed=1)
        spans.clear()
        caplog.clear()
        received = await received_before_submitting(school.student, quiz, made)
        assert len(received) >= 20
        for message in received:
            data, text = message.SerializeToString(), json.dumps(MessageToDict(message))
            assert b"canary" not in data
            assert "canary" not in text
            assert "424242" not in text
            assert isinstance(message, status_pb2.Status) or not set(field_names(message)) & TELLING
        told = [str((span.name, dict(span.attributes or {}), span.events)) for span in spans.get_finished_spans()]
        assert any("SaveResponses" in one for one in told)
        logged = [str(vars(record)) for record in caplog.records]
        assert not [one for one in (*told, *logged) if "canary" in one or "424242" in one]
        # The same scan finds them once they are told.
        graded = await submit(school.student, await start(school.student, quiz))
        released = json.dumps(MessageToDict(graded))
        assert all(one in released for one in ("canary-explanation", "canary-accepted", "424242"))

    async def test_what_is_kept_back_is_in_no_answer_after_submitting_either(
        self, school: School, bank: Bank
    ) -> None:
        made = await one_of_each(bank)
        quiz = await bank.quiz(*made, review_policy=dict.fromkeys(("score", *SECRETS), "REVIEW_TIME_NEVER"))
        attempt = await start(school.student, quiz)
        seen = [
            await submit(school.student, attempt, *answers(attempt.questions)),
            await get(school.student, attempt),
            *(await attempts(school.student).ListAttempts(ListAttemptsRequest(quiz_id=quiz.id))).attempts,
        ]
        for message in seen:
            assert "canary" not in json.dumps(MessageToDict(message))
            assert "424242" not in json.dumps(MessageToDict(message))
            assert not set(field_names(message)) & TELLING

    async def test_ids_and_orders_tell_nothing(self, school: School, bank: Bank) -> None:
        """Ids are random, for those of version 7 would stand in the order in which the parts were written."""
        made = await one_of_each(bank)
        quiz = await bank.quiz(*made)
        orders: dict[str, set[tuple[str, ...]]] = {"targets": set(), "items": set(), "options": set()}
        for _ in range(8):
            attempt = await start(school.student, quiz)
            for one in attempt.questions:
                for parts in (one.choices, one.stems, one.targets, one.items):
                    assert all(UUID(part.id).version == 4 for part in parts)
            orders["options"].add(tuple(attempt.questions[2].blank_options[0].options))
            orders["targets"].add(tuple(part.text for part in attempt.questions[5].targets))
            orders["items"].add(tuple(part.text for part in attempt.questions[6].items))
            assert await get(school.student, attempt) == attempt
            await submit(school.student, attempt)
        assert all(len(found) > 2 for found in orders.values()), orders

    async def test_saving_takes_the_same_steps_for_right_and_wrong(
        self, school: School, bank: Bank, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is compared with an answer key before an attempt is over, so that no time can tell of it."""
        made = await one_of_each(bank)
        quiz = await bank.quiz(*made)
        attempt = await start(school.student, quiz)

        def never(*args: Any, **kwargs: Any) -> Any:
            raise AssertionError("graded while the attempt is open")

        wrong = answers(attempt.questions)
        right = [picked(made[0], 0, 1), filled(made[1], "canary-accepted"), *wrong[2:]]
        with monkeypatch.context() as patch:
            for module, name in ((rules, "graded"), (rules, "regraded"), (grading, "grade"), (papers, "right_answer")):
                patch.setattr(module, name, never)
            statements = []
            for responses in (wrong, right, wrong, right):
                async with transactions(school) as sent:
                    await attempts(school.student).SaveResponses(
                        SaveResponsesRequest(id=attempt.id, responses=responses)
                    )
                statements.append([one for one in sent if any("assessment.responses" in each for each in one)])
        assert statements == [statements[0]] * 4
        assert statements[0]


SECRETS = ("feedback", "correct_answers", "explanations")


def spans_of(school: School, monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """The spans that the service makes from now on, as if every caller sampled."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(sampler=ALWAYS_ON)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(school.stack.services["assessment"].telemetry, "_tracer", provider.get_tracer("test"))
    return exporter


async def received_before_submitting(student: Person, quiz: Quiz, made: Sequence[Question]) -> list[Message]:
    """The answer, or the error, to each call that a learner can make of what has to do with the quiz."""
    stub, quizzes = attempts(student), student.stub(QuizServiceStub, "assessment")
    questions = student.stub(QuestionServiceStub, "assessment")
    previews = student.stub(PreviewServiceStub, "assessment")
    attempt = await start(student, quiz)
    given = answers(attempt.questions)
    calls = [
        quizzes.GetQuiz(GetQuizRequest(id=quiz.id)),
        quizzes.ListQuizzes(ListQuizzesRequest(page_size=100)),
        quizzes.DuplicateQuiz(DuplicateQuizRequest(id=quiz.id)),
        quizzes.UpdateQuiz(UpdateQuizRequest(quiz=Quiz(id=quiz.id, title="x"))),
        previews.PreviewQuiz(PreviewQuizRequest(id=quiz.id, responses=given, submit=True)),
        stub.CreateAttempt(CreateAttemptRequest(quiz_id=quiz.id)),
        stub.SaveResponses(SaveResponsesRequest(id=attempt.id, responses=given)),
        stub.SaveResponses(SaveResponsesRequest(id=attempt.id, responses=given, etag="99")),
        stub.GetAttempt(GetAttemptRequest(id=attempt.id)),
        stub.CreateAttempt(CreateAttemptRequest(quiz_id=quiz.id)),
        stub.ListAttempts(ListAttemptsRequest(quiz_id=quiz.id)),
        questions.ListQuestions(ListQuestionsRequest()),
    ]
    for one in given:
        misfit = [filled_wrong(one)]
        calls.append(stub.SaveResponses(SaveResponsesRequest(id=attempt.id, responses=misfit)))
        calls.append(stub.SubmitAttempt(SubmitAttemptRequest(id=attempt.id, responses=misfit)))
    calls += [questions.GetQuestion(GetQuestionRequest(id=one.id)) for one in made]
    return [attempt, *[await answer_to(call) for call in calls]]


def filled_wrong(response: Response) -> Response:
    """A response that no question can have, to see what the error says."""
    strange = str(uuid4())
    return Response(
        question_id=response.question_id, choice_ids=[strange], blanks=["x", "y"], text="x", item_ids=[strange]
    )


async def answer_to(call: Any) -> Message:
    """The answer; of an error its details with what its text and its trailers say."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        trailers = dict(error.trailing_metadata())
        status = status_pb2.Status.FromString(trailers.pop("grpc-status-details-bin"))
        status.message += f" {error.details()} {error.debug_error_string()} {trailers}"
        return status


def field_names(message: Message) -> Iterator[str]:
    """The names of all fields that are set, at any depth."""
    for field, value in message.ListFields():
        yield field.name
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        if field.message_type is ReviewPolicy.DESCRIPTOR:
            # It says when what is told, in fields that have the names of what they are about.
            continue
        for one in value if field.is_repeated else (value,):
            yield from field_names(one)
