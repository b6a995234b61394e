"""Publishing: only what was approved as it is, and at most one version at a time."""

import grpc

from storyloom.audit.v1.approvals_pb2 import ApprovalState, GetApprovalRequest
from storyloom.audit.v1.approvals_pb2_grpc import ApprovalServiceStub
from storyloom.content.v1 import stories_pb2
from storyloom.content.v1.stories_pb2 import StoryStatus
from storyloom.identity.v1.tenants_pb2 import Tenant, TenantSettings, UpdateTenantRequest
from storyloom.identity.v1.tenants_pb2_grpc import TenantServiceStub
from tests.content.conftest import Author, PublishApproved
from tests.stack import School, refused


class TestPublishStory:
    async def test_refuses_a_version_that_is_not_approved(self, teacher: Author) -> None:
        story = await teacher.story()
        async with refused("APPROVAL_REQUIRED", code=grpc.StatusCode.FAILED_PRECONDITION):
            await teacher.publish(story.id)

    async def test_an_approval_does_not_outlive_an_edit(
        self, school: School, teacher: Author, teacher2: Author
    ) -> None:
        story = await teacher.story()
        approval = await teacher.ask_approval(story.current_version.id)
        await teacher2.approve(approval.id)
        await school.settle()
        await teacher.rewrite(story.id, "Khác.")
        for version_id in ("", story.current_version.id):
            async with refused("APPROVAL_REQUIRED"):
                await teacher.publish(story.id, version_id)

    async def test_an_edit_voids_what_is_asked_for(self, school: School, teacher: Author) -> None:
        approvals = teacher.person.stub(ApprovalServiceStub, "audit")
        story = await teacher.story()
        edited = await teacher.ask_approval(story.current_version.id)
        rewritten = await teacher.rewrite(story.id, "Khác.")
        deleted = await teacher.ask_approval(rewritten.current_version.id)
        await teacher.stories.DeleteStory(stories_pb2.DeleteStoryRequest(id=story.id))
        await school.settle()
        for one in (edited, deleted):
            now = await approvals.GetApproval(GetApprovalRequest(id=one.id))
            assert now.state == ApprovalState.APPROVAL_STATE_VOIDED

    async def test_a_newer_version_takes_the_place_of_the_published_one(
        self, teacher: Author, student: Author, publish_approved: PublishApproved
    ) -> None:
        story = await teacher.story(text="Một.")
        await publish_approved(story.id)
        await teacher.rewrite(story.id, "Hai.")
        again = await publish_approved(story.id)
        assert again.status == StoryStatus.STORY_STATUS_PUBLISHED
        assert (await student.read(story.id)).current_version.text == "Hai."

    async def test_publishing_what_is_published_changes_nothing(
        self, teacher: Author, publish_approved: PublishApproved
    ) -> None:
        story = await teacher.story()
        published = await publish_approved(story.id)
        assert await teacher.publish(story.id) == published

    async def test_refuses_a_version_of_another_story(self, teacher: Author) -> None:
        story, other = await teacher.story(), await teacher.story()
        async with refused("RESOURCE_NOT_FOUND"):
            await teacher.publish(story.id, other.current_version.id)

    async def test_is_not_for_students(self, teacher: Author, student: Author) -> None:
        story = await teacher.story()
        async with refused("PERMISSION_REQUIRED"):
            await student.publish(story.id)

    async def test_tenants_may_do_without_approvals(self, school: School, outsider: Author) -> None:
        tenants = school.outsider_admin.stub(TenantServiceStub, "identity")

        async def require_approvals(required: bool) -> None:
            tenant = Tenant(id=school.outsider_admin.tenant_id, settings=TenantSettings(approval_required=required))
            await tenants.UpdateTenant(UpdateTenantRequest(tenant=tenant))
            await school.settle()

        await require_approvals(False)
        try:
            story = await outsider.publish((await outsider.story()).id)
            assert story.status == StoryStatus.STORY_STATUS_PUBLISHED
        finally:
            await require_approvals(True)
        async with refused("APPROVAL_REQUIRED"):
            await outsider.publish((await outsider.story()).id)
