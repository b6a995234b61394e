"""Who may have whom exported and erased, what it takes, and what nobody can do once it has begun."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import grpc
import pytest

from kit.holdings import ERASED
from kit.ids import SYSTEM_TENANT
from services.identity import erasures
from storyloom.audit.v1.audit_logs_pb2 import ListAuditLogsRequest
from storyloom.audit.v1.audit_logs_pb2_grpc import AuditLogServiceStub
from storyloom.content.v1.courses_pb2 import ListCoursesRequest
from storyloom.content.v1.courses_pb2_grpc import CourseServiceStub
from storyloom.identity.v1 import roles_pb2, sessions_pb2, tenants_pb2, users_pb2
from storyloom.identity.v1.erasures_pb2 import (
    Erasure,
    ErasureState,
    ErasureSubject,
    ExportUserRequest,
    GetErasureRequest,
    ListErasuresRequest,
    PurgeTenantRequest,
    PurgeUserRequest,
)
from storyloom.identity.v1.erasures_pb2_grpc import ErasureServiceStub
from storyloom.identity.v1.roles_pb2_grpc import RoleServiceStub
from storyloom.identity.v1.sessions_pb2_grpc import SessionServiceStub
from storyloom.identity.v1.tenants_pb2_grpc import TenantServiceStub
from storyloom.identity.v1.users_pb2_grpc import UserServiceStub
from tests.identity.conftest import Own
from tests.identity.waiting import soon_refused
from tests.stack import PASSWORD, Person, School, Stack, refused

PENDING, DONE = ErasureState.ERASURE_STATE_PENDING, ErasureState.ERASURE_STATE_DONE


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for tokens that no test uses."""
    monkeypatch.setattr(erasures, "FIRST_AFTER", timedelta(milliseconds=300))
    monkeypatch.setattr(erasures, "POLL_SECONDS", 0.1)


def service(person: Person) -> ErasureServiceStub:
    return person.stub(ErasureServiceStub, "identity")


async def deleted(own: Own, *roles: str) -> users_pb2.User:
    user = await own.user(*roles, password=PASSWORD)
    return await own.users.DeleteUser(users_pb2.DeleteUserRequest(id=user.id))


async def purged(own: Own, user_id: str) -> Erasure:
    return await service(own.admin).PurgeUser(PurgeUserRequest(user_id=user_id))


async def done(person: Person, erasure: Erasure) -> Erasure:
    async with asyncio.timeout(20):
        while erasure.state != DONE:
            await asyncio.sleep(0.05)
            erasure = await service(person).GetErasure(GetErasureRequest(id=erasure.id))
    return erasure


async def exported(person: Person, user_id: str) -> list[Any]:
    return [one async for one in service(person).ExportUser(ExportUserRequest(user_id=user_id))]


async def entries(person: Person, **wanted: str) -> list[Any]:
    await person.stack.settle()
    logs = person.stub(AuditLogServiceStub, "audit")
    return list((await logs.ListAuditLogs(ListAuditLogsRequest(page_size=100, **wanted))).audit_logs)


class TestPurgeUser:
    async def test_begins_an_erasure_that_ends_with_receipts_of_all_services(self, own: Own) -> None:
        user = await deleted(own, "teacher")
        begun = await purged(own, user.id)
        assert (begun.state, begun.subject_type, begun.subject_id) == (
            PENDING, ErasureSubject.ERASURE_SUBJECT_USER, user.id,
        )  # fmt: skip
        assert (begun.requester_id, len(begun.receipts)) == (own.admin.user_id, 0)
        ended = await done(own.admin, begun)
        assert [one.service for one in ended.receipts] == ["assessment", "audit", "content", "identity", "learning"]
        times = {one.service: one.complete_time.ToDatetime() for one in ended.receipts}
        assert max(times, key=lambda name: times[name]) == "identity"
        assert begun.create_time.ToDatetime() < ended.complete_time.ToDatetime()

    async def test_frees_the_address_and_leaves_no_row_of_the_user(
        self, own: Own, database: asyncpg.Connection
    ) -> None:
        user = await deleted(own, "teacher")
        await done(own.admin, await purged(own, user.id))
        for table in ("user_roles", "sessions", "user_permissions", "invitations"):
            assert not await database.fetchval(
                f"SELECT count(*) FROM identity.{table} WHERE user_id = $1", UUID(user.id)
            ), table
        await own.user(email=user.email)
        async with refused("RESOURCE_NOT_FOUND"):
            await own.users.UndeleteUser(users_pb2.UndeleteUserRequest(id=user.id))
        async with refused("RESOURCE_NOT_FOUND"):
            await purged(own, user.id)

    async def test_is_refused_for_a_user_who_is_not_deleted(self, own: Own) -> None:
        user = await own.user("student")
        async with refused("WRONG_STATE"):
            await purged(own, user.id)

    async def test_is_refused_for_oneself(self, own: Own) -> None:
        async with refused("WRONG_STATE") as refusal:
            await purged(own, own.admin.user_id)
        assert refusal.metadata["state"] == "own_account"

    @pytest.mark.parametrize("role", ["teacher", "student", "auditor"])
    async def test_is_for_administrators(self, shared: Own, role: str) -> None:
        user, person = await deleted(shared), await shared.person(role)
        async with refused("PERMISSION_REQUIRED"):
            await service(person).PurgeUser(PurgeUserRequest(user_id=user.id))

    async def test_is_refused_for_who_may_do_more_than_the_caller(self, own: Own) -> None:
        permissions = [{"resource": "user", "action": action} for action in ("purge", "read")]
        role = roles_pb2.Role(slug="eraser", name="Eraser", permissions=permissions)
        await own.admin.stub(RoleServiceStub, "identity").CreateRole(roles_pb2.CreateRoleRequest(role=role))
        eraser, administrator, student = await own.person("eraser"), await deleted(own, "admin"), await deleted(own)
        async with refused("PERMISSION_REQUIRED"):
            await service(eraser).PurgeUser(PurgeUserRequest(user_id=administrator.id))
        assert (await service(eraser).PurgeUser(PurgeUserRequest(user_id=student.id))).state == PENDING

    async def test_finds_nobody_of_another_tenant(self, shared: Own, school: School) -> None:
        user = await deleted(shared)
        async with refused("RESOURCE_NOT_FOUND"):
            await service(school.admin).PurgeUser(PurgeUserRequest(user_id=user.id))

    async def test_asked_again_gives_the_erasure_under_way(self, own: Own) -> None:
        user = await deleted(own)
        first, second = await purged(own, user.id), await purged(own, user.id)
        assert first.id == second.id
        assert len(await entries(own.admin, entity_id=user.id, action="purge")) == 1

    async def test_cannot_be_taken_back(self, own: Own) -> None:
        user = await deleted(own)
        await purged(own, user.id)
        async with refused("WRONG_STATE") as refusal:
            await own.users.UndeleteUser(users_pb2.UndeleteUserRequest(id=user.id))
        assert refusal.metadata["state"] == "erasing"

    async def test_is_audited_when_asked_for_and_when_done_by_ids_only(self, own: Own) -> None:
        user = await deleted(own)
        erasure = await done(own.admin, await purged(own, user.id))
        told = {one.action: one for one in await entries(own.admin, entity_id=user.id)}
        assert dict(told["purge"].new_values) == dict(told["erase"].new_values) == {"erasure_id": erasure.id}
        assert told["purge"].user_id == own.admin.user_id
        everything = "".join(str(one) for one in told.values())
        assert user.email not in everything
        assert user.display_name not in everything

    async def test_tokens_are_refused_everywhere_within_two_seconds_and_stay_refused(self, own: Own) -> None:
        person = await own.person("teacher")
        await own.users.DeleteUser(users_pb2.DeleteUserRequest(id=person.user_id))
        courses = person.stub(CourseServiceStub, "content")
        await soon_refused("INVALID_TOKEN", lambda: courses.ListCourses(ListCoursesRequest()))
        await done(own.admin, await purged(own, person.user_id))
        for _ in range(5):
            async with refused("INVALID_TOKEN"):
                await courses.ListCourses(ListCoursesRequest())
            async with refused("INVALID_TOKEN"):
                await exported(person, person.user_id)
            await asyncio.sleep(0.1)
        async with refused("INVALID_TOKEN"):
            await SessionServiceStub(own.admin.stack.channel("identity")).RefreshSession(
                sessions_pb2.RefreshSessionRequest(refresh_token=person.refresh_token)
            )

    async def test_takes_the_name_of_who_asked_out_of_earlier_erasures(self, own: Own) -> None:
        second = await own.person("admin")
        first = await deleted(own)
        erasure = await service(second).PurgeUser(PurgeUserRequest(user_id=first.id))
        await done(own.admin, erasure)
        await own.users.DeleteUser(users_pb2.DeleteUserRequest(id=second.user_id))
        await done(own.admin, await purged(own, second.user_id))
        found = await service(own.admin).GetErasure(GetErasureRequest(id=erasure.id))
        assert found.requester_id == str(ERASED)


class TestPurgeTenant:
    async def purge(self, person: Person, tenant_id: str) -> Erasure:
        return await service(person).PurgeTenant(PurgeTenantRequest(id=tenant_id))

    async def suspend(self, school: School, own: Own) -> tenants_pb2.Tenant:
        tenants = school.root.stub(TenantServiceStub, "identity")
        return await tenants.SuspendTenant(tenants_pb2.SuspendTenantRequest(id=own.tenant.id))

    async def test_removes_the_tenant_and_its_entry_in_the_platforms_list(self, own: Own, school: School) -> None:
        await deleted(own)
        await self.suspend(school, own)
        erasure = await self.purge(school.root, own.tenant.id)
        assert erasure.subject_type == ErasureSubject.ERASURE_SUBJECT_TENANT
        async with refused("WRONG_STATE"):
            await school.root.stub(TenantServiceStub, "identity").ResumeTenant(
                tenants_pb2.ResumeTenantRequest(id=own.tenant.id)
            )
        assert (await self.purge(school.root, own.tenant.id)).id == erasure.id
        ended = await done(school.root, erasure)
        assert len(ended.receipts) == 5
        async with refused("RESOURCE_NOT_FOUND"):
            await self.purge(school.root, own.tenant.id)
        tenants = school.root.stub(TenantServiceStub, "identity")
        found = await tenants.ListTenants(tenants_pb2.ListTenantsRequest(query=own.slug))
        assert own.tenant.id not in [one.id for one in found.tenants]
        async with refused("INVALID_CREDENTIALS"):
            await school.stack.sign_in(own.slug, own.admin.email)
        assert {one.action for one in await entries(school.root, entity_id=own.tenant.id)} >= {"purge", "erase"}

    async def test_is_refused_for_a_tenant_that_works(self, shared: Own, school: School) -> None:
        async with refused("WRONG_STATE"):
            await self.purge(school.root, shared.tenant.id)

    async def test_is_refused_for_the_platform_itself(self, school: School) -> None:
        async with refused("WRONG_STATE"):
            await self.purge(school.root, str(SYSTEM_TENANT))

    async def test_is_not_for_the_tenants_own_administrators(self, shared: Own) -> None:
        async with refused("PERMISSION_REQUIRED"):
            await self.purge(shared.admin, shared.tenant.id)

    async def test_ends_the_erasures_of_its_users(
        self, own: Own, school: School, database: asyncpg.Connection
    ) -> None:
        user = await deleted(own)
        await purged(own, user.id)
        await self.suspend(school, own)
        await done(school.root, await self.purge(school.root, own.tenant.id))
        tenant_id = UUID(own.tenant.id)
        assert not await database.fetchval(
            "SELECT count(*) FROM identity.erasure_tasks WHERE home_tenant_id = $1", tenant_id
        )
        assert not await database.fetchval("SELECT count(*) FROM identity.erasures WHERE tenant_id = $1", tenant_id)


class TestGetErasure:
    async def test_finds_only_those_of_the_tenant(self, shared: Own, school: School) -> None:
        erasure = await purged(shared, (await deleted(shared)).id)
        for stranger in (school.admin, school.root):
            async with refused("RESOURCE_NOT_FOUND"):
                await service(stranger).GetErasure(GetErasureRequest(id=erasure.id))
        assert (await service(shared.admin).GetErasure(GetErasureRequest(id=erasure.id))).id == erasure.id

    async def test_is_for_administrators(self, shared: Own) -> None:
        erasure = await purged(shared, (await deleted(shared)).id)
        async with refused("PERMISSION_REQUIRED"):
            await service(await shared.person("teacher")).GetErasure(GetErasureRequest(id=erasure.id))


class TestListErasures:
    async def test_pages_newest_first_by_state(self, own: Own) -> None:
        asked = [await purged(own, (await deleted(own)).id) for _ in range(3)]
        await asyncio.gather(*(done(own.admin, one) for one in asked))
        seen, token = [], ""
        for _ in range(3):
            page = await service(own.admin).ListErasures(
                ListErasuresRequest(page_size=1, page_token=token, state="ERASURE_STATE_DONE")
            )
            seen += [one.id for one in page.erasures]
            token = page.next_page_token
        assert (seen, token) == ([one.id for one in reversed(asked)], "")
        pending = await service(own.admin).ListErasures(ListErasuresRequest(state="ERASURE_STATE_PENDING"))
        assert not pending.erasures


class TestExportUser:
    async def test_tells_everything_but_secrets(self, own: Own) -> None:
        person = await own.person("student")
        records = await exported(own.admin, person.user_id)
        kinds = {one.kind for one in records if one.service == "identity"}
        assert kinds == {"users", "user_roles", "sessions", "refresh_tokens"}
        (user,) = (one.values for one in records if one.kind == "users")
        assert user["email"] == person.email
        assert not {"password_hash", "token_hash"} & {name for one in records for name in one.values}
        assert all(person.user_id in str(one) for one in records if one.kind != "refresh_tokens")

    async def test_users_may_export_themselves_and_nobody_else(self, shared: Own) -> None:
        person, other = await shared.person("student"), await shared.person("student")
        assert {one.service for one in await exported(person, person.user_id)} >= {"identity", "audit"}
        async with refused("PERMISSION_REQUIRED"):
            await exported(person, other.user_id)
        async with refused("PERMISSION_REQUIRED"):
            await exported(await shared.person("teacher"), other.user_id)

    async def test_finds_deleted_users_and_none_of_other_tenants(self, shared: Own, school: School) -> None:
        user = await deleted(shared)
        assert await exported(shared.admin, user.id)
        async with refused("RESOURCE_NOT_FOUND"):
            await exported(school.admin, user.id)

    async def test_is_audited(self, shared: Own) -> None:
        user = await shared.user()
        await exported(shared.admin, user.id)
        (entry,) = await entries(shared.admin, entity_id=user.id, action="export")
        assert entry.user_id == shared.admin.user_id

    async def test_that_cannot_be_complete_ends_in_an_error(self, shared: Own, stack: Stack) -> None:
        user = await shared.user()
        await stack.stop_service("learning")
        try:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await exported(shared.admin, user.id)
        finally:
            await stack.start_service("learning")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_many_exports_leave_the_database_to_others(own: Own, school: School) -> None:
    person = await own.person("student")

    async def export() -> str:
        try:
            async for _ in service(person).ExportUser(ExportUserRequest(user_id=person.user_id)):
                pass
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return "OK"

    flood = asyncio.gather(*(export() for _ in range(100)))
    await asyncio.sleep(0.1)
    others = school.outsider.stub(UserServiceStub, "identity")
    for _ in range(10):
        await others.GetMe(users_pb2.GetMeRequest(), timeout=10)
    assert set(await flood) == {"OK", "RESOURCE_EXHAUSTED"}
