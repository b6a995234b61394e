"""The users of a tenant, and one's own account."""

import asyncio
import json
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from storyloom.identity.v1 import roles_pb2, users_pb2
from storyloom.identity.v1.roles_pb2_grpc import RoleServiceStub
from storyloom.identity.v1.users_pb2_grpc import UserServiceStub
from tests.identity.waiting import soon_allowed, soon_refused
from tests.stack import PASSWORD, refused

NEW_PASSWORD = "staple battery horse correct"


def users_of(person):
    return person.stub(UserServiceStub, "identity")


def update(person, user, *paths):
    return users_of(person).UpdateUser(users_pb2.UpdateUserRequest(user=user, update_mask=FieldMask(paths=paths)))


async def role_ids(admin, *slugs):
    page = await admin.stub(RoleServiceStub, "identity").ListRoles(roles_pb2.ListRolesRequest(page_size=100))
    return [role.id for role in page.roles if role.slug in slugs]


class TestGetMe:
    async def test_returns_the_caller(self, school):
        me = await users_of(school.student).GetMe(users_pb2.GetMeRequest())
        assert (me.id, me.email, list(me.roles)) == (school.student.user_id, school.student.email, ["student"])

    async def test_returns_oneself_while_acting_in_another_tenant(self, school):
        act_in = (("x-act-in-tenant", school.teacher.tenant_id),)
        me = await users_of(school.root).GetMe(users_pb2.GetMeRequest(), metadata=act_in)
        assert me.id == school.root.user_id


class TestChangePassword:
    def change(self, person, current=PASSWORD, new=NEW_PASSWORD, **metadata):
        request = users_pb2.ChangePasswordRequest(current_password=current, new_password=new)
        return users_of(person).ChangePassword(request, **metadata)

    async def test_the_new_password_works_and_the_old_one_no_longer(self, shared, stack):
        person = await shared.person("student")
        await self.change(person)
        await stack.sign_in(shared.slug, person.email, NEW_PASSWORD)
        async with refused("INVALID_CREDENTIALS"):
            await stack.sign_in(shared.slug, person.email, PASSWORD)

    async def test_ends_the_other_sessions_and_keeps_this_one(self, shared, stack):
        person = await shared.person("student")
        other = await stack.sign_in(shared.slug, person.email)
        await self.change(person)
        await soon_refused("INVALID_TOKEN", lambda: users_of(other).GetMe(users_pb2.GetMeRequest()))
        await users_of(person).GetMe(users_pb2.GetMeRequest())

    async def test_refuses_a_wrong_password_and_then_slows_down(self, shared, database):
        await database.execute("DELETE FROM identity.sign_in_failures")
        person = await shared.person("student")
        # With a key the transaction would be held open until the answer: the count must not depend on it.
        for number in range(5):
            async with refused("INVALID_CREDENTIALS"):
                await self.change(person, "wrong", metadata=(("idempotency-key", f"try-{number}"),))
        async with refused("TOO_MANY_ATTEMPTS"):
            await self.change(person)
        await database.execute("DELETE FROM identity.sign_in_failures")

    async def test_failures_do_not_count_against_sign_ins(self, shared, stack, database):
        await database.execute("DELETE FROM identity.sign_in_failures")
        person = await shared.person("student")
        async with refused("INVALID_CREDENTIALS"):
            await self.change(person, "wrong")
        async with refused("INVALID_CREDENTIALS"):
            await stack.sign_in(shared.slug, person.email, "wrong")
        assert await database.fetchval("SELECT max(failures) FROM identity.sign_in_failures") == 1
        await database.execute("DELETE FROM identity.sign_in_failures")

    async def test_refuses_a_short_password(self, school):
        async with refused("INVALID_FIELD", field="new_password"):
            await self.change(school.student, new="short")


class TestGetUser:
    async def test_a_teacher_reads_another_user(self, school):
        user = await users_of(school.teacher).GetUser(users_pb2.GetUserRequest(id=school.student.user_id))
        assert user.email == school.student.email

    async def test_a_student_reads_only_their_own_account(self, school):
        users = users_of(school.student)
        assert (await users.GetUser(users_pb2.GetUserRequest(id=school.student.user_id))).id == school.student.user_id
        async with refused("PERMISSION_REQUIRED") as refusal:
            await users.GetUser(users_pb2.GetUserRequest(id=school.student2.user_id))
        assert refusal.metadata["permission"] == "user:read"

    async def test_a_foreign_user_and_no_user_look_the_same(self, school):
        answers = []
        for identity in (school.outsider.user_id, str(uuid4())):
            async with refused("RESOURCE_NOT_FOUND") as refusal:
                await users_of(school.admin).GetUser(users_pb2.GetUserRequest(id=identity))
            answers.append(refusal.status.SerializeToString())
        assert answers[0] == answers[1]


class TestListUsers:
    async def listed(self, person, **filters):
        response = await users_of(person).ListUsers(users_pb2.ListUsersRequest(**filters))
        return [user.id for user in response.users]

    async def paged(self, person, **filters):
        """The users on all pages."""
        request, ids = users_pb2.ListUsersRequest(**filters), []
        while True:
            response = await users_of(person).ListUsers(request)
            ids += [user.id for user in response.users]
            if not response.next_page_token:
                return ids
            request.page_token = response.next_page_token

    async def test_lists_the_tenant_newest_first(self, school):
        ids = await self.listed(school.teacher, page_size=100)
        assert ids == sorted(ids, reverse=True)
        assert {school.admin.user_id, school.student.user_id} <= set(ids)
        assert school.outsider.user_id not in ids

    async def test_filters_by_role_status_and_beginning(self, own):
        student = await own.user("student", password=PASSWORD)
        invited = await own.user("student", "teacher", email="Zoe@z.example")
        assert await self.listed(own.admin, role="student") == [invited.id, student.id]
        assert await self.listed(own.admin, role="teacher") == [invited.id]
        assert await self.listed(own.admin, status=users_pb2.USER_STATUS_INVITED) == [invited.id]
        assert await self.listed(own.admin, query="zOE@") == [invited.id]
        assert await self.listed(own.admin, query="%") == []

    @pytest.mark.parametrize("order", ["create_time", "display_name desc", "email", "email desc"])
    async def test_pages_hold_every_user_once_in_order(self, shared, order):
        paged = await self.paged(shared.admin, page_size=3, order_by=order)
        assert paged == await self.paged(shared.admin, page_size=100, order_by=order)
        assert len(paged) == len(set(paged)) > 3

    async def test_shows_deleted_users_to_who_may_bring_them_back(self, own):
        teacher, gone = await own.person("teacher"), await own.user("student")
        await own.users.DeleteUser(users_pb2.DeleteUserRequest(id=gone.id))
        assert gone.id not in await self.listed(own.admin)
        assert gone.id in await self.listed(own.admin, show_deleted=True)
        async with refused("PERMISSION_REQUIRED") as refusal:
            await self.listed(teacher, show_deleted=True)
        assert refusal.metadata["permission"] == "user:undelete"

    async def test_a_student_may_not(self, school):
        async with refused("PERMISSION_REQUIRED"):
            await self.listed(school.student)


class TestCreateUser:
    async def test_without_password_the_user_is_invited(self, shared):
        user = await shared.user("student", "teacher")
        assert user.status == users_pb2.USER_STATUS_INVITED
        assert list(user.roles) == ["student", "teacher"]

    async def test_an_email_is_taken_whatever_its_case(self, shared):
        await shared.user(email="Same@example.org")
        async with refused("RESOURCE_ALREADY_EXISTS", code=grpc.StatusCode.ALREADY_EXISTS):
            await shared.user(email="sAME@example.org")

    async def test_another_tenant_may_use_the_same_email(self, shared, school):
        user = users_pb2.User(email=school.teacher.email, display_name="Namesake")
        await shared.users.CreateUser(users_pb2.CreateUserRequest(user=user))

    async def test_refuses_a_role_that_the_tenant_lacks_and_makes_no_user(self, shared):
        async with refused("REFERENCE_NOT_FOUND", code=grpc.StatusCode.FAILED_PRECONDITION):
            await shared.user("student", "super_admin", email="lost@example.org")
        await shared.user("student", email="lost@example.org")

    async def test_nobody_hands_out_more_than_they_have(self, shared):
        await define_role(shared, "recruiter", "user:create", "user:set_roles", "vocabulary:manage", "tag:manage")
        recruiter = await shared.person("recruiter")
        users = users_of(recruiter)
        student = users_pb2.User(email="by-recruiter@example.org", display_name="Student", roles=["student"])
        await users.CreateUser(users_pb2.CreateUserRequest(user=student))
        boss = users_pb2.User(email="boss@example.org", display_name="Boss", roles=["admin"])
        async with refused("PERMISSION_REQUIRED") as refusal:
            await users.CreateUser(users_pb2.CreateUserRequest(user=boss))
        assert refusal.metadata["permission"] == "all:manage"

    async def test_a_repeated_call_with_its_key_makes_one_user(self, shared):
        user = users_pb2.User(email="once@example.org", display_name="Once", roles=["student"])
        request = users_pb2.CreateUserRequest(user=user, password=PASSWORD)
        key = (("idempotency-key", "create-once"),)
        first = await shared.users.CreateUser(request, metadata=key)
        assert await shared.users.CreateUser(request, metadata=key) == first

    async def test_is_audited_without_secrets(self, shared, school, database):
        user = await shared.user("student", password="a very secret password", email="hidden@example.org")
        await school.settle()
        rows = await database.fetch(
            "SELECT action, convert_from(leaf, 'UTF8') AS leaf FROM audit.audit_logs WHERE entity_id = $1 ORDER BY id",
            UUID(user.id),
        )
        assert [row["action"] for row in rows] == ["create", "set_roles"]
        assert "secret password" not in str(rows)
        assert "hidden@example.org" not in str(rows)
        assert json.loads(rows[1]["leaf"])["new_values"] == {"roles": ["student"]}


async def define_role(own, slug, *permissions):
    pairs = [permission.split(":") for permission in permissions]
    role = roles_pb2.Role(
        slug=slug, name=slug, permissions=[roles_pb2.Permission(resource=one, action=two) for one, two in pairs]
    )
    return await own.admin.stub(RoleServiceStub, "identity").CreateRole(roles_pb2.CreateRoleRequest(role=role))


class TestUpdateUser:
    async def test_users_change_their_own_name_and_locale(self, shared):
        person = await shared.person("student")
        user = await update(person, users_pb2.User(id=person.user_id, display_name="Mai", locale="vi-VN"))
        assert (user.display_name, user.locale) == ("Mai", "vi-VN")

    @pytest.mark.parametrize("field", ["email", "level", "attributes"])
    async def test_users_change_nothing_else_of_their_account(self, shared, field):
        person = await shared.person("student")
        value = {"class": "7b"} if field == "attributes" else "b@example.org"
        changed = users_pb2.User(id=person.user_id, **{field: value})
        async with refused("PERMISSION_REQUIRED"):
            await update(person, changed)
        async with refused("PERMISSION_REQUIRED"):
            await update(person, changed, field)

    async def test_users_do_not_change_each_other(self, school):
        async with refused("PERMISSION_REQUIRED"):
            await update(school.student, users_pb2.User(id=school.student2.user_id, display_name="Hacked"))

    async def test_an_administrator_changes_everything(self, shared):
        created = await shared.user("student")
        changed = users_pb2.User(id=created.id, email="new@example.org", level="B1", display_name="New", locale="en")
        changed.attributes.update({"class": "7a", "age": 13, "boarder": True})
        user = await update(shared.admin, changed)
        assert (user.email, user.level, user.attributes["class"]) == ("new@example.org", "B1", "7a")
        assert user.attributes["age"] == 13
        assert user.etag != created.etag

    async def test_refuses_what_only_verbs_change(self, shared):
        created = await shared.user("student")
        async with refused("INVALID_UPDATE_MASK"):
            await update(shared.admin, users_pb2.User(id=created.id), "status")

    async def test_refuses_a_stale_etag(self, shared):
        created = await shared.user("student")
        await update(shared.admin, users_pb2.User(id=created.id, level="A1", etag=created.etag))
        async with refused("STALE_ETAG"):
            await update(shared.admin, users_pb2.User(id=created.id, level="A2", etag=created.etag))

    async def test_refuses_an_email_that_is_taken(self, shared):
        created = await shared.user("student")
        async with refused("RESOURCE_ALREADY_EXISTS"):
            await update(shared.admin, users_pb2.User(id=created.id, email=shared.admin.email.upper()))


class TestDeleteAndUndeleteUser:
    async def test_a_deleted_user_is_gone_and_comes_back_signed_out(self, shared, stack):
        person = await shared.person("student")
        users = shared.users
        deleted = await users.DeleteUser(users_pb2.DeleteUserRequest(id=person.user_id))
        assert deleted.HasField("delete_time")
        async with refused("RESOURCE_NOT_FOUND"):
            await users.GetUser(users_pb2.GetUserRequest(id=person.user_id))
        async with refused("INVALID_CREDENTIALS"):
            await stack.sign_in(shared.slug, person.email)
        restored = await users.UndeleteUser(users_pb2.UndeleteUserRequest(id=person.user_id))
        assert list(restored.roles) == ["student"]
        await soon_refused("INVALID_TOKEN", lambda: users_of(person).GetMe(users_pb2.GetMeRequest()))
        await stack.sign_in(shared.slug, person.email)

    async def test_the_email_of_a_deleted_user_is_free(self, shared):
        first = await shared.user(email="reused@example.org")
        await shared.users.DeleteUser(users_pb2.DeleteUserRequest(id=first.id))
        await shared.user(email="reused@example.org")
        async with refused("RESOURCE_ALREADY_EXISTS"):
            await shared.users.UndeleteUser(users_pb2.UndeleteUserRequest(id=first.id))

    async def test_nobody_deletes_themselves(self, shared):
        async with refused("WRONG_STATE"):
            await shared.users.DeleteUser(users_pb2.DeleteUserRequest(id=shared.admin.user_id))

    async def test_only_a_deleted_user_is_restored(self, shared):
        user = await shared.user("student")
        async with refused("WRONG_STATE"):
            await shared.users.UndeleteUser(users_pb2.UndeleteUserRequest(id=user.id))


class TestDeactivateAndReactivateUser:
    async def test_every_service_refuses_the_user_within_two_seconds(self, shared, stack):
        person = await shared.person("teacher")
        await users_of(person).GetMe(users_pb2.GetMeRequest())
        user = await shared.users.DeactivateUser(users_pb2.DeactivateUserRequest(id=person.user_id))
        assert user.status == users_pb2.USER_STATUS_DEACTIVATED
        await soon_refused("INVALID_TOKEN", lambda: users_of(person).GetMe(users_pb2.GetMeRequest()))
        async with refused("INVALID_CREDENTIALS"):
            await stack.sign_in(shared.slug, person.email)

    async def test_reactivated_the_user_signs_in_again(self, shared, stack):
        person = await shared.person("student")
        await shared.users.DeactivateUser(users_pb2.DeactivateUserRequest(id=person.user_id))
        user = await shared.users.ReactivateUser(users_pb2.ReactivateUserRequest(id=person.user_id))
        assert user.status == users_pb2.USER_STATUS_ACTIVE
        await stack.sign_in(shared.slug, person.email)

    async def test_is_refused_in_the_wrong_state(self, shared):
        user = await shared.user("student")
        async with refused("WRONG_STATE"):
            await shared.users.ReactivateUser(users_pb2.ReactivateUserRequest(id=user.id))
        await shared.users.DeactivateUser(users_pb2.DeactivateUserRequest(id=user.id))
        async with refused("WRONG_STATE") as refusal:
            await shared.users.DeactivateUser(users_pb2.DeactivateUserRequest(id=user.id))
        assert refusal.metadata["state"] == "deactivated"

    async def test_a_student_may_not(self, school):
        async with refused("PERMISSION_REQUIRED"):
            request = users_pb2.DeactivateUserRequest(id=school.student2.user_id)
            await users_of(school.student).DeactivateUser(request)


class TestSetUserRoles:
    async def test_replaces_the_roles_and_is_in_force_within_two_seconds(self, shared):
        person = await shared.person("student")
        async with refused("PERMISSION_REQUIRED"):
            await users_of(person).ListUsers(users_pb2.ListUsersRequest())
        ids = await role_ids(shared.admin, "teacher", "auditor")
        user = await shared.users.SetUserRoles(users_pb2.SetUserRolesRequest(id=person.user_id, role_ids=ids))
        assert list(user.roles) == ["auditor", "teacher"]
        await soon_allowed(lambda: users_of(person).ListUsers(users_pb2.ListUsersRequest()))

    async def test_changes_the_etag(self, shared):
        created = await shared.user("student")
        request = users_pb2.SetUserRolesRequest(id=created.id, etag=created.etag)
        user = await shared.users.SetUserRoles(request)
        assert (list(user.roles), user.etag == created.etag) == ([], False)
        async with refused("STALE_ETAG"):
            await shared.users.SetUserRoles(request)

    async def test_refuses_a_role_of_another_tenant(self, shared, school):
        user = await shared.user("student")
        foreign = await role_ids(school.admin, "teacher")
        async with refused("REFERENCE_NOT_FOUND"):
            await shared.users.SetUserRoles(users_pb2.SetUserRolesRequest(id=user.id, role_ids=foreign))

    async def test_nobody_takes_away_more_than_they_have(self, own):
        await define_role(own, "clerk", "user:set_roles", "user:read", "user:list")
        clerk = await own.person("clerk")
        other = await own.user("admin", password=PASSWORD)
        async with refused("PERMISSION_REQUIRED"):
            await users_of(clerk).SetUserRoles(users_pb2.SetUserRolesRequest(id=other.id))


class TestLastAdministrator:
    async def test_cannot_give_the_role_away(self, own):
        async with refused("WRONG_STATE") as refusal:
            await own.users.SetUserRoles(users_pb2.SetUserRolesRequest(id=own.admin.user_id))
        assert refusal.metadata["state"] == "last_administrator"

    async def test_an_invited_administrator_does_not_count(self, own):
        await own.user("admin")
        async with refused("WRONG_STATE"):
            await own.users.SetUserRoles(users_pb2.SetUserRolesRequest(id=own.admin.user_id))

    @pytest.mark.parametrize("barring", ["DeleteUser", "DeactivateUser"])
    async def test_of_two_who_bar_each_other_at_once_one_stays(self, own, barring):
        other = await own.person("admin")
        request = getattr(users_pb2, f"{barring}Request")
        results = await asyncio.gather(
            getattr(own.users, barring)(request(id=other.user_id)),
            getattr(users_of(other), barring)(request(id=own.admin.user_id)),
            return_exceptions=True,
        )
        assert sum(isinstance(one, users_pb2.User) for one in results) == 1
