"""Models and migrations say the same, and every migration can be taken back."""

import asyncio
import re
from functools import partial
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from kit import migrations
from kit.settings import SERVICES
from tests.contract import databases
from tests.contract.databases import Scratch
from tests.contract.tree import ROOT, nothing
from tests.postgres import Cluster

FILE = re.compile(r"(\d{4})_(\d\d)_(\d\d)_(\d\d)(\d\d)_[a-z]+(_[a-z0-9]+)+\.py")
# Everything that a model can say of a table. Partitions, and triggers that wait, are the migrations' business.
TABLES = """
SELECT 'column ' || c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
       || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END
       || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')
       || ' ' || a.attidentity::text || a.attgenerated::text
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
     LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT 'constraint ' || c.relname || '.' || o.conname || ' ' || pg_get_constraintdef(o.oid)
FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid
WHERE c.relnamespace = $1::regnamespace AND NOT c.relispartition AND o.contype NOT IN ('n', 't')
UNION ALL
SELECT 'index ' || pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
WHERE c.relnamespace = $1::regnamespace AND NOT c.relispartition
UNION ALL
SELECT 'partitioned ' || c.relname || ' ' || pg_get_partkeydef(c.oid) FROM pg_class c
WHERE c.relnamespace = $1::regnamespace AND c.relkind = 'p'
"""
# What only migrations make.
PROTECTION = """
SELECT 'policy ' || tablename || '.' || policyname || ' ' || cmd || ' ' || qual || ' ' || with_check
FROM pg_policies WHERE schemaname = $1
UNION ALL
SELECT 'table ' || relname || ' ' || relrowsecurity::text || relforcerowsecurity::text || ' '
       || coalesce(relacl::text, '')
FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind IN ('r', 'p')
UNION ALL
SELECT 'function ' || pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = $1::regnamespace
UNION ALL
SELECT 'trigger ' || pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE c.relnamespace = $1::regnamespace AND NOT t.tgisinternal
"""
LEFT_OVER = """
SELECT relname::text FROM pg_class WHERE relnamespace = $1::regnamespace AND relname !~ '^alembic_version'
UNION ALL SELECT proname::text FROM pg_proc WHERE pronamespace = $1::regnamespace
UNION ALL SELECT typname::text FROM pg_type WHERE typnamespace = $1::regnamespace AND typname !~ 'alembic_version$'
"""


async def described(database: Scratch, service: str, *queries: str) -> set[str]:
    async with database.connected() as connection:
        rows = [row[0] for query in queries for row in await connection.fetch(query, service)]
    # Alembic's own bookkeeping is in no model.
    return {row for row in rows if "alembic_version" not in row}


def migration_files(service: str) -> list[Path]:
    return sorted((ROOT / "services" / service / "migrations").glob("*.py"))


@pytest.mark.parametrize("service", SERVICES)
class TestFiles:
    def test_are_named_by_time_and_by_what_they_do(self, service: str) -> None:
        assert migration_files(service)
        nothing(path.name for path in migration_files(service) if not FILE.fullmatch(path.name))

    def test_the_revision_is_the_time_in_the_name(self, service: str) -> None:
        script = ScriptDirectory.from_config(migrations.config(service, ""))
        for revision in script.walk_revisions():
            assert Path(revision.path).name.replace("_", "").startswith(revision.revision)

    def test_form_one_line_of_history(self, service: str) -> None:
        script = ScriptDirectory.from_config(migrations.config(service, ""))
        assert len(script.get_heads()) == len(script.get_bases()) == 1
        assert len(list(script.walk_revisions())) == len(migration_files(service))


@pytest.mark.parametrize("service", SERVICES)
class TestModels:
    async def test_need_no_further_migration(self, service: str, migrated_database: Scratch) -> None:
        await asyncio.to_thread(command.check, migrations.config(service, migrated_database.owner_url))

    async def test_make_the_same_tables_as_the_migrations(
        self, service: str, migrated_database: Scratch, modelled_database: Scratch
    ) -> None:
        wanted = await described(modelled_database, service, TABLES)
        found = await described(migrated_database, service, TABLES)
        assert wanted
        models, made = (f"only in the models: {one}" for one in wanted - found), found - wanted
        nothing([*models, *(f"only in the migrations: {one}" for one in made)])


@pytest.mark.parametrize("service", SERVICES)
class TestDowngrade:
    @pytest.mark.slow
    async def test_leaves_nothing_and_the_way_up_is_the_same_again(self, service: str, there_and_back: Scratch) -> None:
        config = partial(migrations.config, service, there_and_back.owner_url)
        await there_and_back.upgrade(service)
        before = await described(there_and_back, service, TABLES, PROTECTION)
        await asyncio.to_thread(command.downgrade, config(), "base")
        async with there_and_back.connected() as connection:
            nothing(row[0] for row in await connection.fetch(LEFT_OVER, service))
        await there_and_back.upgrade(service)
        assert await described(there_and_back, service, TABLES, PROTECTION) == before


@pytest.fixture(scope="module")
async def modelled_database(cluster: Cluster) -> Scratch:
    """The tables that the models describe, made without migrations."""
    made = await databases.create(cluster, "contract_modelled")
    engine = create_async_engine(migrations.async_url(made.owner_url))
    async with engine.begin() as connection:
        await connection.run_sync(_create_all)
    await engine.dispose()
    return made


def _create_all(connection: Connection) -> None:
    for service in SERVICES:
        migrations.metadata_of(service).create_all(connection)


@pytest.fixture(scope="module")
async def there_and_back(cluster: Cluster) -> Scratch:
    """Schemas without tables."""
    return await databases.create(cluster, "contract_downgrade")
