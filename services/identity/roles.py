"""RoleService: the roles of a tenant and the permission catalogue."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from google.protobuf.empty_pb2 import Empty

from kit import audit, fieldmask
from kit.access import require
from kit.audit import Action
from kit.db import Database, WriteSession
from kit.errors import wrong_state
from kit.models import check_etag, now
from kit.pagination import Page
from services.identity import grants, queries, rules
from services.identity.catalogue import Permission, catalogue
from services.identity.models import Role
from storyloom.identity.v1 import roles_pb2

WRITABLE = ("name", "description", "permissions")
TOLD = ("slug", "name", "description", "permissions")
FIELD = "role.permissions[{}]"


class RoleService:
    SERVICE = roles_pb2.DESCRIPTOR.services_by_name["RoleService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def CreateRole(self, request: roles_pb2.CreateRoleRequest, context: Any) -> roles_pb2.Role:
        sent = request.role
        role = Role(slug=sent.slug, name=sent.name, description=sent.description)
        require("create", role)
        permissions = set(grants.known(sent.permissions, FIELD))
        async with self.db.write() as session:
            await grants.check_grant(session, permissions)
            session.add(role)
            await queries.replace_permissions(session, role.id, permissions)
            return await _answer(session, role, Action.CREATE, None)

    async def GetRole(self, request: roles_pb2.GetRoleRequest, context: Any) -> roles_pb2.Role:
        async with self.db.read() as session:
            role = await queries.get_role_row(session, UUID(request.id))
        require("read", role, resource="role")
        return role_to_proto(role)

    async def ListRoles(self, request: roles_pb2.ListRolesRequest, context: Any) -> roles_pb2.ListRolesResponse:
        page = Page.of(request)
        async with self.db.read() as session:
            rows, token = page.split(await queries.list_roles(session, page), key=lambda row: (row.id,))
        return roles_pb2.ListRolesResponse(roles=[role_to_proto(row) for row in rows], next_page_token=token)

    async def UpdateRole(self, request: roles_pb2.UpdateRoleRequest, context: Any) -> roles_pb2.Role:
        written = fieldmask.changes(request.role, request.update_mask, WRITABLE)
        async with self.db.write() as session:
            role, before = await _changeable(session, "update", request.role)
            if "permissions" in written:
                permissions = set(grants.known(written.pop("permissions"), FIELD))
                await grants.check_grant(session, permissions ^ {rules.pair(one) for one in before.permissions})
                await queries.replace_permissions(session, role.id, permissions)
                await queries.change_access(session)
            for name, value in written.items():
                setattr(role, name, value)
            # The permissions are rows of their own; this makes the role's etag change with them.
            role.updated_at = now()
            rules.check_administrators(await queries.count_administrators(session))
            return await _answer(session, role, Action.UPDATE, before)

    async def DeleteRole(self, request: roles_pb2.DeleteRoleRequest, context: Any) -> Empty:
        async with self.db.write() as session:
            role, before = await _changeable(session, "delete", request)
            if holders := await queries.count_holders(session, role.id):
                raise wrong_state("Users have the role: take it from them first.", "in_use", holders=str(holders))
            await session.delete(role)
            audit.write(session, Action.DELETE, "role", role.id, old=_told(before))
        return Empty()

    async def ListPermissions(
        self, request: roles_pb2.ListPermissionsRequest, context: Any
    ) -> roles_pb2.ListPermissionsResponse:
        # The catalogue is nobody's row.
        require("list", None, resource="role")
        return roles_pb2.ListPermissionsResponse(permissions=permissions_to_proto(catalogue()))


async def _changeable(session: WriteSession, action: str, request: Any) -> tuple[Role, Any]:
    """The role that is to be changed, once that is allowed, and as it was before."""
    await queries.get_tenant(session)
    role = await queries.get_role(session, UUID(request.id))
    require(action, role)
    check_etag(role, request.etag)
    if role.system:
        raise wrong_state("The platform's own roles do not change.", "system")
    return role, await queries.get_role_row(session, role.id)


async def _answer(session: WriteSession, role: Role, action: str, before: Any) -> roles_pb2.Role:
    """Records the change, whose permissions are rows that change tracking does not see, and answers with the role."""
    await session.flush()
    after = await queries.get_role_row(session, role.id)
    new = _told(after)
    old = None if before is None else {name: value for name, value in _told(before).items() if new[name] != value}
    changed = new if old is None else {name: new[name] for name in old}
    audit.write(session, action, "role", role.id, old=old, new=changed)
    return role_to_proto(after)


def _told(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in TOLD}


def permissions_to_proto(permissions: Iterable[Permission]) -> list[roles_pb2.Permission]:
    """In order of resource, then action."""
    return [roles_pb2.Permission(resource=resource, action=action) for resource, action in sorted(permissions)]


def role_to_proto(row: Any) -> roles_pb2.Role:
    """Of a row of `queries.get_role_row`."""
    message = roles_pb2.Role(
        id=str(row.id),
        slug=row.slug,
        name=row.name,
        description=row.description,
        permissions=permissions_to_proto(rules.pair(one) for one in row.permissions),
        system=row.system,
        etag=str(row.revision),
        user_count=row.user_count,
    )
    message.create_time.FromDatetime(row.created_at)
    message.update_time.FromDatetime(row.updated_at)
    return message
