"""What every resource's queries need: news of changed rights, rows that must exist."""

from typing import Any
from uuid import UUID

from sqlalchemy import Row, insert

from kit.db import WriteSession
from kit.errors import NotFound
from services.identity.models import access_revisions


async def change_access(session: WriteSession, user_id: UUID | None = None, *, session_id: UUID | None = None) -> None:
    """Makes what services know of the user (None: of every user of the tenant) out of date at the commit."""
    values = {"tenant_id": session.tenant_id, "user_id": user_id, "session_id": session_id}
    await session.execute(insert(access_revisions).values(**values))


def existing(row: Row[Any] | None, resource: str) -> Row[Any]:
    if row is None:
        raise NotFound(resource)
    return row
