"""The folder of backups: what each consists of, whether it is whole, and which may go."""

import base64
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from deploy.backups.parts import Part, content, fault, reading, sync, written
from deploy.local.errors import RunError
from deploy.local.locking import alone
from kit.signing import NO_KEYS, Keyring

MANIFEST, SIGNATURE = "manifest.json", "manifest.json.sig"
FORMAT = 1
PARTIAL = ".partial"
NAMED = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
# A manifest has 70 octets for each 8 MiB.
LONGEST = 64 << 20


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup says of itself. It shows the database as it was at `snapshot_time`; `revisions` are the migrations
    that each schema had, `rows` how many rows each table had about then. `wal` is the segment with which a base backup
    goes on."""

    name: str
    snapshot_time: datetime
    finish_time: datetime
    server: str
    encrypted: bool
    revisions: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    wal: str = ""

    def part(self, stem: str) -> Part:
        """The part whose name begins with the stem; `RunError` when there is none."""
        found = next((one for one in self.parts if one.name.startswith(stem)), None)
        if found is None:
            raise RunError(f"The backup {self.name} has no {stem}.")
        return found


@dataclass(frozen=True, slots=True)
class Archive:
    """The backups of one folder, each a folder in it that is named after its time. With `keys` each is signed, for the
    `purpose` alone, and only those that are count as whole."""

    directory: Path
    keys: Keyring = NO_KEYS
    purpose: str = "storyloom backup v1"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else writes a backup here meanwhile, so what is half written was interrupted: it is removed."""
        self._make()
        with alone(self.directory, f"Another backup is being made in {self.directory}: wait for it."):
            for left in self.directory.glob(f"*{PARTIAL}"):
                _removed(left)
            yield

    def begin(self, at: datetime) -> Path:
        """A new folder to write a backup into; it counts as one when `keep` has given it its name."""
        folder = self.directory / f"{at:%Y%m%dT%H%M%SZ}{PARTIAL}"
        self._make()
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            raise RunError(f"Another backup is being made in {folder}: wait for it, or remove that folder.") from None
        return folder

    def _make(self) -> None:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(self.directory, os.W_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise RunError(f"{self.directory} can't hold backups ({error.strerror}): set BACKUP_DIRECTORY.") from None

    def keep(self, folder: Path, backup: Backup) -> Path:
        """Writes the manifest, which makes the folder a backup, signs it, and names the folder."""
        data = json.dumps({"format": FORMAT, **asdict(backup)}, default=_time, indent=1).encode()
        written(folder / MANIFEST, data)
        if self.keys.public:
            written(folder / SIGNATURE, base64.b64encode(self.keys.sign(self.purpose, data)) + b"\n")
        final = folder.with_name(backup.name)
        folder.rename(final)
        sync(self.directory)
        return final

    def all(self) -> list[Backup]:
        """The backups, oldest first; what is not one, or has an unreadable manifest, is left out."""
        folders = sorted(self.directory.glob("*")) if self.directory.is_dir() else []
        return [found for folder in folders if (found := _read(folder)) is not None]

    def trusted(self) -> list[Backup]:
        """Those whose manifest is signed as it must be, oldest first; that their files are whole is not looked at."""
        return [one for one in self.all() if not self.doubt(one)]

    def unreadable(self) -> list[str]:
        """Folders that are named like a backup, and have no manifest that can be read."""
        folders = sorted(self.directory.glob("*")) if self.directory.is_dir() else []
        return [one.name for one in folders if NAMED.fullmatch(one.name) and _read(one) is None]

    def newest_whole(self) -> tuple[Backup, list[str]]:
        """The newest backup with nothing wrong with it, and what is wrong with those that are newer."""
        damaged: list[str] = []
        for one in reversed(self.all()):
            wrong = self.faults(one)
            if not wrong:
                lost = [f"{name} has no manifest that can be read" for name in self.unreadable() if name > one.name]
                return one, lost + damaged
            damaged.append(f"{one.name} is damaged: {'; '.join(wrong)}")
        raise RunError(f"There is no whole backup in {self.directory}: {'; '.join(damaged) or 'there is none at all'}.")

    def find(self, name: str) -> Backup:
        """The backup of this name, the newest for `latest`."""
        known = self.all()
        found = known[-1] if known and name == "latest" else next((one for one in known if one.name == name), None)
        if found is None:
            there = ", ".join(one.name for one in known) or "none"
            raise RunError(f"There is no backup {name} in {self.directory}; there are: {there}.")
        return found

    def path(self, backup: Backup, part: Part) -> Path:
        return self.directory / backup.name / part.name

    def opened(self, backup: Backup, part: Part) -> AbstractContextManager[IO[bytes]]:
        """What is in the part, as the backup says it."""
        return reading(self.path(backup, part), part)

    def doubt(self, backup: Backup) -> str:
        """Why nobody should trust what the backup says of itself; '' where nothing is signed."""
        if not self.keys.public:
            return ""
        manifest, signature = (self.directory / backup.name / one for one in (MANIFEST, SIGNATURE))
        try:
            data, signed = content(manifest, LONGEST), base64.b64decode(content(signature, LONGEST))
        except (OSError, ValueError):
            return f"{manifest} is not signed"
        if self.keys.signed(self.purpose, data, signed) and _parsed(backup.name, data) == backup:
            return ""
        return f"{manifest} is not signed by a key that is trusted here"

    def faults(self, backup: Backup) -> list[str]:
        """What is wrong with the backup; nothing when it is whole. Nothing is looked at before its signature."""
        if doubt := self.doubt(backup):
            return [doubt]
        return [wrong for part in backup.parts if (wrong := fault(self.path(backup, part), part))]

    def dispensable(self, now: datetime, keep: timedelta) -> Iterator[Backup]:
        """Those older than `keep` that may go: all but the newest whole one, as long as there is a whole one."""
        known = self.all()
        newest = next((one for one in reversed(known) if not self.faults(one)), None)
        if newest is not None:
            yield from (one for one in known if one is not newest and now - one.snapshot_time > keep)

    def remove(self, backup: Backup) -> None:
        # Without its manifest first: what is left after an interruption is not taken for a backup.
        folder = self.directory / backup.name
        (folder / MANIFEST).unlink()
        shutil.rmtree(folder)


def _removed(left: Path) -> None:
    """A folder with what is in it; whatever else has its name, too."""
    try:
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()
    except OSError as error:
        raise RunError(f"{left} can't be removed: {error.strerror}.") from None


def _read(folder: Path) -> Backup | None:
    try:
        return _parsed(folder.name, content(folder / MANIFEST, LONGEST))
    except OSError:
        return None


def _parsed(name: str, manifest: bytes) -> Backup | None:
    """The backup of this name; None for what says something else. Names are paths, and its own is where it lies. Times
    are compared, sizes added and the server is printed whoever wrote it: they are times, numbers, and of one line."""
    try:
        found = json.loads(manifest)
        if found.pop("format") != FORMAT or found["name"] != name or not NAMED.fullmatch(name):
            return None
        for one in ("snapshot_time", "finish_time"):
            found[one] = datetime.fromisoformat(found[one]).astimezone(UTC)
        found["parts"] = tuple(_part(**part) for part in found["parts"])
        return Backup(**found) if found["server"].isprintable() else None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None


def _part(name: str, octets: int, sha256: str, steps: list[str] | None = None) -> Part:
    if Path(name).name != name or type(octets) is not int:
        raise ValueError(name)
    return Part(name, octets, sha256, None if steps is None else tuple(steps))


def _time(value: Any) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)
