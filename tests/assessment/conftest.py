"""A teacher's bank of questions and quizzes, made through the service's own RPCs."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event

from kit import outbox
from storyloom.assessment.v1.answers_pb2 import Response
from storyloom.assessment.v1.attempts_pb2 import Attempt
from storyloom.assessment.v1.events_pb2 import AttemptGraded
from storyloom.assessment.v1.question_parts_pb2 import AcceptedText, Blank, Choice
from storyloom.assessment.v1.questions_pb2 import CreateQuestionRequest, Question
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
        blanks = [Blank(accepted=[AcceptedText(text=one) for one in texts]) for texts in accepted]
        return await self.question(type="QUESTION_TYPE_FILL_BLANK", blanks=blanks, **{"prompt": prompt} | fields)

    async def question(self, **fields: Any) -> Question:
        stub = self.teacher.stub(QuestionServiceStub, "assessment")
        fields = {"prompt": "Which one?", "explanation": "canary-explanation"} | fields
        return await stub.CreateQuestion(CreateQuestionRequest(question=Question(**fields)))

    async def quiz(
        self, *items: Question | QuizItem | tuple[Question, str], publish: bool = True, **fields: Any
    ) -> Quiz:
        """A quiz of these questions, for one point each unless told."""
        stub = self.teacher.stub(QuizServiceStub, "assessment")
        made = [item if isinstance(item, QuizItem) else _item(item) for item in items]
        quiz = await stub.CreateQuiz(CreateQuizRequest(quiz=Quiz(**{"title": "Quiz", "items": made} | fields)))
        return await stub.PublishQuiz(PublishQuizRequest(id=quiz.id)) if publish else quiz


def _item(item: Question | tuple[Question, str]) -> QuizItem:
    question, points = item if isinstance(item, tuple) else (item, "1")
    return QuizItem(question_id=question.id, points=points)


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


@asynccontextmanager
async def graded_events(school: School) -> AsyncIterator[list[AttemptGraded]]:
    """What the service publishes about grades meanwhile, as far as it is committed when the block ends."""
    await school.settle()
    found: list[AttemptGraded] = []
    db, insert = school.stack.services["assessment"].db, outbox.insert

    async def noting(driver: Any, schema: str, events: Sequence[outbox.Pending]) -> None:
        await insert(driver, schema, events)
        kind = AttemptGraded.DESCRIPTOR.full_name
        if schema == db.service:
            found.extend(AttemptGraded.FromString(one.payload) for one in events if one.payload_type == kind)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox, "insert", noting)
        yield found


INTROSPECTION = re.compile(r"set_config\(\s*'jit'|\btypeinfo_tree\b")


@asynccontextmanager
async def transactions(school: School) -> AsyncIterator[list[list[str]]]:
    """What the service sends to the database meanwhile: the statements of each transaction that is committed.

    In no order that can be told: the driver says what is sent by hand, a moment later; the engine what it sends
    prepared. A connection that jobs and requests take one after the other has one listener, and what was sent on it
    before belongs to no transaction of the next. What the driver asks once about types on a new connection is left out.
    """
    sent: dict[Any, list[str]] = {}
    done: list[list[str]] = []
    engine = school.stack.services["assessment"].db.engine.sync_engine
    listening: dict[Any, Any] = {}

    def listen(connection: Any, record: Any, proxy: Any) -> None:
        driver = connection.driver_connection

        def log(logged: Any) -> None:
            if INTROSPECTION.search(logged.query):
                return
            sent.setdefault(driver, []).append(logged.query)
            if logged.query in ("COMMIT", "ROLLBACK"):
                statements = sent.pop(driver)
                if logged.query == "COMMIT":
                    done.append(sorted(statements))

        # After the COMMIT of whoever had the connection before, which may not be told yet.
        asyncio.get_running_loop().call_soon(sent.pop, driver, None)
        if driver not in listening:
            listening[driver] = log
            driver.add_query_logger(log)

    def executed(connection: Any, cursor: Any, statement: str, *others: Any) -> None:
        sent.setdefault(connection.connection.driver_connection, []).append(statement)

    event.listen(engine, "checkout", listen)
    event.listen(engine, "before_cursor_execute", executed)
    try:
        yield done
    finally:
        event.remove(engine, "checkout", listen)
        event.remove(engine, "before_cursor_execute", executed)
        for driver, log in listening.items():
            driver.remove_query_logger(log)


async def owner_executes(school: School, statement: str, *values: Any) -> list[Any]:
    connection = await asyncpg.connect(school.stack.cluster.superuser_url)
    try:
        return list(await connection.fetch(statement, *values))
    finally:
        await connection.close()
