"""The roles of a tenant and the permission catalogue."""

import json
from uuid import UUID, uuid4

import asyncpg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from services.identity.catalogue import catalogue
from storyloom.identity.v1 import roles_pb2, users_pb2
from storyloom.identity.v1.roles_pb2_grpc import RoleServiceStub
from storyloom.identity.v1.users_pb2_grpc import UserServiceStub
from tests.identity.waiting import soon_allowed, soon_refused
from tests.stack import refused


def roles_of(person):
    return person.stub(RoleServiceStub, "identity")


def permissions(*texts):
    return [roles_pb2.Permission(resource=one.split(":")[0], action=one.split(":")[1]) for one in texts]


def texts(role):
    return [f"{one.resource}:{one.action}" for one in role.permissions]


def create(person, slug, *held):
    role = roles_pb2.Role(slug=slug, name=slug.title(), permissions=permissions(*held))
    return roles_of(person).CreateRole(roles_pb2.CreateRoleRequest(role=role))


def update(person, role, *paths):
    return roles_of(person).UpdateRole(roles_pb2.UpdateRoleRequest(role=role, update_mask=FieldMask(paths=paths)))


async def role_of(own, slug):
    page = await roles_of(own.admin).ListRoles(roles_pb2.ListRolesRequest(page_size=100))
    return next(role for role in page.roles if role.slug == slug)


class TestCreateRole:
    async def test_holds_each_permission_once_in_order(self, shared):
        role = await create(shared.admin, "editor", "story:update", "course:read", "story:update")
        assert texts(role) == ["course:read", "story:update"]
        assert not role.system
        assert await roles_of(shared.admin).GetRole(roles_pb2.GetRoleRequest(id=role.id)) == role

    @pytest.mark.parametrize("slug", ["teacher", "editor-two"])
    async def test_refuses_a_slug_that_is_taken(self, shared, slug):
        if slug != "teacher":
            await create(shared.admin, slug)
        async with refused("RESOURCE_ALREADY_EXISTS"):
            await create(shared.admin, slug)

    async def test_refuses_what_is_not_in_the_catalogue_naming_it(self, shared):
        async with refused("INVALID_FIELD", field="role.permissions[1]"):
            await create(shared.admin, "dragon-rider", "story:read", "dragon:ride")

    async def test_nobody_makes_a_role_that_may_do_more_than_they(self, shared):
        await create(shared.admin, "role-maker", "role:create", "story:manage")
        maker = await shared.person("role-maker")
        await create(maker, "story-reader", "story:read")
        async with refused("PERMISSION_REQUIRED") as refusal:
            await create(maker, "king", "all:manage")
        assert refusal.metadata["permission"] == "all:manage"

    async def test_a_teacher_may_not(self, school):
        async with refused("PERMISSION_REQUIRED"):
            await create(school.teacher, "mine")


class TestGetRole:
    async def test_a_role_of_another_tenant_is_not_found(self, shared, school):
        role = await role_of(shared, "teacher")
        answers = []
        for identity in (role.id, str(uuid4())):
            async with refused("RESOURCE_NOT_FOUND") as refusal:
                await roles_of(school.admin).GetRole(roles_pb2.GetRoleRequest(id=identity))
            answers.append(refusal.status.SerializeToString())
        assert answers[0] == answers[1]


class TestListRoles:
    async def test_pages_hold_every_role_once_newest_first(self, own):
        everyone = (await roles_of(own.admin).ListRoles(roles_pb2.ListRolesRequest())).roles
        request = roles_pb2.ListRolesRequest(page_size=3)
        first = await roles_of(own.admin).ListRoles(request)
        request.page_token = first.next_page_token
        second = await roles_of(own.admin).ListRoles(request)
        assert [*first.roles, *second.roles] == list(everyone)
        assert {role.slug for role in everyone} == {"admin", "teacher", "student", "auditor"}

    async def test_a_student_may_not(self, school):
        async with refused("PERMISSION_REQUIRED"):
            await roles_of(school.student).ListRoles(roles_pb2.ListRolesRequest())


    async def test_tells_how_many_have_each(self, own):
        for role in ("student", "student", "teacher"):
            await own.user(role)
        page = await roles_of(own.admin).ListRoles(roles_pb2.ListRolesRequest())
        counts = {role.slug: role.user_count for role in page.roles}
        assert counts == {"admin": 1, "teacher": 1, "student": 2, "auditor": 0}
        student = await role_of(own, "student")
        assert (await update(own.admin, roles_pb2.Role(id=student.id, name="Pupil"), "name")).user_count == 2


class TestUpdateRole:
    async def test_is_in_force_for_its_holders_within_two_seconds(self, own):
        student = await own.person("student")
        users = student.stub(UserServiceStub, "identity")
        async with refused("PERMISSION_REQUIRED"):
            await users.ListUsers(users_pb2.ListUsersRequest())
        role = await role_of(own, "student")
        role.permissions.extend(permissions("user:list"))
        changed = await update(own.admin, role)
        assert "user:list" in texts(changed)
        await soon_allowed(lambda: users.ListUsers(users_pb2.ListUsersRequest()))
        del changed.permissions[:]
        await update(own.admin, changed, "permissions")
        await soon_refused("PERMISSION_REQUIRED", lambda: users.ListUsers(users_pb2.ListUsersRequest()))

    async def test_a_new_name_leaves_the_permissions(self, own):
        role = await role_of(own, "teacher")
        changed = await update(own.admin, roles_pb2.Role(id=role.id, name="Mentor"), "name")
        assert (changed.name, texts(changed)) == ("Mentor", texts(role))

    async def test_refuses_a_stale_etag_after_a_change_of_permissions(self, own):
        role = await role_of(own, "teacher")
        await update(own.admin, roles_pb2.Role(id=role.id, permissions=permissions("story:read")))
        async with refused("STALE_ETAG"):
            await update(own.admin, roles_pb2.Role(id=role.id, etag=role.etag, name="Late"))

    async def test_refuses_to_change_the_slug(self, own):
        role = await role_of(own, "teacher")
        async with refused("INVALID_UPDATE_MASK"):
            await update(own.admin, roles_pb2.Role(id=role.id, slug="other"), "slug")

    async def test_the_tenant_keeps_an_administrator(self, own):
        role = await role_of(own, "admin")
        async with refused("WRONG_STATE") as refusal:
            await update(own.admin, roles_pb2.Role(id=role.id, permissions=permissions("story:read")))
        assert refusal.metadata["state"] == "last_administrator"
        assert texts(await role_of(own, "admin")) == ["all:manage"]

    @pytest.mark.parametrize("held", [("story:read", "user:delete"), ()])
    async def test_nobody_adds_or_removes_more_than_they_have(self, own, held):
        role = await create(own.admin, "victim", "user:update")
        await create(own.admin, "role-editor", "role:update", "story:manage")
        editor = await own.person("role-editor")
        async with refused("PERMISSION_REQUIRED"):
            await update(editor, roles_pb2.Role(id=role.id, permissions=permissions(*held)), "permissions")

    async def test_the_platforms_roles_do_not_change(self, school):
        page = await roles_of(school.root).ListRoles(roles_pb2.ListRolesRequest(page_size=100))
        own = [role for role in page.roles if role.slug in {"super_admin", "system_admin"}]
        assert [role.system for role in own] == [True, True]
        async with refused("WRONG_STATE"):
            await update(school.root, roles_pb2.Role(id=own[0].id, name="Mine"))

    async def test_is_audited_with_what_changed(self, own, school, cluster):
        role = await create(own.admin, "watched", "story:read")
        await update(own.admin, roles_pb2.Role(id=role.id, permissions=permissions("story:list")))
        await school.settle()
        database = await asyncpg.connect(cluster.superuser_url)
        rows = await database.fetch(
            "SELECT action, convert_from(leaf, 'UTF8') AS leaf FROM audit.audit_logs WHERE entity_id = $1 ORDER BY id",
            UUID(role.id),
        )
        await database.close()
        assert [row["action"] for row in rows] == ["create", "update"]
        created, updated = (json.loads(row["leaf"]) for row in rows)
        assert created["new_values"]["permissions"] == ["story:read"]
        assert updated["old_values"] == {"permissions": ["story:read"]}
        assert updated["new_values"] == {"permissions": ["story:list"]}


class TestDeleteRole:
    async def test_is_gone_afterwards(self, own):
        role = await create(own.admin, "short-lived", "story:read")
        await roles_of(own.admin).DeleteRole(roles_pb2.DeleteRoleRequest(id=role.id, etag=role.etag))
        async with refused("RESOURCE_NOT_FOUND"):
            await roles_of(own.admin).GetRole(roles_pb2.GetRoleRequest(id=role.id))

    async def test_refuses_while_somebody_has_it(self, own):
        await own.user("teacher")
        role = await role_of(own, "teacher")
        async with refused("WRONG_STATE") as refusal:
            await roles_of(own.admin).DeleteRole(roles_pb2.DeleteRoleRequest(id=role.id))
        assert refusal.metadata == {"state": "in_use", "holders": "1"}


class TestListPermissions:
    async def test_returns_the_whole_catalogue_in_order(self, school):
        response = await roles_of(school.admin).ListPermissions(roles_pb2.ListPermissionsRequest())
        listed = [(one.resource, one.action) for one in response.permissions]
        assert listed == sorted(catalogue())
