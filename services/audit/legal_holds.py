"""Legal holds: orders that nothing of the log may go, put and released by administrators."""

from datetime import UTC
from typing import Any

from kit import audit
from kit.access import require
from kit.audit import Action
from kit.auth import current
from kit.db import Database
from kit.errors import wrong_state
from kit.models import check_etag, now
from kit.pagination import Page
from services.audit import models, queries
from storyloom.audit.v1 import legal_holds_pb2
from storyloom.audit.v1.legal_holds_pb2 import (
    CreateLegalHoldRequest,
    GetLegalHoldRequest,
    LegalHold,
    ListLegalHoldsRequest,
    ListLegalHoldsResponse,
    ReleaseLegalHoldRequest,
)

# Columns are named like the message's fields.
TIMES = ("start_time", "end_time", "release_time")


class LegalHoldService:
    SERVICE = legal_holds_pb2.DESCRIPTOR.services_by_name["LegalHoldService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def CreateLegalHold(self, request: CreateLegalHoldRequest, context: Any) -> LegalHold:
        wanted = request.legal_hold
        async with self.db.write() as session:
            hold = models.LegalHold(
                reason=wanted.reason,
                start_time=_time(wanted, "start_time"),
                end_time=_time(wanted, "end_time"),
                creator_id=current().subject,
                releaser_id=None,
                release_time=None,
            )
            require("create", hold)
            session.add(hold)
            audit.record(session, Action.CREATE, hold)
            await session.flush()
        return legal_hold_to_proto(hold)

    async def GetLegalHold(self, request: GetLegalHoldRequest, context: Any) -> LegalHold:
        async with self.db.read() as session:
            row = await queries.get_legal_hold_row(session, request.id)
        require("read", row, resource="legal_hold")
        return legal_hold_to_proto(row)

    async def ListLegalHolds(self, request: ListLegalHoldsRequest, context: Any) -> ListLegalHoldsResponse:
        page = Page.of(request)
        async with self.db.read() as session:
            rows, token = await queries.list_legal_holds(session, page, active_only=request.active_only)
        return ListLegalHoldsResponse(legal_holds=map(legal_hold_to_proto, rows), next_page_token=token)

    async def ReleaseLegalHold(self, request: ReleaseLegalHoldRequest, context: Any) -> LegalHold:
        async with self.db.write() as session:
            hold = await queries.get_legal_hold(session, request.id)
            require("release", hold)
            check_etag(hold, request.etag)
            if hold.release_time is not None:
                raise wrong_state("The hold is released already.", "released")
            hold.releaser_id, hold.release_time = current().subject, now()
            audit.record(session, "release", hold)
            await session.flush()
            await queries.destroy_condemned_keys(session)
        return legal_hold_to_proto(hold)


def legal_hold_to_proto(hold: Any) -> LegalHold:
    """Of an entity or a row."""
    message = LegalHold(
        id=str(hold.id),
        reason=hold.reason,
        creator_id=str(hold.creator_id),
        releaser_id=str(hold.releaser_id or ""),
        etag=str(hold.revision),
    )
    for name in TIMES:
        if (time := getattr(hold, name)) is not None:
            getattr(message, name).FromDatetime(time)
    message.create_time.FromDatetime(hold.created_at)
    message.update_time.FromDatetime(hold.updated_at)
    return message


def _time(wanted: LegalHold, name: str) -> Any:
    return getattr(wanted, name).ToDatetime(tzinfo=UTC) if wanted.HasField(name) else None
