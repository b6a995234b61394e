"""What a user may do, and that it is not what it was."""

from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, DateTime, Row, Text, Uuid, bindparam, func, insert, or_, select, union

from kit.db import ReadSession, WriteSession
from kit.errors import existing
from kit.models import now
from services.identity import rules
from services.identity.models import (
    RolePermission,
    Session,
    Tenant,
    User,
    UserPermission,
    UserRole,
    access_revisions,
)
from services.identity.queries.users import role_slugs

TENANT, USER = bindparam("tenant_id", type_=Uuid), bindparam("user_id", type_=Uuid)
SINCE, NOW = (bindparam(name, type_=DateTime(timezone=True)) for name in ("since", "now"))
_DIRECT = UserPermission.tenant_id == TENANT, UserPermission.user_id == USER
_PERMISSIONS = union(
    select(func.concat(RolePermission.resource, ":", RolePermission.action))
    .join(UserRole, UserRole.role_id == RolePermission.role_id)
    .where(RolePermission.tenant_id == TENANT, UserRole.tenant_id == TENANT, UserRole.user_id == USER),
    select(func.concat(UserPermission.resource, ":", UserPermission.action)).where(
        *_DIRECT, or_(UserPermission.expires_at.is_(None), UserPermission.expires_at > NOW)
    ),
)
_EXPIRY = select(func.min(UserPermission.expires_at)).where(*_DIRECT, UserPermission.expires_at > NOW)
_ENDED = select(Session.id).where(Session.tenant_id == TENANT, Session.user_id == USER, Session.ended_at > SINCE)
# Built once: services ask for it after every change, and building it takes longer than answering it.
ACCESS = select(
    User.level,
    User.attributes,
    ((User.status == "active") & User.deleted_at.is_(None)).label("active"),
    select(Tenant.status).where(Tenant.tenant_id == TENANT).scalar_subquery().label("tenant_status"),
    role_slugs(TENANT),
    func.array(_PERMISSIONS.scalar_subquery(), type_=ARRAY(Text)).label("permissions"),
    func.array(_ENDED.scalar_subquery(), type_=ARRAY(Uuid)).label("ended_sessions"),
    _EXPIRY.scalar_subquery().label("expires_at"),
    select(func.coalesce(func.max(access_revisions.c.revision), 0)).scalar_subquery().label("revision"),
).where(User.tenant_id == TENANT, User.id == USER)


async def get_access(session: ReadSession, user_id: UUID) -> Row[Any]:
    """Everything that decides about the user's calls, in one statement."""
    at = {"now": now(), "since": now() - rules.REVOCATION_MEMORY}
    found = await session.execute(ACCESS, {"tenant_id": session.tenant_id, "user_id": user_id, **at})
    return existing(found.one_or_none(), "user")


async def change_access(session: WriteSession, user_id: UUID | None = None, *, session_id: UUID | None = None) -> None:
    """Makes what services know of the user (None: of every user of the tenant) out of date at the commit."""
    values = {"tenant_id": session.tenant_id, "user_id": user_id, "session_id": session_id}
    await session.execute(insert(access_revisions).values(**values))
