"""Conditions that a request's filters become."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement


def equal(
    model: Any, request: Any, *, texts: Sequence[str] = (), ids: Sequence[str] = ()
) -> list[ColumnElement[bool]]:
    """One condition for each filter that the request sets; columns are named like the request's fields."""
    wanted = {name: getattr(request, name) for name in (*texts, *ids)}
    return [
        getattr(model, name) == (UUID(value) if name in ids else value) for name, value in wanted.items() if value
    ]
