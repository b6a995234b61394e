"""What must be true of a tenant that was brought in, before anybody sees it."""

from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import asyncpg

from deploy.backups.checks import SIGNED, STORED
from deploy.local.errors import RunError
from deploy.tenants.manifest import Manifest
from deploy.tenants.origin import public_of, unknown
from deploy.tenants.tables import Table, write_rows
from services.audit.merkle import grow, root
from services.audit.queries.trees import node_id
from services.audit.signing import Head, Signer

LEAVES = "SELECT leaf_index, hash FROM audit.tree_leaves WHERE tenant_id = $1 ORDER BY leaf_index"
NODES = "SELECT id, hash FROM audit.tree_nodes WHERE tenant_id = $1"
CHECKPOINTS = "SELECT tree_size, root_hash, signed_text FROM audit.checkpoints WHERE tenant_id = $1 ORDER BY tree_size"
# Neither proven, nor about to be.
STRANGE = """
SELECT count(*) FROM audit.audit_logs a LEFT JOIN audit.tree_leaves l USING (tenant_id, id)
LEFT JOIN audit.tree_queue q USING (tenant_id, id) WHERE a.tenant_id = $1 AND l.id IS NULL AND q.id IS NULL
"""
# What entries are looked for by repeats what is proven: a leaf has nothing where a column has an empty text.
UNLIKE = """
SELECT count(*) FROM audit.audit_logs a, LATERAL (SELECT convert_from(a.leaf, 'UTF8')::json AS said) AS one
WHERE a.tenant_id = $1 AND
  (a.tenant_id::text, a.id::text, a.action, a.entity_type, a.entity_id::text, a.user_id::text, a.acting_tenant_id::text,
   nullif(a.service, ''), nullif(a.request_id, ''), nullif(a.trace_id, ''), nullif(a.rpc, ''), a.occurred_at)
  IS DISTINCT FROM
  (said ->> 'tenant_id', said ->> 'id', said ->> 'action', said ->> 'entity_type', said ->> 'entity_id',
   said ->> 'user_id', said ->> 'acting_tenant_id', said ->> 'service', said ->> 'request_id', said ->> 'trace_id',
   said ->> 'rpc', (said ->> 'occur_time')::timestamptz)
"""
# Staged entries whose month nobody would expect. The log is kept in months, by its ids: each that comes is made.
A_DAY = timedelta(days=1)
STRAY = """
SELECT count(*) FROM pg_temp."audit.audit_logs", LATERAL (VALUES (uuid_extract_timestamp(id)), (occurred_at)) AS t (at)
WHERE uuid_extract_version(id) IS DISTINCT FROM 7 OR NOT at BETWEEN '2020-01-01 00:00:00+00' AND $1
"""
TREE = "SELECT size, signed_size FROM audit.trees WHERE tenant_id = $1"


class Digest:
    """The digest of the rows that are written to it, without the line of their columns."""

    def __init__(self) -> None:
        self._digest, self._begun = sha256(), False

    def write(self, data: bytes) -> None:
        if not self._begun and data:
            self._begun, data = True, data.partition(b"\n")[2]
        self._digest.update(data)

    @property
    def hex(self) -> str:
        return self._digest.hexdigest()


async def check_rows(database: asyncpg.Connection, table: Table, tenant_id: UUID, loaded: tuple[int, str]) -> None:
    """That the table has the rows that were loaded, to the byte: whatever triggers made of them."""
    digest = Digest()
    found = await write_rows(database, table, tenant_id, digest)
    if (found, digest.hex) != loaded:
        raise RunError(f"{table.name}: of {loaded[0]} rows {found} are there, or some are not as they were written.")


async def check_times(database: asyncpg.Connection, manifest: Manifest) -> None:
    """That the archive is not of tomorrow, nor an entry of its log, as it is staged, later than it or of long ago."""
    if manifest.snapshot_time > await database.fetchval("SELECT now()") + A_DAY:
        raise RunError(f"The archive is of {manifest.snapshot_time:%Y-%m-%d}, which is still to come.")
    if await database.fetchval(STRAY, manifest.snapshot_time + A_DAY):
        raise RunError(
            "The archive's log has entries of before 2020, of over a day after the archive, or with ids of no time."
        )


async def check_log(database: asyncpg.Connection, tenant_id: UUID, signer: Signer, keys: list[str]) -> int:
    """That the log is what was signed, by a key that this installation knows; how many entries it has.

    The roots are computed anew from the leaves, and so is each node that later checkpoints will be made of.
    """
    leaves = [row["hash"] for row in await _numbered(database, tenant_id)]
    nodes = {(0, place): found for place, found in enumerate(leaves)} | dict(grow(0, (), leaves))
    stored = {row["id"]: row["hash"] for row in await database.fetch(NODES, tenant_id)}
    if stored != {node_id(node): found for node, found in nodes.items() if node[0]}:
        raise RunError("The log's tree is not that of its entries.")
    if edited := await database.fetchval(STORED, tenant_id):
        raise RunError(f"The log was changed: {edited} entries are not what the tree has.")
    if unlike := await _count_unlike(database, tenant_id):
        raise RunError(f"The log was changed: {unlike} entries are looked for by something else than they say.")
    if strange := await database.fetchval(STRANGE, tenant_id):
        raise RunError(f"The log was changed: {strange} entries are in no tree.")
    for row in await database.fetch(CHECKPOINTS, tenant_id):
        size = row["tree_size"]
        if size > len(leaves) or root(size, nodes) != row["root_hash"]:
            raise RunError(f"The log is not what was signed: its first {size} entries have another root.")
        if _opened(signer, row["signed_text"], keys) != Head(tenant_id, size, row["root_hash"]):
            raise RunError(f"The checkpoint of {size} entries says something else than was signed.")
    await _check_tree(database, tenant_id, len(leaves))
    return len(leaves)


async def _count_unlike(database: asyncpg.Connection, tenant_id: UUID) -> int:
    try:
        return int(await database.fetchval(UNLIKE, tenant_id))
    except asyncpg.DataError:
        raise RunError("The log was changed: an entry is none.") from None


async def _numbered(database: asyncpg.Connection, tenant_id: UUID) -> list[Any]:
    found = await database.fetch(LEAVES, tenant_id)
    if [row["leaf_index"] for row in found] != list(range(len(found))):
        raise RunError("The log's tree lacks some of its entries.")
    return list(found)


async def _check_tree(database: asyncpg.Connection, tenant_id: UUID, size: int) -> None:
    tree = await database.fetchrow(TREE, tenant_id) or {"size": 0, "signed_size": 0}
    signed = max((row["tree_size"] for row in await database.fetch(SIGNED, tenant_id)), default=0)
    if (tree["size"], tree["signed_size"]) != (size, signed):
        raise RunError("The log's tree is not as long as it says.")


def _opened(signer: Signer, text: str, keys: list[str]) -> Head | None:
    try:
        return signer.opened(text)
    except ValueError:
        raise unknown("The log's checkpoints are", public_of(keys)) from None
