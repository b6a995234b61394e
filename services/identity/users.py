"""UserService: the users of a tenant, and one's own account."""

import asyncio
from collections.abc import Iterable, Mapping
from contextvars import Context
from typing import Any
from uuid import UUID

from google.protobuf.empty_pb2 import Empty
from google.protobuf.json_format import MessageToDict

from kit import audit, fieldmask
from kit.access import denied, require
from kit.audit import Action
from kit.auth import current
from kit.db import Database, WriteSession, in_tenant
from kit.enums import stored_name
from kit.errors import Unauthenticated, wrong_state
from kit.ids import SYSTEM_TENANT
from kit.models import check_etag, now, set_times
from kit.pagination import Page
from services.identity import grants, queries, rules
from services.identity.models import User
from services.identity.passwords import Passwords
from services.identity.policies import OWN_FIELDS
from services.identity.throttling import Attempt, Throttle
from storyloom.identity.v1 import users_pb2
from storyloom.type.v1.errors_pb2 import ErrorReason

WRITABLE = ("email", "display_name", "locale", "level", "attributes")
# Services decide by these.
IN_SNAPSHOT = frozenset({"level", "attributes"})
CONVERT = {"attributes": MessageToDict}


class UserService:
    SERVICE = users_pb2.DESCRIPTOR.services_by_name["UserService"]

    def __init__(self, db: Database, passwords: Passwords, throttle: Throttle) -> None:
        self.db, self.passwords, self.throttle = db, passwords, throttle

    async def GetMe(self, request: users_pb2.GetMeRequest, context: Any) -> users_pb2.User:
        async with self.db.read(current().home_tenant_id) as session:
            return user_to_proto(await queries.get_user_row(session, current().subject))

    async def ChangePassword(self, request: users_pb2.ChangePasswordRequest, context: Any) -> Empty:
        caller = current()
        attempt = self.throttle.attempt("change_password", str(caller.subject))
        async with self.db.read(SYSTEM_TENANT) as session:
            await self.throttle.check(session, attempt)
            async with in_tenant(session, caller.home_tenant_id):
                old = await queries.get_password_hash(session, caller.subject)
        if not await self.passwords.verify(old, request.current_password):
            await self._refuse_password(attempt)
        new = await self.passwords.hash(request.new_password)
        async with self.db.write(caller.home_tenant_id) as session:
            if not await queries.replace_password(session, caller.subject, old=old, new=new):
                raise _wrong_password()
            ended = await queries.end_sessions(session, caller.subject, "password_change", but=caller.session_id)
            await revoke_invitations(session, caller.subject)
            audit.write(session, "change_password", "user", caller.subject, new={"ended_sessions": ended})
        return Empty()

    async def _refuse_password(self, attempt: Attempt) -> None:
        # Outside the call, whose transaction an idempotency key may hold open: the refusal that undoes it must not undo
        # the count as well.
        await asyncio.create_task(self._count_failure(attempt), context=Context())
        raise _wrong_password()

    async def _count_failure(self, attempt: Attempt) -> None:
        async with self.db.write(SYSTEM_TENANT) as session:
            await self.throttle.count_failure(session, attempt)

    async def GetUser(self, request: users_pb2.GetUserRequest, context: Any) -> users_pb2.User:
        async with self.db.read() as session:
            user = await queries.get_user_row(session, UUID(request.id))
        require("read", user, resource="user")
        return user_to_proto(user)

    async def ListUsers(self, request: users_pb2.ListUsersRequest, context: Any) -> users_pb2.ListUsersResponse:
        page = Page.of(request)
        if request.show_deleted and not holds("undelete"):
            raise denied("user", "undelete")
        async with self.db.read() as session:
            rows, token = await queries.list_users(
                session,
                page,
                role=request.role,
                query=request.query,
                status=stored_name(users_pb2.UserStatus, request.status),
                order=request.order_by,
                show_deleted=request.show_deleted,
            )
        return users_pb2.ListUsersResponse(users=[user_to_proto(row) for row in rows], next_page_token=token)

    async def CreateUser(self, request: users_pb2.CreateUserRequest, context: Any) -> users_pb2.User:
        password_hash = await self.passwords.hash(request.password) if request.password else None
        async with self.db.write() as session:
            return await _answer(session, await insert_user(session, request.user, password_hash))

    async def UpdateUser(self, request: users_pb2.UpdateUserRequest, context: Any) -> users_pb2.User:
        async with self.db.write() as session:
            user = await queries.get_user(session, UUID(request.user.id))
            require("update", user)
            check_etag(user, request.user.etag)
            written = fieldmask.changes(request.user, request.update_mask, WRITABLE).keys()
            if not written <= OWN_FIELDS and not holds("update"):
                raise denied("user", "update")
            if "email" in written:
                await _take_address(session, user)
            before = facts(user)
            fieldmask.apply(user, request.user, request.update_mask, WRITABLE, CONVERT)
            await grants.check_facts(session, changed(before, facts(user)))
            audit.record(session, Action.UPDATE, user)
            if written & IN_SNAPSHOT:
                await queries.change_access(session, user.id)
            return await _answer(session, user)

    async def DeleteUser(self, request: users_pb2.DeleteUserRequest, context: Any) -> users_pb2.User:
        async with self.db.write() as session:
            user = await _barred(session, "delete", request)
            user.deleted_at = now()
            audit.record(session, Action.DELETE, user)
            return await _bar(session, user)

    async def UndeleteUser(self, request: users_pb2.UndeleteUserRequest, context: Any) -> users_pb2.User:
        async with self.db.write() as session:
            await reserve_seat(session)
            user = await queries.get_user(session, UUID(request.id), also_deleted=True)
            require("undelete", user)
            await check_rights(session, user)
            await queries.check_not_erased(session, "user", user.id)
            check_etag(user, request.etag)
            if user.deleted_at is None:
                raise wrong_state("The user is not deleted.", user.status)
            user.deleted_at = None
            audit.record(session, Action.UNDELETE, user)
            await queries.change_access(session, user.id)
            return await _answer(session, user)

    async def DeactivateUser(self, request: users_pb2.DeactivateUserRequest, context: Any) -> users_pb2.User:
        async with self.db.write() as session:
            user = await _barred(session, "deactivate", request)
            user.status = rules.deactivated(user.status)
            audit.record(session, "deactivate", user)
            return await _bar(session, user)

    async def ReactivateUser(self, request: users_pb2.ReactivateUserRequest, context: Any) -> users_pb2.User:
        async with self.db.write() as session:
            user = await queries.get_user(session, UUID(request.id))
            require("reactivate", user)
            await check_rights(session, user)
            check_etag(user, request.etag)
            user.status = rules.reactivated(user.status, has_password=user.password_hash is not None)
            audit.record(session, "reactivate", user)
            await queries.change_access(session, user.id)
            return await _answer(session, user)

    async def SetUserRoles(self, request: users_pb2.SetUserRolesRequest, context: Any) -> users_pb2.User:
        ids = [UUID(one) for one in request.role_ids]
        async with self.db.write() as session:
            await queries.get_tenant(session)
            user = await queries.get_user(session, UUID(request.id))
            require("set_roles", user)
            check_etag(user, request.etag)
            roles = await queries.list_roles_by_id(session, ids)
            rules.check_roles_exist(ids, roles)
            await _give_roles(session, user, await queries.list_roles_of_user(session, user.id), roles)
            rules.check_administrators(await queries.count_administrators(session))
            return await _answer(session, user)


def holds(action: str) -> bool:
    """Whether the caller has the permission for all users."""
    snapshot = current().snapshot
    return snapshot is not None and snapshot.grants("user", action)


async def insert_user(session: WriteSession, sent: users_pb2.User, password_hash: str | None) -> User:
    """The user as sent, with their roles, once all of that is allowed; invited when there is no password."""
    user = User(
        email=sent.email,
        display_name=sent.display_name,
        locale=sent.locale,
        level=sent.level,
        attributes=MessageToDict(sent.attributes),
        status="active" if password_hash else "invited",
        password_hash=password_hash,
    )
    require("create", user)
    await reserve_seat(session)
    await grants.check_facts(session, changed({}, facts(user)))
    session.add(user)
    audit.record(session, Action.CREATE, user)
    await session.flush()
    if sent.roles:
        roles = await queries.list_roles_by_slug(session, sent.roles)
        rules.check_roles_exist(sent.roles, roles)
        await _give_roles(session, user, [], roles)
    return user


def facts(user: User) -> dict[str, Any]:
    """What policies may know of the user besides roles, by its path in conditions."""
    level = {"user.level": user.level} if user.level else {}
    return level | {f"user.attributes.{name}": value for name, value in user.attributes.items()}


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    """The paths at which the facts differ."""
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


async def reserve_seat(session: WriteSession) -> None:
    """Refuses one more user than the tenant's quota allows. Until the transaction ends nobody else takes a seat.

    It locks the tenant: call it before a user is locked.
    """
    if await queries.get_user_quota(session):
        await queries.get_tenant(session)
        rules.check_quota(await queries.count_users(session) + 1, await queries.get_user_quota(session))


async def revoke_invitations(session: WriteSession, user_id: UUID) -> None:
    """Makes tokens useless that were given to whoever the user, or their account's state, was before."""
    for one in await queries.revoke_invitations(session, user_id):
        audit.write(session, "revoke", "invitation", one, new={"user_id": user_id})


async def _give_roles(session: WriteSession, user: User, old: Iterable[Any], new: Iterable[Any]) -> None:
    """Replaces the user's roles, within what the caller may hand out."""
    before, after = {role.slug: role for role in old}, {role.slug: role for role in new}
    if not holds("set_roles"):
        raise denied("user", "set_roles")
    moved = [(before | after)[slug] for slug in before.keys() ^ after.keys()]
    await grants.check_grant(session, {rules.pair(one) for role in moved for one in role.permissions})
    await grants.check_facts(session, roles=[role.slug for role in moved])
    await queries.replace_roles(session, user.id, [role.id for role in after.values()])
    # The roles are rows of their own; this makes the user's etag change with them.
    user.updated_at = now()
    audit.write(session, "set_roles", "user", user.id, old={"roles": [*before]}, new={"roles": [*after]})
    await queries.change_access(session, user.id)


async def check_rights(session: WriteSession, user: User) -> None:
    """Whoever bars somebody, lets them in or takes their address decides about all that they may do."""
    access = await queries.get_access(session, user.id)
    await grants.check_grant(session, map(rules.pair, access.permissions))


async def _take_address(session: WriteSession, user: User) -> None:
    """The user is about to get another address: the one they have may be a stranger's."""
    if user.id != current().subject:
        await check_rights(session, user)
    await revoke_invitations(session, user.id)


async def _barred(session: WriteSession, action: str, request: Any) -> User:
    """The user who is to be barred from the tenant, once that is allowed."""
    await queries.get_tenant(session)
    user = await queries.get_user(session, UUID(request.id))
    require(action, user)
    rules.check_not_self(user.id, current().subject)
    await check_rights(session, user)
    check_etag(user, request.etag)
    return user


async def _bar(session: WriteSession, user: User) -> users_pb2.User:
    await queries.end_sessions(session, user.id, "barred")
    await revoke_invitations(session, user.id)
    await queries.change_access(session, user.id)
    rules.check_administrators(await queries.count_administrators(session))
    return await _answer(session, user)


async def _answer(session: WriteSession, user: User) -> users_pb2.User:
    await session.flush()
    return user_to_proto(await queries.get_user_row(session, user.id, also_deleted=True))


def _wrong_password() -> Unauthenticated:
    return Unauthenticated("The current password is wrong.", reason=ErrorReason.INVALID_CREDENTIALS)


def user_to_proto(row: Any) -> users_pb2.User:
    """Of a row of `queries.get_user_row`."""
    message = users_pb2.User(
        id=str(row.id),
        email=row.email,
        display_name=row.display_name,
        locale=row.locale,
        level=row.level,
        status=f"USER_STATUS_{row.status.upper()}",
        roles=row.roles,
        etag=str(row.revision),
    )
    message.attributes.update(row.attributes)
    set_times(message, row)
    return message
