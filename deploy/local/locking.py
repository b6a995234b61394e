"""Locks of folders, which the system gives back however their holder ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import RunError


@contextmanager
def alone(directory: Path, otherwise: str) -> Iterator[None]:
    """Nobody else is alone in the folder meanwhile; `RunError` says otherwise where somebody is."""
    file = directory / "lock"
    try:
        # Others may write into the folder: a link of that name leads nowhere, and what it leads to stays as it is.
        held = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise RunError(f"{file} can't be opened ({error.strerror}): remove it.") from None
    with os.fdopen(held):
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(otherwise) from None
        yield
