"""A fresh tenant for tests that suspend, rename or empty one; the shared school stays as it is."""

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from storyloom.identity.v1 import tenants_pb2, users_pb2
from storyloom.identity.v1.tenants_pb2_grpc import TenantServiceStub
from storyloom.identity.v1.users_pb2_grpc import UserServiceStub
from tests.stack import PASSWORD, Person, School, add_person

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
