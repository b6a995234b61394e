"""What users may do, told to clients and to the other services."""

import asyncio
from uuid import UUID, uuid4

import asyncpg
import grpc
import pytest

from kit.auth import ServiceCredential
from storyloom.identity.v1 import access_pb2, sessions_pb2, tenants_pb2, users_pb2
from storyloom.identity.v1.access_pb2_grpc import AccessServiceStub
from storyloom.identity.v1.sessions_pb2_grpc import SessionServiceStub
from storyloom.identity.v1.tenants_pb2_grpc import TenantServiceStub
from tests.stack import PASSWORD, refused


def as_service(stack, name):
    """A stub whose calls carry the credential of a service."""
    credential = ServiceCredential(name, stack.environments[name]["SERVICE_CREDENTIAL"])
    metadata = (("authorization", f"Bearer {credential.token('identity')}"),)

    class Stub:
        def __getattr__(self, rpc):
            call = getattr(AccessServiceStub(stack.channel("identity")), rpc)
            return lambda request: call(request, metadata=metadata)

    return Stub()


@pytest.fixture(scope="module")
def content(stack):
    return as_service(stack, "content")


def snapshot_of(content, person):
    request = access_pb2.GetAccessSnapshotRequest(tenant_id=person.tenant_id, user_id=person.user_id)
    return content.GetAccessSnapshot(request)


class TestListMyPermissions:
    async def test_returns_roles_and_permissions_in_order(self, school):
        access = school.auditor.stub(AccessServiceStub, "identity")
        response = await access.ListMyPermissions(access_pb2.ListMyPermissionsRequest())
        assert list(response.roles) == ["auditor"]
        pairs = [(one.resource, one.action) for one in response.permissions]
        assert pairs == [("audit_log", "list"), ("audit_log", "read")]


class TestGetAccessSnapshot:
    async def test_tells_roles_permissions_level_and_attributes(self, shared, content):
        person = await shared.person("auditor")
        changed = users_pb2.User(id=person.user_id, level="B2")
        changed.attributes.update({"class": "7a"})
        await shared.users.UpdateUser(users_pb2.UpdateUserRequest(user=changed))
        snapshot = await snapshot_of(content, person)
        assert (list(snapshot.roles), snapshot.level, snapshot.attributes["class"]) == (["auditor"], "B2", "7a")
        assert sorted(snapshot.permissions) == ["audit_log:list", "audit_log:read"]
        assert (snapshot.active, snapshot.tenant_suspended, list(snapshot.revoked_session_ids)) == (True, False, [])

    async def test_permissions_of_several_roles_and_direct_ones_are_told_once(self, shared, content, cluster):
        person = await shared.person("auditor")
        database = await asyncpg.connect(cluster.superuser_url)
        for action in ("read", "approve"):
            await database.execute(
                "INSERT INTO identity.user_permissions (tenant_id, user_id, resource, action) VALUES ($1, $2, $3, $4)",
                UUID(person.tenant_id), UUID(person.user_id), "audit_log" if action == "read" else "approval", action,
            )  # fmt: skip
        await database.close()
        snapshot = await snapshot_of(content, person)
        assert sorted(snapshot.permissions) == ["approval:approve", "audit_log:list", "audit_log:read"]

    async def test_tells_which_sessions_ended(self, shared, content):
        person = await shared.person("student")
        ended = await shared.admin.stack.sign_in(shared.slug, person.email)
        await ended.stub(SessionServiceStub, "identity").DeleteSession(sessions_pb2.DeleteSessionRequest())
        assert len((await snapshot_of(content, person)).revoked_session_ids) == 1

    async def test_tells_that_user_and_tenant_are_barred(self, own, school, content):
        person = await own.person("student")
        await own.users.DeactivateUser(users_pb2.DeactivateUserRequest(id=person.user_id))
        await school.root.stub(TenantServiceStub, "identity").SuspendTenant(
            tenants_pb2.SuspendTenantRequest(id=own.tenant.id)
        )
        snapshot = await snapshot_of(content, person)
        assert (snapshot.active, snapshot.tenant_suspended) == (False, True)

    async def test_a_user_is_found_in_their_own_tenant_only(self, school, content):
        for tenant_id in (school.outsider.tenant_id, str(UUID(int=0)), str(uuid4())):
            request = access_pb2.GetAccessSnapshotRequest(tenant_id=tenant_id, user_id=school.student.user_id)
            async with refused("RESOURCE_NOT_FOUND"):
                await content.GetAccessSnapshot(request)

    async def test_is_for_services_only(self, school):
        request = access_pb2.GetAccessSnapshotRequest(tenant_id=school.admin.tenant_id, user_id=school.admin.user_id)
        async with refused("INVALID_TOKEN"):
            await school.admin.stub(AccessServiceStub, "identity").GetAccessSnapshot(request)


class TestWatchRevisions:
    async def next_change(self, stream):
        async with asyncio.timeout(2):
            async for message in stream:
                if message.HasField("change"):
                    return message.change
        return None

    async def about(self, stream, user_id):
        """The next change that concerns the user, or every user."""
        while (change := await self.next_change(stream)) is not None:
            if change.user_id in {user_id, ""}:
                return change
        return None

    async def test_heartbeats_come_twice_a_second(self, content):
        stream = content.WatchRevisions(access_pb2.WatchRevisionsRequest())
        async with asyncio.timeout(3):
            beats = 0
            async for message in stream:
                beats += message.HasField("heartbeat")
                if beats == 3:
                    break
        stream.cancel()

    async def test_tells_of_a_session_that_ended(self, shared, content):
        person = await shared.person("student")
        stream = content.WatchRevisions(access_pb2.WatchRevisionsRequest())
        await anext(aiter(stream))
        await person.stub(SessionServiceStub, "identity").DeleteSession(sessions_pb2.DeleteSessionRequest())
        while not (change := await self.about(stream, person.user_id)).revoked_session_id:
            pass
        assert (change.tenant_id, change.user_id) == (person.tenant_id, person.user_id)
        stream.cancel()

    async def test_tells_who_comes_back_what_they_missed(self, shared, content):
        first = await content.GetAccessSnapshot(
            access_pb2.GetAccessSnapshotRequest(tenant_id=shared.tenant.id, user_id=shared.admin.user_id)
        )
        user = await shared.user("student")
        stream = content.WatchRevisions(access_pb2.WatchRevisionsRequest(after_revision=first.revision))
        assert (await self.about(stream, user.id)).user_id in {user.id, ""}
        stream.cancel()

    async def test_tells_who_was_away_too_long_to_forget_everything(self, content, cluster):
        database = await asyncpg.connect(cluster.superuser_url)
        await database.execute("DELETE FROM identity.access_revisions")
        await database.close()
        stream = content.WatchRevisions(access_pb2.WatchRevisionsRequest(after_revision=1))
        change = await self.next_change(stream)
        assert (change.tenant_id, change.user_id) == ("", "")
        stream.cancel()

    async def test_is_for_services_only(self, school):
        stream = school.admin.stub(AccessServiceStub, "identity").WatchRevisions(access_pb2.WatchRevisionsRequest())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(stream))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


class TestGetUserSummaries:
    async def test_answers_for_each_id_in_order(self, shared, school, content):
        user = await shared.user("student")
        gone = await shared.user("student", password=PASSWORD)
        await shared.users.DeleteUser(users_pb2.DeleteUserRequest(id=gone.id))
        ids = [str(uuid4()), user.id, school.student.user_id, gone.id]
        request = access_pb2.GetUserSummariesRequest(tenant_id=shared.tenant.id, ids=ids)
        response = await content.GetUserSummaries(request)
        assert [(one.id, one.exists, one.display_name) for one in response.users] == [
            (ids[0], False, ""),
            (ids[1], True, "Somebody"),
            (ids[2], False, ""),
            (ids[3], False, ""),
        ]
