"""What the database itself promises of the log: nothing in it changes, and every entry finds its month."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import select

from kit.db import DIALECT
from kit.ids import new_id
from services.audit.models import AuditLog, TreeLeaf
from services.audit.queries import streams
from services.audit.queries.audit_logs import matching
from storyloom.audit.v1.audit_logs_pb2 import ListAuditLogsRequest
from tests.postgres import Cluster

# So many that an index is worth its while, by far.
ENTRIES = 10_000
CHANGES = {
    "UPDATE": "UPDATE audit.{table} SET action = 'none'",
    "DELETE": "DELETE FROM audit.{table}",
    "TRUNCATE": "TRUNCATE audit.{table}",
}
INSERT = """
INSERT INTO audit.audit_logs (tenant_id, id, action, entity_type, entity_id, service, request_id, trace_id, rpc,
  occurred_at, leaf) VALUES ($1, $2, 'create', 'story', uuidv7(), '', '', '', '', now(), '{}')
"""
LEAVES = """
INSERT INTO audit.tree_leaves (tenant_id, id, leaf_index, hash)
SELECT tenant_id, id, row_number() OVER (ORDER BY id) - 1, sha256(leaf) FROM audit.audit_logs WHERE tenant_id = $1
"""
PARTITION_OF = "SELECT tableoid::regclass::text FROM audit.audit_logs WHERE tenant_id = $1 AND id = $2"


@asynccontextmanager
async def connected(url: str, tenant: UUID | None = None) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """In a transaction of the tenant that is rolled back."""
    connection = await asyncpg.connect(url)
    transaction = connection.transaction()
    await transaction.start()
    if tenant:
        await connection.execute(f"SET LOCAL app.tenant_id = '{tenant}'")
    try:
        yield connection
    finally:
        await transaction.rollback()
        await connection.close()


@pytest.fixture(scope="module")
async def partitions(cluster: Cluster) -> list[str]:
    async with connected(cluster.owner_url) as owner:
        rows = await owner.fetch(
            "SELECT relid::regclass::text AS name FROM pg_partition_tree('audit.audit_logs') WHERE isleaf"
        )
    return [row["name"] for row in rows]


def id_at(year: int, month: int, day: int = 1) -> UUID:
    """A UUIDv7 of that day."""
    at = int(datetime(year, month, day, tzinfo=UTC).timestamp() * 1000)
    return UUID(int=at << 80 | new_id().int & (1 << 80) - 1)


async def fill(owner: Any, tenant: UUID) -> None:
    """In a month that has no entries of other tests: plans depend on those."""
    now = datetime.now(UTC)
    rows = [
        (tenant, id_at(2028, 11, 1 + n % 28), f"act{n % 50}", f"kind{n % 50}", UUID(int=n), UUID(int=n % 50), "",
         f"request{n}", f"trace{n}", "", now, b"{}")
        for n in range(ENTRIES)
    ]  # fmt: skip
    columns = ["tenant_id", "id", "action", "entity_type", "entity_id", "user_id", "service", "request_id", "trace_id",
               "rpc", "occurred_at", "leaf"]  # fmt: skip
    await owner.copy_records_to_table("audit_logs", schema_name="audit", records=rows, columns=columns)
    await owner.execute("ANALYZE audit.audit_logs_2028_11")


async def explained(connection: Any, tenant: UUID, condition: str) -> str:
    query = f"EXPLAIN SELECT * FROM audit.audit_logs WHERE tenant_id = '{tenant}' AND {condition}"
    return "\n".join(row[0] for row in await connection.fetch(query))


class TestServiceRole:
    @pytest.mark.parametrize("change", CHANGES)
    async def test_may_not_change_or_remove_entries(self, cluster: Cluster, change: str) -> None:
        async with connected(cluster.service_url("audit"), uuid4()) as service:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await service.execute(CHANGES[change].format(table="audit_logs"))

    async def test_has_no_right_on_any_partition(self, cluster: Cluster, partitions: list[str]) -> None:
        assert len(partitions) > 12
        async with connected(cluster.service_url("audit")) as service:
            rights = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE")
            query = "SELECT has_table_privilege($1, $2)"
            assert not [one for one in partitions for right in rights if await service.fetchval(query, one, right)]

    async def test_adds_and_reads_entries_of_its_tenant_alone(self, cluster: Cluster) -> None:
        tenant, entry = uuid4(), new_id()
        async with connected(cluster.service_url("audit"), tenant) as service:
            await service.execute(INSERT, tenant, entry)
            assert await service.fetchval("SELECT count(*) FROM audit.audit_logs") == 1
            await service.execute(f"SET LOCAL app.tenant_id = '{uuid4()}'")
            assert await service.fetchval("SELECT count(*) FROM audit.audit_logs") == 0
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
                await service.execute(INSERT, tenant, new_id())

    async def test_reads_nothing_without_a_tenant(self, cluster: Cluster) -> None:
        async with connected(cluster.service_url("audit")) as service:
            with pytest.raises(asyncpg.PostgresError, match=r"app\.tenant_id"):
                await service.fetch("SELECT * FROM audit.audit_logs")


class TestOwner:
    @pytest.mark.parametrize("change", CHANGES)
    @pytest.mark.parametrize("directly", [False, True], ids=["through the log", "on the partition"])
    async def test_is_refused_changes_by_the_trigger(self, cluster: Cluster, change: str, directly: bool) -> None:
        tenant, entry = uuid4(), new_id()
        async with connected(cluster.owner_url, tenant) as owner:
            await owner.execute(INSERT, tenant, entry)
            partition = await owner.fetchval(PARTITION_OF, tenant, entry)
            table = partition.removeprefix("audit.") if directly else "audit_logs"
            with pytest.raises(asyncpg.RestrictViolationError, match=f"append-only: {change} is refused"):
                await owner.execute(CHANGES[change].format(table=table))

    async def test_is_refused_the_truncation_of_every_partition(self, cluster: Cluster, partitions: list[str]) -> None:
        for partition in partitions:
            async with connected(cluster.owner_url) as owner:
                with pytest.raises(asyncpg.RestrictViolationError):
                    await owner.execute(f"TRUNCATE {partition}")

    async def test_is_refused_changes_in_a_partition_attached_later(self, cluster: Cluster) -> None:
        tenant, entry = uuid4(), id_at(2031, 5)
        async with connected(cluster.owner_url, tenant) as owner:
            await owner.execute(
                "CREATE TABLE audit.audit_logs_later PARTITION OF audit.audit_logs"
                f" FOR VALUES FROM ('{id_at(2031, 4)}') TO ('{id_at(2031, 6)}')"
            )
            await owner.execute(INSERT, tenant, entry)
            with pytest.raises(asyncpg.RestrictViolationError):
                await owner.execute("DELETE FROM audit.audit_logs_later")


class TestPartitions:
    @pytest.mark.parametrize(
        ("year", "month", "day", "partition"),
        [
            (2026, 11, 1, "audit.audit_logs_2026_11"),
            (2026, 11, 30, "audit.audit_logs_2026_11"),
            (2026, 12, 31, "audit.audit_logs_2026_12"),
            (2027, 1, 1, "audit.audit_logs_2027_01"),
            (2028, 12, 31, "audit.audit_logs_2028_12"),
            (2029, 1, 1, "audit.audit_logs_default"),
            (2099, 7, 1, "audit.audit_logs_default"),
            (2001, 1, 1, "audit.audit_logs_default"),
        ],
    )
    async def test_an_entry_goes_where_its_id_says(
        self, cluster: Cluster, year: int, month: int, day: int, partition: str
    ) -> None:
        tenant, entry = uuid4(), id_at(year, month, day)
        async with connected(cluster.service_url("audit"), tenant) as service:
            await service.execute(INSERT, tenant, entry)
            assert await service.fetchval(PARTITION_OF, tenant, entry) == partition

    async def test_each_has_the_policy_of_the_log(self, cluster: Cluster, partitions: list[str]) -> None:
        async with connected(cluster.owner_url) as owner:
            rows = await owner.fetch(
                "SELECT c.oid::regclass::text AS name, p.polcmd::text AS command,"
                " pg_get_expr(p.polqual, p.polrelid) AS seen, pg_get_expr(p.polwithcheck, p.polrelid) AS written"
                " FROM pg_class c JOIN pg_policy p ON p.polrelid = c.oid"
                " WHERE c.relrowsecurity AND c.relforcerowsecurity AND c.oid = ANY($1::regclass[])",
                ["audit.audit_logs", *partitions],
            )
        assert sorted(row["name"] for row in rows) == sorted(["audit.audit_logs", *partitions])
        mine = "(tenant_id = (current_setting('app.tenant_id'::text))::uuid)"
        assert {(row["command"], row["seen"], row["written"]) for row in rows} == {("*", mine, mine)}

    async def test_one_read_by_its_own_name_shows_one_tenant_only(self, cluster: Cluster) -> None:
        """Even if somebody grants the right on a partition one day."""
        tenant, entry = uuid4(), id_at(2027, 3, 5)
        async with connected(cluster.superuser_url, tenant) as superuser:
            await superuser.execute(INSERT, tenant, entry)
            await superuser.execute("GRANT SELECT ON audit.audit_logs_2027_03 TO storyloom_audit")
            await superuser.execute("SET LOCAL ROLE storyloom_audit")
            assert await superuser.fetchval("SELECT count(*) FROM audit.audit_logs_2027_03") == 1
            await superuser.execute(f"SET LOCAL app.tenant_id = '{uuid4()}'")
            assert await superuser.fetchval("SELECT count(*) FROM audit.audit_logs_2027_03") == 0


class TestIndexes:
    @pytest.mark.parametrize(
        ("condition", "index"),
        [
            ("true", "pkey"),
            ("entity_type = 'kind7' AND entity_id = '{id}'", "tenant_id_entity_type_entity_id_id_idx"),
            ("entity_type = 'kind7'", "tenant_id_entity_type_id_idx"),
            ("user_id = '{id}'", "tenant_id_user_id_id_idx"),
            ("action = 'act7'", "tenant_id_action_id_idx"),
            ("request_id = 'request7'", "tenant_id_request_id_id_idx"),
            ("trace_id = 'trace7'", "tenant_id_trace_id_id_idx"),
        ],
    )
    async def test_give_each_filter_its_entries_newest_first_without_sorting(
        self, cluster: Cluster, condition: str, index: str
    ) -> None:
        tenant = uuid4()
        async with connected(cluster.owner_url, tenant) as owner:
            await fill(owner, tenant)
            plan = await explained(owner, tenant, f"{condition.format(id=UUID(int=7))} ORDER BY id DESC LIMIT 21")
        assert f"Index Scan Backward using audit_logs_2028_11_{index}" in plan
        assert "  Sort  (" not in plan

    @pytest.mark.parametrize("name", ["entity_id", "user_id", "action", "entity_type", "request_id", "trace_id"])
    @pytest.mark.parametrize("export", [False, True], ids=["list", "export"])
    async def test_serve_the_statements_of_the_service(self, cluster: Cluster, name: str, export: bool) -> None:
        """Oldest first, which is the order of exports; the newest first is the test above."""
        tenant = uuid4()
        values = {"action": "act7", "entity_type": "kind7", "request_id": "request7", "trace_id": "trace7"}
        conditions = matching(ListAuditLogsRequest(**{name: values.get(name, str(UUID(int=7)))}))
        log = AuditLog.__table__.join(TreeLeaf.__table__, streams.SAME_ENTRY) if export else AuditLog.__table__
        statement = select(AuditLog.id, AuditLog.leaf).select_from(log)
        if export:
            statement = statement.where(
                TreeLeaf.tenant_id == tenant, TreeLeaf.id > UUID(int=0), TreeLeaf.leaf_index < ENTRIES
            )
        statement = statement.where(AuditLog.tenant_id == tenant, *conditions, AuditLog.id > UUID(int=0))
        page = statement.order_by(AuditLog.id).limit(500)
        text = page.compile(dialect=DIALECT, compile_kwargs={"literal_binds": True})
        async with connected(cluster.owner_url, tenant) as owner:
            await fill(owner, tenant)
            await owner.execute(LEAVES, tenant)
            await owner.execute("ANALYZE audit.tree_leaves")
            plan = "\n".join(row[0] for row in await owner.fetch(f"EXPLAIN {text}"))
        assert re.search(rf"(using|Bitmap Index Scan on) audit_logs_2028_11_\w*{name}\w*_idx", plan), plan
        assert "Seq Scan on audit_logs_2028_11" not in plan

    async def test_find_an_entity_without_its_kind(self, cluster: Cluster) -> None:
        tenant = uuid4()
        async with connected(cluster.owner_url, tenant) as owner:
            await fill(owner, tenant)
            plan = await explained(owner, tenant, f"entity_id = '{UUID(int=7)}' ORDER BY id DESC LIMIT 21")
        assert "using audit_logs_2028_11_tenant_id_entity_type_entity_id_id_idx" in plan

    async def test_a_range_of_ids_reads_its_months_only(self, cluster: Cluster) -> None:
        tenant = uuid4()
        async with connected(cluster.service_url("audit"), tenant) as service:
            plan = await explained(service, tenant, f"id >= '{id_at(2027, 1, 5)}' AND id < '{id_at(2027, 2, 5)}'")
        assert set(re.findall(r" on audit_logs_(\w+)", plan)) == {"2027_01", "2027_02"}
