"""Where backups go, how long they are kept, who can open them and whose are trusted, read from the environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from deploy.backups.archive import Archive
from deploy.local.errors import RunError
from deploy.local.secrets import load_secrets
from deploy.local.settings import Settings, read_number
from kit.settings import SettingsError, decoded_key
from kit.signing import NO_KEYS, Keyring, public_keys


@dataclass(frozen=True, slots=True)
class BackupSettings:
    """`recipient` is an age recipient, empty for backups that are not encrypted; `identity` the file that opens them.
    `storage` is the folder of uploaded files, None where they are elsewhere. `spool` is where segments of the
    write-ahead log wait, as the server has them; the archive is behind it by `wal_seconds` at most. With `keys`
    nothing is brought back that none of them has signed."""

    directory: Path
    keep: timedelta
    recipient: str
    identity: Path | None
    storage: Path | None
    spool: Path = Path("wal")
    wal_seconds: float = 10.0
    keys: Keyring = NO_KEYS

    @property
    def dumps(self) -> Archive:
        return Archive(self.directory, self.keys)


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
        keys=_keys(environ, settings.directory / "secrets.env"),
    )


def _keys(environ: Mapping[str, str], local: Path) -> Keyring:
    """The environment's, which may be empty, else the one of the local stack."""
    key = environ.get("BACKUP_SIGNING_KEY")
    if key is None:
        key = load_secrets(local)["BACKUP_SIGNING_KEY"] if local.exists() else ""
    try:
        trusted = public_keys("BACKUP_TRUSTED_KEYS", environ.get("BACKUP_TRUSTED_KEYS", ""))
        return Keyring(decoded_key("BACKUP_SIGNING_KEY", key) if key else None, trusted)
    except SettingsError as error:
        raise RunError(f"{error}.") from None
