"""Checkpoints outside the database: one file for each tenant, which is only ever added to."""

import fcntl
import os
import re
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

# Some checkpoints long.
TAIL = 4096
COMPLETE = re.compile(r"^\S+\n[0-9]+\n[A-Za-z0-9+/=]{44}\n\n\u2014 \S+ [A-Za-z0-9+/=]+\n", re.MULTILINE)


class Publisher:
    """The directory of the files, which other machines should copy; nothing is published without one."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory) if directory else None
        if self._directory is not None:
            self._directory.mkdir(parents=True, exist_ok=True)

    def latest(self, tenant_id: UUID) -> str:
        """The tenant's last checkpoint, or nothing."""
        if self._directory is None:
            return ""
        try:
            with self._file(tenant_id).open("rb") as file:
                return _last(file.fileno())
        except FileNotFoundError:
            return ""

    def add(self, tenant_id: UUID, texts: Sequence[str]) -> None:
        """Adds the checkpoints that are not the last ones of the file already. Processes take turns."""
        if self._directory is None or not texts:
            return
        descriptor = os.open(self._file(tenant_id), os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            tail = _tail(descriptor)
            # Another process may have been faster.
            new = [text for text in texts if text.encode() not in tail]
            # What a crash cut short ends here.
            torn = "\n" if tail and not tail.endswith(b"\n") else ""
            os.write(descriptor, (torn + "".join(new)).encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _file(self, tenant_id: UUID) -> Path:
        assert self._directory is not None  # noqa: S101  # both callers looked
        return self._directory / f"{tenant_id}.txt"


def _last(descriptor: int) -> str:
    """The last complete checkpoint: one that was cut short by a crash is passed over."""
    found = COMPLETE.findall(_tail(descriptor).decode(errors="replace"))
    return str(found[-1]) if found else ""


def _tail(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, TAIL, max(0, size - TAIL))
