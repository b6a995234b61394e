"""`python -m deploy.backups create|list|verify|restore|drill|wal|base`."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from deploy.backups.archive import Archive, Backup
from deploy.backups.bases import take_base
from deploy.backups.chain import chains, moment, parse_moment, plan
from deploy.backups.dumping import create
from deploy.backups.forgetting import forget_again, forgotten_since
from deploy.backups.gauges import Gauges
from deploy.backups.receiving import Receiver
from deploy.backups.restoring import restore, restore_files
from deploy.backups.server import running_server
from deploy.backups.settings import BackupSettings, read_backup_settings
from deploy.local.environment import database_url
from deploy.local.errors import RunError
from deploy.local.secrets import load_secrets, role_passwords
from deploy.local.settings import Settings, read_settings
from kit.connecting import connected
from kit.migrations import BACKUP, REPLICATION, in_database


def main() -> int:
    arguments = parsed()
    # As Ctrl-C: a server that was started here, with everybody's data, must not outlive whoever started it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        settings = read_settings(os.environ)
        backups = read_backup_settings(os.environ, settings)
        at = moment_of(arguments.at) if getattr(arguments, "at", None) else None
        match arguments.command:
            case "create":
                return asyncio.run(make(settings, backups))
            case "list":
                return show(backups)
            case "verify":
                return verify(backups, arguments.backup)
            case "wal":
                return asyncio.run(receive(settings, backups))
            case "base":
                return make_base(settings, backups)
            case "restore":
                return bring_back(settings, backups, arguments, at)
            case _:
                from deploy.backups.drill import drill, drill_moment

                if arguments.at:
                    return asyncio.run(drill_moment(settings, backups, at))
                return asyncio.run(drill(settings, backups, arguments.backup))
    except RunError as failure:
        print(f"storyloom: {failure}", file=sys.stderr, flush=True)
        return 1


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.backups", description="Backups of Storyloom's database.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("create", help="make a backup, and remove old ones")
    commands.add_parser("list", help="list the backups")
    commands.add_parser("wal", help="archive every change as it is made, until Ctrl-C; makes base backups by itself")
    commands.add_parser("base", help="make a base backup now")
    for verb, what in (
        ("verify", "check that a backup is as it was written; `wal` for what `wal` has archived"),
        ("restore", "bring a backup or a moment back; what is there is kept under another name"),
        ("drill", "restore a backup or a moment into a server of its own, check it, and throw it away"),
    ):
        command = commands.add_parser(verb, help=what)
        command.add_argument("backup", nargs="?", default="latest")
        if verb != "verify":
            command.add_argument("--at", help="a moment that `wal` has archived, as 2026-11-22T21:00:00Z, or `latest`")
        if verb == "restore":
            command.add_argument("--into", type=Path, help="only fill this folder, for a server that runs elsewhere")
    return parser.parse_args()


def moment_of(text: str) -> datetime | None:
    return None if text == "latest" else parse_moment(text)


def role_url(settings: Settings, chosen: str | None, role: str) -> str:
    """The URL that was chosen, else the one of the role on the server that there is."""
    return chosen or database_url(settings.database_url or settings.admin_url, role, passwords_of(settings)[role])


def passwords_of(settings: Settings) -> dict[str, str]:
    return role_passwords(load_secrets(settings.directory / "secrets.env"))


async def make(settings: Settings, backups: BackupSettings) -> int:
    """Makes a backup and removes those that are too old, which a failure leaves alone."""
    archive = Archive(backups.directory)
    async with running_server(settings):
        url = role_url(settings, os.environ.get("BACKUP_DATABASE_URL"), BACKUP)
        folder = await asyncio.to_thread(create, backups, url)
    print(f"{folder}: {sum(one.octets for one in archive.find(folder.name).parts) / 1e6:.1f} MB")
    for old in archive.dispensable(datetime.now(UTC), backups.keep):
        archive.remove(old)
        print(f"{old.name}: removed, older than {backups.keep.days} days")
    return 0


async def receive(settings: Settings, backups: BackupSettings) -> int:
    """Archives the log of the running server until it is told to end."""
    url = role_url(settings, os.environ.get("REPLICATION_DATABASE_URL"), REPLICATION)
    receiver = Receiver(backups, url, lambda line: print(line, flush=True))
    gauges = Gauges(os.environ, backups, receiver.state)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, receiver.stop)
    try:
        await receiver.run()
    finally:
        await asyncio.to_thread(gauges.close)
    if receiver.state.reach:
        print(f"Archived until {moment(receiver.state.reach)}", flush=True)
    return 0


def make_base(settings: Settings, backups: BackupSettings) -> int:
    known = chains(backups.directory)
    if not known:
        raise RunError("A base backup alone brings no moment back: `make wal` first.")
    url = role_url(settings, os.environ.get("REPLICATION_DATABASE_URL"), REPLICATION)
    base = take_base(known[-1], backups, url)
    print(f"{base.name}: {sum(part.octets for part in base.parts) / 1e6:.1f} MB")
    return 0


def show(backups: BackupSettings) -> int:
    archive = Archive(backups.directory)
    for one in archive.all():
        size = sum(part.octets for part in one.parts) / 1e6
        print(f"{one.name}  {size:>9.1f} MB  PostgreSQL {one.server}{'  encrypted' if one.encrypted else ''}")
    for name in archive.unreadable():
        print(f"{name}  has no manifest that can be read")
    for chain in chains(backups.directory):
        bases = chain.bases.all()
        reach = chain.reach()
        until = moment(reach) if reach else "nowhere"
        since = f"every moment from {moment(bases[0].finish_time)} until {until}" if bases else "no base yet"
        print(f"{chain.folder.name}  continuous: {len(bases)} bases, {len(chain.pieces())} segments, {since}")
    return 0


def verify(backups: BackupSettings, name: str) -> int:
    if name == "wal":
        way = plan(backups.directory, None, print)
        count = len(way.pieces)
        print(f"Every moment until {moment(way.reach)} can be brought back: {count} segments since {way.base.name}")
        return 0
    archive = Archive(backups.directory)
    backup = archive.find(name)
    faults = archive.faults(backup)
    print("\n".join(faults) or f"{backup.name} is as it was written: {len(backup.parts)} files")
    return 1 if faults else 0


def bring_back(settings: Settings, backups: BackupSettings, arguments: argparse.Namespace, at: datetime | None) -> int:
    if not arguments.at:
        return asyncio.run(bring_back_dump(settings, backups, arguments.backup))
    from deploy.backups.rewinding import prepare, rewind

    if arguments.into:
        return prepare(backups, at, arguments.into)
    if settings.database_url is not None:
        raise RunError("The server of DATABASE_URL is not run from here: fill a folder for it by `--into FOLDER`.")
    return asyncio.run(rewind(settings, backups, at, passwords_of(settings)))


async def bring_back_dump(settings: Settings, backups: BackupSettings, name: str) -> int:
    archive = Archive(backups.directory)
    backup, damaged = archive.newest_whole() if name == "latest" else (archive.find(name), [])
    for one in damaged:
        print(f"{one}; {backup.name} is taken", flush=True)
    passwords = passwords_of(settings)
    async with running_server(settings) as admin_url:
        kept = await restore(archive, backup, backups, admin_url, passwords)
        forgotten = await forget_what_was(admin_url, kept, backup, passwords)
    # What the mark says was true of the other database.
    settings.migrated_file.unlink(missing_ok=True)
    print(f"Restored as of {backup.snapshot_time:%Y-%m-%d %H:%M:%S} UTC")
    if folder := restore_files(archive, backup, backups):
        print(f"Uploaded files are back in {folder}")
    if kept:
        print(f"What was there is the database {kept} now: drop it when nothing of it is missed")
        print(f"Erased anew, as they were since the backup: {forgotten}")
    return 0


async def forget_what_was(admin_url: str, kept: str, backup: Backup, passwords: Mapping[str, str]) -> int:
    """Erases from the restored database whom the one before it had forgotten since; returns how many."""
    if not kept:
        return 0
    async with connected(in_database(admin_url, kept)) as before:
        erasures = await forgotten_since(before, backup.snapshot_time)
    return await forget_again(erasures, {role: database_url(admin_url, role, passwords[role]) for role in passwords})


if __name__ == "__main__":
    sys.exit(main())
