"""Queries of the permissions that users have beside those of their roles."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, delete, or_, select, union

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import existing
from kit.models import now
from kit.pagination import Page
from services.identity.models import RolePermission, UserPermission, UserRole


def _alive() -> ColumnElement[bool]:
    return or_(UserPermission.expires_at.is_(None), UserPermission.expires_at > now())


async def get_user_permission(session: WriteSession, identity: UUID) -> UserPermission:
    """The permission, locked."""
    statement = select(UserPermission).where(
        UserPermission.tenant_id == session.tenant_id, UserPermission.id == identity, _alive()
    )
    found: UserPermission | None = await session.scalar(statement.with_for_update())
    return existing(found, "user_permission")


async def get_user_permission_row(session: ReadSession, identity: UUID) -> Row[Any]:
    statement = select(*UserPermission.__table__.columns).where(
        UserPermission.tenant_id == session.tenant_id, UserPermission.id == identity, _alive()
    )
    return existing((await session.execute(statement)).one_or_none(), "user_permission")


async def list_user_permissions(session: ReadSession, user_id: UUID, page: Page) -> Sequence[Row[Any]]:
    statement = select(*UserPermission.__table__.columns).where(
        UserPermission.tenant_id == session.tenant_id,
        UserPermission.user_id == user_id,
        _alive(),
        visible("list", UserPermission),
    )
    return (await session.execute(page.apply(statement, UserPermission.id))).all()


async def list_lasting_permissions(session: ReadSession, user_id: UUID) -> list[tuple[str, str]]:
    """What the user holds for good: by their roles, or directly without an end. Each as (resource, action)."""
    by_role = (
        select(RolePermission.resource, RolePermission.action)
        .join(
            UserRole, (UserRole.tenant_id == RolePermission.tenant_id) & (UserRole.role_id == RolePermission.role_id)
        )
        .where(
            RolePermission.tenant_id == session.tenant_id,
            UserRole.tenant_id == session.tenant_id,
            UserRole.user_id == user_id,
        )
    )
    directly = select(UserPermission.resource, UserPermission.action).where(
        UserPermission.tenant_id == session.tenant_id,
        UserPermission.user_id == user_id,
        UserPermission.expires_at.is_(None),
    )
    return [(row.resource, row.action) for row in await session.execute(union(by_role, directly))]


async def delete_expired_permissions(session: WriteSession, user_id: UUID) -> None:
    """Forgets what the user's time is over for, so that it can be given again."""
    await session.execute(
        delete(UserPermission).where(
            UserPermission.tenant_id == session.tenant_id,
            UserPermission.user_id == user_id,
            UserPermission.expires_at <= now(),
        )
    )
