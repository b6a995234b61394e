"""The statements for Citus cover every table once, and every key can live where its tenant's rows are."""

import fnmatch
import re

import pytest

from deploy import citus
from kit.settings import SERVICES
from tests.contract.databases import Scratch
from tests.contract.tree import nothing

pytestmark = pytest.mark.slow

TABLES = """
SELECT c.oid::regclass::text AS name, c.relname = 'alembic_version' AS bookkeeping FROM pg_class c
WHERE c.relnamespace::regnamespace::text = ANY ($1) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
"""
# Primary keys, unique constraints and indexes, exclusions: Citus keeps none that does not have the column.
UNIQUE = """
SELECT i.indrelid::regclass::text AS table, i.indexrelid::regclass::text AS name,
       EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attname = 'tenant_id'
               AND a.attnum = ANY (i.indkey)) AS has_tenant
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
WHERE c.relnamespace::regnamespace::text = ANY ($1) AND NOT c.relispartition
  AND (i.indisunique OR i.indisprimary OR i.indisexclusion)
"""
# The tenant has to be at the same place on both sides; and nothing may be set to null or to a default on the way.
FOREIGN_KEYS = """
SELECT o.conname AS name, o.conrelid::regclass::text AS child, o.confrelid::regclass::text AS parent,
       o.confdeltype IN ('n', 'd') OR o.confupdtype IN ('n', 'd', 'c') AS changes_the_key,
       EXISTS (SELECT FROM generate_subscripts(o.conkey, 1) i
               JOIN pg_attribute mine ON mine.attrelid = o.conrelid AND mine.attnum = o.conkey[i]
               JOIN pg_attribute theirs ON theirs.attrelid = o.confrelid AND theirs.attnum = o.confkey[i]
               WHERE mine.attname = 'tenant_id' AND theirs.attname = 'tenant_id') AS has_tenant
FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid
WHERE c.relnamespace::regnamespace::text = ANY ($1) AND o.contype = 'f' AND o.conparentid = 0
"""
# A statement's trigger would run for each shard; a row's finds no other table on the worker.
TRIGGERS = """
SELECT t.tgrelid::regclass::text AS table, c.relnamespace::regnamespace::text AS service, t.tgname AS name,
       t.tgtype & 1 = 0 AS by_statement, p.prosrc AS source
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid
WHERE c.relnamespace::regnamespace::text = ANY ($1) AND NOT t.tgisinternal AND NOT c.relispartition
"""
SEQUENCES = """
SELECT a.attrelid::regclass::text AS table, a.attname AS name FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relnamespace::regnamespace::text = ANY ($1) AND a.attidentity <> '' AND a.atttypid <> 'bigint'::regtype
"""
DEFINITIONS = """
SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f' ORDER BY conname, conrelid
"""
DISTRIBUTED = re.compile(r"SELECT create_distributed_table\('([\w.]+)', 'tenant_id', colocate_with => '([\w.]+)'\);")
LOCAL = re.compile(r"-- ([\w.]+) stays on the coordinator\.")
# What the triggers' functions call, and what these touch.
TOUCHING = re.compile(r"\b(?:INSERT INTO|DELETE FROM|UPDATE|FROM|JOIN|PERFORM)\s+(?:identity|content|learning|audit)\.")


def by_tenant() -> tuple[dict[str, str], set[str]]:
    """Distributed tables with what each is put beside, and those that are not."""
    lines = list(citus.by_tenant())
    distributed = [found.groups() for line in lines if (found := DISTRIBUTED.fullmatch(line))]
    local = [found[1] for line in lines if (found := LOCAL.fullmatch(line))]
    assert len(distributed) + len(local) == len({name for name, _ in distributed} | set(local))
    return dict(distributed), set(local)


class TestByTenant:
    async def test_says_of_every_table_where_it_goes(self, migrated_database: Scratch) -> None:
        distributed, local = by_tenant()
        async with migrated_database.connected() as database:
            rows = await database.fetch(TABLES, list(SERVICES))
        assert {row["name"] for row in rows if not row["bookkeeping"]} == distributed.keys() | local

    def test_puts_all_beside_the_tenant_itself(self) -> None:
        distributed, _ = by_tenant()
        assert next(iter(distributed)) == citus.HOME
        assert distributed.pop(citus.HOME) == "none"
        assert set(distributed.values()) == {citus.HOME}

    async def test_every_key_has_the_tenant(self, migrated_database: Scratch) -> None:
        distributed, local = by_tenant()
        async with migrated_database.connected() as database:
            unique = await database.fetch(UNIQUE, list(SERVICES))
            foreign = await database.fetch(FOREIGN_KEYS, list(SERVICES))
            narrow = await database.fetch(SEQUENCES, list(SERVICES))
        nothing(row["name"] for row in unique if row["table"] in distributed and not row["has_tenant"])
        nothing(row["name"] for row in foreign if not row["has_tenant"] or row["changes_the_key"])
        nothing(row["name"] for row in foreign if local & {row["child"], row["parent"]})
        nothing(f"{row['table']}.{row['name']}" for row in narrow)
        assert unique
        assert foreign

    async def test_parents_come_first_or_the_key_comes_back_at_the_end(self, migrated_database: Scratch) -> None:
        lines = list(citus.by_tenant())
        places = {found[1]: place for place, line in enumerate(lines) if (found := DISTRIBUTED.fullmatch(line))}
        async with migrated_database.connected() as database:
            keys = await database.fetch(FOREIGN_KEYS, list(SERVICES))
        for key in keys:
            if places[key["parent"]] > places[key["child"]]:
                dropped = lines.index(f"ALTER TABLE {key['child']} DROP CONSTRAINT {key['name']};")
                added = next(n for n, line in enumerate(lines) if f"ADD CONSTRAINT {key['name']} " in line)
                assert dropped < places[key["child"]] < places[key["parent"]] < added

    async def test_keys_that_are_taken_away_come_back_as_they_were(self, migrated_database: Scratch) -> None:
        changes = [line for line in citus.by_tenant() if line.startswith("ALTER TABLE")]
        async with migrated_database.connected() as database:
            change = database.transaction()
            await change.start()
            before = await database.fetch(DEFINITIONS)
            for one in changes:
                await database.execute(one)
            assert await database.fetch(DEFINITIONS) == before
            await change.rollback()
        assert changes


class TestPartitions:
    async def test_could_be_by_tenant_for_every_table(self, migrated_database: Scratch) -> None:
        distributed, _ = by_tenant()
        async with migrated_database.connected() as database:
            change = database.transaction()
            await change.start()
            await database.execute("CREATE SCHEMA parted")
            for table in distributed:
                parted = f"parted.{table.replace('.', '_')}"
                await database.execute(
                    f"CREATE TABLE {parted} (LIKE {table} INCLUDING ALL) PARTITION BY HASH (tenant_id);"
                    f"CREATE TABLE {parted}_0 PARTITION OF {parted} FOR VALUES WITH (MODULUS 2, REMAINDER 0)"
                )
            await change.rollback()


class TestTriggers:
    async def test_that_workers_cannot_run_are_known(self, migrated_database: Scratch) -> None:
        async with migrated_database.connected() as database:
            rows = await database.fetch(TRIGGERS, list(SERVICES))
        found = {(row["service"], row["name"]) for row in rows if row["by_statement"] or TOUCHING.search(row["source"])}
        known = {(name, one) for name, patterns in citus.TRIGGERS_IN_THE_WAY.items() for one in patterns}
        for service, name in found:
            assert any(service == of and fnmatch.fnmatchcase(name, one) for of, one in known), (service, name)
        for of, one in known:
            assert any(service == of and fnmatch.fnmatchcase(name, one) for service, name in found), (of, one)


class TestBySchema:
    def test_names_every_service_once(self) -> None:
        lines = [line for line in citus.by_schema() if line.startswith("SELECT")]
        assert lines == [f"SELECT citus_schema_distribute('{service}');" for service in SERVICES]

    async def test_no_key_leads_into_another_schema(self, migrated_database: Scratch) -> None:
        async with migrated_database.connected() as database:
            keys = await database.fetch(FOREIGN_KEYS, list(SERVICES))
        nothing(key["name"] for key in keys if key["child"].partition(".")[0] != key["parent"].partition(".")[0])
