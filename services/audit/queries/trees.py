"""Statements on the trees of the log's entries."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from kit.db import ReadSession, WriteSession
from services.audit.merkle import Node

LEVEL_BITS = 64


class Queued(NamedTuple):
    """An entry that is in no tree yet; `hash` is its leaf's, None when the entry itself is gone."""

    seq: int
    id: UUID
    hash: bytes | None


# Whether a checkpoint is due is the database's to say: all processes have its clock.
STATE = "size, signed_size, coalesce(unsigned_since, now()) <= now() - make_interval(secs => $2) AS due"
LOCK = f"SELECT {STATE} FROM audit.trees WHERE tenant_id = $1 FOR UPDATE SKIP LOCKED"  # noqa: S608
PLANT = f"INSERT INTO audit.trees (tenant_id) VALUES ($1) ON CONFLICT DO NOTHING RETURNING {STATE}"  # noqa: S608
QUEUED = "SELECT seq, id FROM audit.tree_queue WHERE tenant_id = $1 ORDER BY seq LIMIT $2"
# Hashed where they are: the leaves are long, and need not travel. The range of ids leaves the other months out.
HASHES_OF_ENTRIES = """
SELECT id, sha256('\\x00'::bytea || leaf) AS hash FROM audit.audit_logs
WHERE tenant_id = $1 AND id = ANY ($2::uuid[]) AND id BETWEEN $3 AND $4
"""
HASHES_OF_NODES = """
SELECT 0 AS level, leaf_index AS place, NULL::uuid AS id, hash FROM audit.tree_leaves
WHERE tenant_id = $1 AND leaf_index = ANY ($2::bigint[])
UNION ALL
SELECT 1, 0, id, hash FROM audit.tree_nodes WHERE tenant_id = $1 AND id = ANY ($3::uuid[])
"""
APPEND = """
WITH leaves AS (
  INSERT INTO audit.tree_leaves (tenant_id, id, leaf_index, hash)
  SELECT $1, * FROM unnest($2::uuid[], $3::bigint[], $4::bytea[])
), nodes AS (
  INSERT INTO audit.tree_nodes (tenant_id, id, hash) SELECT $1, * FROM unnest($5::uuid[], $6::bytea[])
), taken AS (
  DELETE FROM audit.tree_queue WHERE tenant_id = $1 AND seq = ANY ($7::bigint[])
)
UPDATE audit.trees SET size = size + cardinality($2), unsigned_since = coalesce(unsigned_since, now())
WHERE tenant_id = $1
"""
PLACE = "SELECT leaf_index, hash FROM audit.tree_leaves WHERE tenant_id = $1 AND id = $2"
SIGNED = "UPDATE audit.trees SET signed_size = $2, unsigned_since = NULL WHERE tenant_id = $1"
# The tenants with entries in the queue, one look at its index for each, and those whose checkpoint is due. Of all
# tenants: this statement, unlike the others, has no tenant.
WAITING = """
WITH RECURSIVE queued AS (
  (SELECT tenant_id FROM audit.tree_queue ORDER BY tenant_id LIMIT 1)
  UNION ALL
  SELECT (SELECT q.tenant_id FROM audit.tree_queue q WHERE q.tenant_id > queued.tenant_id ORDER BY 1 LIMIT 1)
  FROM queued WHERE queued.tenant_id IS NOT NULL
)
SELECT tenant_id FROM queued WHERE tenant_id IS NOT NULL
UNION SELECT tenant_id FROM audit.trees WHERE unsigned_since <= now() - make_interval(secs => $1)
"""


async def lock_tree(session: WriteSession, seconds: float) -> Any:
    """The tenant's tree, made with its first entry; None while another process has it. `due` is whether it, grown now,
    is unsigned for so long."""
    return await session.fetchrow(LOCK, seconds) or await session.fetchrow(PLANT, seconds)


async def list_queued(session: ReadSession, limit: int) -> list[Queued]:
    """The entries that come next."""
    rows = await session.fetch(QUEUED, limit)
    ids = [row.id for row in rows]
    if not ids:
        return []
    found = await session.fetch(HASHES_OF_ENTRIES, ids, min(ids), max(ids))
    hashes = {row.id: row.hash for row in found}
    return [Queued(row.seq, row.id, hashes.get(row.id)) for row in rows]


async def list_hashes(session: ReadSession, nodes: Iterable[Node]) -> dict[Node, bytes]:
    """The hashes of complete subtrees. Raises KeyError when one is not there."""
    wanted = set(nodes)
    leaves = [place for level, place in wanted if level == 0]
    ids = {node_id(node): node for node in wanted if node[0]}
    rows = await session.fetch(HASHES_OF_NODES, leaves, list(ids))
    found = {ids[row.id] if row.level else (0, row.place): row.hash for row in rows}
    return {node: found[node] for node in wanted}


async def append_leaves(
    session: WriteSession, size: int, leaves: Sequence[Queued], nodes: Mapping[Node, bytes], taken: Sequence[int]
) -> None:
    """Puts the entries, and the nodes that they complete, at the end of a tree of `size`; takes these off the queue."""
    await session.fetchrow(
        APPEND,
        [one.id for one in leaves],
        list(range(size, size + len(leaves))),
        [one.hash for one in leaves],
        [node_id(node) for node in nodes],
        list(nodes.values()),
        taken,
    )


async def set_signed(session: WriteSession, size: int) -> None:
    await session.fetchrow(SIGNED, size)


async def find_tree_leaf(session: ReadSession, entry_id: UUID) -> Any:
    """Where the entry is in the tree; None until it is there."""
    return await session.fetchrow(PLACE, entry_id)


async def list_waiting(driver: Any, seconds: float) -> list[UUID]:
    """The tenants with entries that are in no tree, and those with a tree that is unsigned for so long."""
    return [row["tenant_id"] for row in await driver.fetch(WAITING, seconds)]


def node_id(node: Node) -> UUID:
    """The id of a node's row."""
    level, place = node
    return UUID(int=level << LEVEL_BITS | place)
