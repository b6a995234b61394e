"""Proto enums, and the lower-case names under which their values are stored."""

from functools import cache
from typing import Any


def stored_name(enum: Any, value: int) -> str:
    """The name of a value: `in_progress` of PROGRESS_STATUS_IN_PROGRESS; empty for the unspecified one."""
    name: str = enum.Name(value)
    return name.removeprefix(_prefix(enum)).lower() if value else ""


@cache
def _prefix(enum: Any) -> str:
    unspecified: str = enum.Name(0)
    return unspecified.removesuffix("UNSPECIFIED")
