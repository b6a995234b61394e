"""Queries of erasures, and of what is left to do for them."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, delete, select, update

from kit.access import visible
from kit.db import ReadSession, WriteSession, in_tenant
from kit.errors import existing, wrong_state
from kit.ids import SYSTEM_TENANT
from kit.models import now
from kit.pagination import Page
from services.identity.models import Erasure, ErasureTask, TenantListing

# Two processes that ask at once get two tasks, or one of them none.
CLAIM = """
UPDATE identity.erasure_tasks SET due_at = now() + $2, attempts = attempts + 1
WHERE tenant_id = $1 AND id = (
  SELECT id FROM identity.erasure_tasks WHERE tenant_id = $1 AND due_at <= now()
  ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
) RETURNING id, home_tenant_id, attempts
"""


async def get_erasure_row(session: ReadSession, erasure_id: UUID) -> Row[Any]:
    statement = select(*Erasure.__table__.columns).where(
        Erasure.tenant_id == session.tenant_id, Erasure.id == erasure_id
    )
    return existing((await session.execute(statement)).one_or_none(), "erasure")


async def find_erasure(session: WriteSession, erasure_id: UUID) -> Erasure | None:
    """The erasure, locked."""
    statement = select(Erasure).where(Erasure.tenant_id == session.tenant_id, Erasure.id == erasure_id)
    found: Erasure | None = await session.scalar(statement.with_for_update())
    return found


async def find_pending_erasure(session: WriteSession, subject_type: str, subject_id: UUID) -> Erasure | None:
    statement = select(Erasure).where(
        Erasure.tenant_id == session.tenant_id,
        Erasure.subject_type == subject_type,
        Erasure.subject_id == subject_id,
        Erasure.state == "pending",
    )
    found: Erasure | None = await session.scalar(statement)
    return found


async def check_not_erased(session: WriteSession, subject_type: str, subject_id: UUID) -> None:
    """Refuses to bring back what is being erased. Lock the user or the tenant first: its erasure does so too."""
    home = SYSTEM_TENANT if subject_type == "tenant" else session.tenant_id
    async with in_tenant(session, home):
        found = await find_pending_erasure(session, subject_type, subject_id)
    if found is not None:
        raise wrong_state(f"The {subject_type} is being erased.", "erasing")


async def list_erasures(session: ReadSession, page: Page, *, state: str) -> Sequence[Row[Any]]:
    statement = select(*Erasure.__table__.columns).where(
        Erasure.tenant_id == session.tenant_id, visible("list", Erasure)
    )
    if state:
        statement = statement.where(Erasure.state == state)
    return (await session.execute(page.apply(statement, Erasure.id))).all()


async def insert_erasure(session: WriteSession, erasure: Erasure, *, after: timedelta) -> None:
    """Stores the erasure and what is to be done for it, first after this time."""
    session.add(erasure)
    home = session.tenant_id
    async with in_tenant(session, SYSTEM_TENANT):
        session.add(ErasureTask(id=erasure.id, home_tenant_id=home, due_at=now() + after))


async def claim_task(session: WriteSession, lease: timedelta) -> Row[Any] | None:
    """The task that is due longest, for this process alone until the lease ends."""
    found: Row[Any] | None = await session.fetchrow(CLAIM, lease)
    return found


async def put_off(session: WriteSession, task_id: UUID, delay: timedelta, *, attempts: int) -> None:
    await session.execute(
        update(ErasureTask)
        .where(ErasureTask.tenant_id == session.tenant_id, ErasureTask.id == task_id)
        .values(due_at=now() + delay, attempts=attempts)
        .execution_options(synchronize_session=False)
    )


async def delete_task(session: WriteSession, task_id: UUID) -> None:
    async with in_tenant(session, SYSTEM_TENANT):
        await session.execute(
            delete(ErasureTask).where(ErasureTask.tenant_id == session.tenant_id, ErasureTask.id == task_id)
        )


async def forget_tenant(session: WriteSession, tenant_id: UUID) -> None:
    """Removes what the platform's own rows say of a tenant, but for its erasure."""
    async with in_tenant(session, SYSTEM_TENANT):
        await session.execute(
            delete(ErasureTask).where(
                ErasureTask.tenant_id == session.tenant_id, ErasureTask.home_tenant_id == tenant_id
            )
        )
        await session.execute(
            delete(TenantListing).where(TenantListing.tenant_id == session.tenant_id, TenantListing.id == tenant_id)
        )
