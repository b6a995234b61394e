"""Drills: a backup, or a moment, brought back on a server of its own, looked over as after a real loss."""

import secrets
import time
from datetime import UTC, datetime

from deploy.backups.chain import moment, plan
from deploy.backups.checks import looked_over
from deploy.backups.forgetting import erased_since
from deploy.backups.gauges import note_drill
from deploy.backups.restoring import restore
from deploy.backups.rewinding import recovered, unpack
from deploy.backups.server import running_server, scratch_server, scratch_settings
from deploy.backups.settings import BackupSettings
from deploy.local.settings import Settings
from kit.migrations import ROLES


async def drill(settings: Settings, backups: BackupSettings, name: str) -> int:
    """Prints what was found, a line for each check, then how much would have been lost and how long it took. Returns 1
    when a check failed, or a newer backup is damaged. What is running is only read."""
    backup, damaged = backups.dumps.newest_whole() if name == "latest" else (backups.dumps.find(name), [])
    print("".join(f"FAIL {one}\n" for one in damaged), end="", flush=True)
    started = time.monotonic()
    passwords = {role: secrets.token_hex(16) for role in ROLES}
    async with scratch_server() as admin_url:
        await restore(backup, backups, admin_url, passwords)
        restored = time.monotonic()
        erasures = await erased_since(settings, running_server(settings), backup.snapshot_time)
        whole = await looked_over(admin_url, passwords, backup.revisions, erasures)
    lost = datetime.now(UTC) - backup.snapshot_time
    print(f"RPO {lost.total_seconds():.0f} s: what came after {backup.snapshot_time:%Y-%m-%d %H:%M:%S} UTC is lost")
    print(f"RTO {restored - started:.1f} s to the database, {time.monotonic() - started:.1f} s with all checks")
    return _noted(backups, "dump", sound=whole and not damaged)


async def drill_moment(settings: Settings, backups: BackupSettings, at: datetime | None) -> int:
    """As `drill`, for a moment that the continuous archive has; None for the last one."""
    damaged: list[str] = []
    way = plan(backups, at, damaged.append)
    lost = datetime.now(UTC) - way.reach
    print("".join(f"FAIL {one}\n" for one in damaged), end="", flush=True)
    started = time.monotonic()
    passwords = {role: secrets.token_hex(16) for role in ROLES}
    with scratch_settings() as scratch:
        unpack(way, backups, scratch)
        async with recovered(way, scratch) as admin_url:
            restored = time.monotonic()
            print(f"As of {moment(way.at)}, from {way.base.name} and {len(way.pieces)} segments:", flush=True)
            erasures = await erased_since(settings, running_server(settings), way.at)
            whole = await looked_over(admin_url, passwords, None, erasures)
    print(f"RPO {lost.total_seconds():.0f} s: the archive goes on until {moment(way.reach)}")
    print(f"RTO {restored - started:.1f} s to the database, {time.monotonic() - started:.1f} s with all checks")
    return _noted(backups, "moment", sound=whole and not damaged)


def _noted(backups: BackupSettings, kind: str, *, sound: bool) -> int:
    if sound:
        note_drill(backups, kind)
    return 0 if sound else 1
