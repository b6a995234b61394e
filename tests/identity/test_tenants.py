"""The tenants of the platform."""

import asyncio
from dataclasses import replace
from uuid import UUID, uuid4

import asyncpg
import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from storyloom.content.v1 import courses_pb2
from storyloom.content.v1.courses_pb2_grpc import CourseServiceStub
from storyloom.identity.v1 import invitations_pb2, roles_pb2, tenants_pb2, users_pb2
from storyloom.identity.v1.invitations_pb2_grpc import InvitationServiceStub
from storyloom.identity.v1.roles_pb2_grpc import RoleServiceStub
from storyloom.identity.v1.tenants_pb2_grpc import TenantServiceStub
from storyloom.identity.v1.users_pb2_grpc import UserServiceStub
from tests.contract import api
from tests.contract.answers import answer
from tests.contract.population import rpc_named
from tests.identity.waiting import soon_allowed, soon_refused
from tests.stack import PASSWORD, refused


def tenants_of(person):
    return person.stub(TenantServiceStub, "identity")


def creation(slug, **settings):
    return tenants_pb2.CreateTenantRequest(
        tenant=tenants_pb2.Tenant(slug=slug, name="A school", settings=tenants_pb2.TenantSettings(**settings)),
        administrator=tenants_pb2.TenantAdministrator(
            email=f"head@{slug}.example", display_name="Head", password=PASSWORD
        ),
    )


@pytest.fixture
async def database(cluster):
    connection = await asyncpg.connect(cluster.superuser_url)
    yield connection
    await connection.close()


async def staff(own, school, role):
    """Somebody of the platform's own tenant with the role."""
    email = f"{role}-{own.slug}@platform.example"
    user = users_pb2.User(email=email, display_name="Staff", roles=[role])
    users = school.root.stub(UserServiceStub, "identity")
    await users.CreateUser(users_pb2.CreateUserRequest(user=user, password=PASSWORD))
    return await school.stack.sign_in("platform", email)


class TestCreateTenant:
    async def test_makes_roles_settings_and_an_administrator(self, school, stack):
        tenant = await tenants_of(school.root).CreateTenant(creation("whole", learning_language="fr"))
        assert tenant.status == tenants_pb2.TENANT_STATUS_ACTIVE
        assert tenant.settings.learning_language == "fr"
        assert (tenant.settings.story_language, tenant.settings.approval_required) == ("vi", True)
        head = await stack.sign_in("whole", "head@whole.example")
        roles = await head.stub(RoleServiceStub, "identity").ListRoles(roles_pb2.ListRolesRequest())
        assert sorted(role.slug for role in roles.roles) == ["admin", "auditor", "student", "teacher"]
        assert await tenants_of(head).GetMyTenant(tenants_pb2.GetMyTenantRequest()) == tenant

    async def test_refuses_a_slug_that_is_taken(self, school):
        async with refused("RESOURCE_ALREADY_EXISTS", code=grpc.StatusCode.ALREADY_EXISTS):
            await tenants_of(school.root).CreateTenant(creation(school.slug))

    async def test_of_many_at_once_one_gets_the_slug(self, school, database):
        calls = [tenants_of(school.root).CreateTenant(creation("contested")) for _ in range(4)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        made = [one for one in results if isinstance(one, tenants_pb2.Tenant)]
        assert len(made) == 1
        rows = await database.fetch("SELECT id FROM identity.tenants WHERE slug = 'contested'")
        assert [row["id"] for row in rows] == [UUID(made[0].id)]

    async def test_a_repeated_call_with_its_key_makes_one_tenant(self, school):
        key = (("idempotency-key", "found-a-school"),)
        first = await tenants_of(school.root).CreateTenant(creation("once-only"), metadata=key)
        assert await tenants_of(school.root).CreateTenant(creation("once-only"), metadata=key) == first

    async def test_an_administrator_of_a_tenant_may_not(self, school):
        async with refused("PERMISSION_REQUIRED") as refusal:
            await tenants_of(school.admin).CreateTenant(creation("usurped"))
        assert refusal.metadata["permission"] == "tenant:create"

    async def test_is_in_the_new_tenants_audit_log_as_done_by_the_platform(self, school, database):
        tenant = await tenants_of(school.root).CreateTenant(creation("audited"))
        await school.settle()
        row = await database.fetchrow(
            "SELECT * FROM audit.audit_logs WHERE entity_type = 'tenant' AND entity_id = $1", UUID(tenant.id)
        )
        assert (row["tenant_id"], row["action"]) == (UUID(tenant.id), "create")
        assert row["user_id"] == UUID(school.root.user_id)
        assert row["acting_tenant_id"] == UUID(int=0)

    @pytest.mark.parametrize("slug", ["", "Upper", "-dash", "dash-", "a b", "a" * 64])
    async def test_refuses_a_slug_of_another_form(self, school, slug):
        async with refused("INVALID_FIELD"):
            await tenants_of(school.root).CreateTenant(creation(slug))


class TestGetTenant:
    async def test_staff_reads_every_tenant(self, school, own):
        tenant = await tenants_of(school.root).GetTenant(tenants_pb2.GetTenantRequest(id=own.tenant.id))
        assert tenant == own.tenant

    async def test_an_administrator_reads_only_their_own(self, school):
        tenants = tenants_of(school.admin)
        own = await tenants.GetTenant(tenants_pb2.GetTenantRequest(id=school.admin.tenant_id))
        assert own.slug == school.slug
        answers = []
        for identity in (school.outsider.tenant_id, str(uuid4()), str(UUID(int=0))):
            async with refused("RESOURCE_NOT_FOUND") as refusal:
                await tenants.GetTenant(tenants_pb2.GetTenantRequest(id=identity))
            answers.append(refusal.status.SerializeToString())
        assert len(set(answers)) == 1

    async def test_everybody_reads_the_tenant_they_are_in(self, school):
        tenant = await tenants_of(school.student).GetMyTenant(tenants_pb2.GetMyTenantRequest())
        assert tenant.slug == school.slug

    async def test_staff_acting_in_a_tenant_is_in_it(self, school):
        act_in = (("x-act-in-tenant", school.teacher.tenant_id),)
        tenant = await tenants_of(school.root).GetMyTenant(tenants_pb2.GetMyTenantRequest(), metadata=act_in)
        assert tenant.slug == school.slug


class TestListTenants:
    async def slugs(self, person, **filters):
        response = await tenants_of(person).ListTenants(tenants_pb2.ListTenantsRequest(**filters))
        return [tenant.slug for tenant in response.tenants]

    async def test_staff_sees_all_newest_first(self, school, own):
        slugs = await self.slugs(school.root, page_size=100)
        assert slugs[0] == own.slug
        for slug in ("platform", school.slug, "bamboo"):
            assert slug in await self.slugs(school.root, query=slug)

    async def test_filters_by_beginning_and_status(self, school, own):
        assert await self.slugs(school.root, query=own.slug.upper()) == [own.slug]
        assert own.slug in await self.slugs(school.root, query="school-", page_size=100)
        await tenants_of(school.root).SuspendTenant(tenants_pb2.SuspendTenantRequest(id=own.tenant.id))
        assert own.slug in await self.slugs(school.root, status=tenants_pb2.TENANT_STATUS_SUSPENDED)
        assert own.slug not in await self.slugs(school.root, status=tenants_pb2.TENANT_STATUS_ACTIVE, page_size=100)

    async def test_an_administrator_sees_their_own(self, school):
        assert await self.slugs(school.admin) == [school.slug]

    async def test_pages_hold_every_tenant_once(self, school, own, found):
        await found()
        request = tenants_pb2.ListTenantsRequest(page_size=2)
        slugs: list[str] = []
        while True:
            response = await tenants_of(school.root).ListTenants(request)
            slugs += [tenant.slug for tenant in response.tenants]
            if not response.next_page_token:
                break
            request.page_token = response.next_page_token
        assert slugs[:100] == await self.slugs(school.root, page_size=100)
        assert len(set(slugs)) == len(slugs)


class TestUpdateTenant:
    async def test_an_administrator_changes_name_and_settings(self, own, school):
        changed = tenants_pb2.Tenant(id=own.tenant.id, name="Renamed", etag=own.tenant.etag)
        changed.settings.approval_required = False
        tenant = await tenants_of(own.admin).UpdateTenant(tenants_pb2.UpdateTenantRequest(tenant=changed))
        assert (tenant.name, tenant.settings.approval_required) == ("Renamed", False)
        assert tenant.settings.story_language == "vi"
        # What staff sees is the same row again, etag and all.
        assert await tenants_of(school.root).GetTenant(tenants_pb2.GetTenantRequest(id=tenant.id)) == tenant
        async with refused("STALE_ETAG"):
            await tenants_of(own.admin).UpdateTenant(tenants_pb2.UpdateTenantRequest(tenant=changed))

    async def test_the_mask_decides_what_is_written(self, own):
        changed = tenants_pb2.Tenant(id=own.tenant.id, name="Renamed")
        changed.settings.approval_quorum = 3
        request = tenants_pb2.UpdateTenantRequest(tenant=changed, update_mask=FieldMask(paths=["settings"]))
        tenant = await tenants_of(own.admin).UpdateTenant(request)
        assert (tenant.name, tenant.settings.approval_quorum) == (own.tenant.name, 3)

    async def test_refuses_to_change_the_slug(self, own):
        request = tenants_pb2.UpdateTenantRequest(
            tenant=tenants_pb2.Tenant(id=own.tenant.id, slug="other"), update_mask=FieldMask(paths=["slug"])
        )
        async with refused("INVALID_UPDATE_MASK"):
            await tenants_of(own.admin).UpdateTenant(request)

    async def test_another_tenant_is_not_found(self, school):
        changed = tenants_pb2.Tenant(id=school.outsider.tenant_id, name="Taken over")
        async with refused("RESOURCE_NOT_FOUND"):
            await tenants_of(school.admin).UpdateTenant(tenants_pb2.UpdateTenantRequest(tenant=changed))

    async def test_a_teacher_may_not(self, school):
        changed = tenants_pb2.Tenant(id=school.teacher.tenant_id, name="Renamed")
        async with refused("PERMISSION_REQUIRED"):
            await tenants_of(school.teacher).UpdateTenant(tenants_pb2.UpdateTenantRequest(tenant=changed))


async def set_quota(school, own, users, *, by=None):
    changed = tenants_pb2.Tenant(id=own.tenant.id)
    changed.settings.quotas.users = users
    request = tenants_pb2.UpdateTenantRequest(tenant=changed)
    return await tenants_of(by or school.root).UpdateTenant(request)


class TestQuotaOfUsers:
    async def test_of_many_made_at_once_as_many_as_allowed_are(self, own, school):
        tenant = await set_quota(school, own, 4)
        assert tenant.settings.quotas.users == 4
        results = await asyncio.gather(*(own.user("student") for _ in range(8)), return_exceptions=True)
        assert sum(isinstance(one, users_pb2.User) for one in results) == 3
        async with refused("WRONG_STATE") as refusal:
            await own.user("student")
        assert refusal.metadata == {"state": "quota_of_users", "quota": "4"}

    async def test_a_deleted_user_makes_room_and_comes_back_only_into_it(self, own, school):
        first = await own.user("student")
        await set_quota(school, own, 2)
        await own.users.DeleteUser(users_pb2.DeleteUserRequest(id=first.id))
        second = await own.user("student")
        async with refused("WRONG_STATE") as refusal:
            await own.users.UndeleteUser(users_pb2.UndeleteUserRequest(id=first.id))
        assert refusal.metadata["state"] == "quota_of_users"
        await own.users.DeleteUser(users_pb2.DeleteUserRequest(id=second.id))
        await own.users.UndeleteUser(users_pb2.UndeleteUserRequest(id=first.id))

    async def test_binds_invitations_too(self, own, school):
        await set_quota(school, own, 1)
        user = users_pb2.User(email="guest@example.org", display_name="Guest")
        async with refused("WRONG_STATE"):
            await own.admin.stub(InvitationServiceStub, "identity").CreateInvitation(
                invitations_pb2.CreateInvitationRequest(user=user)
            )

    async def test_takes_nobody_away_and_0_ends_it(self, own, school):
        user = await own.user("student")
        await set_quota(school, own, 1)
        assert (await own.users.GetUser(users_pb2.GetUserRequest(id=user.id))).id == user.id
        await set_quota(school, own, 0)
        await own.user("student")

    async def test_an_administrator_of_the_tenant_neither_lifts_nor_loses_it(self, own, school):
        await set_quota(school, own, 3)
        for users in (0, 2, 300):
            async with refused("PERMISSION_REQUIRED"):
                await set_quota(school, own, users, by=own.admin)
        changed = tenants_pb2.Tenant(id=own.tenant.id)
        changed.settings.approval_quorum = 2
        tenant = await tenants_of(own.admin).UpdateTenant(tenants_pb2.UpdateTenantRequest(tenant=changed))
        assert (tenant.settings.approval_quorum, tenant.settings.quotas.users) == (2, 3)
        # What was read may be sent back.
        await tenants_of(own.admin).UpdateTenant(tenants_pb2.UpdateTenantRequest(tenant=tenant))


LISTS_OF_SERVICES = {
    "identity": "ListRoles",
    "content": "ListCourses",
    "learning": "ListEnrollments",
    "assessment": "ListQuizzes",
    "audit": "ListAuditLogs",
}


@pytest.mark.parametrize(("service", "rpc"), LISTS_OF_SERVICES.items())
class TestActingInAnotherTenant:
    def call(self, person, rpc, tenant_id):
        return answer(replace(person, extra=(("x-act-in-tenant", tenant_id),)), rpc_named(rpc), b"")

    async def test_is_for_super_administrators_and_audited(self, service, rpc, own, school, database):
        asked = await self.call(school.root, rpc, own.tenant.id)
        assert asked.ok, asked
        await school.settle()
        rows = await database.fetch(
            "SELECT user_id, rpc, acting_tenant_id FROM audit.audit_logs WHERE tenant_id = $1 AND action = $2",
            UUID(own.tenant.id),
            "act_in_tenant",
        )
        assert [tuple(row) for row in rows] == [(UUID(school.root.user_id), api.path_of(rpc_named(rpc)), UUID(int=0))]

    async def test_is_refused_to_everybody_else_and_that_is_audited(self, service, rpc, own, school, database):
        for person in (school.admin, school.student, await staff(own, school, "system_admin")):
            refusal = await self.call(person, rpc, own.tenant.id)
            assert refusal.code is grpc.StatusCode.PERMISSION_DENIED, (person.email, refusal)
            assert refusal.holds({own.tenant.id, own.slug}) == []
        await school.settle()
        denials = "SELECT count(*) FROM audit.audit_logs WHERE user_id = $1 AND action = 'deny' AND rpc = $2"
        assert await database.fetchval(denials, UUID(school.admin.user_id), api.path_of(rpc_named(rpc))) >= 1


class TestSuspendAndResumeTenant:
    async def test_every_service_refuses_its_users_within_two_seconds_until_resumed(self, own, school):
        teacher = await own.person("teacher")
        courses = teacher.stub(CourseServiceStub, "content")
        await courses.ListCourses(courses_pb2.ListCoursesRequest())
        tenants = tenants_of(school.root)
        suspended = await tenants.SuspendTenant(tenants_pb2.SuspendTenantRequest(id=own.tenant.id))
        assert suspended.status == tenants_pb2.TENANT_STATUS_SUSPENDED
        await soon_refused("TENANT_SUSPENDED", lambda: courses.ListCourses(courses_pb2.ListCoursesRequest()))
        await soon_refused(
            "TENANT_SUSPENDED", lambda: tenants_of(teacher).GetMyTenant(tenants_pb2.GetMyTenantRequest())
        )
        await tenants.ResumeTenant(tenants_pb2.ResumeTenantRequest(id=own.tenant.id))
        await soon_allowed(lambda: courses.ListCourses(courses_pb2.ListCoursesRequest()))

    async def test_is_refused_in_the_wrong_state(self, own, school):
        tenants = tenants_of(school.root)
        async with refused("WRONG_STATE"):
            await tenants.ResumeTenant(tenants_pb2.ResumeTenantRequest(id=own.tenant.id))
        await tenants.SuspendTenant(tenants_pb2.SuspendTenantRequest(id=own.tenant.id))
        async with refused("WRONG_STATE"):
            await tenants.SuspendTenant(tenants_pb2.SuspendTenantRequest(id=own.tenant.id))

    async def test_the_platform_is_not_suspended(self, school):
        async with refused("WRONG_STATE"):
            await tenants_of(school.root).SuspendTenant(tenants_pb2.SuspendTenantRequest(id=str(UUID(int=0))))

    async def test_an_administrator_of_the_tenant_may_not(self, own):
        async with refused("PERMISSION_REQUIRED"):
            await tenants_of(own.admin).SuspendTenant(tenants_pb2.SuspendTenantRequest(id=own.tenant.id))

    async def test_an_unknown_tenant_is_not_found(self, school):
        async with refused("RESOURCE_NOT_FOUND"):
            await tenants_of(school.root).SuspendTenant(tenants_pb2.SuspendTenantRequest(id=str(uuid4())))


class TestSystemAdministrator:
    async def test_runs_tenants_and_sees_nothing_in_them(self, own, school):
        person = await staff(own, school, "system_admin")
        await tenants_of(person).SuspendTenant(tenants_pb2.SuspendTenantRequest(id=own.tenant.id))
        await tenants_of(person).ResumeTenant(tenants_pb2.ResumeTenantRequest(id=own.tenant.id))
        users = person.stub(UserServiceStub, "identity")
        async with refused("RESOURCE_NOT_FOUND"):
            await users.GetUser(users_pb2.GetUserRequest(id=own.admin.user_id))
        async with refused("PERMISSION_REQUIRED"):
            act_in = (("x-act-in-tenant", own.tenant.id),)
            await users.GetUser(users_pb2.GetUserRequest(id=own.admin.user_id), metadata=act_in)


class TestTenantChanged:
    async def test_reaches_content_in_order(self, own, school, database):
        for required in (False, True, False):
            changed = tenants_pb2.Tenant(id=own.tenant.id)
            changed.settings.approval_required = required
            await tenants_of(own.admin).UpdateTenant(tenants_pb2.UpdateTenantRequest(tenant=changed))
        await school.settle()
        stored = await database.fetchval(
            "SELECT approval_required FROM content.tenant_settings WHERE tenant_id = $1", UUID(own.tenant.id)
        )
        assert stored is False
