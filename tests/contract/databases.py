"""Databases beside the one that services use, on the same cluster: to migrate back and forth, to lint, to attack."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from kit import migrations
from kit.settings import SERVICES
from tests.postgres import Cluster


@dataclass(frozen=True, slots=True)
class Scratch:
    """A database of the test's own with the platform's roles and schemas."""

    cluster: Cluster
    name: str

    @property
    def superuser_url(self) -> str:
        return migrations.in_database(self.cluster.admin_url, self.name)

    def url(self, role: str) -> str:
        return migrations.in_database(self.cluster.url(role), self.name)

    @property
    def owner_url(self) -> str:
        return self.url(migrations.OWNER)

    @asynccontextmanager
    async def connected(self, role: str = "") -> AsyncIterator[asyncpg.Connection]:
        """As the role, or as superuser."""
        connection = await asyncpg.connect(self.url(role) if role else self.superuser_url)
        try:
            yield connection
        finally:
            await connection.close()

    async def upgrade(self, *services: str) -> None:
        for service in services or SERVICES:
            await asyncio.to_thread(migrations.upgrade, service, self.owner_url)


async def create(cluster: Cluster, name: str, *, template: str = "template1") -> Scratch:
    """With the services' empty schemas, or a copy of another database that nobody is connected to."""
    made = Scratch(cluster, name)
    admin = await asyncpg.connect(cluster.admin_url)
    try:
        await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await admin.execute(f"CREATE DATABASE {name} OWNER {migrations.OWNER} TEMPLATE {template}")
    finally:
        await admin.close()
    if template == "template1":
        async with made.connected() as database:
            await migrations.prepare_schemas(database)
    return made
