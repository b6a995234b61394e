"""Approvals, requested for real story versions and heard of by content."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import grpc
import pytest
from buf.validate import validate_pb2
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict

from services.audit.approvals import approvables
from storyloom.audit.v1.approvals_pb2 import (
    APPROVAL_STATE_APPROVED,
    APPROVAL_STATE_PENDING,
    APPROVAL_STATE_REJECTED,
    APPROVAL_STATE_VOIDED,
    APPROVAL_STATE_WITHDRAWN,
    APPROVAL_VERDICT_APPROVE,
    APPROVAL_VERDICT_REJECT,
    Approval,
    ApproveApprovalRequest,
    CreateApprovalRequest,
    GetApprovalRequest,
    ListApprovalsRequest,
    RejectApprovalRequest,
    WithdrawApprovalRequest,
)
from storyloom.audit.v1.approvals_pb2_grpc import ApprovalServiceStub
from storyloom.audit.v1.audit_logs_pb2 import AuditLog, ListAuditLogsRequest
from storyloom.audit.v1.audit_logs_pb2_grpc import AuditLogServiceStub
from storyloom.content.v1.stories_pb2 import CreateStoryRequest, Story, UpdateStoryRequest
from storyloom.content.v1.stories_pb2_grpc import StoryServiceStub
from storyloom.content.v1.story_versions_pb2 import GetStoryVersionRequest, StoryVersion
from storyloom.content.v1.story_versions_pb2_grpc import StoryVersionServiceStub
from storyloom.identity.v1.roles_pb2 import CreateRoleRequest, Permission, Role
from storyloom.identity.v1.roles_pb2_grpc import RoleServiceStub
from storyloom.identity.v1.tenants_pb2 import GetMyTenantRequest, Tenant, UpdateTenantRequest
from storyloom.identity.v1.tenants_pb2_grpc import TenantServiceStub
from tests.stack import Person, School, add_person, refused


def approvals(person: Person) -> ApprovalServiceStub:
    return person.stub(ApprovalServiceStub, "audit")


async def write_story(author: Person) -> Story:
    story = Story(title="Con mèo", language="vi", learning_language="en", text=f"Con mèo ngủ. {uuid4()}")
    return await author.stub(StoryServiceStub, "content").CreateStory(CreateStoryRequest(story=story))


async def edit_story(author: Person, story: Story) -> Story:
    edited = Story(id=story.id, text=f"Con mèo thức dậy. {uuid4()}")
    request = UpdateStoryRequest(story=edited, update_mask=FieldMask(paths=["text"]))
    return await author.stub(StoryServiceStub, "content").UpdateStory(request)


async def version_of(person: Person, version_id: str) -> StoryVersion:
    stub = person.stub(StoryVersionServiceStub, "content")
    return await stub.GetStoryVersion(GetStoryVersionRequest(id=version_id))


async def requested(person: Person, version_id: str, comment: str = "", **call: Any) -> Approval:
    approval = Approval(entity_type="story_version", entity_id=version_id, comment=comment)
    return await approvals(person).CreateApproval(CreateApprovalRequest(approval=approval), **call)


async def pending(school: School) -> Approval:
    """An approval that the teacher asked for a new story of theirs."""
    story = await write_story(school.teacher)
    return await requested(school.teacher, story.current_version.id)


async def approve(person: Person, approval: Approval, **values: str) -> Approval:
    return await approvals(person).ApproveApproval(ApproveApprovalRequest(id=approval.id, **values))


async def reject(person: Person, approval: Approval, **values: str) -> Approval:
    return await approvals(person).RejectApproval(RejectApprovalRequest(id=approval.id, **values))


async def withdraw(person: Person, approval: Approval, **values: str) -> Approval:
    return await approvals(person).WithdrawApproval(WithdrawApprovalRequest(id=approval.id, **values))


async def got(person: Person, approval: Approval) -> Approval:
    return await approvals(person).GetApproval(GetApprovalRequest(id=approval.id))


async def listed(person: Person, **filters: Any) -> list[Approval]:
    return list((await approvals(person).ListApprovals(ListApprovalsRequest(**filters))).approvals)


async def entries(school: School, approval: Approval) -> list[AuditLog]:
    """What the log says of the approval, oldest first."""
    await school.settle()
    stub = school.auditor.stub(AuditLogServiceStub, "audit")
    request = ListAuditLogsRequest(entity_type="approval", entity_id=approval.id)
    return list(reversed((await stub.ListAuditLogs(request)).audit_logs))


async def outcomes(*calls: Awaitable[Any]) -> list[str]:
    """'' for each call that succeeded, the code's name for each other, sorted."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    return sorted(one.code().name if isinstance(one, grpc.aio.AioRpcError) else "" for one in results)


@asynccontextmanager
async def quorum(school: School, number: int) -> AsyncIterator[None]:
    """The tenant asks for so many people meanwhile."""
    stub = school.admin.stub(TenantServiceStub, "identity")

    async def change(to: int) -> None:
        tenant = await stub.GetMyTenant(GetMyTenantRequest())
        tenant.settings.approval_quorum = to
        changed = Tenant(id=tenant.id, settings=tenant.settings)
        await stub.UpdateTenant(UpdateTenantRequest(tenant=changed, update_mask=FieldMask(paths=["settings"])))

    await change(number)
    try:
        yield
    finally:
        await change(1)


class TestCreateApproval:
    async def test_is_bound_to_what_the_version_says(self, school: School) -> None:
        story = await write_story(school.teacher)
        approval = await requested(school.teacher, story.current_version.id, "Xin xem giúp")
        assert approval.content_hash == story.current_version.content_hash
        assert approval.state == APPROVAL_STATE_PENDING
        assert (approval.requester_id, approval.comment, approval.quorum) == (school.teacher.user_id, "Xin xem giúp", 1)
        assert await got(school.teacher, approval) == approval

    async def test_takes_nothing_but_entity_and_comment_from_the_client(self, school: School) -> None:
        story = await write_story(school.teacher)
        forged = Approval(
            entity_type="story_version",
            entity_id=story.current_version.id,
            state=APPROVAL_STATE_APPROVED,
            requester_id=school.student.user_id,
            content_hash="f" * 64,
            quorum=9,
        )
        approval = await approvals(school.teacher).CreateApproval(CreateApprovalRequest(approval=forged))
        assert (approval.state, approval.quorum) == (APPROVAL_STATE_PENDING, 1)
        assert approval.requester_id == school.teacher.user_id
        assert approval.content_hash == story.current_version.content_hash

    async def test_is_recorded(self, school: School) -> None:
        approval = await pending(school)
        (entry,) = await entries(school, approval)
        assert (entry.action, entry.user_id) == ("create", school.teacher.user_id)
        assert entry.new_values["content_hash"] == approval.content_hash
        assert entry.new_values["state"] == "pending"

    async def test_refuses_a_second_one_while_the_first_is_pending_or_granted(self, school: School) -> None:
        approval = await pending(school)
        async with refused("RESOURCE_ALREADY_EXISTS"):
            await requested(school.teacher2, approval.entity_id)
        await approve(school.teacher2, approval)
        async with refused("RESOURCE_ALREADY_EXISTS"):
            await requested(school.teacher, approval.entity_id)

    async def test_may_be_asked_again_after_a_rejection(self, school: School) -> None:
        approval = await pending(school)
        await reject(school.teacher2, approval)
        again = await requested(school.teacher, approval.entity_id)
        assert (again.state, again.content_hash) == (APPROVAL_STATE_PENDING, approval.content_hash)

    async def test_of_two_at_once_one_is_made(self, school: School) -> None:
        version_id = (await write_story(school.teacher)).current_version.id
        people = (school.teacher, school.teacher2, school.admin)
        assert await outcomes(*(requested(one, version_id) for one in people)) == ["", *["ALREADY_EXISTS"] * 2]

    async def test_is_made_once_for_an_idempotency_key(self, school: School) -> None:
        version_id = (await write_story(school.teacher)).current_version.id
        key = (("idempotency-key", str(uuid4())),)
        first = await requested(school.teacher, version_id, metadata=key)
        assert await requested(school.teacher, version_id, metadata=key) == first

    async def test_refuses_a_version_that_the_caller_cannot_see(self, school: School) -> None:
        version_id = (await write_story(school.teacher)).current_version.id
        async with refused("RESOURCE_NOT_FOUND"):
            await requested(school.outsider_teacher, version_id)
        async with refused("RESOURCE_NOT_FOUND"):
            await requested(school.teacher, str(uuid4()))

    async def test_refuses_who_may_not_ask(self, school: School) -> None:
        version_id = (await write_story(school.teacher)).current_version.id
        for person in (school.student, school.auditor):
            async with refused("PERMISSION_REQUIRED"):
                await requested(person, version_id)

    def test_knows_every_kind_that_the_contract_admits(self, school: School) -> None:
        options: Any = Approval.DESCRIPTOR.fields_by_name["entity_type"].GetOptions().Extensions[validate_pb2.field]
        admitted = getattr(options.string, "in")
        assert sorted(approvables(school.stack.services["audit"].clients)) == sorted(admitted)

    @pytest.mark.parametrize(
        ("field", "value"), [("entity_type", "story"), ("entity_type", ""), ("entity_id", "1"), ("comment", "a\0b")]
    )
    async def test_refuses_wrong_values(self, school: School, field: str, value: str) -> None:
        values = {"entity_type": "story_version", "entity_id": str(uuid4())} | {field: value}
        async with refused("INVALID_FIELD"):
            await approvals(school.teacher).CreateApproval(CreateApprovalRequest(approval=Approval(**values)))


class TestApproveApproval:
    async def test_grants_it_and_content_hears_of_it(self, school: School) -> None:
        approval = await approve(school.teacher2, await pending(school), comment="Hay lắm")
        assert approval.state == APPROVAL_STATE_APPROVED
        (decision,) = approval.decisions
        assert (decision.user_id, decision.comment) == (school.teacher2.user_id, "Hay lắm")
        assert decision.verdict == APPROVAL_VERDICT_APPROVE
        await school.settle()
        version = await version_of(school.teacher, approval.entity_id)
        assert (version.approved, version.approval_id) == (True, approval.id)
        assert await got(school.teacher2, approval) == approval

    async def test_is_recorded_with_old_and_new_values(self, school: School) -> None:
        approval = await approve(school.teacher2, await pending(school), comment="Hay lắm")
        _, entry = await entries(school, approval)
        assert (entry.action, entry.user_id) == ("approve", school.teacher2.user_id)
        assert MessageToDict(entry.old_values) == {"state": "pending"}
        assert MessageToDict(entry.new_values) == {"state": "approved", "comment": "Hay lắm"}

    async def test_never_by_the_requester(self, school: School) -> None:
        approval = await pending(school)
        async with refused("SELF_APPROVAL", code=grpc.StatusCode.PERMISSION_DENIED):
            await approve(school.teacher, approval)
        assert (await got(school.teacher, approval)).state == APPROVAL_STATE_PENDING

    async def test_not_even_by_an_administrator_who_requested_it(self, school: School) -> None:
        version_id = (await write_story(school.teacher)).current_version.id
        approval = await requested(school.admin, version_id)
        async with refused("SELF_APPROVAL"):
            await approve(school.admin, approval)

    async def test_not_even_by_platform_staff_who_requested_it(self, school: School) -> None:
        version_id = (await write_story(school.teacher)).current_version.id
        act = (("x-act-in-tenant", school.teacher.tenant_id),)
        approval = await requested(school.root, version_id, metadata=act)
        async with refused("SELF_APPROVAL"):
            await approvals(school.root).ApproveApproval(ApproveApprovalRequest(id=approval.id), metadata=act)

    async def test_needs_the_permission_to_approve_that_kind_of_thing(self, school: School) -> None:
        roles = school.admin.stub(RoleServiceStub, "identity")
        permissions = [Permission(resource="approval", action=action) for action in ("read", "approve")]
        role = Role(slug="clerk", name="Clerk", permissions=permissions)
        await roles.CreateRole(CreateRoleRequest(role=role))
        clerk = await add_person(school.admin, school.slug, "clerk", "clerk")
        approval = await pending(school)
        async with refused("PERMISSION_REQUIRED") as refusal:
            await approve(clerk, approval)
        assert refusal.metadata["permission"] == "story_version:approve"
        async with refused("PERMISSION_REQUIRED"):
            await approve(school.student, approval)

    async def test_refuses_one_that_is_decided(self, school: School) -> None:
        approval = await approve(school.teacher2, await pending(school))
        async with refused("WRONG_STATE") as refusal:
            await approve(school.admin, approval)
        assert refusal.metadata["state"] == "approved"

    async def test_refuses_a_stale_etag(self, school: School) -> None:
        approval = await pending(school)
        async with refused("STALE_ETAG"):
            await approve(school.teacher2, approval, etag="0")
        assert (await approve(school.teacher2, approval, etag=approval.etag)).etag != approval.etag

    async def test_does_not_know_that_of_another_tenant(self, school: School) -> None:
        approval = await pending(school)
        async with refused("RESOURCE_NOT_FOUND"):
            await approve(school.outsider_teacher, approval)

    async def test_of_two_at_once_one_decides(self, school: School) -> None:
        approval = await pending(school)
        calls = (approve(school.teacher2, approval), reject(school.admin, approval))
        assert await outcomes(*calls) == ["", "FAILED_PRECONDITION"]
        assert len((await got(school.teacher, approval)).decisions) == 1

    async def test_waits_for_the_quorum_that_the_tenant_had_when_it_was_requested(self, school: School) -> None:
        async with quorum(school, 2):
            approval = await pending(school)
        assert approval.quorum == 2
        first = await approve(school.teacher2, approval)
        assert first.state == APPROVAL_STATE_PENDING
        assert first.etag != approval.etag
        async with refused("RESOURCE_ALREADY_EXISTS"):
            await approve(school.teacher2, approval)
        await school.settle()
        assert not (await version_of(school.teacher, approval.entity_id)).approved
        second = await approve(school.admin, approval)
        assert second.state == APPROVAL_STATE_APPROVED
        assert [one.user_id for one in second.decisions] == [school.teacher2.user_id, school.admin.user_id]
        await school.settle()
        assert (await version_of(school.teacher, approval.entity_id)).approved

    async def test_two_of_a_quorum_at_once_both_count(self, school: School) -> None:
        async with quorum(school, 2):
            approval = await pending(school)
        assert await outcomes(approve(school.teacher2, approval), approve(school.admin, approval)) == ["", ""]
        assert (await got(school.teacher, approval)).state == APPROVAL_STATE_APPROVED


class TestRejectApproval:
    async def test_rejects_it_at_once_whatever_the_quorum(self, school: School) -> None:
        async with quorum(school, 3):
            approval = await pending(school)
        approval = await reject(school.teacher2, approval, comment="Còn lỗi chính tả")
        assert approval.state == APPROVAL_STATE_REJECTED
        assert approval.decisions[0].verdict == APPROVAL_VERDICT_REJECT
        assert approval.decisions[0].comment == "Còn lỗi chính tả"
        await school.settle()
        assert not (await version_of(school.teacher, approval.entity_id)).approved

    async def test_never_by_the_requester(self, school: School) -> None:
        approval = await pending(school)
        async with refused("SELF_APPROVAL"):
            await reject(school.teacher, approval)

    async def test_refuses_one_that_is_decided(self, school: School) -> None:
        approval = await reject(school.teacher2, await pending(school))
        async with refused("WRONG_STATE"):
            await reject(school.admin, approval)

    async def test_refuses_a_stale_etag(self, school: School) -> None:
        approval = await pending(school)
        async with refused("STALE_ETAG"):
            await reject(school.teacher2, approval, etag="0")

    async def test_does_not_know_that_of_another_tenant(self, school: School) -> None:
        approval = await pending(school)
        async with refused("RESOURCE_NOT_FOUND"):
            await reject(school.outsider_teacher, approval)


class TestWithdrawApproval:
    async def test_takes_it_back(self, school: School) -> None:
        approval = await withdraw(school.teacher, await pending(school))
        assert approval.state == APPROVAL_STATE_WITHDRAWN
        assert [entry.action for entry in await entries(school, approval)] == ["create", "withdraw"]
        async with refused("WRONG_STATE"):
            await approve(school.teacher2, approval)

    async def test_only_by_the_requester(self, school: School) -> None:
        approval = await pending(school)
        for person in (school.teacher2, school.admin, school.student):
            async with refused("PERMISSION_REQUIRED"):
                await withdraw(person, approval)

    async def test_refuses_one_that_is_decided_or_changed(self, school: School) -> None:
        approval = await pending(school)
        async with refused("STALE_ETAG"):
            await withdraw(school.teacher, approval, etag="0")
        await approve(school.teacher2, approval)
        async with refused("WRONG_STATE"):
            await withdraw(school.teacher, approval)


class TestVoiding:
    async def test_an_edit_voids_what_is_pending(self, school: School) -> None:
        story = await write_story(school.teacher)
        approval = await requested(school.teacher, story.current_version.id)
        edited = await edit_story(school.teacher, story)
        await school.settle()
        assert (await got(school.teacher, approval)).state == APPROVAL_STATE_VOIDED
        async with refused("WRONG_STATE") as refusal:
            await approve(school.teacher2, approval)
        assert refusal.metadata["state"] == "voided"
        created, voided = await entries(school, approval)
        assert (created.action, voided.action, voided.service) == ("create", "void", "content")
        assert (await requested(school.teacher, edited.current_version.id)).state == APPROVAL_STATE_PENDING

    async def test_an_edit_leaves_what_was_granted(self, school: School) -> None:
        story = await write_story(school.teacher)
        approval = await approve(school.teacher2, await requested(school.teacher, story.current_version.id))
        await school.settle()
        await edit_story(school.teacher, story)
        await school.settle()
        assert (await got(school.teacher, approval)).state == APPROVAL_STATE_APPROVED

    async def test_an_edit_of_another_story_voids_nothing(self, school: School) -> None:
        approval = await pending(school)
        await edit_story(school.teacher, await write_story(school.teacher))
        await school.settle()
        assert (await got(school.teacher, approval)).state == APPROVAL_STATE_PENDING


class TestGetApproval:
    async def test_refuses_who_neither_asked_nor_may_read_all(self, school: School) -> None:
        approval = await pending(school)
        async with refused("PERMISSION_REQUIRED"):
            await got(school.student, approval)

    async def test_does_not_know_that_of_another_tenant(self, school: School) -> None:
        approval = await pending(school)
        async with refused("RESOURCE_NOT_FOUND") as foreign:
            await got(school.outsider_admin, approval)
        async with refused("RESOURCE_NOT_FOUND") as absent:
            await got(school.outsider_admin, Approval(id=str(uuid4())))
        assert foreign.status == absent.status


class TestListApprovals:
    async def test_filters_and_gives_the_decisions(self, school: School) -> None:
        one, two = await pending(school), await pending(school)
        two = await reject(school.teacher2, two, comment="Chưa được")
        assert await listed(school.teacher2, entity_id=two.entity_id) == [two]
        waiting = await listed(school.teacher2, state=APPROVAL_STATE_PENDING, requester_id=school.teacher.user_id)
        assert one in waiting
        assert two not in waiting
        assert await listed(school.teacher2, requester_id=school.teacher2.user_id, entity_id=one.entity_id) == []
        assert (await listed(school.teacher2, entity_type="story_version", page_size=2)) == [two, one]

    async def test_pages(self, school: School) -> None:
        made = [await pending(school) for _ in range(3)]
        stub = approvals(school.teacher)
        first = await stub.ListApprovals(ListApprovalsRequest(page_size=2))
        second = await stub.ListApprovals(ListApprovalsRequest(page_size=1, page_token=first.next_page_token))
        assert [*first.approvals, *second.approvals] == [*reversed(made)]

    async def test_shows_learners_none_of_others(self, school: School) -> None:
        await pending(school)
        assert await listed(school.student) == []

    async def test_shows_nothing_of_another_tenant(self, school: School) -> None:
        approval = await pending(school)
        assert await listed(school.outsider_admin, entity_id=approval.entity_id) == []
