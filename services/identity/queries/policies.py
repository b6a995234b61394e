"""Queries of policies, and of their versions."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Text, cast, func, insert, select

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import existing
from kit.ids import SYSTEM_TENANT
from kit.pagination import Page
from services.identity.models import ResourcePolicy, ResourcePolicyVersion, User, access_revisions
from services.identity.queries.access import change_access

IN_FORCE = ("id", "name", "resource", "actions", "conditions", "effect", "priority")


async def list_policies_in_force(session: ReadSession) -> Sequence[Row[Any]]:
    """The tenant's active policies; `conditions` are the document as it was written, parsed."""
    columns = (getattr(ResourcePolicy, name) for name in IN_FORCE)
    statement = select(*columns).where(
        ResourcePolicy.tenant_id == session.tenant_id,
        ResourcePolicy.state == "active",
        ResourcePolicy.deleted_at.is_(None),
    )
    return (await session.execute(statement)).all()


async def count_policies_in_force(session: WriteSession) -> int:
    """How many policies of the tenant are active. Lock the tenant first: `get_tenant`."""
    await session.flush()
    statement = select(func.count()).where(
        ResourcePolicy.tenant_id == session.tenant_id, ResourcePolicy.state == "active"
    )
    return int(await session.scalar(statement))


async def size_of_policies_in_force(session: WriteSession) -> int:
    """The bytes of the conditions of the tenant's active policies. Lock the tenant first: `get_tenant`."""
    await session.flush()
    size = func.sum(func.octet_length(cast(ResourcePolicy.conditions, Text)))
    statement = select(func.coalesce(size, 0)).where(
        ResourcePolicy.tenant_id == session.tenant_id, ResourcePolicy.state == "active"
    )
    return int(await session.scalar(statement))


async def change_policies(session: WriteSession) -> None:
    """Makes what services know of everybody whom the tenant's policies bind out of date at the commit."""
    if session.tenant_id == SYSTEM_TENANT:
        await session.execute(insert(access_revisions).values(tenant_id=None))
    else:
        await change_access(session)


async def get_policy(session: WriteSession, policy_id: UUID, *, also_deleted: bool = False) -> ResourcePolicy:
    """The policy, locked."""
    statement = select(ResourcePolicy).where(
        ResourcePolicy.tenant_id == session.tenant_id, ResourcePolicy.id == policy_id
    )
    policy: ResourcePolicy | None = await session.scalar(statement.with_for_update())
    return existing(policy, "resource_policy", also_deleted=also_deleted)


async def get_policy_row(session: ReadSession, policy_id: UUID) -> Row[Any]:
    statement = select(*ResourcePolicy.__table__.columns).where(
        ResourcePolicy.tenant_id == session.tenant_id,
        ResourcePolicy.id == policy_id,
        ResourcePolicy.deleted_at.is_(None),
    )
    return existing((await session.execute(statement)).one_or_none(), "resource_policy")


async def list_authors(session: ReadSession, policy_id: UUID) -> Sequence[UUID]:
    """Who wrote the versions of the policy, whoever wrote last first."""
    versions = ResourcePolicyVersion
    statement = (
        select(versions.author_id)
        .where(versions.tenant_id == session.tenant_id, versions.policy_id == policy_id)
        .group_by(versions.author_id)
        .order_by(func.max(versions.version).desc())
    )
    return (await session.execute(statement)).scalars().all()


async def list_policies(
    session: ReadSession, page: Page, *, resource: str, state: str, deleted: bool
) -> Sequence[Row[Any]]:
    at = ResourcePolicy.deleted_at
    statement = select(*ResourcePolicy.__table__.columns).where(
        ResourcePolicy.tenant_id == session.tenant_id,
        at.is_not(None) if deleted else at.is_(None),
        visible("list", ResourcePolicy),
    )
    if resource:
        statement = statement.where(ResourcePolicy.resource == resource)
    if state:
        statement = statement.where(ResourcePolicy.state == state)
    return (await session.execute(page.apply(statement, ResourcePolicy.id))).all()


async def get_version(session: WriteSession, policy_id: UUID, version: int) -> Row[Any]:
    statement = select(*ResourcePolicyVersion.__table__.columns).where(
        ResourcePolicyVersion.tenant_id == session.tenant_id,
        ResourcePolicyVersion.policy_id == policy_id,
        ResourcePolicyVersion.version == version,
    )
    return existing((await session.execute(statement)).one_or_none(), "resource_policy_version")


async def list_versions(session: ReadSession, policy_id: UUID, page: Page) -> Sequence[Row[Any]]:
    statement = select(*ResourcePolicyVersion.__table__.columns).where(
        ResourcePolicyVersion.tenant_id == session.tenant_id, ResourcePolicyVersion.policy_id == policy_id
    )
    return (await session.execute(page.apply(statement, ResourcePolicyVersion.version))).all()


async def list_active_users(session: ReadSession, ids: Sequence[UUID], most: int) -> list[UUID]:
    """Ids of the newest users who may use the platform, of these if there are any."""
    statement = select(User.id).where(
        User.tenant_id == session.tenant_id, User.status == "active", User.deleted_at.is_(None)
    )
    if ids:
        statement = statement.where(User.id.in_(ids))
    return list((await session.execute(statement.order_by(User.id.desc()).limit(most))).scalars())
