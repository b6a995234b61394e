"""The database alone keeps tenants apart: its catalog has no hole, and whoever signs in as a service finds none."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from kit.catalog import ACROSS_TENANTS, TABLES, lint
from kit.migrations import role_of
from kit.settings import SERVICES
from tests.contract import databases
from tests.contract.databases import Scratch
from tests.contract.tree import nothing
from tests.postgres import Cluster

OURS, THEIRS = UUID(int=0xA11CE), UUID(int=0xB0B)
# A table of each kind: a resource, a join table, an append-only one that has partitions.
MUTANTS = {
    "the policy is gone": "DROP POLICY tenant ON content.stories",
    "row-level security is off": "ALTER TABLE content.stories DISABLE ROW LEVEL SECURITY",
    "the owner is exempt": "ALTER TABLE identity.user_roles NO FORCE ROW LEVEL SECURITY",
    "writes are unchecked": """
        DROP POLICY tenant ON content.stories;
        CREATE POLICY tenant ON content.stories USING (tenant_id = current_setting('app.tenant_id')::uuid)
          WITH CHECK (true)""",
    "reads are unchecked": """
        DROP POLICY tenant ON content.stories;
        CREATE POLICY tenant ON content.stories USING (true)
          WITH CHECK (tenant_id = current_setting('app.tenant_id')::uuid)""",
    "a missing setting is tolerated": """
        DROP POLICY tenant ON content.stories;
        CREATE POLICY tenant ON content.stories USING (tenant_id = current_setting('app.tenant_id', true)::uuid)
          WITH CHECK (tenant_id = current_setting('app.tenant_id', true)::uuid)""",
    "only reads are bound": """
        DROP POLICY tenant ON content.stories;
        CREATE POLICY tenant ON content.stories FOR SELECT
          USING (tenant_id = current_setting('app.tenant_id')::uuid)""",
    "only one role is bound": "ALTER POLICY tenant ON content.stories TO storyloom_content",
    "a second policy lets everything through": "CREATE POLICY support ON learning.enrollments USING (true)",
    "a new table is forgotten": """
        CREATE TABLE content.notes (tenant_id uuid NOT NULL, id uuid, PRIMARY KEY (tenant_id, id))""",
    "a new table has no tenant": "CREATE TABLE content.notes (id uuid PRIMARY KEY)",
    "a key is unique across tenants": "CREATE UNIQUE INDEX ON identity.users (email)",
    "a foreign key leaves the tenant out": """
        ALTER TABLE content.courses ADD CONSTRAINT only_id UNIQUE (id);
        ALTER TABLE content.units ADD FOREIGN KEY (course_id) REFERENCES content.courses (id)""",
    "a foreign key mixes up its columns": """
        ALTER TABLE content.units ADD CONSTRAINT turned UNIQUE (id, tenant_id);
        ALTER TABLE content.lessons ADD FOREIGN KEY (tenant_id, unit_id) REFERENCES content.units (id, tenant_id)""",
    "a service owns its table": "ALTER TABLE audit.approvals OWNER TO storyloom_audit",
    "a service may bypass": "ALTER ROLE storyloom_learning BYPASSRLS",
    "a service may become the owner": "GRANT storyloom_owner TO storyloom_content",
    "a service sees another's tables": "GRANT SELECT ON identity.users TO storyloom_content",
    "a service sees another's column": "GRANT SELECT (email) ON identity.users TO storyloom_content",
    "a service reaches another's schema": "GRANT USAGE ON SCHEMA identity TO storyloom_content",
    "a service may empty a table": "GRANT TRUNCATE ON content.stories TO storyloom_content",
    "a service reads a partition past its parent": "GRANT SELECT ON audit.audit_logs_default TO storyloom_audit",
    "everybody reads a table": "GRANT SELECT ON content.stories TO PUBLIC",
    "a view runs as its owner": "CREATE VIEW content.peek AS SELECT * FROM content.stories",
    "a function runs as its owner": """
        CREATE FUNCTION content.peek() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = ''
        AS 'SELECT count(*) FROM content.stories'""",
    "everybody may run a function as its owner": "GRANT EXECUTE ON FUNCTION audit.make_months(integer) TO PUBLIC",
    "a function that runs as its owner takes the caller's word for what is where": """
        ALTER FUNCTION audit.drop_month(date, integer) SET search_path = public""",
    "a function finds whatever the caller put in its way": """
        CREATE FUNCTION content.twice(n int) RETURNS int LANGUAGE sql AS 'SELECT 2 * n'""",
    "an enum that indexes cannot use": "CREATE TYPE content.mood AS ENUM ('good')",
}
HINDRANCES = """
SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', o.conrelid::regclass, o.conname)
FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid
WHERE c.relnamespace::regnamespace::text = ANY ($1) AND NOT c.relispartition AND o.conparentid = 0
  AND (o.contype IN ('c', 'x') OR o.contype = 'u'
       AND NOT EXISTS (SELECT FROM pg_constraint f WHERE f.contype = 'f' AND f.conindid = o.conindid))
UNION ALL
SELECT format('DROP INDEX %s', i.indexrelid::regclass) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
WHERE c.relnamespace::regnamespace::text = ANY ($1) AND NOT c.relispartition AND i.indisunique
  AND NOT EXISTS (SELECT FROM pg_constraint o WHERE o.conindid = i.indexrelid)
"""
COLUMNS = """
SELECT c.oid::regclass::text AS table, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relnamespace::regnamespace::text = ANY ($1) AND c.relrowsecurity AND NOT c.relispartition
  AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND a.attidentity = ''
ORDER BY 1, a.attnum
"""
PARTITIONS = "SELECT oid::regclass::text FROM pg_class WHERE relispartition AND relkind = 'r'"
KEYS = """
SELECT o.conname, o.conrelid::regclass::text AS child, o.confrelid::regclass::text AS parent,
       ARRAY(SELECT attname::text FROM unnest(o.conkey) WITH ORDINALITY k (n, i)
             JOIN pg_attribute ON attrelid = o.conrelid AND attnum = n ORDER BY i) AS mine,
       ARRAY(SELECT attname::text FROM unnest(o.confkey) WITH ORDINALITY k (n, i)
             JOIN pg_attribute ON attrelid = o.confrelid AND attnum = n ORDER BY i) AS theirs
FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid
WHERE c.relnamespace::regnamespace::text = ANY ($1) AND o.contype = 'f' AND o.conparentid = 0
  -- What the database works out by itself nobody can write.
  AND NOT EXISTS (SELECT FROM pg_attribute a
                  WHERE a.attrelid = o.conrelid AND a.attnum = ANY (o.conkey) AND a.attgenerated <> '')
"""


class TestCatalog:
    async def test_has_no_hole(self, migrated_database: Scratch) -> None:
        async with migrated_database.connected() as superuser:
            nothing(await lint(superuser))

    async def test_leaves_out_only_tables_that_exist(self, migrated_database: Scratch) -> None:
        async with migrated_database.connected() as superuser:
            rows = await superuser.fetch(TABLES, list(SERVICES))
        assert {(row["schema"], row["name"]) for row in rows} >= ACROSS_TENANTS

    @pytest.mark.parametrize("mutant", MUTANTS)
    async def test_is_seen_to_have_one_when(
        self, mutant: str, migrated_database: Scratch, known_holes: set[str]
    ) -> None:
        async with migrated_database.connected() as superuser:
            change = superuser.transaction()
            await change.start()
            await superuser.execute(MUTANTS[mutant])
            after = set(await lint(superuser))
            await change.rollback()
            assert after - known_holes


@dataclass
class Row:
    """One row of a table as SQL literals by column, and the columns that refer to other tables."""

    table: str
    values: dict[str, Any]
    types: dict[str, str]
    parents: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def insert(self, **changed: Any) -> tuple[str, list[Any]]:
        values = self.values | changed
        columns = ", ".join(f'"{name}"' for name in values)
        places = ", ".join(f"${n}::text::{self.types[name]}" for n, name in enumerate(values, 1))
        return f"INSERT INTO {self.table} ({columns}) VALUES ({places})", list(values.values())

    def refer(self, target: dict[str, Any]) -> tuple[str, list[Any]]:
        """A new row that refers to the target; where rows refer to others by their own id too, this row does."""
        if not any("id" in columns for columns in self.parents.values()):
            return self.insert(id=str(uuid4()), **target)
        others = {name: value for name, value in target.items() if name != "id"}
        places = ", ".join(f"{name} = ${n}::text::{self.types[name]}" for n, name in enumerate(others, 1))
        return f"UPDATE {self.table} SET {places}", list(others.values())


@dataclass
class Attacked:
    """A database with one row of each of two tenants in each table."""

    database: Scratch
    ours: dict[str, Row]
    theirs: dict[str, Row]

    def of(self, service: str) -> Iterator[Row]:
        return (row for name, row in self.theirs.items() if name.startswith(f"{service}."))


@pytest.mark.parametrize("service", SERVICES)
class TestServiceRole:
    async def test_sees_its_tenant_and_nobody_else(self, service: str, attacked: Attacked) -> None:
        async with attacked.database.connected(role_of(service)) as role:
            for row in attacked.of(service):
                found = await within(role, f"SELECT DISTINCT tenant_id FROM {row.table}")
                assert [one["tenant_id"] for one in found] == [OURS], row.table
                hidden = f"SELECT 1 FROM {row.table} WHERE tenant_id = '{THEIRS}'"
                assert await within(role, hidden) == [], row.table
                assert len(await within(role, f"{hidden} OR true")) == 1, row.table

    async def test_changes_nothing_of_others(self, service: str, attacked: Attacked) -> None:
        async with attacked.database.connected(role_of(service)) as role:
            for row in attacked.of(service):
                for statement in (
                    f"UPDATE {row.table} SET tenant_id = tenant_id WHERE tenant_id = '{THEIRS}'",
                    f"DELETE FROM {row.table} WHERE tenant_id = '{THEIRS}'",
                    f"SELECT 1 FROM {row.table} WHERE tenant_id = '{THEIRS}' FOR UPDATE",
                ):
                    assert await refusal(role, statement) in {"0 rows", "42501"}, statement
        async with attacked.database.connected() as superuser:
            for row in attacked.of(service):
                assert await superuser.fetchval(f"SELECT count(*) FROM {row.table} WHERE tenant_id = '{THEIRS}'") == 1

    async def test_writes_nothing_in_the_name_of_others(self, service: str, attacked: Attacked) -> None:
        async with attacked.database.connected(role_of(service)) as role:
            for row in attacked.of(service):
                statement, values = row.insert(id=str(uuid4()))
                assert await refusal(role, statement, *values) == "42501", row.table
                assert await refusal(role, f"{statement} ON CONFLICT DO NOTHING", *values) == "42501", row.table
                gift = f"UPDATE {row.table} SET tenant_id = '{THEIRS}'"
                # A key may be what stops it first.
                assert await refusal(role, gift) in {"42501", "23001", "23503"}, row.table

    async def test_refers_to_nothing_of_others(self, service: str, attacked: Attacked) -> None:
        async with attacked.database.connected(role_of(service)) as role:
            for name, theirs in ((row.table, row) for row in attacked.of(service)):
                ours = attacked.ours[name]
                for key, columns in ours.parents.items():
                    # To show that nothing else is in the way, the same without anything of others.
                    good, values = ours.refer({column: ours.values[column] for column in columns})
                    assert await refusal(role, good, *values) == "1 rows", f"{name} {key}"
                    bad, values = ours.refer({column: theirs.values[column] for column in columns})
                    assert await refusal(role, bad, *values) == "23503", f"{name} {key}"

    # Never set; and as the transaction before has left it, for then an unset one reads as the empty text.
    @pytest.mark.parametrize(("setting", "code"), [("SELECT", "42704"), ("SET LOCAL app.tenant_id = ''", "22P02")])
    async def test_does_nothing_without_a_tenant(
        self, service: str, setting: str, code: str, attacked: Attacked
    ) -> None:
        async with attacked.database.connected(role_of(service)) as role:
            for row in attacked.of(service):
                assert await refusal(role, f"SELECT * FROM {row.table}", setting=setting) == code, row.table
                insert, values = row.insert(id=str(uuid4()))
                for statement, given in (
                    (insert, values),
                    (f"UPDATE {row.table} SET tenant_id = tenant_id", []),
                    (f"DELETE FROM {row.table}", []),
                ):
                    answer = await refusal(role, statement, *given, setting=setting)
                    # Some may not be done with a tenant either.
                    assert answer in {code, "42501"}, (statement, answer)

    async def test_leaves_no_tenant_behind_for_the_next_transaction(self, service: str, attacked: Attacked) -> None:
        row = next(attacked.of(service))
        async with attacked.database.connected(role_of(service)) as role:
            assert len(await within(role, f"SELECT 1 FROM {row.table}")) == 1
            with pytest.raises(asyncpg.InvalidTextRepresentationError):
                await role.fetch(f"SELECT 1 FROM {row.table}")

    async def test_does_not_reach_other_services_nor_switch_the_policies_off(
        self, service: str, attacked: Attacked
    ) -> None:
        async with attacked.database.connected(role_of(service)) as role:
            own = next(attacked.of(service)).table
            foreign = [row.table for other in SERVICES if other != service for row in attacked.of(other)]
            statements = [f"SELECT 1 FROM {table}" for table in foreign]
            statements += [
                f"TRUNCATE {own}",
                f"ALTER TABLE {own} DISABLE ROW LEVEL SECURITY",
                f"DROP POLICY tenant ON {own}",
                f"CREATE TABLE {service}.mine (id int)",
                "SET LOCAL ROLE storyloom_owner",
                "SET LOCAL session_replication_role = replica",
            ]
            for statement in statements:
                assert await refusal(role, statement) == "42501", statement
            # It may say so, but then its reads fail instead of seeing more.
            await role.execute("SET row_security = off")
            assert await refusal(role, f"SELECT 1 FROM {own}") == "42501"


class TestPartitions:
    async def test_are_not_a_way_around_the_table(self, attacked: Attacked) -> None:
        async with attacked.database.connected() as superuser:
            partitions = [row[0] for row in await superuser.fetch(PARTITIONS)]
        assert partitions
        async with attacked.database.connected(role_of("audit")) as role:
            for table in partitions:
                assert await refusal(role, f"SELECT 1 FROM {table}") == "42501", table


async def within(role: asyncpg.Connection, statement: str) -> list[Any]:
    """The statement's rows, with our tenant set as services set it."""
    async with role.transaction():
        await role.execute(f"SET LOCAL app.tenant_id = '{OURS}'")
        return list(await role.fetch(statement))


async def refusal(
    role: asyncpg.Connection, statement: str, *values: Any, setting: str = f"SET LOCAL app.tenant_id = '{OURS}'"
) -> str:
    """The SQLSTATE the statement ends with, or how many rows it concerned. Nothing of it stays."""
    attempt = role.transaction()
    await attempt.start()
    try:
        await role.execute(setting)
        prepared = await role.prepare(statement)
        rows = await prepared.fetch(*values)
        done = prepared.get_statusmsg().rpartition(" ")[2]
        # What is put off to the end of the transaction shall fail here.
        await role.execute("SET CONSTRAINTS ALL IMMEDIATE")
        return f"{done if done.isdigit() else len(rows)} rows"
    except asyncpg.PostgresError as error:
        return str(error.sqlstate)
    finally:
        await attempt.rollback()


@pytest.fixture(scope="module")
async def known_holes(migrated_database: Scratch) -> set[str]:
    """None, or else `TestCatalog` fails; a mutant must add to them."""
    async with migrated_database.connected() as superuser:
        return set(await lint(superuser))


@pytest.fixture(scope="module")
async def attacked(cluster: Cluster, migrated_database: Scratch) -> Attacked:
    """Without checks and unique indexes, so that made-up values go in; keys that refer to others stay in force."""
    database = await databases.create(cluster, "contract_attacked", template=migrated_database.name)
    async with database.connected() as superuser:
        for drop in await superuser.fetch(HINDRANCES, list(SERVICES)):
            await superuser.execute(drop[0])
        described = await superuser.fetch(COLUMNS, list(SERVICES))
        keys = await superuser.fetch(KEYS, list(SERVICES))
        made = [made_up(described, keys, tenant) for tenant in (OURS, THEIRS)]
        # The rows refer to one another in circles.
        await superuser.execute("SET session_replication_role = replica")
        for row in (row for rows in made for row in rows.values()):
            statement, values = row.insert()
            await superuser.execute(statement, *values)
    return Attacked(database, *made)


def made_up(described: list[Any], keys: list[Any], tenant: UUID) -> dict[str, Row]:
    """One row for each table, by table, each referring to the others as its foreign keys say."""
    rows: dict[str, Row] = {}
    for column in described:
        row = rows.setdefault(column["table"], Row(column["table"], {}, {}))
        row.types[column["name"]] = column["type"]
        row.values[column["name"]] = str(tenant) if column["name"] == "tenant_id" else some(column["type"])
    # As often as there may be parents of parents.
    for key in [*keys] * 4:
        child, parent = rows[key["child"]], rows[key["parent"]]
        pairs = [(mine, other) for mine, other in zip(key["mine"], key["theirs"], strict=True) if mine != "tenant_id"]
        child.values.update({mine: parent.values[other] for mine, other in pairs})
        if pairs:
            child.parents[key["conname"]] = tuple(mine for mine, _ in pairs)
    return rows


def some(kind: str) -> str:
    """Text that PostgreSQL reads as a value of the type."""
    if kind.endswith("[]"):
        return "{}"
    base = kind.partition("(")[0]
    return {
        "uuid": str(uuid4()),
        "bytea": f"\\x{uuid4().hex}",
        "boolean": "false",
        "jsonb": "{}",
        "interval": "1 hour",
        "tstzmultirange": "{}",
        "double precision": "0.5",
        "timestamp with time zone": "2026-11-22 09:00:00+00",
        "date": "2026-11-22",
    }.get(base, "1" if base in {"integer", "bigint", "smallint", "numeric"} else uuid4().hex)
