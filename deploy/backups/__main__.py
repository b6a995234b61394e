"""`python -m deploy.backups create|list|verify|restore|drill|wal|base`."""

import argparse
import asyncio
import os
import signal
import sys
from datetime import datetime
from pathlib import Path

from deploy.backups import bases, drill, dumping, listing, receiving, restoring, rewinding
from deploy.backups.chain import parse_moment
from deploy.backups.settings import BackupSettings, read_backup_settings
from deploy.local.errors import RunError
from deploy.local.settings import read_settings
from kit.settings import SettingsError

MAKING, USING = ("create", "base", "wal"), ("verify", "restore", "drill")


def main() -> int:
    arguments = parsed()
    # As Ctrl-C: a server that was started here, with everybody's data, must not outlive whoever started it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run(arguments)
    except (RunError, SettingsError) as failure:
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


def run(arguments: argparse.Namespace) -> int:
    settings = read_settings(os.environ)
    backups = read_backup_settings(os.environ, settings)
    look_at_keys(arguments.command, backups)
    match arguments.command:
        case "create":
            return asyncio.run(dumping.back_up(settings, backups))
        case "list":
            return listing.show(backups)
        case "verify":
            return listing.verify(backups, arguments.backup)
        case "wal":
            return asyncio.run(receiving.receive(settings, backups))
        case "base":
            return bases.make_base(settings, backups)
        case "restore" if arguments.at and arguments.into:
            return rewinding.prepare(backups, moment_of(arguments.at), arguments.into)
        case "restore" if arguments.at:
            return asyncio.run(rewinding.rewind(settings, backups, moment_of(arguments.at)))
        case "restore":
            return asyncio.run(restoring.bring_back(settings, backups, arguments.backup))
        case _ if arguments.at:
            return asyncio.run(drill.drill_moment(settings, backups, moment_of(arguments.at)))
        case _:
            return asyncio.run(drill.drill(settings, backups, arguments.backup))


def look_at_keys(command: str, backups: BackupSettings) -> None:
    """Before anything is done: a dump takes its time. A key may have been lost with the machine; and what is restored
    is run as the database's superuser."""
    if command in MAKING and backups.keys.public and not backups.keys.signs:
        raise RunError("BACKUP_SIGNING_KEY is empty: whoever has BACKUP_TRUSTED_KEYS would not take this backup.")
    if command in USING and not backups.keys.public:
        print("storyloom: no key tells whose backups these are: they are taken on your word", file=sys.stderr)


def moment_of(text: str) -> datetime | None:
    return None if text == "latest" else parse_moment(text)


if __name__ == "__main__":
    sys.exit(main())
