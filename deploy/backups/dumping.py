"""Makes a backup: one consistent dump of all schemas, the roles, and the files that were uploaded."""

import asyncio
import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy.backups.archive import Archive, Backup
from deploy.backups.parts import Counting, Part
from deploy.backups.programs import Progress, Tell, connection, program, running, silently
from deploy.backups.sealing import SUFFIX, seal
from deploy.backups.server import role_url, running_server
from deploy.backups.settings import BackupSettings
from deploy.local.errors import RunError
from deploy.local.settings import Settings
from kit.connecting import connected
from kit.migrations import BACKUP
from kit.settings import SERVICES

# What a level more of compression saves is not worth the time: 6 is the middle of zlib's range.
COMPRESSION = "gzip:6"
# The parts of a backup.
DATABASE, ROLES, STORAGE = "database.dump", "roles.sql", "storage.tar"
TABLES = """
SELECT n.nspname || '.' || c.relname AS name, greatest(c.reltuples, 0)::bigint AS rows
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY ($1) AND c.relkind = 'r' ORDER BY 1
"""


async def back_up(settings: Settings, backups: BackupSettings) -> int:
    """Makes a backup and removes those that are too old, which a failure leaves alone."""
    archive = backups.dumps
    async with running_server(settings):
        url = role_url(settings, os.environ.get("BACKUP_DATABASE_URL"), BACKUP)
        folder = await asyncio.to_thread(create, backups, url)
    print(f"{folder}: {sum(one.octets for one in archive.find(folder.name).parts) / 1e6:.1f} MB")
    for old in archive.dispensable(datetime.now(UTC), backups.keep):
        archive.remove(old)
        print(f"{old.name}: removed, older than {backups.keep.days} days")
    return 0


def create(settings: BackupSettings, url: str) -> Path:
    """Makes a backup of the database that the URL of the backup role names, and returns its folder.

    The dump is one snapshot; services go on meanwhile. What fails leaves nothing that counts as a backup.
    """
    archive = settings.dumps
    started = datetime.now(UTC)
    with archive.alone(), begun(archive, started) as folder:
        found = asyncio.run(_look(url))
        parts = [*_parts(folder, settings, url, len(found["rows"])), *files(folder, settings)]
        backup = Backup(
            name=folder.name.partition(".")[0],
            snapshot_time=started,
            finish_time=datetime.now(UTC),
            encrypted=bool(settings.recipient),
            parts=tuple(parts),
            **found,
        )
        return archive.keep(folder, backup)


@contextmanager
def begun(archive: Archive, at: datetime) -> Iterator[Path]:
    """A folder to write a backup into, which is gone when that fails; a full disk is told as such."""
    folder = archive.begin(at)
    try:
        yield folder
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise RunError(f"The backup does not fit into {archive.directory}: {error.strerror}.") from None
        raise


def taken(
    folder: Path, name: str, settings: BackupSettings, arguments: Sequence[str], environment: dict[str, str], tell: Tell
) -> Part:
    """What a program puts out, as a part of the backup: encrypted if the settings say so."""
    out = Counting(folder / (name + (SUFFIX if settings.recipient else "")))
    try:
        with running(arguments, environment, tell) as data:
            seal(data, out, settings.recipient)
        return out.close()
    except BaseException:
        out.abandon()
        raise


def files(folder: Path, settings: BackupSettings) -> Iterator[Part]:
    """The uploaded files. After the database: a file is never changed once it is written, so all that are named there
    are here."""
    if settings.storage is not None and settings.storage.is_dir():
        yield taken(folder, STORAGE, settings, ["tar", "-C", str(settings.storage), "-cf", "-", "."], {}, silently)


def _parts(folder: Path, settings: BackupSettings, url: str, tables: int) -> Iterator[Part]:
    place, environment = connection(url)
    progress = Progress("Dumping", tables, "dumping contents of table")
    dump = [program("pg_dump"), "--format=custom", f"--compress={COMPRESSION}", "--verbose", f"--dbname={place}"]
    yield taken(folder, DATABASE, settings, dump, environment, progress)
    progress.end()
    # Passwords are secrets of their own: whoever restores sets them anew.
    roles = [program("pg_dumpall"), "--roles-only", "--no-role-passwords", f"--dbname={place}"]
    yield taken(folder, ROLES, settings, roles, environment, silently)


async def _look(url: str) -> dict[str, Any]:
    """What the manifest says of the database: its version, the migrations it has, and how many rows."""
    async with connected(url) as database:
        rows = {row["name"]: row["rows"] for row in await database.fetch(TABLES, list(SERVICES))}
        revisions = {
            schema: await database.fetchval(f"SELECT version_num FROM {schema}.alembic_version")  # noqa: S608
            for schema in SERVICES
            if f"{schema}.alembic_version" in rows
        }
        return {"server": await database.fetchval("SHOW server_version"), "rows": rows, "revisions": revisions}
