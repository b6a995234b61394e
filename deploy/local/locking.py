"""Locks of folders, which the system gives back however their holder ends."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import RunError


@contextmanager
def alone(directory: Path, otherwise: str) -> Iterator[None]:
    """Nobody else is alone in the folder meanwhile; `RunError` says otherwise where somebody is."""
    with (directory / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(otherwise) from None
        yield
