"""Ids are UUIDv7: they sort by the time they were made."""

from uuid import UUID

from uuid_utils.compat import uuid7

SYSTEM_TENANT = UUID(int=0)
NIL = UUID(int=0)

__all__ = ["NIL", "SYSTEM_TENANT", "new_id"]


def new_id() -> UUID:
    """A fresh UUIDv7."""
    return uuid7()
