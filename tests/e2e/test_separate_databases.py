"""Each service on a database of its own: they share a server only as long as that is enough."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import pytest

from kit import migrations
from kit.settings import SERVICES
from tests.contract import databases
from tests.contract.population import fresh
from tests.postgres import Cluster
from tests.profile import PROOF
from tests.stack import Stack

USED = """
SELECT c.oid::regclass::text FROM pg_class c
WHERE c.relnamespace::regnamespace::text = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition
"""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not PROOF, reason="a second stack: `make proof` starts it")]


@dataclass(frozen=True, slots=True)
class Apart(Cluster):
    """The databases are on one server here; nothing in them says so."""

    def service_url(self, service: str) -> str:
        return migrations.in_database(Cluster.service_url(self, service), f"apart_{service}")


@pytest.fixture
async def apart(cluster: Cluster) -> AsyncIterator[Stack]:
    for service in SERVICES:
        made = await databases.create(cluster, f"apart_{service}")
        await made.upgrade(service)
    running = Stack(Apart(cluster.admin_url, cluster.passwords, cluster.pooler))
    with pytest.MonkeyPatch.context() as monkeypatch:
        await running.start(monkeypatch)
        yield running
        await running.stop()


class TestServicesWithTheirOwnDatabases:
    async def test_do_all_they_do_together(self, apart: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Stack, "settle", settled)
        population = await fresh(apart)
        assert {"story", "quiz", "enrollment", "audit_log"} <= population.ours.ids.keys()
        for service in SERVICES:
            url = migrations.in_database(apart.cluster.admin_url, f"apart_{service}")
            database = await asyncpg.connect(url)
            for other in SERVICES:
                tables = [row[0] for row in await database.fetch(USED, other)]
                assert bool(tables) == (service == other)
            await database.close()


async def settled(stack: Stack, timeout: float = 15.0) -> None:
    """Waits for the outboxes, each in its database."""
    for service in stack.services.values():
        await service.notes.write(everything=True)
    async with asyncio.timeout(timeout):
        for name in SERVICES:
            database = await asyncpg.connect(migrations.in_database(stack.cluster.admin_url, f"apart_{name}"))
            while await database.fetchval(f"SELECT count(*) FROM {name}.outbox WHERE parked_at IS NULL"):
                await asyncio.sleep(0.02)
            await database.close()
