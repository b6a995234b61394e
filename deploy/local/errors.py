"""The one exception that reaches the user: a sentence that says what is wrong and what to do."""

from pathlib import Path


class RunError(Exception):
    """Printed as it is, without a traceback; the runner then stops with exit code 1."""


def last_line(log: Path, limit: int = 300) -> str:
    """The last line with text in it of a log, shortened; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 16_384))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[:limit] for line in reversed(lines) if line.strip()), "")
