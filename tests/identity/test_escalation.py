"""Whoever may administer users decides nothing about those who may do more."""

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from storyloom.identity.v1 import roles_pb2, users_pb2
from storyloom.identity.v1.roles_pb2_grpc import RoleServiceStub
from storyloom.identity.v1.users_pb2_grpc import UserServiceStub
from tests.stack import refused


def users_of(person):
    return person.stub(UserServiceStub, "identity")


def update(person, user, *paths):
    return users_of(person).UpdateUser(users_pb2.UpdateUserRequest(user=user, update_mask=FieldMask(paths=paths)))


@pytest.fixture(scope="module")
async def registrar(shared):
    """Somebody who administers users and may do little else."""
    actions = ("read", "update", "delete", "undelete", "deactivate", "reactivate")
    permissions = [roles_pb2.Permission(resource="user", action=action) for action in actions]
    # What students hold.
    permissions += [roles_pb2.Permission(resource=one, action="manage") for one in ("vocabulary", "tag")]
    role = roles_pb2.Role(slug="registrar", name="Registrar", permissions=permissions)
    await shared.admin.stub(RoleServiceStub, "identity").CreateRole(roles_pb2.CreateRoleRequest(role=role))
    return await shared.person("registrar")


class TestWhoHasFewerRights:
    async def refused_for_all(self, call):
        async with refused("PERMISSION_REQUIRED", code=grpc.StatusCode.PERMISSION_DENIED) as refusal:
            await call
        assert refusal.metadata["permission"] == "all:manage"

    async def test_does_not_take_the_email_of_an_administrator(self, shared, registrar):
        boss, student = await shared.user("admin"), await shared.user("student")
        taken = users_pb2.User(id=boss.id, email="mine@example.org")
        await self.refused_for_all(update(registrar, taken, "email"))
        await self.refused_for_all(update(registrar, taken))
        await update(registrar, users_pb2.User(id=boss.id, level="B2"), "level")
        user = await update(registrar, users_pb2.User(id=student.id, email="hers@example.org"), "email")
        assert user.email == "hers@example.org"

    async def test_neither_bars_an_administrator_nor_lets_one_in(self, shared, registrar):
        users, one = users_of(registrar), (await shared.user("admin")).id
        await self.refused_for_all(users.DeactivateUser(users_pb2.DeactivateUserRequest(id=one)))
        await self.refused_for_all(users.DeleteUser(users_pb2.DeleteUserRequest(id=one)))
        await shared.users.DeactivateUser(users_pb2.DeactivateUserRequest(id=one))
        await self.refused_for_all(users.ReactivateUser(users_pb2.ReactivateUserRequest(id=one)))
        await shared.users.DeleteUser(users_pb2.DeleteUserRequest(id=one))
        await self.refused_for_all(users.UndeleteUser(users_pb2.UndeleteUserRequest(id=one)))

    async def test_decides_about_who_has_no_more(self, shared, registrar):
        users, one = users_of(registrar), (await shared.user("student")).id
        await users.DeactivateUser(users_pb2.DeactivateUserRequest(id=one))
        await users.ReactivateUser(users_pb2.ReactivateUserRequest(id=one))
        await users.DeleteUser(users_pb2.DeleteUserRequest(id=one))
        await users.UndeleteUser(users_pb2.UndeleteUserRequest(id=one))
