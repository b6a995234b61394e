"""What statements have in common."""

from typing import Any

from kit.errors import NotFound


def found(row: Any, resource: str) -> Any:
    if row is None:
        raise NotFound(resource)
    return row
