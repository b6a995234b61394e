"""Queries of roles, their permissions and their holders."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Row, Select, Text, delete, func, select

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import existing
from kit.pagination import Page
from services.identity.models import (
    Role,
    RolePermission,
    UserRole,
)
from services.identity.policies import DefaultRole


def _permissions_of_role(tenant_id: UUID) -> Any:
    permissions = (
        select(func.concat(RolePermission.resource, ":", RolePermission.action))
        .where(RolePermission.tenant_id == tenant_id, RolePermission.role_id == Role.id)
        .order_by(RolePermission.resource, RolePermission.action)
    )
    return func.array(permissions.scalar_subquery(), type_=ARRAY(Text)).label("permissions")


def _roles(tenant_id: UUID) -> Select[Any]:
    """Roles with their permissions, each as `resource:action`, and the number of users who have them."""
    holders = select(func.count()).where(UserRole.tenant_id == tenant_id, UserRole.role_id == Role.id)
    columns = *Role.__table__.columns, _permissions_of_role(tenant_id), holders.scalar_subquery().label("user_count")
    return select(*columns).where(Role.tenant_id == tenant_id)


async def get_role_row(session: ReadSession, role_id: UUID) -> Row[Any]:
    statement = _roles(session.tenant_id).where(Role.id == role_id)
    return existing((await session.execute(statement)).one_or_none(), "role")


async def get_role(session: WriteSession, role_id: UUID) -> Role:
    statement = select(Role).where(Role.tenant_id == session.tenant_id, Role.id == role_id).with_for_update()
    role: Role | None = await session.scalar(statement)
    return existing(role, "role")


async def list_roles(session: ReadSession, page: Page) -> Sequence[Row[Any]]:
    statement = _roles(session.tenant_id).where(visible("list", Role))
    return (await session.execute(page.apply(statement, Role.id))).all()


async def list_roles_by_id(session: ReadSession, ids: Iterable[UUID]) -> Sequence[Row[Any]]:
    return (await session.execute(_roles(session.tenant_id).where(Role.id.in_(ids)).order_by(Role.slug))).all()


async def list_roles_by_slug(session: ReadSession, slugs: Iterable[str]) -> Sequence[Row[Any]]:
    return (await session.execute(_roles(session.tenant_id).where(Role.slug.in_(slugs)).order_by(Role.slug))).all()


async def list_roles_of_user(session: ReadSession, user_id: UUID) -> Sequence[Row[Any]]:
    held = select(UserRole.role_id).where(UserRole.tenant_id == session.tenant_id, UserRole.user_id == user_id)
    return (await session.execute(_roles(session.tenant_id).where(Role.id.in_(held)).order_by(Role.slug))).all()


async def count_holders(session: ReadSession, role_id: UUID) -> int:
    statement = select(func.count()).where(UserRole.tenant_id == session.tenant_id, UserRole.role_id == role_id)
    return int(await session.scalar(statement))


async def replace_roles(session: WriteSession, user_id: UUID, role_ids: Iterable[UUID]) -> None:
    await session.flush()
    await session.execute(delete(UserRole).where(UserRole.tenant_id == session.tenant_id, UserRole.user_id == user_id))
    for role_id in role_ids:
        session.add(UserRole(user_id=user_id, role_id=role_id))


async def replace_permissions(session: WriteSession, role_id: UUID, permissions: Iterable[tuple[str, str]]) -> None:
    await session.flush()
    await session.execute(
        delete(RolePermission).where(RolePermission.tenant_id == session.tenant_id, RolePermission.role_id == role_id)
    )
    for resource, action in sorted(permissions):
        session.add(RolePermission(role_id=role_id, resource=resource, action=action))


async def insert_default_role(session: WriteSession, slug: str, default: DefaultRole, *, system: bool = False) -> Role:
    role = Role(slug=slug, name=default.name, description=default.description, system=system)
    session.add(role)
    await replace_permissions(session, role.id, default.pairs)
    return role
