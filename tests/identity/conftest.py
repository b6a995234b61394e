"""A fresh tenant for tests that suspend, rename or empty one; the shared school stays as it is."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import asyncpg
import pytest

from storyloom.identity.v1 import tenants_pb2, users_pb2
from storyloom.identity.v1.sessions_pb2_grpc import SessionServiceStub
from storyloom.identity.v1.tenants_pb2_grpc import TenantServiceStub
from storyloom.identity.v1.users_pb2_grpc import UserServiceStub
from tests.postgres import Cluster
from tests.stack import PASSWORD, Person, School, Stack, add_person

_numbers = itertools.count(1)


@dataclass
class Own:
    """A tenant that the test has for itself."""

    slug: str
    tenant: tenants_pb2.Tenant
    admin: Person

    async def person(self, role: str) -> Person:
        """A new user with the role, signed in."""
        return await add_person(self.admin, self.slug, f"{role}{next(_numbers)}", role)

    async def user(self, *roles: str, email: str = "", password: str = "") -> users_pb2.User:
        """A new user with the roles, not signed in."""
        email = email or f"user{next(_numbers)}@{self.slug}.example"
        user = users_pb2.User(email=email, display_name="Somebody", roles=roles)
        return await self.users.CreateUser(users_pb2.CreateUserRequest(user=user, password=password))

    @property
    def users(self) -> UserServiceStub:
        return self.admin.stub(UserServiceStub, "identity")


Found = Callable[[], Awaitable[Own]]


@pytest.fixture(scope="session")
def found(school: School) -> Found:
    """Founds another tenant."""

    async def make() -> Own:
        slug = f"school-{next(_numbers)}"
        tenant = await school.root.stub(TenantServiceStub, "identity").CreateTenant(
            tenants_pb2.CreateTenantRequest(
                tenant=tenants_pb2.Tenant(slug=slug, name=slug.title()),
                administrator=tenants_pb2.TenantAdministrator(
                    email=f"admin@{slug}.example", display_name="Admin", password=PASSWORD
                ),
            )
        )
        admin = await school.stack.sign_in(slug, f"admin@{slug}.example")
        admin.tenant_id = tenant.id
        return Own(slug, tenant, admin)

    return make


@pytest.fixture
async def own(found: Found) -> Own:
    """A tenant of the test's own."""
    return await found()


@pytest.fixture(scope="session")
async def shared(found: Found) -> Own:
    """A tenant that tests add to, but neither suspend nor count in."""
    return await found()


@pytest.fixture
def sessions(stack: Stack) -> SessionServiceStub:
    """The session service, without anybody's token."""
    return SessionServiceStub(stack.channel("identity"))


@pytest.fixture
async def database(cluster: Cluster) -> AsyncIterator[asyncpg.Connection]:
    """Past the service and its row-level security."""
    connection = await asyncpg.connect(cluster.superuser_url)
    yield connection
    await connection.close()


@pytest.fixture
async def forget_failures(database: asyncpg.Connection) -> None:
    """All tests come from one address; none shall be slowed by the failures of another."""
    await database.execute("DELETE FROM identity.sign_in_failures")
