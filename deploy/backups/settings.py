"""Where backups go, how long they are kept and who can open them, read from the environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from deploy.local.settings import Settings, read_number


@dataclass(frozen=True, slots=True)
class BackupSettings:
    """`recipient` is an age recipient, empty for backups that are not encrypted; `identity` the file that opens them.
    `storage` is the folder of uploaded files, None where they are elsewhere. `spool` is where segments of the
    write-ahead log wait, as the server has them; the archive is behind it by `wal_seconds` at most."""

    directory: Path
    keep: timedelta
    recipient: str
    identity: Path | None
    storage: Path | None
    spool: Path = Path("wal")
    wal_seconds: float = 10.0


def read_backup_settings(environ: Mapping[str, str], settings: Settings) -> BackupSettings:
    """`RunError` names a variable that can't be understood."""
    identity = environ.get("BACKUP_IDENTITY")
    elsewhere = environ.get("STORAGE_BUCKET")
    folder = Path(environ.get("STORAGE_DIRECTORY") or settings.directory / "storage")
    return BackupSettings(
        directory=settings.root / (environ.get("BACKUP_DIRECTORY") or settings.directory / "backups"),
        keep=timedelta(days=read_number(environ, "BACKUP_KEEP_DAYS", 7, 3650)),
        recipient=environ.get("BACKUP_RECIPIENT") or "",
        identity=Path(identity) if identity else None,
        storage=None if elsewhere else folder,
        spool=settings.root / (environ.get("BACKUP_SPOOL_DIRECTORY") or settings.directory / "wal"),
        wal_seconds=read_number(environ, "BACKUP_WAL_SECONDS", 10, 3600),
    )
