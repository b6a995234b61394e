"""Months of the log: made ahead, filled from where entries waited, and dropped only when nothing is lost with them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from kit.ids import new_id
from kit.migrations import OWNER, role_of
from tests.audit.test_exports import hash_of
from tests.contract import databases
from tests.contract.databases import Scratch
from tests.postgres import Cluster

INSERT = """
INSERT INTO audit.audit_logs (tenant_id, id, action, entity_type, entity_id, service, request_id, trace_id, rpc,
  occurred_at, leaf) VALUES ($1, $2, 'create', 'story', $2, '', '', '', '', $3, $4)
"""
MONTHS = "SELECT relid::regclass::text FROM pg_partition_tree('audit.audit_logs') WHERE isleaf ORDER BY 1"
EVERYTHING = "SELECT to_jsonb(l)::text FROM audit.audit_logs l ORDER BY tenant_id, id"
OLD = date(2025, 3, 1)


def id_at(at: datetime) -> UUID:
    return UUID(int=int(at.timestamp() * 1000) << 80 | new_id().int & (1 << 80) - 1)


def name_of(month: date) -> str:
    return f"audit.audit_logs_{month:%Y_%m}"


def month_from_now(months: int) -> date:
    today = datetime.now(UTC)
    number = today.year * 12 + today.month - 1 + months
    return date(number // 12, number % 12 + 1, 1)


@pytest.fixture(scope="module")
async def template(cluster: Cluster) -> Scratch:
    made = await databases.create(cluster, "partitions_template")
    await made.upgrade("audit")
    return made


@pytest.fixture(scope="module")
async def bare(cluster: Cluster, template: Scratch) -> Scratch:
    made = await databases.create(cluster, "partitions_bare", template=template.name)
    async with made.connected() as superuser:
        names = [row[0] for row in await superuser.fetch(MONTHS) if not row[0].endswith("_default")]
        await superuser.execute(f"DROP TABLE {', '.join(names)}")
    return made


@pytest.fixture
async def scratch(cluster: Cluster, bare: Scratch) -> Scratch:
    """A log without months, as if nobody had made any for years: the default partition takes all entries."""
    return await databases.create(cluster, "partitions", template=bare.name)


@asynccontextmanager
async def service(scratch: Scratch, tenant: UUID | None = None) -> AsyncIterator[asyncpg.Connection]:
    """A transaction of the service's role that is committed."""
    async with scratch.connected(role_of("audit")) as role, role.transaction():
        await role.execute(f"SET LOCAL app.tenant_id = '{tenant or uuid4()}'")
        yield role


async def make_months(scratch: Scratch, ahead: int = 3) -> list[str]:
    async with service(scratch) as role:
        return [f"audit.{row[0]}" for row in await role.fetch("SELECT audit.make_months($1)", ahead)]


async def drop_month(scratch: Scratch, month: date, keep: int = 12) -> list[tuple[Any, ...]]:
    async with service(scratch) as role:
        return [tuple(row) for row in await role.fetch("SELECT * FROM audit.drop_month($1, $2)", month, keep)]


async def add(scratch: Scratch, tenant: UUID, *times: datetime) -> list[UUID]:
    """Entries of these times."""
    ids = [id_at(at) for at in times]
    async with service(scratch, tenant) as role:
        for one, at in zip(ids, times, strict=True):
            await role.execute(INSERT, tenant, one, at, one.bytes)
    return ids


async def grow(
    scratch: Scratch, tenant: UUID, ids: Sequence[UUID], *, signed: int | None = None, first: int = 0
) -> None:
    """The entries' leaves, and a checkpoint of the tree at this size; at their number, unless told."""
    async with service(scratch, tenant) as role:
        for index, one in enumerate(ids, first):
            await role.execute(
                "INSERT INTO audit.tree_leaves (tenant_id, id, leaf_index, hash) VALUES ($1, $2, $3, $4)",
                tenant, one, index, hash_of(one.bytes),
            )  # fmt: skip
        if size := len(ids) + first if signed is None else signed:
            await role.execute(
                "INSERT INTO audit.checkpoints (tenant_id, tree_size, root_hash, signed_text) VALUES ($1, $2, $3, '')",
                tenant, size, bytes(32),
            )  # fmt: skip


async def hold(scratch: Scratch, tenant: UUID, start: datetime | None = None, end: datetime | None = None) -> UUID:
    async with service(scratch, tenant) as role:
        return UUID(str(await role.fetchval(
            "INSERT INTO audit.legal_holds (tenant_id, reason, start_time, end_time, creator_id)"
            " VALUES ($1, 'Az 1/27', $2, $3, $1) RETURNING id", tenant, start, end,
        )))  # fmt: skip


async def release(scratch: Scratch, tenant: UUID, hold_id: UUID) -> None:
    async with service(scratch, tenant) as role:
        await role.execute(
            "UPDATE audit.legal_holds SET release_time = now(), releaser_id = $1 WHERE tenant_id = $1 AND id = $2",
            tenant, hold_id,
        )  # fmt: skip


async def seen(scratch: Scratch, query: str, *values: Any) -> list[Any]:
    async with scratch.connected() as superuser:
        return [row[0] for row in await superuser.fetch(query, *values)]


def in_old(day: int = 5) -> datetime:
    return datetime(OLD.year, OLD.month, day, 12, tzinfo=UTC)


class TestMakingMonths:
    async def test_makes_this_month_and_those_ahead_once(self, scratch: Scratch) -> None:
        wanted = [name_of(month_from_now(n)) for n in range(4)]
        assert await make_months(scratch) == wanted
        assert await make_months(scratch) == []
        assert await seen(scratch, MONTHS) == sorted([*wanted, "audit.audit_logs_default"])
        assert await make_months(scratch, ahead=5) == [name_of(month_from_now(n)) for n in (4, 5)]

    async def test_a_month_is_like_those_that_a_migration_made(self, scratch: Scratch, template: Scratch) -> None:
        await make_months(scratch)
        described = """
        SELECT c.relrowsecurity, c.relforcerowsecurity, r.rolname, c.relacl IS NULL,
          (SELECT array_agg(pg_get_expr(p.polqual, p.polrelid) || pg_get_expr(p.polwithcheck, p.polrelid))
           FROM pg_policy p WHERE p.polrelid = c.oid),
          (SELECT array_agg(t.tgname::text ORDER BY 1) FROM pg_trigger t WHERE t.tgrelid = c.oid),
          (SELECT array_agg(regexp_replace(pg_get_indexdef(i.indexrelid), '^.* USING', '') ORDER BY 1)
           FROM pg_index i WHERE i.indrelid = c.oid),
          (SELECT array_agg(a.attname || a.attnotnull::text || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
                            ORDER BY a.attname)
           FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
           WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
        FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid = $1::regclass
        """
        async with scratch.connected() as ours, template.connected() as theirs:
            made = await ours.fetchrow(described, name_of(month_from_now(1)))
            migrated = await theirs.fetchrow(described, "audit.audit_logs_2027_01")
        assert made == migrated
        assert made["rolname"] == OWNER

    async def test_moves_entries_out_of_the_default_partition_unchanged(self, scratch: Scratch) -> None:
        tenants, now = (uuid4(), uuid4()), datetime.now(UTC)
        far = now + timedelta(days=4000)
        for tenant in tenants:
            await add(scratch, tenant, in_old(), now - timedelta(days=200), now, now + timedelta(days=31), far)
        before = await seen(scratch, EVERYTHING)
        made = await make_months(scratch)
        assert await seen(scratch, EVERYTHING) == before
        assert {name_of(OLD), name_of(month_from_now(0))} <= set(made)
        # What a wrong clock dated years ahead waits for its month.
        left = await seen(scratch, "SELECT id FROM audit.audit_logs_default")
        assert len(left) == 2
        assert await seen(scratch, f"SELECT count(*) FROM {name_of(OLD)}") == [2]
        assert "audit.audit_logs_leaving" not in await seen(scratch, "SELECT oid::regclass::text FROM pg_class")

    async def test_the_log_stays_append_only_while_and_after_entries_move(self, scratch: Scratch) -> None:
        tenant = uuid4()
        await add(scratch, tenant, in_old())
        await make_months(scratch)
        for statement in ("DELETE FROM {}", "UPDATE {} SET action = 'x'", "TRUNCATE {}"):
            for table in ("audit.audit_logs", name_of(OLD)):
                async with scratch.connected(OWNER) as owner:
                    with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
                        await owner.execute(statement.format(table))
        async with scratch.connected(OWNER) as owner:
            with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
                await owner.execute("TRUNCATE audit.audit_logs_default")

    async def test_entries_are_found_and_added_after_the_move(self, scratch: Scratch) -> None:
        tenant = uuid4()
        (first,) = await add(scratch, tenant, in_old())
        await make_months(scratch)
        (second,) = await add(scratch, tenant, in_old(6))
        async with service(scratch, tenant) as role:
            rows = await role.fetch("SELECT id FROM audit.audit_logs WHERE tenant_id = $1 ORDER BY id", tenant)
        assert [row["id"] for row in rows] == [first, second]
        assert await seen(scratch, f"SELECT count(*) FROM {name_of(OLD)}") == [2]

    async def test_nothing_is_lost_when_moving_is_cut_short(self, scratch: Scratch) -> None:
        await add(scratch, uuid4(), in_old())
        before = await seen(scratch, EVERYTHING)
        async with scratch.connected(role_of("audit")) as role:
            attempt = role.transaction()
            await attempt.start()
            assert await role.fetch("SELECT audit.make_months(3)")
            await attempt.rollback()
        assert await seen(scratch, EVERYTHING) == before
        assert name_of(OLD) in await make_months(scratch)
        assert await seen(scratch, EVERYTHING) == before

    @pytest.mark.parametrize("ahead", [-1, 25, 10**9])
    async def test_refuses_numbers_that_make_no_sense(self, scratch: Scratch, ahead: int) -> None:
        with pytest.raises(asyncpg.InvalidParameterValueError):
            await make_months(scratch, ahead)

    async def test_the_service_may_call_nothing_but_the_two_functions(self, scratch: Scratch) -> None:
        for call in ("audit.first_id('2026-01-01')", "audit.add_partition('x', 'DEFAULT')"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with service(scratch) as role:
                    await role.execute(f"SELECT {call}")
        for other in ("content", "identity"):
            async with scratch.connected(role_of(other)) as role:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await role.execute("SELECT audit.make_months(3)")


class TestDroppingMonths:
    async def test_drops_what_checkpoints_cover_and_leaves_the_proofs(self, scratch: Scratch) -> None:
        first, second, now = uuid4(), uuid4(), datetime.now(UTC)
        ids = await add(scratch, first, in_old(), in_old(6), now)
        await grow(scratch, first, ids)
        await grow(scratch, second, await add(scratch, second, in_old()))
        await make_months(scratch)
        assert sorted(await drop_month(scratch, OLD)) == sorted([(first, 2, 0, 1), (second, 1, 0, 0)])
        assert name_of(OLD) not in await seen(scratch, MONTHS)
        assert await seen(scratch, "SELECT id FROM audit.audit_logs") == [ids[2]]
        assert await seen(scratch, "SELECT count(*) FROM audit.tree_leaves") == [4]
        assert await drop_month(scratch, OLD) == []

    async def test_keeps_a_month_of_which_one_entry_of_one_tenant_is_not_covered(self, scratch: Scratch) -> None:
        covered, late = uuid4(), uuid4()
        await grow(scratch, covered, await add(scratch, covered, in_old(), in_old()))
        ids = await add(scratch, late, in_old(), in_old(), in_old())
        await make_months(scratch)
        for leaves, size in ((ids[:1], 1), (ids[1:], 2)):
            with pytest.raises(asyncpg.RestrictViolationError, match="no signed checkpoint covers"):
                await drop_month(scratch, OLD)
            await grow(scratch, late, leaves, signed=size, first=ids.index(leaves[0]))
        with pytest.raises(asyncpg.RestrictViolationError, match="covers: 1"):
            await drop_month(scratch, OLD)
        await grow(scratch, late, [], signed=3)
        assert sorted(await drop_month(scratch, OLD)) == sorted([(covered, 2, 0, 1), (late, 3, 0, 2)])

    async def test_the_checkpoint_of_another_tenant_covers_nothing(self, scratch: Scratch) -> None:
        one, other = uuid4(), uuid4()
        await grow(scratch, one, await add(scratch, one, in_old()), signed=0)
        await grow(scratch, other, await add(scratch, other, in_old()), signed=10)
        await make_months(scratch)
        with pytest.raises(asyncpg.RestrictViolationError, match="no signed checkpoint covers"):
            await drop_month(scratch, OLD)

    @pytest.mark.parametrize(
        ("start", "end", "holds"),
        [
            (None, None, True),
            (in_old(5), None, True),
            (None, in_old(5), False),
            (in_old(5), in_old(6), True),
            (in_old(6), None, False),
            (None, in_old(1), False),
        ],
    )
    async def test_keeps_a_month_that_a_hold_of_one_tenant_touches(
        self, scratch: Scratch, start: datetime | None, end: datetime | None, holds: bool
    ) -> None:
        holding, other = uuid4(), uuid4()
        for tenant in (holding, other):
            await grow(scratch, tenant, await add(scratch, tenant, in_old(5)))
        await make_months(scratch)
        hold_id = await hold(scratch, holding, start, end)
        if holds:
            with pytest.raises(asyncpg.RestrictViolationError, match="legal holds: 1"):
                await drop_month(scratch, OLD)
            await release(scratch, holding, hold_id)
        assert len(await drop_month(scratch, OLD)) == 2

    async def test_a_hold_of_a_tenant_without_entries_in_the_month_keeps_nothing(self, scratch: Scratch) -> None:
        tenant = uuid4()
        await grow(scratch, tenant, await add(scratch, tenant, in_old()))
        await make_months(scratch)
        await hold(scratch, uuid4())
        assert len(await drop_month(scratch, OLD)) == 1

    async def test_a_hold_that_is_being_put_is_waited_for(self, scratch: Scratch) -> None:
        tenant = uuid4()
        await grow(scratch, tenant, await add(scratch, tenant, in_old()))
        await make_months(scratch)
        async with service(scratch, tenant) as role:
            await role.execute(
                "INSERT INTO audit.legal_holds (tenant_id, reason, creator_id) VALUES ($1, 'x', $1)", tenant
            )
            async with service(scratch) as other:
                await other.execute("SET LOCAL lock_timeout = '200ms'")
                with pytest.raises(asyncpg.LockNotAvailableError):
                    await other.fetch("SELECT * FROM audit.drop_month($1, 12)", OLD)
                await other.execute("ROLLBACK")
        with pytest.raises(asyncpg.RestrictViolationError, match="legal holds: 1"):
            await drop_month(scratch, OLD)

    @pytest.mark.parametrize(
        ("month", "keep"),
        [(month_from_now(0), 3), (month_from_now(-3), 3), (OLD, 2), (OLD, 0), (OLD, -12), (OLD.replace(day=2), 3)],
    )
    async def test_refuses_what_is_too_young_or_no_month(self, scratch: Scratch, month: date, keep: int) -> None:
        with pytest.raises(asyncpg.InvalidParameterValueError):
            await drop_month(scratch, month, keep)

    async def test_takes_a_month_as_soon_as_all_of_it_is_old_enough(self, scratch: Scratch) -> None:
        month = month_from_now(-4)
        tenant = uuid4()
        await grow(scratch, tenant, await add(scratch, tenant, datetime(month.year, month.month, 2, tzinfo=UTC)))
        await make_months(scratch)
        assert len(await drop_month(scratch, month, 3)) == 1
