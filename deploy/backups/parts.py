"""Files of an archive: on the disk for good once they are written, and given away only as they were written."""

import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from deploy.local.errors import RunError

STEP = 8 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a backup, as it lies there: encrypted, if the backup is. `steps` has a digest of each 8 MiB, None in
    backups from before there were any."""

    name: str
    octets: int
    sha256: str
    steps: tuple[str, ...] | None = None


class Counting:
    """A file being written: how long it is, and its digests."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._out = created(path)
        self._digest, self._step, self._octets = hashlib.sha256(), hashlib.sha256(), 0
        self._steps: list[str] = []

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        left = memoryview(data)
        while left:
            room = STEP - self._octets % STEP
            self._step.update(left[:room])
            self._octets += len(left[:room])
            left = left[room:]
            if self._octets % STEP == 0:
                self._end_step()
        return self._out.write(data)

    def flush(self) -> None:
        self._out.flush()

    def close(self) -> Part:
        """Ends the file, on the disk for good."""
        if self._octets % STEP:
            self._end_step()
        self._out.flush()
        os.fsync(self._out.fileno())
        self._out.close()
        sync(self._path.parent)
        return Part(self._path.name, self._octets, self._digest.hexdigest(), tuple(self._steps))

    def abandon(self) -> None:
        """Lets go of a file that nobody will want, on a disk that may be full."""
        with suppress(OSError):
            self._out.close()

    def _end_step(self) -> None:
        self._steps.append(self._step.hexdigest())
        self._step = hashlib.sha256()


class Reading(io.RawIOBase):
    """What is in a part, of which each step is looked at before it is given away: whoever can write into the archive
    may do so after all of it was looked at."""

    def __init__(self, path: Path, data: IO[bytes], part: Part) -> None:
        self._path, self._data = path, data
        self._steps = None if part.steps is None else iter(part.steps)
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._left = self._left or memoryview(self._next())
        octets = min(len(buffer), len(self._left))
        buffer[:octets], self._left = self._left[:octets], self._left[octets:]
        return octets

    def _next(self) -> bytes:
        data = self._data.read(STEP)
        if self._steps is not None:
            wanted = next(self._steps, "")
            if (hashlib.sha256(data).hexdigest() if data or wanted else "") != wanted:
                raise RunError(different(self._path))
        return data


@contextmanager
def reading(path: Path, part: Part) -> Iterator[IO[bytes]]:
    """What is in the part's file, while it is as it was written."""
    with opened(path) as data, io.BufferedReader(Reading(path, data, part)) as read:
        yield read


def fault(path: Path, part: Part) -> str:
    """What is wrong with the part's file; '' for one that is as it was written."""
    try:
        with opened(path) as data:
            whole = os.fstat(data.fileno()).st_size == part.octets
            digest = hashlib.file_digest(data, "sha256").hexdigest() if whole else ""
    except OSError as error:
        return f"{path}: {error.strerror}"
    return "" if digest == part.sha256 else different(path)


def different(path: Path) -> str:
    return f"{path} is not what was written: its SHA-256 differs"


def written(path: Path, data: bytes) -> None:
    """Writes a file that is either there as a whole or not at all, whatever happens meanwhile."""
    scratch = path.with_name(path.name + ".new")
    scratch.unlink(missing_ok=True)
    with created(scratch) as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    scratch.rename(path)
    sync(path.parent)


def created(path: Path) -> BinaryIO:
    """A new file that only its owner reads, whoever owns the folder. Where a link is, nothing is written."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def opened(path: Path) -> io.BufferedReader:
    """A file to be read. OSError for what is none: nobody follows a link, or waits for a pipe that nobody feeds."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no file", str(path))
    return os.fdopen(descriptor, "rb")


def content(path: Path, most: int = -1) -> bytes:
    """All that is in the file, if that is not more."""
    with opened(path) as data:
        return data.read(most)


def sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
