"""What a tenant's data is: every table with a tenant's rows, as the catalog knows them, but for those named here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg

from kit.settings import SERVICES

PLATFORMS = "rows of the platform's own tenant"
# Tables with a tenant's id that no archive has, and why. Any other that there will be is in each.
LEFT_OUT: Mapping[str, str] = {
    **{f"{one}.outbox": "what waits there is delivered first" for one in SERVICES},
    **{f"{one}.idempotency_keys": "answers sealed with this installation's key, for a day" for one in SERVICES},
    **{f"{one}.jobs": "in which tenant a job is" for one in ("content", "learning", "assessment")},
    "identity.access_revisions": "news for running services, for a quarter of an hour",
    "identity.sessions": "everybody signs in anew",
    "identity.refresh_tokens": "everybody signs in anew",
    "identity.tenant_listings": PLATFORMS,
    "identity.erasure_tasks": PLATFORMS,
    "identity.sign_in_failures": PLATFORMS,
    "identity.signing_keys": PLATFORMS,
    "content.audio_uploads": "links into this installation's storage, for an hour",
    "content.stored_files": "this installation's notes of its storage",
}
# The log and what proves it. A tenant that is put back keeps them as they are: they tell of what came after, too.
KEPT = frozenset(
    {
        *("audit.audit_logs", "audit.trees", "audit.tree_leaves", "audit.tree_nodes", "audit.tree_queue"),
        *("audit.checkpoints", "audit.subject_keys", "audit.legal_holds", "identity.erasures"),
        *(f"{one}.erasure_receipts" for one in SERVICES),
    }
)
KEYS = "audit.subject_keys"
# Text is the same everywhere under these, and says all that there is to say of a value.
AS_TEXT = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "search_path": "pg_catalog",
    "application_name": "storyloom-tenants",
}
# In the order of their names: a table that was altered on its way has the same columns in another one.
TABLES = """
SELECT n.nspname || '.' || c.relname AS name, c.relrowsecurity AS scoped,
       (SELECT array_agg(a.attname::text ORDER BY a.attname) FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND a.attidentity = '')
         AS columns,
       (SELECT array_agg(a.attname::text ORDER BY array_position(i.indkey::int2[], a.attnum))
        FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
        WHERE i.indrelid = c.oid AND i.indisprimary) AS key,
       NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid) AS loose
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY ($1) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped)
ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Table:
    """A table with rows of tenants. `columns` are those that are written, `key` what orders the rows. A `loose` one has
    neither triggers nor foreign keys; `scoped` are those that row-level security binds to a tenant."""

    name: str
    columns: Sequence[str]
    key: Sequence[str]
    loose: bool
    scoped: bool

    @property
    def schema(self) -> str:
        return self.name.partition(".")[0]

    @property
    def listed(self) -> str:
        return _quoted(self.columns)

    @property
    def member(self) -> str:
        """Its place in the archive."""
        return f"{self.name.replace('.', '/')}.csv"

    @property
    def staged(self) -> str:
        """Where its rows are before they are anybody's."""
        return f'pg_temp."{self.name}"'

    def rows(self, tenant_id: UUID) -> str:
        """The query of the tenant's rows, in one order."""
        return f"SELECT {self.listed} FROM {self.name} WHERE tenant_id = '{tenant_id}' ORDER BY {_quoted(self.key)}"  # noqa: S608


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


async def connect(url: str) -> asyncpg.Connection:
    """As the owner of all tables, whom policies hide no tenant's rows from."""
    return await asyncpg.connect(url, server_settings=AS_TEXT)


async def all_tables(database: asyncpg.Connection) -> list[Table]:
    """Every table with a tenant's id."""
    return [Table(**row) for row in await database.fetch(TABLES, list(SERVICES))]


async def carried(database: asyncpg.Connection) -> list[Table]:
    """The tables that archives have."""
    return [table for table in await all_tables(database) if table.name not in LEFT_OUT]


async def write_rows(database: asyncpg.Connection, table: Table, tenant_id: UUID, out: Any) -> int:
    """Writes the tenant's rows as comma-separated values, under the names of the columns; how many they are."""
    done = await database.copy_from_query(table.rows(tenant_id), output=out, format="csv", header=True)
    return int(done.rpartition(" ")[2])


async def waiting(database: asyncpg.Connection, tenant_id: UUID) -> tuple[int, int]:
    """How many events of the tenant are not delivered, and how many of these are parked."""
    outboxes = " UNION ALL ".join(
        f"SELECT parked_at FROM {one}.outbox WHERE tenant_id = '{tenant_id}'"  # noqa: S608
        for one in SERVICES
    )
    (found,) = await database.fetch(f"SELECT count(*), count(parked_at) AS parked FROM ({outboxes}) AS events")  # noqa: S608
    return found["count"], found["parked"]
