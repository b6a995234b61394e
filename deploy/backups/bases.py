"""Base backups: all files of the running server, from which its write-ahead log is read on."""

import asyncio
import os
import re
from datetime import UTC, datetime
from pathlib import Path

from deploy.backups.archive import Backup
from deploy.backups.chain import Chain, chains
from deploy.backups.dumping import begun, files, taken
from deploy.backups.parts import Part
from deploy.backups.programs import Progress, connection, program
from deploy.backups.server import role_url
from deploy.backups.settings import BackupSettings
from deploy.local.errors import RunError
from deploy.local.settings import Settings
from kit.connecting import connected
from kit.migrations import REPLICATION

BASE = "base.tar.gz"
# A copy of everything, made while services run: quick rather than small.
COMPRESSION = "client-gzip:3"
PERCENT, END = re.compile(r"\((\d+)%\)"), re.compile(r"log end point: ([0-9A-F]+/[0-9A-F]+)")


def make_base(settings: Settings, backups: BackupSettings) -> int:
    """Makes one now, of the newest chain."""
    known = chains(backups)
    if not known:
        raise RunError("A base backup alone brings no moment back: `make wal` first.")
    url = role_url(settings, os.environ.get("REPLICATION_DATABASE_URL"), REPLICATION)
    base = take_base(known[-1], backups, url)
    print(f"{base.name}: {sum(part.octets for part in base.parts) / 1e6:.1f} MB")
    return 0


def take_base(chain: Chain, settings: BackupSettings, url: str) -> Backup:
    """Makes a base backup in the chain as the role of replication; services go on meanwhile."""
    return asyncio.run(_take(chain, settings, url))


async def _take(chain: Chain, settings: BackupSettings, url: str) -> Backup:
    async with connected(url) as database:
        # The base has the log in it that makes it consistent: until it is read, the server must keep that. The slot
        # goes with the connection.
        held = f"{chain.slot}_base"
        await database.fetchval("SELECT pg_create_physical_replication_slot($1, true, true)", held)
        started = await database.fetchval("SELECT clock_timestamp()")
        with chain.bases.alone(), begun(chain.bases, datetime.now(UTC)) as folder:
            end, parts = await asyncio.to_thread(_parts, folder, settings, url)
            backup = Backup(
                name=folder.name.partition(".")[0],
                snapshot_time=started,
                finish_time=await database.fetchval("SELECT clock_timestamp()"),
                server=await database.fetchval("SHOW server_version"),
                encrypted=bool(settings.recipient),
                parts=tuple(parts),
                wal=chain.segment_at(end),
            )
            chain.bases.keep(folder, backup)
            return backup


def _parts(folder: Path, settings: BackupSettings, url: str) -> tuple[str, list[Part]]:
    place, environment = connection(url)
    progress, end = Progress("Base backup", 100, ""), ""

    def tell(line: str) -> None:
        nonlocal end
        if percent := PERCENT.search(line):
            progress.at(int(percent[1]))
        elif found := END.search(line):
            end = found[1]

    how = ("--format=tar", "--pgdata=-", "--wal-method=fetch", "--checkpoint=fast", f"--compress={COMPRESSION}")
    what = ("--manifest-checksums=SHA256", "--no-sync", "--verbose", "--progress", f"--dbname={place}")
    part = taken(folder, BASE, settings, [program("pg_basebackup"), *how, *what], environment, tell)
    progress.end()
    if not end:
        raise RunError("pg_basebackup does not say where the log goes on: is it of PostgreSQL 18?")
    return end, [part, *files(folder, settings)]
