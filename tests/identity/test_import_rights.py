"""What an import may do: no more than its caller could do to one user after the other, while they still may."""

import asyncio

import grpc

from storyloom.identity.v1 import roles_pb2, users_pb2
from storyloom.identity.v1.roles_pb2_grpc import RoleServiceStub
from storyloom.identity.v1.user_imports_pb2 import ImportUsersOptions
from storyloom.identity.v1.user_imports_pb2_grpc import UserImportServiceStub
from tests.identity.importing import (
    PLAIN,
    UPDATE,
    USERS,
    import_users,
    in_dry_run_too,
    people,
    person,
    pupil,
    requests,
    roster,
    table,
)
from tests.stack import add_person, refused


async def importer(own, name, *permissions):
    """Somebody with a role of their own that has these permissions."""
    roles = own.admin.stub(RoleServiceStub, "identity")
    given = [dict(zip(("resource", "action"), one.split(":"), strict=True)) for one in permissions]
    await roles.CreateRole(roles_pb2.CreateRoleRequest(role=roles_pb2.Role(slug=name, name=name, permissions=given)))
    return await add_person(own.admin, own.slug, name, name)


class TestRights:
    async def test_to_import_are_asked_for(self, school):
        async with refused("PERMISSION_REQUIRED") as refusal:
            # Nothing but the options: whoever is refused while still sending may miss the answer.
            await import_users(school.teacher, {})
        assert refusal.metadata["permission"] == "user:import"

    async def test_to_create_update_and_give_are_asked_for_besides(self, own):
        somebody = await importer(own, "mere", "user:import")
        await import_users(own.admin, people(person("old")))
        rows = (person("new"), person("old", level="B1"), person("old", roles="student"), person("old"))
        told = [await import_users(somebody, people(row)) for row in rows]
        assert [one.words for one in told] == [["invalid"]] * 3 + [["unchanged"]]
        assert [one.problems[0][2].split()[2] for one in told[:3]] == ["user:create", "user:update", "user:set_roles"]

    async def test_that_one_has_not_are_not_given_away(self, own):
        rights = ("user:import", "user:create", "user:set_roles", "vocabulary:manage", "tag:manage")
        somebody = await importer(own, "clerk", *rights)
        done = await in_dry_run_too(somebody, people(person("a", roles="student"), person("b", roles="admin")))
        assert done.words == ["created", "invalid"]
        async with refused("PERMISSION_REQUIRED"):
            await import_users(somebody, people(person("c")), default_roles=["teacher"])

    async def test_to_everything_are_not_taken_by_an_import(self, own):
        admin = own.admin.email
        done = await import_users(own.admin, people({"email": admin, "roles": "teacher"}))
        assert [done.words, done.problems[0][2]] == [
            ["invalid"], "an import takes nobody's right to do everything in the tenant away",
        ]  # fmt: skip
        await own.user("admin", email="second@x.example", password="correct horse battery staple")
        for status in ({"status": "tobedeleted"}, {"enabledUser": "false"}):
            users = table(USERS, {**pupil(1, email="second@x.example"), **status})
            assert (await import_users(own.admin, {"users.csv": users})).words == ["invalid"]

    async def test_on_users_with_more_of_them_are_those_of_the_rpcs(self, own):
        rights = ("import", "create", "update", "delete", "deactivate")
        somebody = await importer(own, "secretary", *(f"user:{action}" for action in rights))
        await own.user("teacher", email="s1@x.example")
        await import_users(own.admin, roster([pupil(1)]))
        for change in ({"email": "mine@x.example"}, {"status": "tobedeleted"}, {"enabledUser": "false"}):
            done = await import_users(somebody, {"users.csv": table(USERS, {**pupil(1), **change})})
            assert done.words == ["invalid"], change

    async def test_that_end_meanwhile_end_the_import(self, own):
        somebody = await importer(own, "leaving", "user:import", "user:create")
        sent = asyncio.Event()

        async def slowly():
            async for request in requests({"p.csv": people(*(person(f"u{n}") for n in range(900)))}, options, 20_000):
                yield request
            await sent.wait()

        options = ImportUsersOptions(format=PLAIN, on_existing=UPDATE)
        stream = somebody.stub(UserImportServiceStub, "identity").ImportUsers(slowly(), timeout=30)
        await stream.read()
        await own.users.DeactivateUser(users_pb2.DeactivateUserRequest(id=somebody.user_id))
        sent.set()
        async with refused("INVALID_TOKEN"):
            while await stream.read() is not grpc.aio.EOF:
                pass

    async def test_of_another_tenant_do_not_matter(self, own, school):
        await import_users(own.admin, people(person("same")))
        done = await import_users(school.outsider_admin, people(person("same")))
        assert done.words == ["created"]
