"""Queries of users."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Row, Select, Text, exists, func, or_, select, update

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import existing
from kit.pagination import Page
from services.identity.models import (
    Role,
    RolePermission,
    User,
    UserPermission,
    UserRole,
)


def role_slugs(tenant_id: Any) -> Any:
    slugs = (
        select(Role.slug)
        .join(UserRole, (UserRole.tenant_id == Role.tenant_id) & (UserRole.role_id == Role.id))
        .where(Role.tenant_id == tenant_id, UserRole.tenant_id == tenant_id, UserRole.user_id == User.id)
        .order_by(Role.slug)
    )
    return func.array(slugs.scalar_subquery(), type_=ARRAY(Text)).label("roles")


def users_of(tenant_id: Any) -> Select[Any]:
    """Users with the slugs of their roles; deleted ones as well."""
    shown = (column for column in User.__table__.columns if column.key != "password_hash")
    return select(*shown, role_slugs(tenant_id)).where(User.tenant_id == tenant_id)


async def get_password_hash(session: ReadSession, user_id: UUID) -> str | None:
    statement = select(User.password_hash).where(User.tenant_id == session.tenant_id, User.id == user_id)
    found: str | None = existing((await session.execute(statement)).one_or_none(), "user").password_hash
    return found


async def get_user_row(session: ReadSession, user_id: UUID, *, also_deleted: bool = False) -> Row[Any]:
    """The user with their roles."""
    statement = users_of(session.tenant_id).where(User.id == user_id)
    return existing((await session.execute(statement)).one_or_none(), "user", also_deleted=also_deleted)


async def get_user(session: WriteSession, user_id: UUID, *, also_deleted: bool = False) -> User:
    """The user, locked."""
    statement = select(User).where(User.tenant_id == session.tenant_id, User.id == user_id).with_for_update()
    user: User | None = await session.scalar(statement)
    return existing(user, "user", also_deleted=also_deleted)


ORDERS = {
    "": (User.id, True),
    "create_time": (User.id, False),
    "create_time desc": (User.id, True),
    "display_name": (User.display_name, False),
    "display_name desc": (User.display_name, True),
    "email": (func.lower(User.email), False),
    "email desc": (func.lower(User.email), True),
}


async def list_users(
    session: ReadSession, page: Page, *, role: str, query: str, status: str, order: str, show_deleted: bool
) -> tuple[Sequence[Row[Any]], str]:
    """A page of users with the slugs of their roles, and the token of the next."""
    key, descending = ORDERS[order]
    keys = (key,) if key is User.id else (key, User.id)
    statement = users_of(session.tenant_id).where(visible("list", User))
    if not show_deleted:
        statement = statement.where(User.deleted_at.is_(None))
    if role:
        statement = statement.where(_has_role(session.tenant_id, role))
    if query:
        start = query.lower()
        names = (User.email, User.display_name)
        statement = statement.where(or_(*(func.starts_with(func.lower(one), start) for one in names)))
    if status:
        statement = statement.where(User.status == status)
    statement = statement.add_columns(*(one.label(f"key_{n}") for n, one in enumerate(keys)))
    rows = (await session.execute(page.apply(statement, *keys, descending=descending))).all()
    return page.split(rows, key=lambda row: tuple(getattr(row, f"key_{n}") for n in range(len(keys))))


def _has_role(tenant_id: UUID, slug: str) -> Any:
    return exists().where(
        UserRole.tenant_id == tenant_id,
        UserRole.user_id == User.id,
        Role.tenant_id == tenant_id,
        Role.id == UserRole.role_id,
        Role.slug == slug,
    )


async def list_names(session: ReadSession, ids: Iterable[UUID]) -> dict[UUID, str]:
    """Display names by id of the users that exist."""
    statement = select(User.id, User.display_name).where(
        User.tenant_id == session.tenant_id, User.id.in_(ids), User.deleted_at.is_(None)
    )
    return {row.id: row.display_name for row in await session.execute(statement)}


async def count_users(session: WriteSession) -> int:
    """How many users of the tenant are not deleted. Before a comparison with a quota, lock the tenant: `get_tenant`."""
    await session.flush()
    statement = select(func.count()).where(User.tenant_id == session.tenant_id, User.deleted_at.is_(None))
    return int(await session.scalar(statement))


async def replace_password(session: WriteSession, user_id: UUID, *, old: str | None, new: str) -> bool:
    """Stores another hash of the user's password; False when it was changed meanwhile. The user's etag stays."""
    found = await session.execute(
        update(User)
        .where(User.tenant_id == session.tenant_id, User.id == user_id, User.password_hash == old)
        .values(password_hash=new, updated_at=User.updated_at)
        .returning(User.id)
        .execution_options(synchronize_session=False)
    )
    return found.scalar_one_or_none() is not None


async def count_administrators(session: WriteSession) -> int:
    """How many users may do everything in the tenant, and not for a time only.

    Two changes at once could each leave the other's administrator as the last: lock the tenant with `get_tenant` before
    the change.
    """
    await session.flush()
    everything = {"resource": "all", "action": "manage"}
    by_role = (
        select(UserRole.user_id)
        .join(
            RolePermission,
            (RolePermission.tenant_id == UserRole.tenant_id) & (RolePermission.role_id == UserRole.role_id),
        )
        .where(UserRole.tenant_id == session.tenant_id, RolePermission.tenant_id == session.tenant_id)
        .filter_by(**everything)
    )
    directly = select(UserPermission.user_id).where(
        UserPermission.tenant_id == session.tenant_id, UserPermission.expires_at.is_(None)
    )
    statement = select(func.count()).where(
        User.tenant_id == session.tenant_id,
        User.status == "active",
        User.deleted_at.is_(None),
        or_(User.id.in_(by_role), User.id.in_(directly.filter_by(**everything))),
    )
    return int(await session.scalar(statement))
