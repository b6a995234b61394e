"""A teacher's bank of questions and quizzes, made through the service's own RPCs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from storyloom.assessment.v1.attempts_pb2 import Attempt, Response
from storyloom.assessment.v1.questions_pb2 import Blank, Choice, CreateQuestionRequest, Question
from storyloom.assessment.v1.questions_pb2_grpc import QuestionServiceStub
from storyloom.assessment.v1.quizzes_pb2 import CreateQuizRequest, PublishQuizRequest, Quiz, QuizItem
from storyloom.assessment.v1.quizzes_pb2_grpc import QuizServiceStub
from tests.stack import Person, School


@dataclass
class Bank:
    """Makes questions and quizzes in the teacher's name; canaries mark what learners may not see early."""

    teacher: Person

    async def choice_question(
        self, right: Sequence[str] = ("yes",), wrong: Sequence[str] = ("no", "perhaps"), **fields: Any
    ) -> Question:
        """A MULTIPLE_CHOICE question; the right choices come first."""
        choices = [Choice(text=text, correct=True, feedback=f"canary-feedback {text}") for text in right]
        choices += [Choice(text=text, feedback=f"canary-feedback {text}") for text in wrong]
        return await self.question(type="QUESTION_TYPE_MULTIPLE_CHOICE", choices=choices, **fields)

    async def blank_question(self, *accepted: Sequence[str], **fields: Any) -> Question:
        """A FILL_BLANK question with a blank for each list of accepted texts."""
        prompt = "Fill in " + ", ".join("___" for _ in accepted)
        blanks = [Blank(accepted=texts) for texts in accepted]
        return await self.question(type="QUESTION_TYPE_FILL_BLANK", blanks=blanks, **{"prompt": prompt} | fields)

    async def question(self, **fields: Any) -> Question:
        stub = self.teacher.stub(QuestionServiceStub, "assessment")
        fields = {"prompt": "Which one?", "explanation": "canary-explanation"} | fields
        return await stub.CreateQuestion(CreateQuestionRequest(question=Question(**fields)))

    async def quiz(self, *items: Question | tuple[Question, str], publish: bool = True, **fields: Any) -> Quiz:
        """A quiz of these questions, for one point each unless told."""
        stub = self.teacher.stub(QuizServiceStub, "assessment")
        pairs = [item if isinstance(item, tuple) else (item, "1") for item in items]
        made = [QuizItem(question_id=question.id, points=points) for question, points in pairs]
        quiz = await stub.CreateQuiz(CreateQuizRequest(quiz=Quiz(**{"title": "Quiz", "items": made} | fields)))
        return await stub.PublishQuiz(PublishQuizRequest(id=quiz.id)) if publish else quiz


@pytest.fixture
async def bank(school: School) -> Bank:
    return Bank(school.teacher)


def picked(question: Question, *indexes: int) -> Response:
    """The response that picks these choices of the question."""
    return Response(question_id=question.id, choice_ids=[question.choices[index].id for index in indexes])


def filled(question: Question, *texts: str) -> Response:
    return Response(question_id=question.id, blanks=texts)


async def run_out(school: School, attempt: Attempt) -> None:
    """Lets the attempt's deadline pass."""
    await owner_executes(
        school,
        "UPDATE assessment.attempts SET created_at = created_at - interval '2 hours',"
        " deadline_time = created_at - interval '1 hour' WHERE id = $1",
        attempt.id,
    )


async def owner_executes(school: School, statement: str, *values: Any) -> list[Any]:
    connection = await asyncpg.connect(school.stack.cluster.superuser_url)
    try:
        return list(await connection.fetch(statement, *values))
    finally:
        await connection.close()
