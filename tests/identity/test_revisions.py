"""The stream of revisions, with transactions that commit in another order than they began."""

import asyncio
from uuid import uuid4

import asyncpg
import pytest

from kit.db import Database
from kit.settings import Settings
from kit.telemetry import Telemetry
from services.identity.revisions import RevisionFeed

INSERT = "INSERT INTO identity.access_revisions (tenant_id, user_id) VALUES ($1, $2) RETURNING revision"


@pytest.fixture
async def feed(stack):
    """A feed of its own, beside the one of the running service."""
    settings = Settings.from_environment("identity", stack.environments["identity"])
    db = Database(settings.database_url, service="identity", pool_size=2, telemetry=Telemetry(settings))
    made = RevisionFeed(db)
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await db.close()


@pytest.fixture
async def connect(cluster):
    connections = []

    async def make():
        connections.append(await asyncpg.connect(cluster.service_url("identity")))
        return connections[-1]

    yield make
    for connection in connections:
        await connection.close()


async def collect(feed, tenant_id, number, revisions):
    """Adds the revisions that the feed tells of the tenant, until there are as many."""
    async with asyncio.timeout(2):
        async for change in feed.follow():
            if change is not None and change.tenant_id == str(tenant_id):
                revisions.append(change.revision)
                if len(revisions) == number:
                    return


class TestRevisionFeed:
    async def test_a_late_commit_of_a_lower_revision_is_told(self, feed, connect):
        tenant_id, revisions = uuid4(), []
        early, late = await connect(), await connect()
        slow = early.transaction()
        await slow.start()
        lower = await early.fetchval(INSERT, tenant_id, uuid4())
        task = asyncio.create_task(collect(feed, tenant_id, 2, revisions))
        await asyncio.sleep(0.6)
        higher = await late.fetchval(INSERT, tenant_id, uuid4())
        await asyncio.sleep(0.6)
        assert revisions == [higher]
        await slow.commit()
        await task
        assert revisions == [higher, lower]

    async def test_an_open_transaction_of_somebody_else_delays_nothing(self, feed, connect):
        tenant_id, revisions = uuid4(), []
        other, mine = await connect(), await connect()
        hanging = other.transaction()
        await hanging.start()
        await other.execute("SELECT pg_current_xact_id()")
        task = asyncio.create_task(collect(feed, tenant_id, 3, revisions))
        await asyncio.sleep(0.6)
        told = [await mine.fetchval(INSERT, tenant_id, uuid4()) for _ in range(3)]
        await task
        await hanging.rollback()
        assert revisions == told

    async def test_nothing_is_told_twice(self, feed, connect):
        tenant_id, revisions = uuid4(), []
        other, mine = await connect(), await connect()
        hanging = other.transaction()
        await hanging.start()
        await other.execute("SELECT pg_current_xact_id()")
        task = asyncio.create_task(collect(feed, tenant_id, 3, revisions))
        await asyncio.sleep(0.3)
        for _ in range(2):
            await mine.fetchval(INSERT, tenant_id, uuid4())
            await asyncio.sleep(0.6)
        assert len(revisions) == 2
        task.cancel()
        await hanging.rollback()

    async def test_what_is_rolled_back_is_not_told(self, feed, connect):
        tenant_id, revisions = uuid4(), []
        connection = await connect()
        task = asyncio.create_task(collect(feed, tenant_id, 1, revisions))
        await asyncio.sleep(0.3)
        undone = connection.transaction()
        await undone.start()
        await connection.fetchval(INSERT, tenant_id, uuid4())
        await undone.rollback()
        kept = await connection.fetchval(INSERT, tenant_id, uuid4())
        await task
        assert revisions == [kept]

    async def test_without_a_database_there_is_no_sign_of_life(self, feed):
        async def beats():
            return [change async for change in feed.follow()]

        await asyncio.sleep(0.6)
        task = asyncio.create_task(beats())
        broken = feed._db.engine
        feed._db.engine = None
        await asyncio.sleep(1.2)
        feed._db.engine = broken
        assert not task.done()
        task.cancel()

    async def test_streams_end_with_the_feed(self, stack):
        settings = Settings.from_environment("identity", stack.environments["identity"])
        db = Database(settings.database_url, service="identity", pool_size=2, telemetry=Telemetry(settings))
        ending = RevisionFeed(db)
        task = asyncio.create_task(ending.run())

        async def follow():
            return [change async for change in ending.follow()]

        following = asyncio.create_task(follow())
        await asyncio.sleep(0.6)
        task.cancel()
        async with asyncio.timeout(1):
            assert None in await following
        assert [change async for change in ending.follow()] == []
        await db.close()
