"""What tests find on a real PostgreSQL: the platform's roles, schemas and tables."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from deploy.backups.server import local_server, scratch_settings
from kit import migrations
from kit.settings import SERVICES
from tests.pgbouncer import through

# What a machine loses that goes down with it: none comes up again to ask for this data.
FORGETFUL = {"fsync": "off", "full_page_writes": "off"}


@asynccontextmanager
async def empty_server() -> AsyncIterator[str]:
    """The administrator's URL of a server with nothing in it, which is gone afterwards."""
    with scratch_settings() as settings:
        async with local_server(settings, FORGETFUL) as admin_url:
            yield admin_url


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running server with the platform's roles, schemas and tables. Passwords are by role name; `pooler` is where
    PgBouncer's sockets are, if services go through it."""

    admin_url: str
    passwords: dict[str, str]
    pooler: str = ""

    def url(self, role: str) -> str:
        return migrations.in_database(self.admin_url, "storyloom", user=role, password=self.passwords[role])

    def service_url(self, service: str) -> str:
        url = self.url(migrations.role_of(service))
        return through(url, self.pooler) if self.pooler else url

    @property
    def owner_url(self) -> str:
        return self.url(migrations.OWNER)

    @property
    def superuser_url(self) -> str:
        return migrations.in_database(self.admin_url, "storyloom")


async def migrated(admin_url: str, passwords: dict[str, str] | None = None) -> Cluster:
    """The platform's roles, schemas and tables on an empty server."""
    cluster = Cluster(admin_url, passwords or {role: secrets.token_hex(16) for role in migrations.ROLES})
    await migrations.bootstrap(admin_url, cluster.passwords)
    for service in SERVICES:
        await asyncio.to_thread(migrations.upgrade, service, cluster.owner_url)
    return cluster
