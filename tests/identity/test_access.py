"""What users may do, told to clients and to the other services."""

import asyncio
from uuid import UUID, uuid4

import asyncpg
import grpc
import pytest

from kit.auth import ServiceCredential
from storyloom.audit.v1 import audit_logs_pb2
from storyloom.audit.v1.audit_logs_pb2_grpc import AuditLogServiceStub
from storyloom.content.v1 import stories_pb2
from storyloom.content.v1.stories_pb2_grpc import StoryServiceStub
from storyloom.identity.v1 import access_pb2, sessions_pb2, tenants_pb2, users_pb2
from storyloom.identity.v1.access_pb2_grpc import AccessServiceStub
from storyloom.identity.v1.sessions_pb2_grpc import SessionServiceStub
from storyloom.identity.v1.tenants_pb2_grpc import TenantServiceStub
from storyloom.identity.v1.users_pb2_grpc import UserServiceStub
from tests.stack import PASSWORD, refused

AUDITORS = ["audit_log:export", "audit_log:list", "audit_log:read", "audit_log:watch"]


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
        assert pairs == [("audit_log", action) for action in ("export", "list", "read", "watch")]


class TestGetAccessSnapshot:
    async def test_tells_roles_permissions_level_and_attributes(self, shared, content):
        person = await shared.person("auditor")
        changed = users_pb2.User(id=person.user_id, level="B2")
        changed.attributes.update({"class": "7a"})
        await shared.users.UpdateUser(users_pb2.UpdateUserRequest(user=changed))
        snapshot = await snapshot_of(content, person)
        assert (list(snapshot.roles), snapshot.level, snapshot.attributes["class"]) == (["auditor"], "B2", "7a")
        assert sorted(snapshot.permissions) == AUDITORS
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
        assert sorted(snapshot.permissions) == ["approval:approve", *AUDITORS]

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


def question(resource, action, id_=""):
    return {
        "action": access_pb2.AccessAction(name=action),
        "resource": access_pb2.AccessResource(type=resource, id=id_),
    }


async def make_story(person):
    story = stories_pb2.Story(title="Mèo", text="Con mèo ngủ.", language="vi", learning_language="en")
    request = stories_pb2.CreateStoryRequest(story=story)
    return await person.stub(StoryServiceStub, "content").CreateStory(request)


async def checked(person, resource, action, id_="", subject=""):
    request = access_pb2.CheckAccessRequest(**question(resource, action, id_))
    if subject:
        request.subject.id = subject
    return (await person.stub(AccessServiceStub, "identity").CheckAccess(request)).decision


class TestCheckAccess:
    async def test_answers_for_rows_of_other_services_as_these_would(self, school):
        story = await make_story(school.teacher)
        assert await checked(school.teacher, "story", "update", story.id)
        assert not await checked(school.student, "story", "read", story.id)
        assert not await checked(school.teacher, "story", "delete", str(uuid4()))

    async def test_another_tenants_row_is_like_none(self, school):
        story = await make_story(school.teacher)
        assert not await checked(school.outsider_admin, "story", "read", story.id)

    async def test_without_an_id_tells_whether_there_could_be_one(self, school):
        assert await checked(school.teacher, "story", "create")
        assert not await checked(school.student, "story", "create")
        assert await checked(school.student, "story", "read")

    async def test_without_an_id_answers_about_whatever_is_in_the_catalogue(self, school):
        for resource, action in (("resource_policy", "create"), ("story_version", "approve")):
            assert await checked(school.admin, resource, action)
            assert not await checked(school.student, resource, action)

    async def test_of_deleted_resources_allows_only_to_bring_them_back(self, school):
        story, stub = await make_story(school.teacher), school.teacher.stub(StoryServiceStub, "content")
        await stub.DeleteStory(stories_pb2.DeleteStoryRequest(id=story.id))
        asked = [question("story", action, story.id) for action in ("read", "undelete", "read")]
        request = access_pb2.BatchCheckAccessRequest(
            evaluations=[access_pb2.AccessEvaluation(**one) for one in asked]
        )
        answer = await school.teacher.stub(AccessServiceStub, "identity").BatchCheckAccess(request)
        assert [one.decision for one in answer.evaluations] == [False, True, False]

    async def test_is_about_somebody_else_only_for_those_who_may_ask_why(self, school):
        story = await make_story(school.teacher)
        assert not await checked(school.admin, "story", "read", story.id, subject=school.student.user_id)
        assert await checked(school.admin, "story", "update", story.id, subject=school.teacher.user_id)
        async with refused("PERMISSION_REQUIRED"):
            await checked(school.teacher, "story", "read", story.id, subject=school.student.user_id)

    async def test_refuses_what_is_not_in_the_catalogue(self, school):
        async with refused("INVALID_FIELD", field="action.name"):
            await checked(school.admin, "story", "burn", str(uuid4()))

    async def test_answers_hundreds_at_once_across_services_in_their_order(self, school):
        story = await make_story(school.teacher)
        asked = [
            question("story", "update", story.id),
            question("user", "read", school.student.user_id),
            question("quiz", "read", str(uuid4())),
            question("story", "publish", story.id),
            question("course", "create"),
        ]
        request = access_pb2.BatchCheckAccessRequest(
            evaluations=[access_pb2.AccessEvaluation(**one) for one in asked] * 60
        )
        answer = await school.teacher.stub(AccessServiceStub, "identity").BatchCheckAccess(request)
        assert [one.decision for one in answer.evaluations] == [True, True, False, True, True] * 60

    async def test_finds_what_is_deleted_only_for_who_would_restore_it(self, school):
        story = await make_story(school.teacher)
        await school.teacher.stub(StoryServiceStub, "content").DeleteStory(stories_pb2.DeleteStoryRequest(id=story.id))
        for actions in (("read", "undelete"), ("undelete", "read")):
            evaluations = [question("story", action, story.id) for action in actions]
            request = access_pb2.BatchCheckAccessRequest(evaluations=evaluations)
            found = await school.teacher.stub(AccessServiceStub, "identity").BatchCheckAccess(request)
            assert [one.decision for one in found.evaluations] == [action == "undelete" for action in actions]


class TestExplainAccess:
    async def explain(self, person, resource, action, id_, subject):
        request = access_pb2.ExplainAccessRequest(**question(resource, action, id_))
        request.subject.id = subject
        return await person.stub(AccessServiceStub, "identity").ExplainAccess(request)

    async def test_tells_rules_values_and_what_would_change_it(self, school):
        story = await make_story(school.teacher)
        found = await self.explain(school.admin, "story", "read", story.id, school.student.user_id)
        assert not found.decision
        assert found.attributes["story.status"].string_value == "draft"
        names = {one.name: one.holds for one in found.considered}
        assert names == {"anyone reads published stories": False, "authors read their stories": False}
        (change,) = found.changes
        assert (change.subject, change.value.bool_value, found.smallest) == ("story:read", True, True)

    async def test_tells_what_allowed_it(self, school):
        story = await make_story(school.teacher)
        found = await self.explain(school.admin, "story", "update", story.id, school.teacher.user_id)
        assert found.decision
        assert found.permitted
        assert found.reason.startswith("Allowed: the user has the permission story:update")

    async def test_tells_that_somebody_is_barred(self, school):
        users = school.admin.stub(UserServiceStub, "identity")
        user = users_pb2.User(email="barred@lotus.example", display_name="Barred", roles=["student"])
        user = await users.CreateUser(users_pb2.CreateUserRequest(user=user, password=PASSWORD))
        await users.DeactivateUser(users_pb2.DeactivateUserRequest(id=user.id))
        story = await make_story(school.teacher)
        found = await self.explain(school.admin, "story", "read", story.id, user.id)
        assert not found.decision
        assert found.reason == "Refused: the user, or the tenant, is barred from the platform."
        assert [(one.subject, one.value.bool_value) for one in found.changes] == [
            ("active", True), ("story:read", True),
        ]  # fmt: skip

    async def test_agrees_with_the_check(self, school):
        story = await make_story(school.teacher)
        for person in (school.admin, school.teacher, school.student, school.auditor):
            for action in ("read", "update", "publish", "delete"):
                why = await self.explain(school.admin, "story", action, story.id, person.user_id)
                decision = await checked(school.admin, "story", action, story.id, subject=person.user_id)
                assert why.decision == decision, (person.email, action, why.reason)

    async def test_is_not_for_everybody(self, school):
        story = await make_story(school.teacher)
        async with refused("PERMISSION_REQUIRED"):
            await self.explain(school.teacher, "story", "read", story.id, school.teacher.user_id)

    async def test_another_tenants_resources_and_users_are_absent(self, school):
        story = await make_story(school.teacher)
        for who in (school.outsider.user_id, school.student.user_id):
            async with refused("RESOURCE_NOT_FOUND"):
                await self.explain(school.outsider_admin, "story", "read", story.id, who)

    async def test_is_written_down(self, school):
        story = await make_story(school.teacher)
        await self.explain(school.admin, "story", "read", story.id, school.student.user_id)
        await school.settle()
        logs = school.admin.stub(AuditLogServiceStub, "audit")
        found = await logs.ListAuditLogs(audit_logs_pb2.ListAuditLogsRequest(entity_id=story.id))
        assert "explain_access" in [one.action for one in found.audit_logs]
