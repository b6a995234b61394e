"""The bank of questions: each change of one makes a new version."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from google.protobuf.empty_pb2 import Empty

from kit import audit, fieldmask
from kit.access import require
from kit.audit import Action
from kit.auth import current
from kit.db import Database
from kit.errors import wrong_state
from kit.models import check_etag, now
from kit.pagination import Page
from services.assessment import models
from services.assessment.bodies import check_body, check_tags, tag_key
from services.assessment.queries import questions as queries
from services.assessment.queries.exercises import check_exercise
from services.assessment.question_messages import CONTENTS, body_of, question_to_proto, stored_type
from services.assessment.rules import plain
from storyloom.assessment.v1 import questions_pb2
from storyloom.assessment.v1.questions_pb2 import (
    BatchGetQuestionsRequest,
    BatchGetQuestionsResponse,
    CreateQuestionRequest,
    DeleteQuestionRequest,
    GetQuestionRequest,
    ListQuestionsRequest,
    ListQuestionsResponse,
    ListQuestionUsesRequest,
    ListQuestionUsesResponse,
    PurgeQuestionRequest,
    Question,
    QuestionUse,
    UndeleteQuestionRequest,
    UpdateQuestionRequest,
)

WRITABLE = (*CONTENTS, "tags")


class QuestionService:
    SERVICE = questions_pb2.DESCRIPTOR.services_by_name["QuestionService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def CreateQuestion(self, request: CreateQuestionRequest, context: Any) -> Question:
        kind, tags = stored_type(request.question.type), check_tags(request.question.tags)
        question = models.Question(
            type=kind, prompt=request.question.prompt, tags=tags, author_id=current().subject, facility=None
        )
        require("create", question)
        body = body_of(request.question, kind, CONTENTS)
        check_body(body)
        async with self.db.write() as session:
            await check_exercise(session, body["exercise_id"])
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
        page, tags = Page.of(request), [tag_key(one) for one in request.tags]
        kind = stored_type(request.type) if request.type else ""
        async with self.db.read() as session:
            rows, token = await queries.list_questions(
                session, page, kind=kind, query=request.query, tags=tags, author_id=request.author_id
            )
        return ListQuestionsResponse(
            questions=[question_to_proto(row, row.body) for row in rows], next_page_token=token
        )

    async def BatchGetQuestions(self, request: BatchGetQuestionsRequest, context: Any) -> BatchGetQuestionsResponse:
        async with self.db.read() as session:
            rows = await queries.list_some(session, [UUID(one) for one in request.ids])
        return BatchGetQuestionsResponse(questions=[question_to_proto(row, row.body) for row in rows])

    async def ListQuestionUses(self, request: ListQuestionUsesRequest, context: Any) -> ListQuestionUsesResponse:
        page = Page.of(request)
        async with self.db.read() as session:
            question = await queries.get_question_row(session, request.question_id)
            require("read", question, resource="question")
            rows, token = await queries.list_uses(session, page, question.id)
        return ListQuestionUsesResponse(question_uses=map(_use_to_proto, rows), next_page_token=token)

    async def UpdateQuestion(self, request: UpdateQuestionRequest, context: Any) -> Question:
        names = fieldmask.changes(request.question, request.update_mask, WRITABLE)
        async with self.db.write() as session:
            question = await queries.get_question(session, request.question.id)
            require("update", question)
            check_etag(question, request.question.etag)
            before = await queries.get_latest(session, question)
            said = [name for name in names if name != "tags"]
            body = body_of(request.question, question.type, said, before.body)
            if "tags" in names:
                question.tags = check_tags(request.question.tags)
            # What says the same changes the question's etag all the same.
            question.updated_at = now()
            if said:
                check_body(body)
                if "exercise_id" in said:
                    await check_exercise(session, body["exercise_id"])
                question.prompt, question.version = body["prompt"], question.version + 1
                session.add(_version(question, body, before.preserved))
            audit.record(session, Action.UPDATE, question)
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

    async def PurgeQuestion(self, request: PurgeQuestionRequest, context: Any) -> Empty:
        async with self.db.write() as session:
            question = await queries.get_question(session, request.id, deleted=True)
            require("purge", question)
            check_etag(question, request.etag)
            if question.deleted_at is None:
                raise wrong_state("The question is not deleted.", "not_deleted")
            await queries.keep_attempts_out(session)
            if await queries.is_pinned(session, question.id):
                raise wrong_state("A quiz or an attempt has the question.", "in_use")
            await queries.purge(session, question)
            audit.record(session, "purge", question)
        return Empty()


def _version(question: models.Question, body: Mapping[str, Any], preserved: Any = None) -> models.QuestionVersion:
    """The version row of a checked body."""
    return models.QuestionVersion(
        question_id=question.id, version=question.version, body=body, preserved=preserved or {}
    )


def _use_to_proto(row: Any) -> QuestionUse:
    return QuestionUse(
        quiz_id=str(row.id), title=row.title, status=f"QUIZ_STATUS_{row.status.upper()}", points=plain(row.points)
    )
