"""Brings a backup back: into a server that has no database of Storyloom, or beside the one that it has."""

import asyncio
import io
import re
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import asyncpg

from deploy.backups.archive import Archive, Backup
from deploy.backups.dumping import DATABASE, ROLES, STORAGE
from deploy.backups.forgetting import forget_what_was
from deploy.backups.parts import Part
from deploy.backups.programs import Progress, connection, program, running, silently
from deploy.backups.sealing import SUFFIX, open_sealed
from deploy.backups.server import passwords_of, running_server
from deploy.backups.settings import BackupSettings
from deploy.local.errors import RunError
from deploy.local.settings import Settings
from kit.connecting import connected
from kit.migrations import DATABASE_NAME, in_database, make_roles, prepare_schemas

# Connections that are no obstacle: PostgreSQL's own.
IN_USE = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'"
# A line of pg_dumpall's: of a role, or of a membership, without the administrator who gave it.
NAME = r'("(?:[^"]|"")+"|\w+)'
MEMBERSHIP = rf"(?P<grant>GRANT {NAME} TO (?P<member>{NAME})(?: WITH [^;]*?)?)(?: GRANTED BY|;)"
ROLE = re.compile(rf"(?:CREATE|ALTER) ROLE (?P<role>{NAME})|{MEMBERSHIP}")
EXISTS = "SELECT count(*) FROM pg_database WHERE datname = $1"


async def bring_back(settings: Settings, backups: BackupSettings, name: str) -> int:
    """Restores a backup, the newest whole one for `latest`, into the server that there is."""
    backup, damaged = backups.dumps.newest_whole() if name == "latest" else (backups.dumps.find(name), [])
    for one in damaged:
        print(f"{one}; {backup.name} is taken", flush=True)
    passwords = passwords_of(settings)
    async with running_server(settings) as admin_url:
        kept = await restore(backup, backups, admin_url, passwords)
        forgotten = await forget_what_was(admin_url, kept, backup.snapshot_time, passwords) if kept else 0
    # What the mark says was true of the other database.
    settings.migrated_file.unlink(missing_ok=True)
    print(f"Restored as of {backup.snapshot_time:%Y-%m-%d %H:%M:%S} UTC")
    if folder := restore_files(backups.dumps, backup, backups):
        print(f"Uploaded files are back in {folder}")
    if kept:
        print(f"What was there is the database {kept} now: drop it when nothing of it is missed")
        print(f"Erased anew, as they were since the backup: {forgotten}")
    return 0


async def restore(backup: Backup, settings: BackupSettings, admin_url: str, passwords: Mapping[str, str]) -> str:
    """Makes the database of the backup on the administrator's server, with the roles and these passwords.

    A database that is there is kept under another name, which is returned; '' when there was none. Nothing of it is
    touched before the backup is there as a whole. Refuses while anybody is connected to it.
    """
    if faults := settings.dumps.faults(backup):
        raise RunError(f"The backup {backup.name} is damaged: {'; '.join(faults)}.")
    async with connected(admin_url) as admin:
        if await admin.fetchval(IN_USE, DATABASE_NAME):
            raise RunError("The database is in use: stop the services first.")
        await make_missing_roles(admin, _roles(backup, settings))
        await make_roles(admin, dict(passwords))
        scratch = f"{DATABASE_NAME}_restored"
        await admin.execute(f"DROP DATABASE IF EXISTS {scratch}")
        await admin.execute(f"CREATE DATABASE {scratch} TEMPLATE template0 OWNER storyloom_owner")
        try:
            await asyncio.to_thread(_load, backup, settings, in_database(admin_url, scratch))
            await _prepare(in_database(admin_url, scratch))
            return await _take_its_place(admin, scratch)
        except (RunError, OSError):
            await admin.execute(f"DROP DATABASE IF EXISTS {scratch}")
            raise


def restore_files(archive: Archive, backup: Backup, settings: BackupSettings) -> Path | None:
    """Puts the uploaded files back; those that are there since stay. The folder, or None where the backup has none."""
    part = next((one for one in backup.parts if one.name.startswith(STORAGE)), None)
    if part is None or settings.storage is None:
        return None
    settings.storage.mkdir(mode=0o700, parents=True, exist_ok=True)
    safely = ("--skip-old-files", "--no-same-owner", "--no-same-permissions")
    with running(["tar", "-C", str(settings.storage), *safely, "-xf", "-"], {}, silently, feeds=True) as tar:
        copy_part(archive, backup, part, tar, settings)
    return settings.storage


async def make_missing_roles(admin: asyncpg.Connection, script: str) -> None:
    """Makes the roles that a backup names and the server lacks: rights that the dump gives them need them. Those that
    are there stay as they are now. None of those made can sign in: passwords are in no backup."""
    there = {row[0] for row in await admin.fetch("SELECT quote_ident(rolname) FROM pg_roles")}
    for line in script.splitlines():
        found = ROLE.match(line)
        if found and (found["role"] or found["member"]) not in there:
            await admin.execute(found["grant"] or line)


def copy_part(archive: Archive, backup: Backup, part: Part, out: IO[bytes], settings: BackupSettings) -> None:
    """What was put in, decrypted if its name says that it is encrypted; nothing but what was written."""
    with archive.opened(backup, part) as data:
        if part.name.endswith(SUFFIX):
            open_sealed(data, out, settings.identity)
        else:
            shutil.copyfileobj(data, out)


def _roles(backup: Backup, settings: BackupSettings) -> str:
    opened = io.BytesIO()
    copy_part(settings.dumps, backup, backup.part(ROLES), opened, settings)
    return opened.getvalue().decode()


def _load(backup: Backup, settings: BackupSettings, url: str) -> None:
    place, environment = connection(url)
    progress = Progress("Restoring", len(backup.rows), "processing data for table")
    arguments = [program("pg_restore"), "--exit-on-error", "--verbose", f"--dbname={place}"]
    with running(arguments, environment, progress, feeds=True) as database:
        copy_part(settings.dumps, backup, backup.part(DATABASE), database, settings)
    progress.end()


async def _prepare(url: str) -> None:
    """What belongs to the database as a whole and so is in no dump of its schemas, and statistics for the planner."""
    async with connected(url) as database:
        await prepare_schemas(database)
        await database.execute("ANALYZE")


async def _take_its_place(admin: asyncpg.Connection, scratch: str) -> str:
    kept = ""
    # At no moment is there none of that name, whatever happens here.
    async with admin.transaction():
        if await admin.fetchval(EXISTS, DATABASE_NAME):
            kept = f"{DATABASE_NAME}_{datetime.now(UTC):%Y%m%d_%H%M%S}"
            await admin.execute(f"ALTER DATABASE {DATABASE_NAME} RENAME TO {kept}")
        await admin.execute(f"ALTER DATABASE {scratch} RENAME TO {DATABASE_NAME}")
    return kept
