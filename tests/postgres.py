"""A real PostgreSQL for the tests: the embedded one, in a temporary directory, over a Unix socket only."""

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.local.postgres import Postgres
from deploy.local.processes import Child
from deploy.local.settings import read_settings
from kit import migrations
from kit.settings import SERVICES


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running server with the platform's roles, schemas and tables. Passwords are by role name."""

    admin_url: str
    passwords: dict[str, str]

    def url(self, role: str) -> str:
        return migrations.in_database(self.admin_url, "storyloom", user=role, password=self.passwords[role])

    def service_url(self, service: str) -> str:
        return self.url(migrations.role_of(service))

    @property
    def owner_url(self) -> str:
        return self.url(migrations.OWNER)

    @property
    def superuser_url(self) -> str:
        return migrations.in_database(self.admin_url, "storyloom")


@asynccontextmanager
async def server() -> AsyncIterator[str]:
    """An empty server; yields the administrator's URL."""
    with tempfile.TemporaryDirectory(prefix="sl-") as folder:
        settings = read_settings({}, root=Path(folder))
        settings.logs.mkdir(parents=True)
        postgres = Postgres(settings, say=lambda _: None)
        await postgres.prepare()
        child = Child(postgres.program(), say=lambda _: None)
        await child.start()
        try:
            yield postgres.admin_url
        finally:
            await child.stop(grace=5)
            shutil.rmtree(postgres.sockets)


async def migrated(admin_url: str) -> Cluster:
    """The platform's roles, schemas and tables on an empty server."""
    cluster = Cluster(admin_url, {role: secrets.token_hex(16) for role in migrations.ROLES})
    await migrations.bootstrap(admin_url, cluster.passwords)
    for service in SERVICES:
        await asyncio.to_thread(migrations.upgrade, service, cluster.owner_url)
    return cluster
