"""A small pool, many tenants, calls cancelled at any moment: nothing of one reaches another, nothing stays open."""

import asyncio
import os
import random
import secrets
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import grpc
import pytest
from sqlalchemy import event

from kit.server import Service
from kit.settings import Settings
from services.content.__main__ import build
from storyloom.content.v1 import courses_pb2
from storyloom.content.v1.courses_pb2_grpc import CourseServiceStub
from storyloom.identity.v1 import tenants_pb2
from storyloom.identity.v1.tenants_pb2_grpc import TenantServiceStub
from tests.profile import PROOF
from tests.stack import PASSWORD, School, free_port

POOL, TENANTS, AT_ONCE, CALLERS = 4, 50 if PROOF else 25, 5, 6
CALLS = 20_000 if PROOF else 1_500
CANCELLED_SHARE = 1 / 3
# Calls take some milliseconds here: cancellations fall before, between and behind all their statements.
LONGEST_PATIENCE = 0.03
APPLICATION = "storyloom-content"
LINGERING = """
SELECT pid, state, query FROM pg_stat_activity WHERE application_name = $1
  AND (xact_start < now() - interval '500 ms' OR state LIKE 'idle in transaction%'
       AND state_change < now() - interval '500 ms')
"""


@dataclass
class Tenant:
    """One of many; the titles of its courses begin with its id."""

    id: str
    token: str
    courses: list[str] = field(default_factory=list)
    acknowledged: set[str] = field(default_factory=set)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token}"),)


@pytest.fixture
def connections() -> list[float]:
    """When the service under the storm connected to the database."""
    return []


@pytest.fixture
async def storm(school: School, connections: list[float], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    """Another process's worth of content service, whose few connections all serve users' calls."""
    monkeypatch.setattr("kit.server.RESERVED", 0)
    environment = school.stack.environments["content"] | {
        "POOL_SIZE": str(POOL),
        "LISTEN_ADDRESS": f"127.0.0.1:{free_port()}",
        "QUEUE_TIMEOUT": "10",
    }
    service = build(Settings.from_environment("content", environment))
    event.listen(service.db.engine.sync_engine, "connect", lambda *_: connections.append(time.monotonic()))
    await service.start()
    yield service
    await service.stop()


@pytest.fixture
async def database(school: School) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(school.stack.cluster.superuser_url)
    yield connection
    await connection.close()


async def found(school: School) -> Tenant:
    slug = f"storm-{secrets.token_hex(6)}"
    tenant = await school.root.stub(TenantServiceStub, "identity").CreateTenant(
        tenants_pb2.CreateTenantRequest(
            tenant=tenants_pb2.Tenant(slug=slug, name="Storm"),
            administrator=tenants_pb2.TenantAdministrator(
                email="admin@storm.example", display_name="Admin", password=PASSWORD
            ),
        )
    )
    identity: Any = school.stack.services["identity"]
    async with identity.db.read(UUID(tenant.id)) as session:
        admin = await session.driver.fetchval("SELECT id FROM identity.users WHERE tenant_id = $1", session.tenant_id)
    # As though they had signed in, at a tenth of the cost.
    token, _ = identity.keyring.access_token(
        tenant_id=UUID(tenant.id), user_id=admin, session_id=uuid4(), roles=["admin"]
    )
    return Tenant(tenant.id, token)


class Storm:
    """Random calls of random tenants; `foreign` is what reached a tenant that is not its own."""

    def __init__(self, seed: int, stub: CourseServiceStub, tenants: list[Tenant]) -> None:
        self.random, self.stub, self.tenants = random.Random(seed), stub, tenants
        self.foreign: list[str] = []
        self.counts: Counter[str] = Counter()

    async def run(self, calls: int) -> None:
        numbers = iter(range(calls))
        await asyncio.gather(*(self._caller(numbers) for _ in range(CALLERS)))

    async def _caller(self, numbers: Any) -> None:
        moves = [self.list] * 3 + [self.get] * 2 + [self.get_foreign] * 2 + [self.create] * 2 + [self.rename] * 2
        moves += [self.create_with_key]
        for _ in numbers:
            move = self.random.choice(moves)
            tenant = self.random.choice(self.tenants)
            try:
                await move(tenant)
                self.counts[move.__name__] += 1
            except asyncio.CancelledError:
                self.counts["cancelled"] += 1
            except grpc.aio.AioRpcError as error:
                self.counts[f"{move.__name__} {error.code().name} {error.details()}"] += 1

    async def _send(self, tenant: Tenant, call: Any, request: Any, *metadata: tuple[str, str]) -> Any:
        sent = call(request, metadata=(*tenant.metadata, *metadata), timeout=20)
        if self.random.random() < CANCELLED_SHARE:
            await asyncio.sleep(self.random.random() * LONGEST_PATIENCE)
            sent.cancel()
        return await sent

    def _look(self, tenant: Tenant, *courses: Any) -> None:
        self.foreign += [one.title for one in courses if not one.title.startswith(tenant.id)]

    async def list(self, tenant: Tenant) -> None:
        listed = await self._send(tenant, self.stub.ListCourses, courses_pb2.ListCoursesRequest(page_size=10))
        self._look(tenant, *listed.courses)

    async def get(self, tenant: Tenant) -> None:
        request = courses_pb2.GetCourseRequest(id=self.random.choice(tenant.courses))
        self._look(tenant, await self._send(tenant, self.stub.GetCourse, request))

    async def get_foreign(self, tenant: Tenant) -> None:
        other = self.random.choice([one for one in self.tenants if one is not tenant])
        request = courses_pb2.GetCourseRequest(id=self.random.choice(other.courses))
        try:
            self._look(tenant, await self._send(tenant, self.stub.GetCourse, request))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise

    async def create(self, tenant: Tenant, *metadata: tuple[str, str]) -> None:
        title = f"{tenant.id} {uuid4()}"
        course = courses_pb2.Course(title=title, story_language="vi", learning_language="en")
        request = courses_pb2.CreateCourseRequest(course=course)
        made = await self._send(tenant, self.stub.CreateCourse, request, *metadata)
        self._look(tenant, made)
        tenant.courses.append(made.id)
        tenant.acknowledged.add(made.id)

    async def create_with_key(self, tenant: Tenant) -> None:
        await self.create(tenant, ("idempotency-key", str(uuid4())))

    async def rename(self, tenant: Tenant) -> None:
        course = courses_pb2.Course(id=self.random.choice(tenant.courses), title=f"{tenant.id} {uuid4()}")
        request = courses_pb2.UpdateCourseRequest(course=course)
        request.update_mask.paths.append("title")
        self._look(tenant, await self._send(tenant, self.stub.UpdateCourse, request))


async def until_nothing_lingers(database: asyncpg.Connection, service: Service) -> None:
    """The server may need a moment for statements whose clients hung up; what it asks for is noticed within half a
    second."""
    give_up = time.monotonic() + 5
    pool: Any = service.db.engine.pool
    while (open_ones := await database.fetch(LINGERING, APPLICATION)) or pool.checkedout():
        assert time.monotonic() < give_up, (open_ones, pool.status())
        await asyncio.sleep(0.1)


async def check_pool(service: Service, tenants: list[Tenant]) -> None:
    """All connections can be had at once, each free of a transaction and of anybody's tenant."""
    async with AsyncExitStack() as stack:
        for _ in range(POOL):
            connection = await stack.enter_async_context(service.db.engine.connect())
            driver: Any = (await connection.get_raw_connection()).driver_connection
            assert not driver.is_in_transaction()
            assert not await driver.fetchval("SELECT current_setting('app.tenant_id', true)")
            with pytest.raises(asyncpg.PostgresError):
                await driver.fetch("SELECT id FROM content.courses")
    async with AsyncExitStack() as stack:
        for tenant in tenants[:POOL]:
            session = await stack.enter_async_context(service.db.read(UUID(tenant.id)))
            rows = await session.driver.fetch("SELECT DISTINCT tenant_id FROM content.courses")
            assert [str(row["tenant_id"]) for row in rows] == [tenant.id]


async def check_rows(database: asyncpg.Connection, storm: Storm) -> None:
    """Rows are of the tenant that made them, in every table that a call wrote; what was acknowledged is there."""
    ids = [UUID(one.id) for one in storm.tenants]
    rows = await database.fetch("SELECT tenant_id, id, title FROM content.courses WHERE tenant_id = ANY($1)", ids)
    assert [row["title"] for row in rows if not row["title"].startswith(str(row["tenant_id"]))] == []
    stored = {str(row["id"]) for row in rows}
    for tenant in storm.tenants:
        assert tenant.acknowledged <= stored


class TestPoolStorm:
    async def test_cancelled_calls_of_many_tenants_leave_nothing_behind(
        self, school: School, storm: Service, connections: list[float], database: asyncpg.Connection
    ) -> None:
        tenants: list[Tenant] = []
        while len(tenants) < TENANTS:
            tenants += await asyncio.gather(*(found(school) for _ in range(AT_ONCE)))
        seed = int(os.environ.get("STORM_SEED") or secrets.randbits(32))
        async with grpc.aio.insecure_channel(storm.settings.listen_address) as channel:
            stub = CourseServiceStub(channel)
            blowing = Storm(seed, stub, tenants)
            for tenant in tenants:
                course = courses_pb2.Course(title=f"{tenant.id} 1", story_language="vi", learning_language="en")
                request = courses_pb2.CreateCourseRequest(course=course)
                made = await stub.CreateCourse(request, metadata=tenant.metadata)
                tenant.courses.append(made.id)
            started = time.monotonic()
            await blowing.run(CALLS)
            took = time.monotonic() - started
            sys.stdout.write(
                f"\npool storm: seed {seed}, {CALLS} calls in {took:.1f} s, {dict(blowing.counts)},"
                f" {len(connections) - POOL} connections cut off in a transaction\n"
            )
            assert blowing.foreign == []
            # Whoever was not cancelled was served.
            names = {"list", "get", "get_foreign", "create", "create_with_key", "rename", "cancelled"}
            assert set(blowing.counts) == names
            assert blowing.counts["cancelled"] > CALLS / 8
            assert len(connections) > CALLS / 100
            await until_nothing_lingers(database, storm)
            await check_pool(storm, tenants)
            await check_rows(database, blowing)
            for tenant in tenants:
                listed = await stub.ListCourses(courses_pb2.ListCoursesRequest(page_size=100), metadata=tenant.metadata)
                assert tenant.acknowledged <= {one.id for one in listed.courses} or listed.next_page_token
                assert {one.title[:36] for one in listed.courses} == {tenant.id}
