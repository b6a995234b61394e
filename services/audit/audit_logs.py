"""The audit log: written by the events of all services, read by auditors, and their reading is in it too."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from kit import audit
from kit.access import require, require_any
from kit.auth import current
from kit.db import Database
from kit.ids import NIL
from kit.pagination import Page
from services.audit import models, queries
from services.audit.exporting import Exports
from services.audit.recording import Seals
from services.audit.showing import shown
from services.audit.tailing import Tails
from storyloom.audit.v1 import audit_logs_pb2
from storyloom.audit.v1.audit_logs_pb2 import (
    AuditLog,
    ExportAuditLogsRequest,
    ExportAuditLogsResponse,
    GetAuditLogRequest,
    ListAuditLogsRequest,
    ListAuditLogsResponse,
    WatchAuditLogsRequest,
    WatchAuditLogsResponse,
)

READ, EXPORT, WATCH = "read_audit_log", "export_audit_log", "watch_audit_log"


class AuditLogService:
    SERVICE = audit_logs_pb2.DESCRIPTOR.services_by_name["AuditLogService"]

    def __init__(self, db: Database, seals: Seals, exports: Exports, tails: Tails) -> None:
        self.db, self.seals, self.exports, self.tails = db, seals, exports, tails

    async def GetAuditLog(self, request: GetAuditLogRequest, context: Any) -> AuditLog:
        async with self.db.write() as session:
            row = await queries.get_audit_log(session, request.id)
            require("read", row, resource="audit_log")
            (entry,) = await shown(self.seals, session, [row])
            audit.write(session, READ, "audit_log", row.id)
        return entry

    async def ListAuditLogs(self, request: ListAuditLogsRequest, context: Any) -> ListAuditLogsResponse:
        page = Page.of(request)
        async with self.db.write() as session:
            rows, token = await queries.list_audit_logs(session, request, page)
            entries = await shown(self.seals, session, rows)
            audit.write(session, READ, "audit_log", NIL, new=_filters(request))
        return ListAuditLogsResponse(audit_logs=entries, next_page_token=token)

    async def ExportAuditLogs(
        self, request: ExportAuditLogsRequest, context: Any
    ) -> AsyncIterator[ExportAuditLogsResponse]:
        require_any("export", models.AuditLog)
        async with self.db.write() as session:
            plan = await self.exports.plan(session, request)
            audit.write(session, EXPORT, "audit_log", NIL, new=_filters(request) | {"rows": plan.total})
        # Not a byte leaves before it is written down that it does.
        async with aclosing(self.exports.write(plan)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def WatchAuditLogs(
        self, request: WatchAuditLogsRequest, context: Any
    ) -> AsyncIterator[WatchAuditLogsResponse]:
        require_any("watch", models.AuditLog)
        with self.tails.joined(current().tenant_id) as tail:
            async with self.db.write() as session:
                await tail.start(session, request.after_id)
                audit.write(session, WATCH, "audit_log", NIL, new=_filters(request))
            async with aclosing(tail.follow(request)) as news:
                async for one in news:
                    yield one


def _filters(request: Message) -> dict[str, Any]:
    """What was looked for, as the entry of the look-up says it."""
    filters = MessageToDict(request, preserving_proto_field_name=True)
    return {name: value for name, value in filters.items() if name not in {"page_size", "page_token"}}
