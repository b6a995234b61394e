"""Statements on the log."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import ColumnElement, Row, Select, select

from kit.access import visible
from kit.db import ReadSession
from kit.errors import existing
from kit.pagination import Page
from services.audit.models import AuditLog
from services.audit.queries.filters import equal
from storyloom.audit.v1.audit_logs_pb2 import ExportAuditLogsRequest, ListAuditLogsRequest

ENTRY: Select[Any] = select(*(column for column in AuditLog.__table__.columns if column.key != "tenant_id"))

# An id has the time of the service that made the event, the event that of its database: their clocks may differ.
CLOCKS_DIFFER = timedelta(minutes=1)


async def get_audit_log(session: ReadSession, entry_id: str) -> Row[Any]:
    statement = ENTRY.where(AuditLog.tenant_id == session.tenant_id, AuditLog.id == UUID(entry_id))
    return existing((await session.execute(statement)).one_or_none(), "audit_log")


async def list_audit_logs(
    session: ReadSession, request: ListAuditLogsRequest, page: Page
) -> tuple[Sequence[Row[Any]], str]:
    statement = ENTRY.where(
        AuditLog.tenant_id == session.tenant_id, visible("list", AuditLog), *matching(request)
    )
    ordered = page.apply(statement, AuditLog.id, descending=request.order_by != "occur_time")
    rows = (await session.execute(ordered)).all()
    return page.split(rows, key=lambda row: (row.id,))


def matching(request: ListAuditLogsRequest | ExportAuditLogsRequest) -> list[ColumnElement[bool]]:
    """The request's filters and time range."""
    return [
        *equal(AuditLog, request, texts=("entity_type", "action", "request_id", "trace_id")),
        *equal(AuditLog, request, ids=("entity_id", "user_id")),
        *_within(request),
    ]


def _within(request: ListAuditLogsRequest | ExportAuditLogsRequest) -> list[ColumnElement[bool]]:
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
