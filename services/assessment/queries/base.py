"""What statements have in common."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row

Rows = Sequence[Row[Any]]


def columns(model: Any) -> list[Any]:
    return [one for one in model.__table__.columns if one.key != "tenant_id"]
