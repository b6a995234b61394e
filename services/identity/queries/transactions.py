"""What every resource's queries need: the tenant of a transaction, news of changed rights, rows that must exist."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import Row, insert

from kit.db import ReadSession, WriteSession
from kit.errors import NotFound
from services.identity.models import (
    access_revisions,
)


@asynccontextmanager
async def in_tenant(session: ReadSession, tenant_id: UUID) -> AsyncIterator[None]:
    """Continues the session's transaction in another tenant, and comes back.

    A tenant and its entry in the platform's list are rows of two tenants that must change together; so must a failed
    sign-in's count and its audit entry. One transaction that changes its tenant on the way does that without a state
    in between to repair; each statement is still bound to one tenant.
    """
    home = session.tenant_id
    await _move(session, tenant_id)
    yield
    await _move(session, home)


async def _move(session: ReadSession, tenant_id: UUID) -> None:
    if isinstance(session, WriteSession):
        await session.flush()
    await session.driver.execute(f"SET LOCAL app.tenant_id = '{tenant_id}'")
    session.tenant_id = tenant_id


async def change_access(session: WriteSession, user_id: UUID | None = None, *, session_id: UUID | None = None) -> None:
    """Makes what services know of the user (None: of every user of the tenant) out of date at the commit."""
    values = {"tenant_id": session.tenant_id, "user_id": user_id, "session_id": session_id}
    await session.execute(insert(access_revisions).values(**values))


def existing(row: Row[Any] | None, resource: str) -> Row[Any]:
    if row is None:
        raise NotFound(resource)
    return row
