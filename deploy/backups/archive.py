"""The folder of backups: what each consists of, whether it is whole, and which may go."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from deploy.local.errors import RunError

MANIFEST = "manifest.json"
FORMAT = 1
PARTIAL = ".partial"
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
    that each schema had, `rows` how many rows each table had about then."""

    name: str
    snapshot_time: datetime
    finish_time: datetime
    server: str
    encrypted: bool
    revisions: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()

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

    def begin(self, at: datetime) -> Path:
        """A new folder to write a backup into; it counts as one when `keep` has given it its name."""
        folder = self.directory / f"{at:%Y%m%dT%H%M%SZ}{PARTIAL}"
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700)
        except FileExistsError:
            raise RunError(f"Another backup is being made in {folder}: wait for it, or remove that folder.") from None
        except OSError as error:
            raise RunError(f"{self.directory} can't hold backups ({error.strerror}): set BACKUP_DIRECTORY.") from None
        return folder

    def keep(self, folder: Path, backup: Backup) -> Path:
        """Writes the manifest, which makes the folder a backup, and names it."""
        text = json.dumps({"format": FORMAT, **asdict(backup)}, default=_time, indent=1)
        with (folder / MANIFEST).open("x") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        final = folder.with_name(backup.name)
        folder.rename(final)
        _sync(self.directory)
        return final

    def all(self) -> list[Backup]:
        """The backups, oldest first; what is not one, or has an unreadable manifest, is left out."""
        folders = sorted(self.directory.glob("*")) if self.directory.is_dir() else []
        return [found for folder in folders if (found := _read(folder)) is not None]

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
        return Part(self._path.name, self._octets, self._digest.hexdigest())


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
    digest = hashlib.sha256()
    try:
        with path.open("rb") as data:
            while piece := data.read(PIECE):
                digest.update(piece)
    except OSError as error:
        return f"{path}: {error.strerror}"
    return "" if digest.hexdigest() == part.sha256 else f"{path} is not what was written: its SHA-256 differs"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _time(value: Any) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)
