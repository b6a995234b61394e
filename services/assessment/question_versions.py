"""Versions of questions, which never change: what attempts keep, for those who may read questions."""

from typing import Any
from uuid import UUID

from kit.access import require
from kit.db import Database
from kit.pagination import Page
from services.assessment.queries import question_versions as queries
from services.assessment.queries.questions import get_question_row
from services.assessment.question_messages import content_to_proto
from storyloom.assessment.v1 import question_versions_pb2
from storyloom.assessment.v1.question_versions_pb2 import (
    GetQuestionVersionRequest,
    ListQuestionVersionsRequest,
    ListQuestionVersionsResponse,
    QuestionVersion,
)
from storyloom.assessment.v1.questions_pb2 import Question


class QuestionVersionService:
    SERVICE = question_versions_pb2.DESCRIPTOR.services_by_name["QuestionVersionService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def GetQuestionVersion(self, request: GetQuestionVersionRequest, context: Any) -> QuestionVersion:
        async with self.db.read() as session:
            question = await get_question_row(session, request.question_id)
            require("read", question, resource="question")
            version = await queries.get_version(session, question.id, request.version)
        return version_to_proto(version)

    async def ListQuestionVersions(
        self, request: ListQuestionVersionsRequest, context: Any
    ) -> ListQuestionVersionsResponse:
        page = Page.of(request)
        async with self.db.read() as session:
            question = await get_question_row(session, request.question_id)
            require("read", question, resource="question")
            rows, token = await queries.list_versions(session, page, UUID(request.question_id))
        return ListQuestionVersionsResponse(question_versions=map(version_to_proto, rows), next_page_token=token)


def version_to_proto(row: Any) -> QuestionVersion:
    message = QuestionVersion(
        id=str(row.id),
        question_id=str(row.question_id),
        version=row.version,
        content=Question(**content_to_proto(row.body)),
    )
    message.create_time.FromDatetime(row.created_at)
    return message
