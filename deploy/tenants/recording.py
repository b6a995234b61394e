"""What the audit logs say of exports and imports: that of the platform, and the tenant's own."""

from typing import Any
from uuid import UUID

import asyncpg

from kit import audit, outbox
from kit.ids import SYSTEM_TENANT, new_id
from storyloom.event.v1.changes_pb2 import ChangeRecorded


async def record(
    database: asyncpg.Connection, action: str, tenant_id: UUID, operator_id: str, values: dict[str, Any]
) -> None:
    """Records in both logs, with the transaction at hand, what the operator does to the tenant."""
    events = []
    for home in (SYSTEM_TENANT, tenant_id):
        change = audit.entry(action, "tenant", tenant_id, call=None, tenant_id=home)
        change.user_id, change.new_values = operator_id, audit.as_json(values)
        if home != SYSTEM_TENANT:
            change.acting_tenant_id = str(SYSTEM_TENANT)
        kind, data = ChangeRecorded.DESCRIPTOR.full_name, change.SerializeToString()
        events.append(outbox.Pending(new_id(), home, "audit", "tenant", tenant_id, kind, data, traceparent=""))
    await outbox.insert(database, "identity", events)
