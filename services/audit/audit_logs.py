"""The audit log: written by the events of all services, read by auditors, and their reading is in it too."""

import json
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from sqlalchemy import Row

from kit import audit
from kit.access import require
from kit.db import Database, WriteSession
from kit.ids import NIL
from kit.pagination import Page
from services.audit import queries
from storyloom.audit.v1 import audit_logs_pb2
from storyloom.audit.v1.audit_logs_pb2 import (
    AuditLog,
    GetAuditLogRequest,
    ListAuditLogsRequest,
    ListAuditLogsResponse,
)
from storyloom.event.v1.changes_pb2 import ChangeRecorded
from storyloom.event.v1.events_pb2 import Event

READ = "read_audit_log"


async def on_change_recorded(session: WriteSession, event: Event, change: ChangeRecorded) -> None:
    await queries.insert_audit_log(session, event, change)


class AuditLogService:
    SERVICE = audit_logs_pb2.DESCRIPTOR.services_by_name["AuditLogService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def GetAuditLog(self, request: GetAuditLogRequest, context: Any) -> AuditLog:
        async with self.db.write() as session:
            row = await queries.get_audit_log(session, request.id)
            require("read", row, resource="audit_log")
            audit.write(session, READ, "audit_log", row.id)
        return audit_log_to_proto(row)

    async def ListAuditLogs(self, request: ListAuditLogsRequest, context: Any) -> ListAuditLogsResponse:
        page = Page.of(request)
        async with self.db.write() as session:
            rows, token = await queries.list_audit_logs(session, request, page)
            audit.write(session, READ, "audit_log", NIL, new=_filters(request))
        entries = [audit_log_to_proto(row) for row in rows]
        return ListAuditLogsResponse(audit_logs=entries, next_page_token=token)


def audit_log_to_proto(row: Row[Any]) -> AuditLog:
    message = AuditLog(
        id=str(row.id),
        action=row.action,
        entity_type=row.entity_type,
        entity_id=str(row.entity_id),
        user_id=str(row.user_id or ""),
        acting_tenant_id=str(row.acting_tenant_id or ""),
        service=row.service,
        request_id=row.request_id,
        trace_id=row.trace_id,
        rpc=row.rpc,
        client_address=row.client_address,
    )
    _fill(message.old_values, row.old_values)
    _fill(message.new_values, row.new_values)
    message.occur_time.FromDatetime(row.occurred_at)
    message.record_time.FromDatetime(row.recorded_at)
    return message


def _fill(values: Struct, stored: str | None) -> None:
    if stored is None:
        return
    values.SetInParent()
    # A Struct has doubles only, and JSON no NaN: numbers that are neither become text instead of an error.
    values.update(json.loads(stored, parse_int=float, parse_constant=str))


def _filters(request: ListAuditLogsRequest) -> dict[str, Any]:
    """What was looked for, as the entry of the look-up says it."""
    filters = MessageToDict(request, preserving_proto_field_name=True)
    return {name: value for name, value in filters.items() if name not in {"page_size", "page_token"}}
