"""Every statement that services send says for which tenant: a database that is spread by tenants has to know where."""

import sys
from collections.abc import AsyncIterator

import asyncpg
import pytest

from deploy import citus
from kit.settings import SERVICES
from tests.contract import requests
from tests.contract.answers import answer
from tests.contract.population import populate
from tests.e2e.test_isolation import LISTS, READS, chosen, filled
from tests.stack import Stack
from tests.statements import PREPARATION, without_tenant

# Spread by tenants and read of all of them: each such look asks every node.
ACROSS = {"audit.trees": "whose checkpoints are due, and how long the logs are that somebody watches"}
LOCAL = {table.fullname for service in SERVICES for table in citus.tables(service) if not citus.is_distributed(table)}
# What a worker's other tests have asked before.
ENOUGH = 300
FORGETFUL = (
    "SELECT id FROM content.stories WHERE id = $1",
    "SELECT id FROM content.stories WHERE tenant_id > $1",
    "SELECT id FROM content.stories WHERE tenant_id = ANY ($1::uuid[])",
    "UPDATE content.stories SET title = $1 WHERE id = $2",
    "DELETE FROM audit.audit_logs WHERE id = $1",
    "SELECT s.id FROM content.stories s JOIN content.lessons l ON l.id = s.lesson_id WHERE s.tenant_id = $1",
    "SELECT s.id FROM content.stories s JOIN content.lessons l ON l.tenant_id = s.tenant_id AND l.id = s.lesson_id",
    "SELECT (SELECT count(*) FROM learning.learners) FROM content.stories WHERE tenant_id = $1",
    "WITH taken AS (DELETE FROM content.tags WHERE id = $2) SELECT id FROM content.stories WHERE tenant_id = $1",
)
MINDFUL = (
    "SELECT s.id FROM content.stories s JOIN content.lessons l ON l.tenant_id = s.tenant_id WHERE $1 = l.tenant_id",
    "INSERT INTO content.tags (tenant_id, id, name) SELECT $1, id, title FROM content.stories WHERE tenant_id = $1",
    "UPDATE content.stories SET title = $1 WHERE id = $2 AND tenant_id = $3",
)

# Behind those that ask most, on their worker.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("mutants")]


@pytest.fixture
async def superuser(stack: Stack) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(stack.cluster.superuser_url)
    await connection.execute(PREPARATION)
    yield connection
    await connection.close()


async def ask_for_everything(stack: Stack) -> None:
    population = await populate(stack)
    ours = population.ours
    for rpc in (param.values[0] for param in READS):
        for shape in requests.shapes(rpc):
            paths = [path for path in sorted(shape) if requests.is_id(requests.leaves(rpc)[path])]
            ids = dict.fromkeys(shape, "") | chosen(rpc, paths, ours)
            await answer(ours.admin, rpc, requests.make(rpc, sorted(ids), ids))
    for rpc in (param.values[0] for param in LISTS):
        await answer(ours.admin, rpc, filled(rpc, ours))


class TestStatements:
    async def test_say_the_tenant(self, stack: Stack, superuser: asyncpg.Connection) -> None:
        if len(stack.statements) < ENOUGH:
            await ask_for_everything(stack)
        assert len(stack.statements) >= ENOUGH
        found = {}
        for statement in sorted(stack.statements):
            if tables := set(await without_tenant(superuser, statement)) - LOCAL - ACROSS.keys():
                found[statement] = tables
        sys.stdout.write(f"{len(stack.statements)} statements say for which tenant\n")
        assert not found


class TestPlans:
    @pytest.mark.parametrize("statement", FORGETFUL)
    async def test_show_what_is_forgotten(self, statement: str, superuser: asyncpg.Connection) -> None:
        assert len(await without_tenant(superuser, statement)) == 1

    @pytest.mark.parametrize("statement", MINDFUL)
    async def test_show_that_nothing_is(self, statement: str, superuser: asyncpg.Connection) -> None:
        assert await without_tenant(superuser, statement) == []
