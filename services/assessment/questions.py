"""The bank of questions: each change of one makes a new version."""

from collections.abc import Callable, Collection, Mapping
from typing import Any
from uuid import UUID

from kit import audit, fieldmask
from kit.access import require
from kit.audit import Action
from kit.auth import current
from kit.db import Database
from kit.ids import new_id
from kit.models import check_etag, now
from kit.pagination import Page
from services.assessment import models
from services.assessment.bodies import check_body
from services.assessment.queries import questions as queries
from services.assessment.rules import wrong_state
from storyloom.assessment.v1 import questions_pb2
from storyloom.assessment.v1.questions_pb2 import (
    Blank,
    Choice,
    CreateQuestionRequest,
    DeleteQuestionRequest,
    GetQuestionRequest,
    ListQuestionsRequest,
    ListQuestionsResponse,
    Question,
    QuestionType,
    UndeleteQuestionRequest,
    UpdateQuestionRequest,
)

WRITABLE = ("prompt", "choices", "multiple", "blanks", "case_sensitive", "ignore_accents", "explanation")


class QuestionService:
    SERVICE = questions_pb2.DESCRIPTOR.services_by_name["QuestionService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def CreateQuestion(self, request: CreateQuestionRequest, context: Any) -> Question:
        body = _body(request.question, WRITABLE) | {"type": _stored_type(request.question.type)}
        question = models.Question(type=body["type"], prompt=body["prompt"], author_id=current().subject)
        require("create", question)
        check_body(body)
        async with self.db.write() as session:
            session.add(question)
            audit.record(session, Action.CREATE, question)
            await session.flush()
            session.add(_version(question, body))
        return question_to_proto(question, body)

    async def GetQuestion(self, request: GetQuestionRequest, context: Any) -> Question:
        async with self.db.read() as session:
            row = await queries.get_question_row(session, request.id)
            require("read", row, resource="question")
        return question_to_proto(row, row.body)

    async def ListQuestions(self, request: ListQuestionsRequest, context: Any) -> ListQuestionsResponse:
        page = Page.of(request)
        kind = _stored_type(request.type) if request.type else ""
        async with self.db.read() as session:
            rows, token = await queries.list_questions(session, page, kind=kind, query=request.query)
        return ListQuestionsResponse(
            questions=[question_to_proto(row, row.body) for row in rows], next_page_token=token
        )

    async def UpdateQuestion(self, request: UpdateQuestionRequest, context: Any) -> Question:
        names = fieldmask.changes(request.question, request.update_mask, WRITABLE)
        async with self.db.write() as session:
            question = await queries.get_question(session, request.question.id)
            require("update", question)
            check_etag(question, request.question.etag)
            before = await queries.get_body(session, question)
            body = before | _body(request.question, names)
            check_body(body, known={choice["id"] for choice in before["choices"]})
            question.prompt, question.version = body["prompt"], question.version + 1
            audit.record(session, Action.UPDATE, question)
            session.add(_version(question, body))
        return question_to_proto(question, body)

    async def DeleteQuestion(self, request: DeleteQuestionRequest, context: Any) -> Question:
        async with self.db.write() as session:
            question = await queries.get_question(session, request.id)
            require("delete", question)
            check_etag(question, request.etag)
            if await queries.is_in_use(session, question.id):
                raise wrong_state("A quiz has the question; archive the quiz or take it out first.", "in_use")
            question.deleted_at = now()
            audit.record(session, Action.DELETE, question)
            body = await queries.get_body(session, question)
        return question_to_proto(question, body)

    async def UndeleteQuestion(self, request: UndeleteQuestionRequest, context: Any) -> Question:
        async with self.db.write() as session:
            question = await queries.get_question(session, request.id, deleted=True)
            require("undelete", question)
            check_etag(question, request.etag)
            if question.deleted_at is None:
                raise wrong_state("The question is not deleted.", "not_deleted")
            question.deleted_at = None
            audit.record(session, Action.UNDELETE, question)
            body = await queries.get_body(session, question)
        return question_to_proto(question, body)


def _version(question: models.Question, body: Mapping[str, Any]) -> models.QuestionVersion:
    """The version row of a checked body; choices that are new get their ids here."""
    for choice in body["choices"]:
        choice["id"] = choice["id"] or str(new_id())
    return models.QuestionVersion(question_id=question.id, version=question.version, body=body)


def _body(question: Question, names: Collection[str]) -> dict[str, Any]:
    """These fields as a body has them."""
    convert: dict[str, Callable[[], Any]] = {
        "choices": lambda: [_stored_choice(choice) for choice in question.choices],
        "blanks": lambda: [list(blank.accepted) for blank in question.blanks],
    }
    return {name: convert[name]() if name in convert else getattr(question, name) for name in names}


def _stored_choice(choice: Choice) -> dict[str, Any]:
    return {
        "id": str(UUID(choice.id)) if choice.id else "",
        "text": choice.text,
        "correct": choice.correct,
        "feedback": choice.feedback,
    }


def question_to_proto(question: Any, body: Mapping[str, Any]) -> Question:
    """Of an entity or a row, with the body of its version."""
    message = Question(
        id=str(question.id),
        type=type_to_proto(question.type),
        prompt=body["prompt"],
        choices=[Choice(**choice) for choice in body["choices"]],
        multiple=body["multiple"],
        blanks=[Blank(accepted=accepted) for accepted in body["blanks"]],
        case_sensitive=body["case_sensitive"],
        ignore_accents=body["ignore_accents"],
        explanation=body["explanation"],
        version=question.version,
        author_id=str(question.author_id),
        etag=str(question.revision),
    )
    message.create_time.FromDatetime(question.created_at)
    message.update_time.FromDatetime(question.updated_at)
    if question.deleted_at:
        message.delete_time.FromDatetime(question.deleted_at)
    return message


def type_to_proto(stored: str) -> str:
    return f"QUESTION_TYPE_{stored.upper()}"


def _stored_type(value: QuestionType) -> str:
    return QuestionType.Name(value).removeprefix("QUESTION_TYPE_").lower()
