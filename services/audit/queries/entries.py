"""Statements that add to the log."""

from collections.abc import Sequence
from typing import Any

from kit.db import WriteSession

# An entry that is there already stays as it is, and is not put into the tree again.
INSERT_ENTRIES = """
WITH added AS (
  INSERT INTO audit.audit_logs (tenant_id, id, action, entity_type, entity_id, user_id, acting_tenant_id, service,
    request_id, trace_id, rpc, occurred_at, leaf)
  SELECT $1, * FROM unnest($2::uuid[], $3::text[], $4::text[], $5::uuid[], $6::uuid[], $7::uuid[], $8::text[],
    $9::text[], $10::text[], $11::text[], $12::timestamptz[], $13::bytea[])
  ON CONFLICT (tenant_id, id) DO NOTHING RETURNING tenant_id, id
)
INSERT INTO audit.tree_queue (tenant_id, id) SELECT tenant_id, id FROM added
"""


async def insert_entries(session: WriteSession, rows: Sequence[tuple[Any, ...]]) -> None:
    """Adds entries, as rows of the statement's columns but for the tenant, and queues them for the tree."""
    await session.fetch(INSERT_ENTRIES, *zip(*rows, strict=True))
