"""Calls of people who take quizzes, and what the log says of it."""

from typing import Any

from storyloom.assessment.v1.answers_pb2 import Response
from storyloom.assessment.v1.attempts_pb2 import (
    Attempt,
    AttemptState,
    CreateAttemptRequest,
    GetAttemptRequest,
    SaveResponsesRequest,
    SubmitAttemptRequest,
)
from storyloom.assessment.v1.attempts_pb2_grpc import AttemptServiceStub
from storyloom.assessment.v1.quizzes_pb2 import Quiz
from storyloom.audit.v1.audit_logs_pb2 import ListAuditLogsRequest
from storyloom.audit.v1.audit_logs_pb2_grpc import AuditLogServiceStub
from tests.stack import Person, School

OPEN, GRADED, EXPIRED = (AttemptState.Value(f"ATTEMPT_STATE_{name}") for name in ("OPEN", "GRADED", "EXPIRED"))


def attempts(person: Person) -> AttemptServiceStub:
    return person.stub(AttemptServiceStub, "assessment")


async def start(person: Person, quiz: Quiz) -> Attempt:
    return await attempts(person).CreateAttempt(CreateAttemptRequest(quiz_id=quiz.id))


async def save(person: Person, attempt: Attempt, *responses: Response, **fields: Any) -> Attempt:
    return await attempts(person).SaveResponses(SaveResponsesRequest(id=attempt.id, responses=responses, **fields))


async def submit(person: Person, attempt: Attempt, *responses: Response, **fields: Any) -> Attempt:
    return await attempts(person).SubmitAttempt(SubmitAttemptRequest(id=attempt.id, responses=responses, **fields))


async def get(person: Person, attempt: Attempt) -> Attempt:
    return await attempts(person).GetAttempt(GetAttemptRequest(id=attempt.id))


def unasked(attempt: Attempt) -> Attempt:
    """The attempt as `SaveResponses` and `SubmitAttempt` answer with it: without its questions."""
    found = Attempt()
    found.CopyFrom(attempt)
    found.ClearField("questions")
    return found


async def entries(school: School, attempt: Attempt) -> list[Any]:
    """What the audit log has of the attempt, oldest first."""
    await school.settle()
    stub = school.auditor.stub(AuditLogServiceStub, "audit")
    listed = await stub.ListAuditLogs(ListAuditLogsRequest(entity_type="attempt", entity_id=attempt.id))
    return list(listed.audit_logs)[::-1]
