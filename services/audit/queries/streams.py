"""Statements on the log for those who read much of it: exports, and streams of what is new."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from asyncpg import QueryCanceledError
from sqlalchemy import Row, Select, Uuid, bindparam, func, select

from kit.access import visible
from kit.connecting import LIMITS
from kit.db import DIALECT, ReadSession
from kit.ids import NIL
from services.audit.models import AuditLog, TreeLeaf
from services.audit.queries.audit_logs import matching
from storyloom.audit.v1.audit_logs_pb2 import ExportAuditLogsRequest

ROWS_AT_ONCE = 500
# Leaves of more bytes than this are not read at once, unless one alone has more.
BYTES_AT_ONCE = 1 << 20
COUNTING = "2s"
# Across tenants, like the table: one statement for all who watch.
SIZES = "SELECT tenant_id, size FROM audit.trees WHERE tenant_id = ANY($1)"
SIZE = "SELECT size FROM audit.trees WHERE tenant_id = $1"
LEAF_AT = "SELECT id FROM audit.tree_leaves WHERE tenant_id = $1 AND leaf_index = $2"
INDEX_OF = """
SELECT l.leaf_index FROM (SELECT 1) AS one LEFT JOIN audit.tree_leaves l ON l.tenant_id = $1 AND l.id = $2
WHERE l.id IS NOT NULL OR EXISTS (SELECT FROM audit.audit_logs a WHERE a.tenant_id = $1 AND a.id = $2)
"""
COLUMNS = [column for column in AuditLog.__table__.columns if column.key not in {"tenant_id", "id"}]
SAME_ENTRY = (AuditLog.tenant_id == TreeLeaf.tenant_id) & (AuditLog.id == TreeLeaf.id)
# Where a batch begins. Said of both tables: of two that are merged each would be read from its beginning otherwise.
AFTER = bindparam("after_entry", NIL, Uuid)


def everything(tenant_id: UUID, size: int) -> Select[Any]:
    """The places of the tree below this size, each with its entry, for who may see all of them; of an entry that is no
    longer in the log all other columns are NULL."""
    log = TreeLeaf.__table__.outerjoin(AuditLog.__table__, SAME_ENTRY & (AuditLog.id > AFTER))
    statement = select(TreeLeaf.id, TreeLeaf.leaf_index, TreeLeaf.hash, *COLUMNS).select_from(log)
    return statement.where(TreeLeaf.tenant_id == tenant_id, TreeLeaf.id > AFTER, TreeLeaf.leaf_index < size)


def chosen(tenant_id: UUID, request: ExportAuditLogsRequest, size: int) -> Select[Any]:
    """The entries that the request asks for and the caller may export, as far as they are in the tree below this
    size."""
    log = AuditLog.__table__.join(TreeLeaf.__table__, SAME_ENTRY)
    statement = select(AuditLog.id, TreeLeaf.leaf_index, TreeLeaf.hash, *COLUMNS).select_from(log)
    return statement.where(
        AuditLog.tenant_id == tenant_id,
        TreeLeaf.tenant_id == tenant_id,
        AuditLog.id > AFTER,
        TreeLeaf.id > AFTER,
        *matching(request),
        visible("export", AuditLog),
        TreeLeaf.leaf_index < size,
    )


async def count_rows(session: ReadSession, statement: Select[Any]) -> int:
    """As many as there are; as many as the planner expects when counting them takes too long."""
    compiled = statement.compile(dialect=DIALECT)
    values = [compiled.params[name] for name in compiled.positiontup or ()]
    await session.driver.execute(f"SAVEPOINT counting; SET LOCAL statement_timeout = '{COUNTING}'")
    try:
        return int(await session.driver.fetchval(f"SELECT count(*) FROM ({compiled}) AS rows", *values))  # noqa: S608
    except QueryCanceledError:
        await session.driver.execute("ROLLBACK TO SAVEPOINT counting")
        lines = await session.driver.fetch(f"EXPLAIN {compiled}", *values)
        return int(lines[0][0].partition(" rows=")[2].partition(" ")[0])
    finally:
        await session.driver.execute(f"SET LOCAL statement_timeout = '{LIMITS['statement_timeout']}'")


async def list_rows(session: ReadSession, statement: Select[Any], after: UUID) -> Sequence[Row[Any]]:
    """What follows this id, as much as may be in memory at once; nothing at the end."""
    page = statement.order_by(statement.selected_columns[0]).limit(ROWS_AT_ONCE)
    return await _bounded(session, page, "id", {AFTER.key: after})


async def list_places(session: ReadSession, start: int, end: int) -> Sequence[Row[Any]]:
    """What the tree has in these places, as much as may be in memory at once. The caller's rights are not looked at."""
    first = everything(session.tenant_id, min(end, start + ROWS_AT_ONCE)).where(TreeLeaf.leaf_index >= start)
    return await _bounded(session, first, "leaf_index", {AFTER.key: NIL})


async def _bounded(
    session: ReadSession, statement: Select[Any], order: str, values: Mapping[str, Any]
) -> Sequence[Row[Any]]:
    """The first of the rows, until their leaves are too long together; one, however long it is."""
    rows = statement.subquery()
    length = func.coalesce(func.octet_length(rows.c.leaf), 0)
    before = func.sum(length).over(order_by=rows.c[order], rows=(None, -1))
    sized = select(rows, func.coalesce(before, 0).label("before")).subquery()
    first = select(sized).where(sized.c.before < BYTES_AT_ONCE).order_by(sized.c[order])
    return (await session.execute(first, values)).all()


async def list_sizes(driver: Any, tenant_ids: Sequence[UUID]) -> dict[UUID, int]:
    """How many entries the trees of these tenants have."""
    return {row["tenant_id"]: row["size"] for row in await driver.fetch(SIZES, tenant_ids)}


async def get_size(session: ReadSession) -> int:
    """How many entries the tenant's tree has."""
    row = await session.fetchrow(SIZE)
    return row.size if row else 0


async def find_id_at(session: ReadSession, index: int) -> UUID | None:
    row = await session.fetchrow(LEAF_AT, index)
    return row.id if row else None


async def find_index(session: ReadSession, entry_id: UUID) -> Any:
    """None when there is no such entry; a row whose `leaf_index` is None when it is in no tree yet."""
    return await session.fetchrow(INDEX_OF, entry_id)
