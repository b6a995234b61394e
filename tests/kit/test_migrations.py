"""Roles and schemas: made once, put right when they drifted, and policies that bind whoever reads."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest

from kit.migrations import BACKUP, OWNER, REPLICATION, ROLES, bootstrap, in_database, protection, role_of
from kit.settings import SERVICES
from tests.kit.toy import Toy

PASSWORDS = {role: f"p@ss:w/rd%20'\"{role}" for role in ROLES}
ATTRIBUTES = (
    "SELECT rolname, rolsuper, rolcreatedb, rolcreaterole, rolbypassrls, rolreplication, rolcanlogin FROM pg_roles"
    " WHERE rolname = ANY($1) ORDER BY rolname"
)
OBJECTS = (
    "SELECT nspname, nspowner::regrole::text, nspacl::text FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY nspname"
)


@pytest.fixture(scope="module")
async def admin_url(toy: Toy) -> str:
    """The toy's server, bootstrapped: the toy's own database and role are none of the platform's."""
    url = in_database(toy.superuser_url, "postgres")
    await bootstrap(url, PASSWORDS)
    return url


async def rows(url: str, query: str, *values: Any) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query, *values)]
    finally:
        await connection.close()


def as_role(admin_url: str, role: str) -> str:
    return in_database(admin_url, "storyloom", user=role, password=PASSWORDS[role])


class TestBootstrap:
    async def test_a_second_time_changes_nothing(self, admin_url: str) -> None:
        platform = in_database(admin_url, "storyloom")
        before = await rows(admin_url, ATTRIBUTES, ROLES), await rows(platform, OBJECTS)
        await bootstrap(admin_url, PASSWORDS)
        assert (await rows(admin_url, ATTRIBUTES, ROLES), await rows(platform, OBJECTS)) == before

    async def test_services_sign_in_and_nothing_more(self, admin_url: str) -> None:
        found = {row[0]: row[1:] for row in await rows(admin_url, ATTRIBUTES, ROLES)}
        assert found.pop(OWNER) == found.pop(BACKUP) == (False, False, False, True, False, True)
        assert found.pop(REPLICATION) == (False, False, False, False, True, True)
        assert found == {role_of(service): (False, False, False, False, False, True) for service in SERVICES}

    async def test_puts_right_what_drifted(self, admin_url: str) -> None:
        await rows(admin_url, "ALTER ROLE storyloom_audit BYPASSRLS CREATEDB CREATEROLE NOLOGIN PASSWORD 'forgotten'")
        await bootstrap(admin_url, PASSWORDS)
        found = {row[0]: row[1:] for row in await rows(admin_url, ATTRIBUTES, ROLES)}
        assert found["storyloom_audit"] == (False, False, False, False, False, True)

    @pytest.mark.parametrize("role", ROLES)
    async def test_every_role_signs_in_by_its_url_whatever_its_password(self, admin_url: str, role: str) -> None:
        url = as_role(admin_url, role)
        assert urlsplit(url).username == role
        assert await rows(url, "SELECT current_user::text") == [(role,)]

    async def test_a_service_makes_nothing_and_sees_no_other_s_schema(self, admin_url: str) -> None:
        url = as_role(admin_url, "storyloom_audit")
        for statement in (
            "CREATE TABLE audit.mine (id int)",
            "CREATE TABLE public.mine (id int)",
            "CREATE TABLE identity.mine (id int)",
            "CREATE SCHEMA mine",
            "CREATE ROLE mine",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await rows(url, statement)
        usable = "SELECT nspname FROM pg_namespace WHERE nspname = ANY($1) AND has_schema_privilege(oid, 'USAGE')"
        assert await rows(url, usable, SERVICES) == [("audit",)]


MINE, THEIRS = UUID(int=1), UUID(int=2)


class TestProtection:
    @pytest.fixture
    async def owner(self, admin_url: str) -> AsyncIterator[Any]:
        """A connection as the owner of a protected table, one who does not bypass policies."""
        admin = await asyncpg.connect(in_database(admin_url, "storyloom"))
        name = f"shelf_{uuid4().hex}"
        await admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'; CREATE SCHEMA {name} AUTHORIZATION {name}")
        owner = await asyncpg.connect(in_database(admin_url, "storyloom", user=name, password="x"))
        await owner.execute("CREATE TABLE books (tenant_id uuid, id int, PRIMARY KEY (tenant_id, id))")
        await admin.execute(f"INSERT INTO {name}.books VALUES ('{MINE}', 1), ('{THEIRS}', 2)")
        for statement in protection(name, "books"):
            await owner.execute(statement)
        yield owner
        await owner.close()
        await admin.execute(f"DROP SCHEMA {name} CASCADE; DROP ROLE {name}")
        await admin.close()

    @pytest.mark.parametrize(
        "statement",
        [
            "SELECT * FROM books",
            "UPDATE books SET id = 9",
            "DELETE FROM books",
            f"INSERT INTO books VALUES ('{MINE}', 3)",
        ],
    )
    async def test_without_a_tenant_raises_for_the_owner_too(self, owner: Any, statement: str) -> None:
        for setting in (None, "", "nonsense"):
            if setting is not None:
                await owner.execute(f"SET app.tenant_id = '{setting}'")
            with pytest.raises(asyncpg.PostgresError):
                await owner.execute(statement)

    async def test_shows_and_takes_the_tenant_s_rows_alone(self, owner: Any) -> None:
        await owner.execute(f"SET app.tenant_id = '{MINE}'")
        assert [row["id"] for row in await owner.fetch("SELECT id FROM books")] == [1]
        assert await owner.execute("UPDATE books SET id = id + 10") == "UPDATE 1"
        assert await owner.execute("DELETE FROM books WHERE id = 2") == "DELETE 0"
        for statement in (f"INSERT INTO books VALUES ('{THEIRS}', 5)", f"UPDATE books SET tenant_id = '{THEIRS}'"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await owner.execute(statement)
