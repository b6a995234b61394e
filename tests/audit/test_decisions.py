"""Decisions on approvals, which content hears of, and edits, which void what is pending."""

import grpc
from google.protobuf.json_format import MessageToDict

from storyloom.audit.v1.approvals_pb2 import (
    APPROVAL_STATE_APPROVED,
    APPROVAL_STATE_PENDING,
    APPROVAL_STATE_REJECTED,
    APPROVAL_STATE_VOIDED,
    APPROVAL_VERDICT_APPROVE,
    APPROVAL_VERDICT_REJECT,
    ApproveApprovalRequest,
)
from storyloom.identity.v1.roles_pb2 import CreateRoleRequest, Permission, Role
from storyloom.identity.v1.roles_pb2_grpc import RoleServiceStub
from tests.audit.calls import (
    approvals,
    approve,
    edit_story,
    entries,
    got,
    heard_by_content,
    outcomes,
    pending,
    publish_story,
    quorum,
    reject,
    requested,
    version_of,
    write_story,
)
from tests.stack import School, add_person, refused


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

    async def test_never_by_the_author_whoever_requested_it(self, school: School) -> None:
        version_id = (await write_story(school.teacher2)).current_version.id
        approval = await requested(school.teacher, version_id)
        assert approval.author_id == school.teacher2.user_id
        for decide in (approve, reject):
            async with refused("SELF_APPROVAL", code=grpc.StatusCode.PERMISSION_DENIED):
                await decide(school.teacher2, approval)
        assert (await approve(school.admin, approval)).state == APPROVAL_STATE_APPROVED

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
        assert await got(school.teacher, approval) == second
        await school.settle()
        assert (await version_of(school.teacher, approval.entity_id)).approved

    async def test_is_told_to_content_with_the_last_decision_only(self, school: School) -> None:
        async with quorum(school, 2):
            approval = await pending(school)
        before = await heard_by_content(school)
        await approve(school.teacher2, approval)
        assert await heard_by_content(school) == before
        await approve(school.admin, approval)
        assert await heard_by_content(school) == before + 1

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

    async def test_an_edit_voids_what_was_granted_and_not_used(self, school: School) -> None:
        story = await write_story(school.teacher)
        approval = await approve(school.teacher2, await requested(school.teacher, story.current_version.id))
        await school.settle()
        await edit_story(school.teacher, story)
        # Content itself knows at once.
        assert not (await version_of(school.teacher, approval.entity_id)).approved
        async with refused("APPROVAL_REQUIRED"):
            await publish_story(school.teacher, story, story.current_version.id)
        await school.settle()
        assert (await got(school.teacher, approval)).state == APPROVAL_STATE_VOIDED
        assert [entry.action for entry in await entries(school, approval)] == ["create", "approve", "void"]

    async def test_an_edit_leaves_what_was_granted_and_used(self, school: School) -> None:
        story = await write_story(school.teacher)
        approval = await approve(school.teacher2, await requested(school.teacher, story.current_version.id))
        await school.settle()
        await publish_story(school.teacher, story)
        await edit_story(school.teacher, story)
        await school.settle()
        assert (await got(school.teacher, approval)).state == APPROVAL_STATE_APPROVED
        assert (await version_of(school.teacher, approval.entity_id)).approved

    async def test_an_edit_of_another_story_voids_nothing(self, school: School) -> None:
        approval = await pending(school)
        await edit_story(school.teacher, await write_story(school.teacher))
        await school.settle()
        assert (await got(school.teacher, approval)).state == APPROVAL_STATE_PENDING
