"""Extensions: more time, more attempts or another closing time for single learners."""

from collections.abc import Collection
from datetime import UTC
from typing import Any
from uuid import UUID

from kit import audit, fieldmask
from kit.access import may, require
from kit.audit import Action
from kit.auth import current
from kit.db import Database, WriteSession
from kit.errors import FailedPrecondition, reference_not_found
from kit.models import check_etag, now
from kit.pagination import Page
from services.assessment import models, rules
from services.assessment.queries import attempts
from services.assessment.queries import extensions as queries
from storyloom.assessment.v1 import extensions_pb2
from storyloom.assessment.v1.extensions_pb2 import (
    CreateExtensionRequest,
    DeleteExtensionRequest,
    Extension,
    GetExtensionRequest,
    ListExtensionsRequest,
    ListExtensionsResponse,
    UpdateExtensionRequest,
)
from storyloom.identity.v1.access_pb2 import GetUserSummariesRequest
from storyloom.identity.v1.access_pb2_grpc import AccessServiceStub

WRITABLE = ("extra_time", "extra_attempts", "close_time", "reason")


class ExtensionService:
    SERVICE = extensions_pb2.DESCRIPTOR.services_by_name["ExtensionService"]

    def __init__(self, db: Database, access: AccessServiceStub) -> None:
        self.db = db
        self.access: Any = access

    async def CreateExtension(self, request: CreateExtensionRequest, context: Any) -> Extension:
        given = request.extension
        quiz_id, user_id = UUID(given.quiz_id), UUID(given.user_id)
        extension = models.Extension(quiz_id=quiz_id, user_id=user_id, **_stored(given, WRITABLE))
        require("create", extension)
        await self._check_user(user_id)
        async with self.db.write() as session:
            quiz = await queries.find_quiz(session, quiz_id)
            if quiz is None or not may("read", quiz, resource="quiz"):
                raise _missing("quiz", quiz_id)
            rules.check_not_archived(quiz.status)
            session.add(extension)
            audit.record(session, Action.CREATE, extension)
            await session.flush()
            await _apply(session, extension, quiz)
        return extension_to_proto(extension)

    async def GetExtension(self, request: GetExtensionRequest, context: Any) -> Extension:
        async with self.db.read() as session:
            row = await queries.get_extension(session, UUID(request.id))
        require("read", row, resource="extension")
        return extension_to_proto(row)

    async def ListExtensions(self, request: ListExtensionsRequest, context: Any) -> ListExtensionsResponse:
        async with self.db.read() as session:
            rows, token = await queries.list_extensions(
                session, Page.of(request), quiz_id=request.quiz_id, user_id=request.user_id
            )
        return ListExtensionsResponse(extensions=map(extension_to_proto, rows), next_page_token=token)

    async def UpdateExtension(self, request: UpdateExtensionRequest, context: Any) -> Extension:
        names = fieldmask.changes(request.extension, request.update_mask, WRITABLE)
        async with self.db.write() as session:
            extension, quiz = await queries.get_extension_to_change(session, UUID(request.extension.id))
            require("update", extension)
            check_etag(extension, request.extension.etag)
            for name, value in _stored(request.extension, names).items():
                setattr(extension, name, value)
            extension.updated_at = now()
            audit.record(session, Action.UPDATE, extension)
            await _apply(session, extension, quiz)
        return extension_to_proto(extension)

    async def DeleteExtension(self, request: DeleteExtensionRequest, context: Any) -> Extension:
        async with self.db.write() as session:
            extension, quiz = await queries.get_extension_to_change(session, UUID(request.id))
            require("delete", extension)
            check_etag(extension, request.etag)
            audit.record(session, Action.DELETE, extension)
            await session.delete(extension)
            answer = extension_to_proto(extension)
            extension.extra_time = extension.close_time = None
            await _apply(session, extension, quiz)
        return answer

    async def _check_user(self, user_id: UUID) -> None:
        request = GetUserSummariesRequest(tenant_id=str(current().tenant_id), ids=[str(user_id)])
        if not any(one.exists for one in (await self.access.GetUserSummaries(request)).users):
            raise _missing("user", user_id)


def _missing(kind: str, missing: UUID) -> FailedPrecondition:
    return reference_not_found(f"There is no such {kind}.", field=f"extension.{kind}_id", id=str(missing))


async def _apply(session: WriteSession, extension: models.Extension, quiz: Any) -> None:
    """Gives the learner's open attempt the deadline that it has with the extension; not one that is over already, and
    never one in the past."""
    at = now()
    await attempts.take_turn(session, extension.quiz_id, extension.user_id)
    attempt = await attempts.find_open(session, extension.quiz_id, extension.user_id)
    if attempt is None or rules.state_at(attempt, at) != rules.OPEN:
        return
    closing = extension.close_time or quiz.close_time
    deadline = rules.deadline(attempt.created_at, attempt.time_limit, extension.extra_time, closing)
    deadline = deadline and max(deadline, at)
    if deadline == attempt.deadline_time:
        return
    await attempts.move_deadline(session, attempt.id, deadline, at)
    old, new = {"deadline_time": attempt.deadline_time}, {"deadline_time": deadline}
    audit.write(session, "extend", "attempt", attempt.id, old=old, new=new, subject_id=attempt.user_id)


def _stored(extension: Extension, names: Collection[str]) -> dict[str, Any]:
    """These fields as the table has them."""
    convert: dict[str, Any] = {
        "extra_time": lambda: extension.extra_time.ToTimedelta() if extension.HasField("extra_time") else None,
        "close_time": lambda: extension.close_time.ToDatetime(tzinfo=UTC) if extension.HasField("close_time") else None,
    }
    return {name: convert[name]() if name in convert else getattr(extension, name) for name in names}


def extension_to_proto(extension: Any) -> Extension:
    """Of an entity or a row."""
    message = Extension(
        id=str(extension.id),
        quiz_id=str(extension.quiz_id),
        user_id=str(extension.user_id),
        extra_attempts=extension.extra_attempts,
        reason=extension.reason,
        etag=str(extension.revision),
    )
    message.create_time.FromDatetime(extension.created_at)
    message.update_time.FromDatetime(extension.updated_at)
    if extension.extra_time:
        message.extra_time.FromTimedelta(extension.extra_time)
    if extension.close_time:
        message.close_time.FromDatetime(extension.close_time)
    return message
