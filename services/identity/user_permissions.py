"""UserPermissionService: permissions that single users have beside those of their roles."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from google.protobuf.empty_pb2 import Empty

from kit import audit
from kit.access import require
from kit.auth import current
from kit.db import Database
from kit.models import now
from kit.pagination import Page
from services.identity import grants, queries, rules
from services.identity.models import UserPermission
from storyloom.identity.v1 import roles_pb2, user_permissions_pb2

FIELD = "user_permission.permission"


class UserPermissionService:
    SERVICE = user_permissions_pb2.DESCRIPTOR.services_by_name["UserPermissionService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def CreateUserPermission(
        self, request: user_permissions_pb2.CreateUserPermissionRequest, context: Any
    ) -> user_permissions_pb2.UserPermission:
        sent = request.user_permission
        async with self.db.write() as session:
            user = await queries.get_user(session, UUID(sent.user_id))
            given = _of_proto(sent)
            require("create", given)
            pairs = grants.known([sent.permission], FIELD)
            rules.check_future("user_permission.expire_time", given.expires_at, now())
            await grants.check_grant(session, pairs)
            await queries.delete_expired_permissions(session, user.id)
            session.add(given)
            audit.write(session, "grant_permission", "user", user.id, new=_told(given), sensitive={"reason"})
            await queries.change_access(session, user.id)
            await session.flush()
            return user_permission_to_proto(given)

    async def GetUserPermission(
        self, request: user_permissions_pb2.GetUserPermissionRequest, context: Any
    ) -> user_permissions_pb2.UserPermission:
        async with self.db.read() as session:
            row = await queries.get_user_permission_row(session, UUID(request.id))
        require("read", row, resource="user_permission")
        return user_permission_to_proto(row)

    async def ListUserPermissions(
        self, request: user_permissions_pb2.ListUserPermissionsRequest, context: Any
    ) -> user_permissions_pb2.ListUserPermissionsResponse:
        page = Page.of(request)
        async with self.db.read() as session:
            user = await queries.get_user_row(session, UUID(request.user_id))
            rows = await queries.list_user_permissions(session, user.id, page)
        rows, token = page.split(rows, key=lambda row: (row.id,))
        return user_permissions_pb2.ListUserPermissionsResponse(
            user_permissions=[user_permission_to_proto(row) for row in rows], next_page_token=token
        )

    async def DeleteUserPermission(
        self, request: user_permissions_pb2.DeleteUserPermissionRequest, context: Any
    ) -> Empty:
        async with self.db.write() as session:
            await queries.get_tenant(session)
            taken = await queries.get_user_permission(session, UUID(request.id))
            require("delete", taken)
            await grants.check_grant(session, {(taken.resource, taken.action)})
            await session.delete(taken)
            told = _told(taken)
            audit.write(session, "revoke_permission", "user", taken.user_id, old=told, sensitive={"reason"})
            await queries.change_access(session, taken.user_id)
            rules.check_administrators(await queries.count_administrators(session))
        return Empty()


def _of_proto(sent: user_permissions_pb2.UserPermission) -> UserPermission:
    expires_at: datetime | None = sent.expire_time.ToDatetime(UTC) if sent.HasField("expire_time") else None
    return UserPermission(
        user_id=UUID(sent.user_id),
        resource=sent.permission.resource,
        action=sent.permission.action,
        reason=sent.reason,
        expires_at=expires_at,
        creator_id=current().subject,
    )


def _told(given: UserPermission) -> dict[str, Any]:
    """What the audit log says of it."""
    return {
        "permission": f"{given.resource}:{given.action}",
        "expire_time": given.expires_at,
        "reason": given.reason,
    }


def user_permission_to_proto(row: Any) -> user_permissions_pb2.UserPermission:
    message = user_permissions_pb2.UserPermission(
        id=str(row.id),
        user_id=str(row.user_id),
        permission=roles_pb2.Permission(resource=row.resource, action=row.action),
        reason=row.reason,
        creator_id=str(row.creator_id or ""),
    )
    if row.expires_at:
        message.expire_time.FromDatetime(row.expires_at)
    message.create_time.FromDatetime(row.created_at)
    return message
