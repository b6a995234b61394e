"""The restore drill: the newest backup brought back on a server of its own, looked over as after a real loss."""

import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import asyncpg

from deploy.backups.archive import Archive, Backup
from deploy.backups.checks import catalog, isolation, migrations, proofs
from deploy.backups.forgetting import forget_again, forgotten_since
from deploy.backups.restoring import restore
from deploy.backups.server import running_server, scratch_server
from deploy.backups.settings import BackupSettings
from deploy.local.errors import RunError
from deploy.local.settings import Settings
from kit.migrations import DATABASE_NAME, ROLES, in_database


async def drill(settings: Settings, backups: BackupSettings, name: str) -> int:
    """Prints what was found, a line for each check, then how much would have been lost and how long it took. Returns 1
    when a check failed. What is running is only read."""
    archive = Archive(backups.directory)
    backup = archive.find(name)
    started = time.monotonic()
    passwords = {role: secrets.token_hex(16) for role in ROLES}
    async with scratch_server() as admin_url:
        await restore(archive, backup, backups, admin_url, passwords)
        restored = time.monotonic()
        urls = {role: in_database(admin_url, DATABASE_NAME, user=role, password=passwords[role]) for role in ROLES}
        whole = await _checks(settings, backup, in_database(admin_url, DATABASE_NAME), urls)
    lost = datetime.now(UTC) - backup.snapshot_time
    print(f"RPO {lost.total_seconds():.0f} s: what came after {backup.snapshot_time:%Y-%m-%d %H:%M:%S} UTC is lost")
    print(f"RTO {restored - started:.1f} s to the database, {time.monotonic() - started:.1f} s with all checks")
    return 0 if whole else 1


async def _checks(settings: Settings, backup: Backup, superuser_url: str, urls: Mapping[str, str]) -> bool:
    whole = True
    for what, check in (
        ("migrations are those of the backup, and the newest can be made", migrations(backup, superuser_url, urls)),
        ("the catalog has no hole", catalog(superuser_url)),
        ("each service sees one tenant at a time", isolation(superuser_url, urls)),
        ("audit logs are what was signed", proofs(superuser_url)),
    ):
        found, faults = await check
        whole = whole and not faults
        print(f"{'ok  ' if not faults else 'FAIL'} {what}: {found}")
        print("".join(f"     {one}\n" for one in faults[:20]), end="")
    async with _live(settings) as live:
        erasures = await forgotten_since(live, backup.snapshot_time) if live else []
    if live is None:
        print("     the running database was not asked whom it has erased since: it can't be reached")
        return whole
    done, all_of_them = await forget_again(erasures, urls), len(erasures)
    print(f"{'ok  ' if done == all_of_them else 'FAIL'} who was erased since is erased anew: {done} of {all_of_them}")
    return whole and done == all_of_them


@asynccontextmanager
async def _live(settings: Settings) -> AsyncIterator[asyncpg.Connection | None]:
    """The database that runs, or the local one started for this; None after a real loss."""
    try:
        async with running_server(settings) as admin_url:
            connected = await asyncpg.connect(in_database(admin_url, DATABASE_NAME))
            try:
                yield connected
            finally:
                await connected.close()
    except (OSError, RunError, asyncpg.PostgresError):
        yield None
