"""Entries as their readers see them."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from sys import float_info
from typing import Any

from google.protobuf.struct_pb2 import Struct

from kit.db import ReadSession
from services.audit.recording import Seals
from storyloom.audit.v1.audit_logs_pb2 import AuditLog

LARGEST_DOUBLE = int(float_info.max)
TEXTS = (
    *("id", "action", "entity_type", "entity_id", "user_id", "acting_tenant_id", "service"),
    *("request_id", "trace_id", "rpc", "client_address"),
)


async def shown(seals: Seals, session: ReadSession, rows: Iterable[Any]) -> list[AuditLog]:
    """The entries of rows with `leaf` and `recorded_at`, opened as far as their keys are there."""
    rows = list(rows)
    entries = await seals.opened(session, (row.leaf for row in rows))
    return [audit_log_to_proto(entry, row.recorded_at) for entry, row in zip(entries, rows, strict=True)]


def audit_log_to_proto(entry: Mapping[str, Any], recorded_at: datetime) -> AuditLog:
    """Of an opened leaf: what is shown is what the proofs are of."""
    texts: dict[str, Any] = {name: entry[name] or "" for name in TEXTS}
    message = AuditLog(**texts)
    for name in ("old_values", "new_values"):
        if entry[name] is not None:
            values: Struct = getattr(message, name)
            values.SetInParent()
            values.update(_shown(entry[name]))
    message.occur_time.FromJsonString(entry["occur_time"])
    message.record_time.FromDatetime(recorded_at)
    return message


def _shown(value: Any) -> Any:
    """The value as a Struct can have it, which has doubles only: an integer beyond them becomes text."""
    if isinstance(value, dict):
        return {name: _shown(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_shown(one) for one in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST_DOUBLE:
        return str(value)
    return value
