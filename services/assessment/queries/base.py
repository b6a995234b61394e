"""What statements have in common."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row

from kit.errors import NotFound

Rows = Sequence[Row[Any]]


def columns(model: Any) -> list[Any]:
    return [one for one in model.__table__.columns if one.key != "tenant_id"]


def one_of(result: Any, resource: str) -> Row[Any]:
    row: Row[Any] | None = result.one_or_none()
    if row is None:
        raise NotFound(resource)
    return row
