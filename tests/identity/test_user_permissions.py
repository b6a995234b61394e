"""Permissions that single users have beside those of their roles."""

import asyncio
import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from kit.access import Policy, Snapshot, SnapshotCache
from kit.errors import Unavailable
from storyloom.audit.v1 import audit_logs_pb2
from storyloom.audit.v1.audit_logs_pb2_grpc import AuditLogServiceStub
from storyloom.identity.v1 import access_pb2, roles_pb2, user_permissions_pb2, users_pb2
from storyloom.identity.v1.access_pb2_grpc import AccessServiceStub
from storyloom.identity.v1.roles_pb2_grpc import RoleServiceStub
from storyloom.identity.v1.user_permissions_pb2_grpc import UserPermissionServiceStub
from storyloom.identity.v1.users_pb2_grpc import UserServiceStub
from tests.identity.waiting import soon_allowed, soon_refused
from tests.stack import refused


async def no_policies(tenant_id: UUID) -> tuple[Policy, ...]:
    return ()


def permissions_of(person):
    return person.stub(UserPermissionServiceStub, "identity")


def give(person, user_id, permission, *, reason="", until=None):
    resource, _, action = permission.partition(":")
    given = user_permissions_pb2.UserPermission(
        user_id=user_id, permission=roles_pb2.Permission(resource=resource, action=action), reason=reason
    )
    if until is not None:
        given.expire_time.FromDatetime(until)
    request = user_permissions_pb2.CreateUserPermissionRequest(user_permission=given)
    return permissions_of(person).CreateUserPermission(request)


def take(person, given):
    request = user_permissions_pb2.DeleteUserPermissionRequest(id=given.id)
    return permissions_of(person).DeleteUserPermission(request)


async def listed(person, user_id, **paging):
    request = user_permissions_pb2.ListUserPermissionsRequest(user_id=user_id, **paging)
    response = await permissions_of(person).ListUserPermissions(request)
    return [f"{one.permission.resource}:{one.permission.action}" for one in response.user_permissions]


async def give_role(own, slug, *permissions):
    pairs = [one.split(":") for one in permissions]
    role = roles_pb2.Role(
        slug=slug, name=slug, permissions=[roles_pb2.Permission(resource=one, action=two) for one, two in pairs]
    )
    await own.admin.stub(RoleServiceStub, "identity").CreateRole(roles_pb2.CreateRoleRequest(role=role))
    return await own.person(slug)


def read_log(person):
    return person.stub(AuditLogServiceStub, "audit").ListAuditLogs(audit_logs_pb2.ListAuditLogsRequest())


def seconds(number):
    return datetime.now(UTC) + timedelta(seconds=number)


class TestCreateUserPermission:
    async def test_is_in_force_within_two_seconds_until_taken_away(self, shared):
        person = await shared.person("student")
        async with refused("PERMISSION_REQUIRED"):
            await read_log(person)
        given = await give(shared.admin, person.user_id, "audit_log:list", reason="Stands in for the auditor")
        await soon_allowed(lambda: read_log(person))
        assert (given.creator_id, given.reason) == (shared.admin.user_id, "Stands in for the auditor")
        request = user_permissions_pb2.GetUserPermissionRequest(id=given.id)
        assert await permissions_of(shared.admin).GetUserPermission(request) == given
        mine = await person.stub(AccessServiceStub, "identity").ListMyPermissions(access_pb2.ListMyPermissionsRequest())
        assert roles_pb2.Permission(resource="audit_log", action="list") in mine.permissions
        await take(shared.admin, given)
        await soon_refused("PERMISSION_REQUIRED", lambda: read_log(person))

    async def test_refuses_what_is_not_in_the_catalogue(self, shared):
        user = await shared.user("student")
        async with refused("INVALID_FIELD", field="user_permission.permission"):
            await give(shared.admin, user.id, "dragon:ride")

    async def test_refuses_an_end_that_has_come(self, shared):
        user = await shared.user("student")
        async with refused("INVALID_FIELD", field="user_permission.expire_time"):
            await give(shared.admin, user.id, "story:read", until=seconds(-1))

    async def test_refuses_a_second_time(self, shared):
        user = await shared.user("student")
        calls = [give(shared.admin, user.id, "story:read") for _ in range(4)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(one, user_permissions_pb2.UserPermission) for one in results) == 1
        async with refused("RESOURCE_ALREADY_EXISTS"):
            await give(shared.admin, user.id, "story:read")

    async def test_nobody_gives_or_takes_more_than_they_have(self, own):
        clerk = await give_role(own, "giver", "user_permission:manage", "story:manage")
        user = await own.user("student")
        await give(clerk, user.id, "story:read")
        for more in ("user:read", "all:read", "all:manage"):
            async with refused("PERMISSION_REQUIRED") as refusal:
                await give(clerk, user.id, more)
            assert refusal.metadata["permission"] == more
        given = await give(own.admin, user.id, "user:read")
        async with refused("PERMISSION_REQUIRED"):
            await take(clerk, given)

    async def test_what_one_holds_for_a_time_cannot_be_handed_on(self, own):
        clerk = await give_role(own, "lender", "user_permission:manage", "role:create", "user:create", "user:set_roles")
        user = await own.user("student")
        await give(own.admin, clerk.user_id, "audit_log:list", until=seconds(600))
        await soon_allowed(lambda: read_log(clerk))
        for target in (user.id, clerk.user_id):
            async with refused("PERMISSION_REQUIRED"):
                await give(clerk, target, "audit_log:list")
        async with refused("PERMISSION_REQUIRED"):
            role = roles_pb2.Role(slug="log", name="Log", permissions=[{"resource": "audit_log", "action": "list"}])
            await clerk.stub(RoleServiceStub, "identity").CreateRole(roles_pb2.CreateRoleRequest(role=role))
        # What they hold for good they still hand on.
        await give(clerk, user.id, "role:create")

    async def test_a_foreign_user_and_no_user_look_the_same(self, school):
        answers = []
        for identity in (school.outsider.user_id, str(uuid4())):
            async with refused("RESOURCE_NOT_FOUND") as refusal:
                await give(school.admin, identity, "story:read")
            answers.append(refusal.status.SerializeToString())
        assert answers[0] == answers[1]

    async def test_a_teacher_may_not(self, school):
        async with refused("PERMISSION_REQUIRED"):
            await give(school.teacher, school.student.user_id, "story:read")

    async def test_is_audited_with_what_was_given_and_taken(self, shared, school, database):
        user = await shared.user("student")
        given = await give(shared.admin, user.id, "story:read", reason="a private reason", until=seconds(600))
        await take(shared.admin, given)
        await school.settle()
        rows = await database.fetch(
            "SELECT action, convert_from(leaf, 'UTF8') AS leaf FROM audit.audit_logs WHERE entity_id = $1 ORDER BY id",
            UUID(user.id),
        )
        assert [row["action"] for row in rows] == ["create", "set_roles", "grant_permission", "revoke_permission"]
        new, old = json.loads(rows[2]["leaf"])["new_values"], json.loads(rows[3]["leaf"])["old_values"]
        # The reason may tell of the user's life.
        assert new.pop("reason")["sealed"]["subject"] == old.pop("reason")["sealed"]["subject"] == user.id
        assert new == old
        assert (new["permission"], "private" in str(rows)) == ("story:read", False)


class TestExpireTime:
    async def test_ends_the_permission_on_every_service_at_its_time(self, shared):
        person = await shared.person("student")
        until = seconds(2)
        given = await give(shared.admin, person.user_id, "audit_log:list", until=until)
        users = person.stub(UserServiceStub, "identity")
        await give(shared.admin, person.user_id, "user:list", until=until)
        await soon_allowed(lambda: read_log(person))
        await soon_allowed(lambda: users.ListUsers(users_pb2.ListUsersRequest()))
        # Nobody calls while it ends: it is not a change that anybody makes.
        await asyncio.sleep(max(0.0, until.timestamp() - time.time()) + 0.05)
        async with refused("PERMISSION_REQUIRED"):
            await read_log(person)
        async with refused("PERMISSION_REQUIRED"):
            await users.ListUsers(users_pb2.ListUsersRequest())
        async with refused("RESOURCE_NOT_FOUND"):
            request = user_permissions_pb2.GetUserPermissionRequest(id=given.id)
            await permissions_of(shared.admin).GetUserPermission(request)
        assert await listed(shared.admin, person.user_id) == []

    async def test_is_not_outlived_by_what_a_service_remembers_while_identity_is_down(self):
        tenant, user = uuid4(), uuid4()
        lasting = Snapshot(tenant_id=tenant, user_id=user, roles=frozenset(), permissions=frozenset())
        answers = iter([replace(lasting, expires=time.time() + 0.1), lasting])

        async def identity(*_):
            if (found := next(answers, None)) is None:
                raise Unavailable("identity is down")
            return found

        cache = SnapshotCache(identity, lambda: None, no_policies, max_stale=60)
        assert (await cache.get(tenant, user)).expires < time.time() + 0.1
        await asyncio.sleep(0.11)
        assert await cache.get(tenant, user) == lasting
        # What ends by itself at no time serves on.
        assert await cache.get(tenant, user) == lasting

        answers = iter([replace(lasting, expires=time.time() + 0.1)])
        cache = SnapshotCache(identity, lambda: None, no_policies, max_stale=60)
        await cache.get(tenant, user)
        await cache.get(tenant, user)
        await asyncio.sleep(0.11)
        with pytest.raises(Unavailable):
            await cache.get(tenant, user)

    async def test_once_over_it_can_be_given_again(self, shared, database):
        user = await shared.user("student")
        first = await give(shared.admin, user.id, "story:read", until=seconds(600))
        await database.execute(
            "UPDATE identity.user_permissions SET expires_at = now() WHERE id = $1", UUID(first.id)
        )
        second = await give(shared.admin, user.id, "story:read")
        assert second.id != first.id
        assert await listed(shared.admin, user.id) == ["story:read"]


class TestDeleteUserPermission:
    async def test_the_tenant_keeps_an_administrator_who_is_one_for_good(self, own):
        given = await give(own.admin, own.admin.user_id, "all:manage")
        await give(own.admin, (await own.person("student")).user_id, "all:manage", until=seconds(600))
        # The role goes: from now on the direct permission is what makes the administrator.
        await own.users.SetUserRoles(users_pb2.SetUserRolesRequest(id=own.admin.user_id))
        async with refused("WRONG_STATE") as refusal:
            await take(own.admin, given)
        assert refusal.metadata["state"] == "last_administrator"

    async def test_of_two_who_take_each_others_away_at_once_one_stays(self, own):
        other = await own.person("admin")
        mine = await give(own.admin, own.admin.user_id, "all:manage")
        theirs = await give(own.admin, other.user_id, "all:manage")
        for person in (own.admin, other):
            await own.users.SetUserRoles(users_pb2.SetUserRolesRequest(id=person.user_id))
        results = await asyncio.gather(take(own.admin, theirs), take(other, mine), return_exceptions=True)
        assert sum(not isinstance(one, Exception) for one in results) == 1


class TestListUserPermissions:
    async def test_pages_hold_every_one_once_newest_first(self, shared):
        user = await shared.user("student")
        wanted = ["story:read", "story:list", "course:read"]
        for one in wanted:
            await give(shared.admin, user.id, one)
        request = user_permissions_pb2.ListUserPermissionsRequest(user_id=user.id, page_size=2)
        first = await permissions_of(shared.admin).ListUserPermissions(request)
        request.page_token = first.next_page_token
        second = await permissions_of(shared.admin).ListUserPermissions(request)
        found = [one.permission for one in (*first.user_permissions, *second.user_permissions)]
        assert [f"{one.resource}:{one.action}" for one in found] == wanted[::-1]
        assert second.next_page_token == ""

    @pytest.mark.parametrize("who", ["teacher", "student"])
    async def test_is_for_administrators(self, school, who):
        async with refused("PERMISSION_REQUIRED"):
            await listed(getattr(school, who), school.student.user_id)
