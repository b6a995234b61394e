"""Every migration can be taken back and made again where there are rows of everything."""

import asyncio
import subprocess

import pytest
from alembic.script import ScriptDirectory

from deploy.backups.programs import connection, program
from kit import migrations
from kit.settings import SERVICES
from tests.contract import databases
from tests.contract.databases import Scratch
from tests.contract.population import populate
from tests.contract.test_migrations import LEFT_OVER, PROTECTION, TABLES, described
from tests.contract.tree import nothing
from tests.profile import PROOF
from tests.stack import Stack

FILLED = """
SELECT count(*) FILTER (WHERE reltuples > 0) > count(*) / 2 FROM pg_class
WHERE relnamespace = $1::regnamespace AND relkind = 'r' AND NOT relispartition
"""


def copy(source: str, target: str) -> None:
    """All schemas with their rows."""
    url, environment = connection(source)
    schemas = [f"--schema={service}" for service in SERVICES]
    command = [program("pg_dump"), *schemas, "--dbname", url]
    dump = subprocess.run(command, env=environment, capture_output=True, check=True)
    url, environment = connection(target)
    psql = [program("psql"), "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--dbname", url]
    subprocess.run(psql, env=environment, input=dump.stdout, capture_output=True, check=True)


@pytest.fixture(scope="module")
async def filled(stack: Stack) -> Scratch:
    """A database as the population leaves it, copied, because migrations drop what services use."""
    await populate(stack)
    made = await databases.create(stack.cluster, "contract_filled")
    async with made.connected() as superuser:
        for service in SERVICES:
            await superuser.execute(f"DROP SCHEMA {service}")
    await asyncio.to_thread(copy, stack.cluster.superuser_url, made.superuser_url)
    async with made.connected() as superuser:
        await superuser.execute("ANALYZE")
    return made


def revisions(service: str) -> list[str]:
    """From the newest to the first."""
    return [one.revision for one in ScriptDirectory.from_config(migrations.config(service, "")).walk_revisions()]


@pytest.mark.skipif(not PROOF, reason="with rows of everything: make proof")
@pytest.mark.parametrize("service", SERVICES)
class TestWithRows:
    async def test_each_step_down_and_up_again(
        self, service: str, filled: Scratch, migrated_database: Scratch
    ) -> None:
        async with filled.connected() as superuser:
            assert await superuser.fetchval(FILLED, service)
        for below in [*revisions(service)[1:], "base"]:
            await asyncio.to_thread(migrations.downgrade, service, filled.owner_url, below)
        async with filled.connected() as superuser:
            nothing(row[0] for row in await superuser.fetch(LEFT_OVER, service))
        await filled.upgrade(service)
        # A dump has other parentheses: what the schema was before is what any other one is.
        assert await described(filled, service, TABLES, PROTECTION) == await described(
            migrated_database, service, TABLES, PROTECTION
        )
