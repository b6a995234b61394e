"""The folder of backups: what each consists of, whether it is whole, and which may go."""

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from deploy.local.errors import RunError

MANIFEST = "manifest.json"
FORMAT = 1
PARTIAL = ".partial"
NAMED = re.compile(r"\d{8}T\d{6}Z")
PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a backup, as it lies there: encrypted, if the backup is."""

    name: str
    octets: int
    sha256: str


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
    """The backups of one folder, each a folder in it that is named after its time."""

    directory: Path

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else writes a backup here meanwhile, so what is half written was interrupted: it is removed."""
        self._make()
        with (self.directory / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(f"Another backup is being made in {self.directory}: wait for it.") from None
            for left in self.directory.glob(f"*{PARTIAL}"):
                shutil.rmtree(left)
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
        """Writes the manifest, which makes the folder a backup, and names it."""
        text = json.dumps({"format": FORMAT, **asdict(backup)}, default=_time, indent=1)
        written(folder / MANIFEST, text.encode())
        final = folder.with_name(backup.name)
        folder.rename(final)
        _sync(self.directory)
        return final

    def all(self) -> list[Backup]:
        """The backups, oldest first; what is not one, or has an unreadable manifest, is left out."""
        folders = sorted(self.directory.glob("*")) if self.directory.is_dir() else []
        return [found for folder in folders if (found := _read(folder)) is not None]

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

    def faults(self, backup: Backup) -> list[str]:
        """What is wrong with the files of the backup; nothing when it is whole."""
        return [wrong for part in backup.parts if (wrong := _fault(self.path(backup, part), part))]

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


class Counting:
    """A file being written: how long it is, and its digest."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._out: BinaryIO = path.open("xb")
        self._digest, self._octets = hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        self._octets += len(data)
        return self._out.write(data)

    def flush(self) -> None:
        self._out.flush()

    def close(self) -> Part:
        """Ends the file, on the disk for good."""
        self._out.flush()
        os.fsync(self._out.fileno())
        self._out.close()
        _sync(self._path.parent)
        return Part(self._path.name, self._octets, self._digest.hexdigest())

    def abandon(self) -> None:
        """Lets go of a file that nobody will want, on a disk that may be full."""
        with suppress(OSError):
            self._out.close()


def written(path: Path, data: bytes) -> None:
    """Writes a file that is either there as a whole or not at all, whatever happens meanwhile."""
    scratch = path.with_name(path.name + ".new")
    with scratch.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    scratch.rename(path)
    _sync(path.parent)


def _read(folder: Path) -> Backup | None:
    try:
        found = json.loads((folder / MANIFEST).read_text())
        if found.pop("format") != FORMAT or folder.name.endswith(PARTIAL):
            return None
        for name in ("snapshot_time", "finish_time"):
            found[name] = datetime.fromisoformat(found[name])
        found["parts"] = tuple(Part(**part) for part in found["parts"])
        return Backup(**found)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _fault(path: Path, part: Part) -> str:
    try:
        with path.open("rb") as data:
            digest = hashlib.file_digest(data, "sha256").hexdigest()
    except OSError as error:
        return f"{path}: {error.strerror}"
    return "" if digest == part.sha256 else f"{path} is not what was written: its SHA-256 differs"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _time(value: Any) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)
