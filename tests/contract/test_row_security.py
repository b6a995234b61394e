"""The database alone keeps tenants apart: its catalog has no hole, and whoever signs in as a service finds none."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from kit.migrations import role_of
from kit.settings import SERVICES
from tests.contract import databases
from tests.contract.databases import Scratch
from tests.contract.row_security import ACROSS_TENANTS, TABLES, lint
from tests.contract.tree import nothing

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
        CREATE POLICY tenant ON content.stories FOR SELECT USING (tenant_id = current_setting('app.tenant_id')::uuid)""",
    "only one role is bound": "ALTER POLICY tenant ON content.stories TO storyloom_content",
    "a second policy lets everything through": "CREATE POLICY support ON learning.enrollments USING (true)",
    "a new table is forgotten": "CREATE TABLE content.notes (tenant_id uuid NOT NULL, id uuid, PRIMARY KEY (tenant_id, id))",
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
    "a function finds whatever the caller put in its way": """
        CREATE FUNCTION content.twice(n int) RETURNS int LANGUAGE sql AS 'SELECT 2 * n'""",
    "an enum that indexes cannot use": "CREATE TYPE content.mood AS ENUM ('good')",
}


class TestCatalog:
    async def test_has_no_hole(self, migrated_database: Scratch) -> None:
        async with migrated_database.connected() as superuser:
            nothing(await lint(superuser))

    async def test_leaves_out_only_tables_that_exist(self, migrated_database: Scratch) -> None:
        async with migrated_database.connected() as superuser:
            rows = await superuser.fetch(TABLES, list(SERVICES))
        assert ACROSS_TENANTS <= {(row["schema"], row["name"]) for row in rows}

    @pytest.mark.parametrize("mutant", MUTANTS)
    async def test_is_seen_to_have_one_when(self, mutant: str, migrated_database: Scratch) -> None:
        async with migrated_database.connected() as superuser:
            before = set(await lint(superuser))
            change = superuser.transaction()
            await change.start()
            await superuser.execute(MUTANTS[mutant])
            after = set(await lint(superuser))
            await change.rollback()
            assert after - before
            assert set(await lint(superuser)) == before


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
                assert await within(role, f"{hidden} OR true LIMIT 2") != [None, None], row.table

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
                    # The same row refers to nothing of others, and then it is let in.
                    good, values = ours.insert(id=str(uuid4()))
                    assert await refusal(role, good, *values) == "1 rows", name
                    stolen = {column: theirs.values[column] for column in columns}
                    bad, values = ours.insert(id=str(uuid4()), **stolen)
                    assert await refusal(role, bad, *values) == "23503", f"{name} {key}"

    async def test_does_nothing_without_a_tenant(self, service: str, attacked: Attacked) -> None:
        async with attacked.database.connected(role_of(service)) as role:
            for row in attacked.of(service):
                insert, values = row.insert(id=str(uuid4()))
                # Never set, and as a transaction before has left it: unset reads as the empty text.
                for setting, code in (("", "42704"), ("SET LOCAL app.tenant_id = ''", "22P02")):
                    for statement, given in (
                        (f"SELECT * FROM {row.table}", []),
                        (insert, values),
                        (f"UPDATE {row.table} SET tenant_id = tenant_id", []),
                        (f"DELETE FROM {row.table}", []),
                    ):
                        answer = await refusal(role, statement, *given, setting=setting)
                        assert answer in {code, "42501"}, (statement, setting, answer)
                        assert answer == code or not statement.startswith("SELECT"), statement

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
            partitions = [
                row[0] for row in await superuser.fetch("SELECT oid::regclass::text FROM pg_class WHERE relispartition AND relkind = 'r'")
            ]
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
        if setting:
            await role.execute(setting)
        elif await role.fetchval("SELECT current_setting('app.tenant_id', true)") == "":
            # Once a transaction has set it, a connection never again does not know it.
            await attempt.rollback()
            await role.reset()
            return "42704"
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
