"""Brings the whole server back as it was at a moment: a base backup, and the log after it read until then."""

import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from deploy.backups.bases import BASE
from deploy.backups.chain import Plan, moment, plan
from deploy.backups.checks import looked_over
from deploy.backups.forgetting import erased_since
from deploy.backups.programs import program, running, silently
from deploy.backups.restoring import copy_part, restore_files
from deploy.backups.segments import open_segments
from deploy.backups.server import local_server, passwords_of
from deploy.backups.settings import BackupSettings
from deploy.local.errors import RunError
from deploy.local.postgres import user_of
from deploy.local.settings import Settings

# A recovery reads some hundred megabytes a second; nobody wants it to be given up.
PATIENCE = 24 * 3600.0


async def rewind(settings: Settings, backups: BackupSettings, at: datetime | None) -> int:
    """Puts the server as it was at the moment, None for the last that is archived, into the place of the local one,
    whose data is kept beside it. What is there is touched only after all checks; returns 1 when one failed."""
    # Imported here, as by the server's: what runs elsewhere than on a developer's machine does without psutil.
    from deploy.local.state import only_runner

    if settings.database_url is not None:
        raise RunError("The server of DATABASE_URL is not run from here: fill a folder for it by `--into FOLDER`.")
    way = plan(backups, at, print)
    started, now = time.monotonic(), datetime.now(UTC)
    settings.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    with only_runner(settings.directory):
        erasures = await erased_since(settings, local_server(settings), way.at)
        scratch = replace(settings, directory=settings.directory / f"restored-{now:%Y%m%d%H%M%S}")
        scratch.logs.mkdir(mode=0o711, parents=True)
        unpack(way, backups, scratch, like=settings.directory / "postgres")
        async with recovered(way, scratch) as admin_url:
            print(f"As of {moment(way.at)}, from {way.base.name} and {len(way.pieces)} segments:", flush=True)
            whole = await looked_over(admin_url, passwords_of(settings), None, erasures)
        took = time.monotonic() - started
        print(f"RPO {(now - way.reach).total_seconds():.0f} s: the archive goes on until {moment(way.reach)}")
        print(f"RTO {took:.1f} s with all checks")
        if not whole:
            print(f"Nothing is changed: what was brought back is in {scratch.directory / 'postgres'}")
            return 1
        _take_its_place(settings, scratch, now)
    if folder := restore_files(way.chain.bases, way.base, backups):
        print(f"Uploaded files that were missing in {folder} are back, as of {moment(way.base.snapshot_time)}")
    return 0


def prepare(backups: BackupSettings, at: datetime | None, folder: Path) -> int:
    """Fills the folder for a server that is run elsewhere; started over it, that reads the log up to the moment."""
    way = plan(backups, at, print)
    unpack_into(way, backups, folder)
    lines = "".join(f"{name} = '{value}'\n" for name, value in recovery(way).items())
    with (folder / "postgresql.auto.conf").open("a") as out:
        out.write(lines)
    print(f"Start PostgreSQL {way.base.server} over {folder}: it lets clients in as of {moment(way.at)}")
    return 0


def _take_its_place(settings: Settings, scratch: Settings, now: datetime) -> None:
    data = settings.directory / "postgres"
    if data.exists():
        kept = data.with_name(f"postgres_{now:%Y%m%d_%H%M%S}")
        data.rename(kept)
        print(f"What was there is in {kept} now: remove it when nothing of it is missed")
    (scratch.directory / "postgres").rename(data)
    shutil.rmtree(scratch.directory)
    # What the mark says was true of the other database.
    settings.migrated_file.unlink(missing_ok=True)


def unpack(way: Plan, backups: BackupSettings, scratch: Settings, like: Path | None = None) -> None:
    """Fills the data directory of these settings; with the owner of the one it is `like`, where root does this."""
    data = scratch.directory / "postgres"
    unpack_into(way, backups, data)
    if os.geteuid() == 0:
        owner = user_of(like or data)
        for path in (data, *data.rglob("*")):
            os.chown(path, owner.uid, owner.gid, follow_symlinks=False)


def unpack_into(way: Plan, backups: BackupSettings, data: Path) -> None:
    """The base, looked through by PostgreSQL's own verifier, and the log after it: a server over the folder, with the
    settings of `recovery`, reads it up to the moment."""
    if data.exists() and any(data.iterdir()):
        raise RunError(f"{data} is not empty: name a folder that is.")
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    arguments = ["tar", "-C", str(data), "--no-same-owner", "-xzf", "-"]
    environment = {"PATH": os.environ.get("PATH", os.defpath)}
    with running(arguments, environment, silently, feeds=True) as tar:
        copy_part(way.chain.bases, way.base, way.base.part(BASE), tar, backups)
    with running([program("pg_verifybackup"), "--quiet", str(data)], environment, silently) as said:
        said.read()
    # A base has the log until its end with it: a piece of the same may have been archived before that.
    wal = data / "pg_wal"
    wanted = [one.segment for one in way.pieces if not (one.partial and (wal / one.segment).exists())]
    open_segments(way.chain, wanted, backups, wal)
    (data / "recovery.signal").touch(mode=0o600)


def recovery(way: Plan) -> dict[str, str]:
    """The settings of a server that reads its log up to the moment, and no further."""
    # A base to which nothing was added since can be had as it is.
    immediate = way.at == way.base.finish_time
    time = f"{way.at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00"
    target = {"recovery_target": "immediate"} if immediate else {"recovery_target_time": time}
    return {
        # The log lies where the server looks for it when nobody brings it.
        "restore_command": "false",
        "recovery_target_action": "promote",
        "recovery_target_timeline": "current",
        # Nobody is let in before it is over; and settings that a standby must share are not asked for.
        "hot_standby": "off",
    } | target


@asynccontextmanager
async def recovered(way: Plan, scratch: Settings) -> AsyncIterator[str]:
    """The administrator's URL of a server over the unpacked folder, once it has read its log."""
    data = scratch.directory / "postgres"
    # Where the base is from, it may have been told to archive, to load what is not here, or to read other files.
    own = {"archive_mode": "off", "ssl": "off", "shared_preload_libraries": "", "primary_conninfo": ""}
    own |= {"hba_file": str(data / "pg_hba.conf"), "ident_file": str(data / "pg_ident.conf")}
    log = scratch.logs / "postgres.log"
    async with AsyncExitStack() as stack:
        try:
            url = await stack.enter_async_context(local_server(scratch, recovery(way) | own, PATIENCE))
        except RunError as failure:
            fatal = [line.partition("FATAL:")[2].strip() for line in log.read_text().splitlines() if "FATAL:" in line]
            raise RunError(f"PostgreSQL did not come to {moment(way.at)}: {fatal[0] if fatal else failure}.") from None
        yield url
