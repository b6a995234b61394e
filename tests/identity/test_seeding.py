"""What the platform makes for itself at its start."""

import asyncio

import asyncpg
import pytest

from kit.db import Database
from kit.ids import SYSTEM_TENANT
from kit.settings import Settings, SettingsError
from kit.telemetry import Telemetry
from services.identity.passwords import Passwords
from services.identity.seeding import PlatformSettings, seed_platform
from storyloom.identity.v1 import users_pb2
from storyloom.identity.v1.users_pb2_grpc import UserServiceStub
from tests.stack import PASSWORD, PLATFORM_EMAIL


@pytest.fixture
async def db(stack):
    settings = Settings.from_environment("identity", stack.environments["identity"])
    made = Database(settings.database_url, service="identity", pool_size=4, telemetry=Telemetry(settings))
    yield made
    await made.close()


async def system_rows(cluster):
    database = await asyncpg.connect(cluster.superuser_url)
    rows = {}
    for table in ("tenants", "tenant_listings", "roles", "role_permissions", "users", "user_roles"):
        query = f"SELECT * FROM identity.{table} WHERE tenant_id = $1 ORDER BY id"
        rows[table] = [tuple(row) for row in await database.fetch(query, SYSTEM_TENANT)]
    await database.close()
    return rows


class TestSeedPlatform:
    async def test_changes_nothing_when_everything_is_there(self, db, cluster, school):
        before = await system_rows(cluster)
        settings = PlatformSettings(platform_admin_email=PLATFORM_EMAIL.upper(), platform_admin_password="another one")
        await seed_platform(db, Passwords(), settings)
        assert await system_rows(cluster) == before

    async def test_processes_that_start_together_make_one_administrator(self, db, school):
        settings = PlatformSettings(platform_admin_email="second@platform.example", platform_admin_password=PASSWORD)
        passwords = Passwords()
        await asyncio.gather(*(seed_platform(db, passwords, settings) for _ in range(3)))
        person = await school.stack.sign_in("platform", "second@platform.example")
        me = await person.stub(UserServiceStub, "identity").GetMe(users_pb2.GetMeRequest())
        assert list(me.roles) == ["super_admin"]


class TestPlatformSettings:
    def test_both_may_be_absent(self):
        assert PlatformSettings.from_environment({}).platform_admin_email == ""

    def test_refuses_a_short_password(self):
        with pytest.raises(SettingsError, match="PLATFORM_ADMIN_PASSWORD"):
            PlatformSettings.from_environment({"PLATFORM_ADMIN_EMAIL": "a@b.example", "PLATFORM_ADMIN_PASSWORD": "x"})
