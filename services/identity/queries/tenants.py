"""Queries of tenants and of the platform's list of them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, or_, select
from sqlalchemy.dialects import postgresql

from kit.db import ReadSession, WriteSession, in_tenant
from kit.errors import existing
from kit.ids import SYSTEM_TENANT
from kit.pagination import Page
from services.identity.models import Tenant, TenantListing

LISTED = ("slug", "name", "status", "settings", "revision", "created_at", "updated_at")


async def get_tenant(session: WriteSession) -> Tenant:
    """The session's own tenant, locked: it also stands for its administration, see `count_administrators`."""
    statement = select(Tenant).where(Tenant.tenant_id == session.tenant_id).with_for_update(key_share=True)
    tenant: Tenant | None = await session.scalar(statement)
    return existing(tenant, "tenant")


async def get_tenant_row(session: ReadSession) -> Row[Any]:
    statement = select(*Tenant.__table__.columns).where(Tenant.tenant_id == session.tenant_id)
    return existing((await session.execute(statement)).one_or_none(), "tenant")


async def get_user_quota(session: ReadSession) -> int:
    """How many users the tenant may have; 0 is any number."""
    quota = Tenant.settings["quotas"]["users"].as_integer()
    return int(await session.scalar(select(quota).where(Tenant.tenant_id == session.tenant_id)) or 0)


async def get_listing(session: ReadSession, tenant_id: UUID) -> Row[Any]:
    statement = select(*TenantListing.__table__.columns).where(
        TenantListing.tenant_id == session.tenant_id, TenantListing.id == tenant_id
    )
    return existing((await session.execute(statement)).one_or_none(), "tenant")


async def list_listings(
    session: ReadSession, page: Page, *, query: str, status: str, only: UUID | None
) -> Sequence[Row[Any]]:
    statement = select(*TenantListing.__table__.columns).where(TenantListing.tenant_id == session.tenant_id)
    if only is not None:
        statement = statement.where(TenantListing.id == only)
    if query:
        start = query.lower()
        statement = statement.where(
            or_(*(func.starts_with(func.lower(one), start) for one in (TenantListing.slug, TenantListing.name)))
        )
    if status:
        statement = statement.where(TenantListing.status == status)
    return (await session.execute(page.apply(statement, TenantListing.id))).all()


async def write_listing(session: WriteSession, tenant: Tenant) -> None:
    """Brings the platform's list up to date with the tenant, in the same transaction."""
    await session.flush()
    values = {name: getattr(tenant, name) for name in LISTED}
    async with in_tenant(session, SYSTEM_TENANT):
        await session.execute(
            postgresql.insert(TenantListing)
            .values(tenant_id=SYSTEM_TENANT, id=tenant.id, **values)
            .on_conflict_do_update(index_elements=["tenant_id", "id"], set_=values)
        )
