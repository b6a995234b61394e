"""Erasures that a backup does not know of: whoever was forgotten after it was made must not come back with it."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from uuid import UUID

import asyncpg

from deploy.local.environment import database_url
from deploy.local.errors import RunError
from deploy.local.settings import Settings as LocalSettings
from kit.connecting import connected
from kit.db import Database
from kit.ids import SYSTEM_TENANT
from kit.migrations import DATABASE_NAME, in_database, role_of
from kit.settings import SERVICES, Settings
from kit.subjects import SubjectService
from kit.telemetry import Telemetry
from storyloom.subject.v1.subjects_pb2 import EraseUserRequest, PurgeTenantRequest

# Each works for some seconds; a tenant with more than that many of them waits for the next restore.
MOST_CALLS = 1000
# Only the platform's own rows may name a tenant.
SINCE = f"""
SELECT id, tenant_id, subject_type, subject_id FROM identity.erasures
WHERE complete_time >= $1 AND (subject_type = 'user' OR tenant_id = '{SYSTEM_TENANT}') ORDER BY complete_time
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Forgotten:
    """An erasure that was carried out: of a user, or of a whole tenant."""

    id: UUID
    tenant_id: UUID
    subject_type: str
    subject_id: UUID


async def forgotten_since(database: asyncpg.Connection, time: datetime) -> list[Forgotten]:
    """The erasures that were complete at that time or later, as the superuser sees them, oldest first."""
    return [Forgotten(**row) for row in await database.fetch(SINCE, time)]


async def erased_since(
    settings: LocalSettings, server: AbstractAsyncContextManager[str], time: datetime
) -> list[Forgotten] | None:
    """Whom the server of these settings, by its administrator's URL, has erased since; None after a real loss."""
    if settings.database_url is None and not (settings.directory / "postgres" / "PG_VERSION").exists():
        return None
    try:
        async with server as admin_url, connected(in_database(admin_url, DATABASE_NAME)) as database:
            return await forgotten_since(database, time)
    except (OSError, RunError, asyncpg.PostgresError) as error:
        print(f"     whom the running database has erased since is not known: {error}")
        return None


async def forget_what_was(admin_url: str, kept: str, time: datetime, passwords: Mapping[str, str]) -> int:
    """Erases from the restored database whom the one that is kept under that name had forgotten since; how many."""
    async with connected(in_database(admin_url, kept)) as before:
        erasures = await forgotten_since(before, time)
    return await forget_again(erasures, {role: database_url(admin_url, role, passwords[role]) for role in passwords})


async def forget_again(erasures: Sequence[Forgotten], urls: Mapping[str, str]) -> int:
    """Erases them from the database whose roles have these URLs; returns how many are erased from every service.

    Whoever the backup does not know yet is erased as well: there is nothing to do then.
    """
    if not erasures:
        return 0
    done = {one.id for one in erasures}
    for service in (*(name for name in SERVICES if name != "identity"), "identity"):
        url = urls[role_of(service)]
        # Nothing is sealed or signed here, so the service's secrets are not needed.
        settings = Settings(service=service, database_url=url, secret_key="", service_credential="", service_keys="")
        db = Database(url, service=service, pool_size=2, telemetry=Telemetry(settings))
        try:
            subjects = SubjectService(db, import_module(f"services.{service}.subjects").HOLDINGS)
            for one in erasures:
                if not await _erase(subjects, one):
                    done.discard(one.id)
        finally:
            await db.close()
    return len(done)


async def _erase(subjects: SubjectService, one: Forgotten) -> bool:
    erasure_id, tenant_id, subject_id = str(one.id), str(one.tenant_id), str(one.subject_id)
    for _ in range(MOST_CALLS):
        if one.subject_type == "tenant":
            asked = PurgeTenantRequest(erasure_id=erasure_id, tenant_id=subject_id)
            receipt = await subjects.PurgeTenant(asked, None)
        else:
            user = EraseUserRequest(erasure_id=erasure_id, tenant_id=tenant_id, user_id=subject_id)
            receipt = await subjects.EraseUser(user, None)
        if receipt.complete:
            return True
    return False
