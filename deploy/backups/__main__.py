"""`python -m deploy.backups create|list|verify|restore|drill`."""

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

import asyncpg

from deploy.backups.archive import Archive, Backup
from deploy.backups.dumping import create
from deploy.backups.forgetting import forget_again, forgotten_since
from deploy.backups.restoring import restore, restore_files
from deploy.backups.server import running_server
from deploy.backups.settings import BackupSettings, read_backup_settings
from deploy.local.environment import database_url
from deploy.local.errors import RunError
from deploy.local.secrets import BACKUP, load_secrets, role_passwords
from deploy.local.settings import Settings, read_settings
from kit.migrations import BACKUP as BACKUP_ROLE
from kit.migrations import in_database


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.backups", description="Backups of Storyloom's database.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("create", help="make a backup, and remove old ones")
    commands.add_parser("list", help="list the backups")
    for verb, what in (
        ("verify", "check that a backup is as it was written"),
        ("restore", "bring a backup back; what is there is kept under another name"),
        ("drill", "restore a backup into a server of its own, check it, and throw it away"),
    ):
        commands.add_parser(verb, help=what).add_argument("backup", nargs="?", default="latest")
    arguments = parser.parse_args()
    try:
        settings = read_settings(os.environ)
        backups = read_backup_settings(os.environ, settings)
        match arguments.command:
            case "create":
                return asyncio.run(make(settings, backups))
            case "list":
                return show(backups)
            case "verify":
                return verify(backups, arguments.backup)
            case "restore":
                return asyncio.run(bring_back(settings, backups, arguments.backup))
            case _:
                from deploy.backups.drill import drill

                return asyncio.run(drill(settings, backups, arguments.backup))
    except RunError as failure:
        print(f"storyloom: {failure}", file=sys.stderr, flush=True)
        return 1


async def make(settings: Settings, backups: BackupSettings) -> int:
    """Makes a backup and removes those that are too old, which a failure leaves alone."""
    archive = Archive(backups.directory)
    async with running_server(settings) as admin_url:
        url = os.environ.get("BACKUP_DATABASE_URL") or database_url(
            admin_url, BACKUP_ROLE, load_secrets(settings.directory / "secrets.env")[f"PASSWORD_{BACKUP.upper()}"]
        )
        folder = await asyncio.to_thread(create, backups, url)
    print(f"{folder}: {sum(one.octets for one in archive.find(folder.name).parts) / 1e6:.1f} MB")
    for old in archive.dispensable(datetime.now(UTC), backups.keep):
        archive.remove(old)
        print(f"{old.name}: removed, older than {backups.keep.days} days")
    return 0


def show(backups: BackupSettings) -> int:
    for one in Archive(backups.directory).all():
        size = sum(part.octets for part in one.parts) / 1e6
        print(f"{one.name}  {size:>9.1f} MB  PostgreSQL {one.server}{'  encrypted' if one.encrypted else ''}")
    return 0


def verify(backups: BackupSettings, name: str) -> int:
    archive = Archive(backups.directory)
    backup = archive.find(name)
    faults = archive.faults(backup)
    print("\n".join(faults) or f"{backup.name} is as it was written: {len(backup.parts)} files")
    return 1 if faults else 0


async def bring_back(settings: Settings, backups: BackupSettings, name: str) -> int:
    archive = Archive(backups.directory)
    backup = archive.find(name)
    passwords = role_passwords(load_secrets(settings.directory / "secrets.env"))
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
    before = await asyncpg.connect(in_database(admin_url, kept))
    try:
        erasures = await forgotten_since(before, backup.snapshot_time)
    finally:
        await before.close()
    return await forget_again(erasures, {role: database_url(admin_url, role, passwords[role]) for role in passwords})


if __name__ == "__main__":
    sys.exit(main())
