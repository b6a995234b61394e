"""The query of what a user may do."""

from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Row, Text, Uuid, func, select, union

from kit.db import ReadSession
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
from services.identity.queries.transactions import existing
from services.identity.queries.users import role_slugs


async def get_access(session: ReadSession, user_id: UUID) -> Row[Any]:
    """Everything that decides about the user's calls, in one statement."""
    tenant_id = session.tenant_id
    held = (UserRole.tenant_id == tenant_id, UserRole.user_id == user_id)
    permissions = union(
        select(func.concat(RolePermission.resource, ":", RolePermission.action))
        .join(UserRole, UserRole.role_id == RolePermission.role_id)
        .where(RolePermission.tenant_id == tenant_id, *held),
        select(func.concat(UserPermission.resource, ":", UserPermission.action)).where(
            UserPermission.tenant_id == tenant_id, UserPermission.user_id == user_id
        ),
    )
    ended = select(Session.id).where(
        Session.tenant_id == tenant_id,
        Session.user_id == user_id,
        Session.ended_at > now() - rules.REVOCATION_MEMORY,
    )
    tenant_status = select(Tenant.status).where(Tenant.tenant_id == tenant_id)
    statement = select(
        User.level,
        User.attributes,
        ((User.status == "active") & User.deleted_at.is_(None)).label("active"),
        tenant_status.scalar_subquery().label("tenant_status"),
        role_slugs(tenant_id),
        func.array(permissions.scalar_subquery(), type_=ARRAY(Text)).label("permissions"),
        func.array(ended.scalar_subquery(), type_=ARRAY(Uuid)).label("ended_sessions"),
        select(func.coalesce(func.max(access_revisions.c.revision), 0)).scalar_subquery().label("revision"),
    ).where(User.tenant_id == tenant_id, User.id == user_id)
    return existing((await session.execute(statement)).one_or_none(), "user")
