"""The data layer through PgBouncer in transaction mode: the same answers, and nothing of one client reaches another."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import func, select, text

from kit.connecting import LIMITS
from kit.db import Database
from kit.telemetry import Telemetry
from tests.kit import test_db
from tests.kit.toy import ROLE, Toy, serving_toy
from tests.pgbouncer import ABSENT, PROGRAM
from tests.postgres import empty_server

pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROGRAM is None, reason=ABSENT)]
CONNECTIONS, PROCESSES, POOL = 3, 5, 4


@pytest.fixture(scope="module")
async def toy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Toy]:
    """The service behind PgBouncer, with fewer server connections than it has of its own."""
    async with empty_server() as admin_url:
        folder = tmp_path_factory.mktemp("pooled")
        async with serving_toy(admin_url, folder, connections=CONNECTIONS, pool_size=7) as running:
            yield running


@pytest.fixture
async def processes(toy: Toy) -> AsyncIterator[list[Database]]:
    """As many pools as there were processes of a service."""
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(PROCESSES):
            made.append(pooled(toy, POOL))
            stack.push_async_callback(made[-1].close)
        yield made


def pooled(toy: Toy, pool_size: int) -> Database:
    settings = toy.settings
    return Database(
        settings.database_url,
        service="toy",
        pool_size=pool_size,
        telemetry=Telemetry(settings),
        pooler=settings.database_pooler,
    )


class TestWrite(test_db.TestWrite):
    """What holds without PgBouncer."""


class TestIdempotency(test_db.TestIdempotency):
    """What holds without PgBouncer."""


class TestPrepared(test_db.TestPrepared):
    """What holds without PgBouncer."""


class TestClients:
    async def test_share_few_server_connections_and_no_tenant(self, toy: Toy, processes: list[Database]) -> None:
        tenants = [uuid4() for _ in range(12)]
        for tenant in tenants:
            async with toy.db.write(tenant) as session:
                session.add(test_db.made(toy, tenant.hex))
        servers: Counter[int] = Counter()

        async def look(db: Database, tenant: UUID) -> None:
            async with db.read(tenant) as session:
                before = await session.driver.fetchval("SELECT current_setting('app.tenant_id')")
                await session.execute(select(func.pg_sleep(0.001)))
                # Without a predicate: the policies alone decide.
                found = (await session.execute(select(toy.note.tenant_id))).scalars().all()
                servers[await session.driver.fetchval("SELECT pg_backend_pid()")] += 1
                assert (before, found) == (str(tenant), [tenant])

        calls = [look(processes[n % PROCESSES], tenants[n % len(tenants)]) for n in range(240)]
        limit = asyncio.Semaphore(PROCESSES * POOL)

        async def limited(call: object) -> None:
            async with limit:
                await call  # type: ignore[misc]

        await asyncio.gather(*map(limited, calls))
        assert servers.total() == 240
        assert len(servers) <= CONNECTIONS < PROCESSES * POOL
        rows = await toy.rows("SELECT count(*) FROM pg_stat_activity WHERE usename = $1", ROLE)
        assert rows[0][0] <= CONNECTIONS

    async def test_find_no_transaction_that_another_gave_up(self, toy: Toy, processes: list[Database]) -> None:
        tenant = uuid4()

        async def give_up(db: Database) -> None:
            async with db.write(tenant) as session:
                session.add(test_db.made(toy, "given up"))
                await session.flush()
                await session.driver.execute("SELECT pg_sleep(10)")

        tasks = [asyncio.create_task(give_up(db)) for db in processes]
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(5):
            for db in processes:
                async with db.read(tenant) as session:
                    assert await session.scalar(select(func.count()).select_from(toy.note)) == 0

    async def test_that_say_no_tenant_get_nothing(self, toy: Toy) -> None:
        async with toy.db.read(uuid4()) as session:
            await session.execute(text("SELECT 1"))
        async with toy.db.engine.connect() as connection:
            # Whatever server connection it gets: one that was another's, or a new one.
            with pytest.raises(Exception, match=r"app\.tenant_id|uuid"):
                await connection.execute(text("SELECT * FROM toy.notes"))


class TestLimits:
    async def test_hold_through_the_pooler(self, toy: Toy) -> None:
        async with toy.db.read(uuid4()) as session:
            for name, wanted in LIMITS.items():
                assert await session.driver.fetchval("SELECT current_setting($1)", name) == wanted
            with pytest.raises(asyncpg.QueryCanceledError):
                await session.driver.execute("SET LOCAL statement_timeout = '20ms'; SELECT pg_sleep(10)")

    async def test_are_asked_for_at_the_start(self, toy: Toy) -> None:
        await toy.rows(f"ALTER ROLE {ROLE} RESET lock_timeout")
        try:
            await toy.rows("SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE usename = $1", ROLE)
            db = pooled(toy, 1)
            with pytest.raises(RuntimeError, match="lock_timeout"):
                await db.check_role()
            await db.close()
        finally:
            await toy.rows(f"ALTER ROLE {ROLE} SET lock_timeout = '{LIMITS['lock_timeout']}'")
