"""Statements on the log and on approvals."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import ColumnElement, Row, Select, select

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import NotFound
from kit.pagination import Page
from services.audit.models import Approval, ApprovalDecision, AuditLog
from services.audit.rules import State
from storyloom.audit.v1.approvals_pb2 import ListApprovalsRequest
from storyloom.audit.v1.audit_logs_pb2 import ListAuditLogsRequest
from storyloom.event.v1.changes_pb2 import ChangeRecorded
from storyloom.event.v1.events_pb2 import Event

ENTRY: Select[Any] = select(*(column for column in AuditLog.__table__.columns if column.key != "tenant_id"))
APPROVAL: Select[Any] = select(*(column for column in Approval.__table__.columns if column.key != "tenant_id"))

# An id has the time of the service that made the event, the event that of its database: their clocks may differ.
CLOCKS_DIFFER = timedelta(minutes=1)

INSERT_ENTRY = """
INSERT INTO audit.audit_logs (tenant_id, id, action, entity_type, entity_id, user_id, acting_tenant_id, service,
  old_values, new_values, request_id, trace_id, rpc, client_address, occurred_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
ON CONFLICT (tenant_id, id) DO NOTHING
"""


async def insert_audit_log(session: WriteSession, event: Event, change: ChangeRecorded) -> None:
    """Adds the entry; one that is there already stays as it is."""
    await session.fetchrow(
        INSERT_ENTRY,
        UUID(event.id),
        change.action,
        change.entity_type,
        UUID(change.entity_id),
        _optional(change.user_id),
        _optional(change.acting_tenant_id),
        change.service,
        change.old_values or None,
        change.new_values or None,
        change.request_id,
        change.trace_id,
        change.rpc,
        change.client_address,
        event.occur_time.ToDatetime(tzinfo=UTC),
    )


async def get_audit_log(session: ReadSession, entry_id: str) -> Row[Any]:
    statement = ENTRY.where(AuditLog.tenant_id == session.tenant_id, AuditLog.id == UUID(entry_id))
    row = (await session.execute(statement)).one_or_none()
    if row is None:
        raise NotFound("audit_log")
    return row


async def list_audit_logs(
    session: ReadSession, request: ListAuditLogsRequest, page: Page
) -> tuple[Sequence[Row[Any]], str]:
    statement = ENTRY.where(
        AuditLog.tenant_id == session.tenant_id,
        visible("list", AuditLog),
        *_equal(AuditLog, request, texts=("entity_type", "action", "request_id", "trace_id")),
        *_equal(AuditLog, request, ids=("entity_id", "user_id")),
        *_within(request),
    )
    rows = (await session.execute(page.apply(statement, AuditLog.id))).all()
    return page.split(rows, key=lambda row: (row.id,))


async def get_approval(session: WriteSession, approval_id: str) -> Approval:
    """The approval, locked: decisions on it are made one after the other."""
    statement = select(Approval).where(Approval.tenant_id == session.tenant_id, Approval.id == UUID(approval_id))
    approval: Approval | None = (await session.execute(statement.with_for_update())).scalar_one_or_none()
    if approval is None:
        raise NotFound("approval")
    return approval


async def get_approval_row(session: ReadSession, approval_id: str) -> Row[Any]:
    statement = APPROVAL.where(Approval.tenant_id == session.tenant_id, Approval.id == UUID(approval_id))
    row = (await session.execute(statement)).one_or_none()
    if row is None:
        raise NotFound("approval")
    return row


async def list_approvals(
    session: ReadSession, request: ListApprovalsRequest, state: str, page: Page
) -> tuple[Sequence[Row[Any]], str]:
    statement = APPROVAL.where(
        Approval.tenant_id == session.tenant_id,
        visible("list", Approval),
        *_equal(Approval, request, texts=("entity_type",), ids=("entity_id", "requester_id")),
        *([Approval.state == state] if state else []),
    )
    rows = (await session.execute(page.apply(statement, Approval.id))).all()
    return page.split(rows, key=lambda row: (row.id,))


async def list_pending(
    session: WriteSession, entity_type: str, entity_id: str, content_hash: str
) -> Sequence[Approval]:
    """The pending approvals bound to this content, locked."""
    statement = select(Approval).where(
        Approval.tenant_id == session.tenant_id,
        Approval.entity_type == entity_type,
        Approval.entity_id == UUID(entity_id),
        Approval.content_hash == content_hash,
        Approval.state == State.PENDING,
    )
    found: Sequence[Approval] = (await session.execute(statement.with_for_update())).scalars().all()
    return found


async def list_decisions(session: ReadSession, approval_ids: Sequence[UUID]) -> dict[UUID, list[Row[Any]]]:
    """The decisions on these approvals, oldest first, by approval."""
    found: dict[UUID, list[Row[Any]]] = {one: [] for one in approval_ids}
    columns = ApprovalDecision.__table__.columns
    statement = (
        select(columns.approval_id, columns.user_id, columns.verdict, columns.comment, columns.created_at)
        .where(ApprovalDecision.tenant_id == session.tenant_id, ApprovalDecision.approval_id.in_(approval_ids))
        .order_by(ApprovalDecision.id)
    )
    for row in await session.execute(statement):
        found[row.approval_id].append(row)
    return found


def _equal(
    model: Any, request: Any, *, texts: Sequence[str] = (), ids: Sequence[str] = ()
) -> list[ColumnElement[bool]]:
    """One condition for each filter that the request sets; columns are named like the request's fields."""
    wanted = {name: getattr(request, name) for name in (*texts, *ids)}
    return [
        getattr(model, name) == (UUID(value) if name in ids else value) for name, value in wanted.items() if value
    ]


def _within(request: ListAuditLogsRequest) -> list[ColumnElement[bool]]:
    """The time range; as a range of ids besides, so that only its months are read."""
    conditions = []
    if request.HasField("start_time"):
        start = _time(request.start_time)
        conditions += [AuditLog.occurred_at >= start, AuditLog.id >= _first_id(start - CLOCKS_DIFFER)]
    if request.HasField("end_time"):
        end = _time(request.end_time)
        conditions += [AuditLog.occurred_at < end, AuditLog.id < _first_id(end + CLOCKS_DIFFER)]
    return conditions


def _time(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)


def _first_id(at: datetime) -> UUID:
    """The smallest UUIDv7 of that millisecond, or of 1970."""
    return UUID(int=max(0, int(at.timestamp() * 1000)) << 80)


def _optional(text: str) -> UUID | None:
    return UUID(text) if text else None
