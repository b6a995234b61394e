"""Approvals of lessons and policies, who may not decide on what, and the outcome in the services that asked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from kit.ids import new_id
from kit.outbox import TYPE_URL
from storyloom.audit.v1.approvals_pb2 import (
    APPROVAL_STATE_APPROVED,
    APPROVAL_STATE_PENDING,
    APPROVAL_STATE_VOIDED,
    Approval,
    ApprovalState,
)
from storyloom.audit.v1.events_pb2 import ApprovalDecided
from storyloom.content.v1 import courses_pb2, lessons_pb2, units_pb2
from storyloom.content.v1.courses_pb2_grpc import CourseServiceStub
from storyloom.content.v1.lessons_pb2 import Lesson
from storyloom.content.v1.lessons_pb2_grpc import LessonServiceStub
from storyloom.content.v1.stories_pb2 import DeleteStoryRequest, UndeleteStoryRequest
from storyloom.content.v1.stories_pb2_grpc import StoryServiceStub
from storyloom.content.v1.units_pb2_grpc import UnitServiceStub
from storyloom.event.v1.events_pb2 import DeliverEventsRequest, Event
from storyloom.identity.v1 import resource_policies_pb2 as policies_pb2
from storyloom.identity.v1.resource_policies_pb2 import ResourcePolicy
from storyloom.identity.v1.resource_policies_pb2_grpc import ResourcePolicyServiceStub
from storyloom.identity.v1.tenants_pb2 import GetMyTenantRequest, Tenant, UpdateTenantRequest
from storyloom.identity.v1.tenants_pb2_grpc import TenantServiceStub
from tests.audit.calls import (
    approve,
    edit_story,
    entries,
    got,
    in_tables,
    publish_story,
    requested,
    version_of,
    write_story,
)
from tests.stack import Person, School, add_person, refused


def lessons(person: Person) -> LessonServiceStub:
    return person.stub(LessonServiceStub, "content")


def policies(person: Person) -> ResourcePolicyServiceStub:
    return person.stub(ResourcePolicyServiceStub, "identity")


async def write_lesson(author: Person) -> Lesson:
    made = courses_pb2.CreateCourseRequest(course=courses_pb2.Course(title="Tiếng Anh"))
    course = await author.stub(CourseServiceStub, "content").CreateCourse(made)
    unit = units_pb2.CreateUnitRequest(unit=units_pb2.Unit(course_id=course.id, title="Chương"))
    unit_id = (await author.stub(UnitServiceStub, "content").CreateUnit(unit)).id
    lesson = Lesson(unit_id=unit_id, title="Bài một", description="Chào hỏi")
    return await lessons(author).CreateLesson(lessons_pb2.CreateLessonRequest(lesson=lesson))


async def change(author: Person, lesson: Lesson, **values: Any) -> Lesson:
    request = lessons_pb2.UpdateLessonRequest(lesson=Lesson(id=lesson.id, **values))
    return await lessons(author).UpdateLesson(request)


async def lesson_now(person: Person, lesson: Lesson) -> Lesson:
    return await lessons(person).GetLesson(lessons_pb2.GetLessonRequest(id=lesson.id))


async def write_policy(author: Person) -> ResourcePolicy:
    policy = ResourcePolicy(name=f"Policy {uuid4()}", resource="story", actions=["archive"])
    policy.effect = policies_pb2.POLICY_EFFECT_DENY
    policy.conditions.struct_value["always"] = True
    return await policies(author).CreateResourcePolicy(policies_pb2.CreateResourcePolicyRequest(policy=policy))


async def policy_now(person: Person, policy: ResourcePolicy) -> ResourcePolicy:
    return await policies(person).GetResourcePolicy(policies_pb2.GetResourcePolicyRequest(id=policy.id))


async def activate(person: Person, policy: ResourcePolicy) -> ResourcePolicy:
    return await policies(person).ActivateResourcePolicy(policies_pb2.ActivateResourcePolicyRequest(id=policy.id))


async def deactivate(person: Person, policy: ResourcePolicy) -> ResourcePolicy:
    return await policies(person).DeactivateResourcePolicy(policies_pb2.DeactivateResourcePolicyRequest(id=policy.id))


async def redescribe(person: Person, policy: ResourcePolicy) -> ResourcePolicy:
    changed = ResourcePolicy(id=policy.id, description=f"Khác {uuid4()}")
    return await policies(person).UpdateResourcePolicy(policies_pb2.UpdateResourcePolicyRequest(policy=changed))


@asynccontextmanager
async def policies_need_approval(school: School) -> AsyncIterator[None]:
    """The tenant asks for approvals of policies meanwhile."""
    stub = school.admin.stub(TenantServiceStub, "identity")

    async def require(required: bool) -> None:
        tenant = await stub.GetMyTenant(GetMyTenantRequest())
        tenant.settings.policy_approval_required = required
        changed = Tenant(id=tenant.id, settings=tenant.settings)
        await stub.UpdateTenant(UpdateTenantRequest(tenant=changed, update_mask=FieldMask(paths=["settings"])))

    await require(True)
    try:
        yield
    finally:
        await require(False)


@pytest.fixture(scope="module")
async def admin2(school: School) -> Person:
    return await add_person(school.admin, school.slug, "admin2", "admin")


class TestLessons:
    async def test_an_approval_is_bound_to_what_the_lesson_says(self, school: School) -> None:
        lesson = await write_lesson(school.teacher)
        approval = await requested(school.teacher, lesson.id, entity_type="lesson")
        assert (approval.content_hash, approval.author_id) == (lesson.content_hash, school.teacher.user_id)
        await approve(school.teacher2, approval)
        await school.settle()
        now = await lesson_now(school.teacher, lesson)
        assert (now.approved, now.approval_id) == (True, approval.id)

    async def test_its_place_and_status_are_not_what_it_says(self, school: School) -> None:
        lesson = await write_lesson(school.teacher)
        moved = await change(school.teacher, lesson, position=7)
        published = await lessons(school.teacher).PublishLesson(lessons_pb2.PublishLessonRequest(id=lesson.id))
        assert lesson.content_hash == moved.content_hash == published.content_hash
        assert (await change(school.teacher, lesson, title="Bài hai")).content_hash != lesson.content_hash

    async def test_an_edit_voids_what_is_pending_or_not_used(self, school: School) -> None:
        lesson = await write_lesson(school.teacher)
        first = await requested(school.teacher, lesson.id, entity_type="lesson")
        await change(school.teacher, lesson, title="Bài hai")
        second = await requested(school.teacher, lesson.id, entity_type="lesson")
        await approve(school.teacher2, second)
        await school.settle()
        assert (await lesson_now(school.teacher, lesson)).approved
        edited = await change(school.teacher, lesson, title="Bài một")
        assert not edited.approved
        await school.settle()
        for one in (first, second):
            assert (await got(school.teacher, one)).state == APPROVAL_STATE_VOIDED
        # It says again what it said at first: that can be asked for again.
        assert edited.content_hash == lesson.content_hash
        again = await requested(school.teacher, lesson.id, entity_type="lesson")
        assert again.state == APPROVAL_STATE_PENDING

    async def test_an_edit_after_publication_leaves_the_approval_and_can_be_approved_too(self, school: School) -> None:
        lesson = await write_lesson(school.teacher)
        used = await approve(school.teacher2, await requested(school.teacher, lesson.id, entity_type="lesson"))
        await school.settle()
        await lessons(school.teacher).PublishLesson(lessons_pb2.PublishLessonRequest(id=lesson.id))
        for title in ("Bài hai", "Bài một"):
            assert not (await change(school.teacher, lesson, title=title)).approved
            await school.settle()
            assert (await got(school.teacher, used)).state == APPROVAL_STATE_APPROVED
            again = await requested(school.teacher, lesson.id, entity_type="lesson")
            await approve(school.teacher2, again)
            await school.settle()
            assert (await lesson_now(school.teacher, lesson)).approval_id == again.id

    async def test_a_deletion_voids(self, school: School) -> None:
        lesson = await write_lesson(school.teacher)
        approval = await approve(school.teacher2, await requested(school.teacher, lesson.id, entity_type="lesson"))
        await school.settle()
        await lessons(school.teacher).DeleteLesson(lessons_pb2.DeleteLessonRequest(id=lesson.id))
        await school.settle()
        assert (await got(school.teacher, approval)).state == APPROVAL_STATE_VOIDED
        restored = await lessons(school.teacher).UndeleteLesson(lessons_pb2.UndeleteLessonRequest(id=lesson.id))
        assert not restored.approved

    async def test_the_deletion_of_what_it_is_in_voids(self, school: School) -> None:
        lesson = await write_lesson(school.teacher)
        approval = await approve(school.teacher2, await requested(school.teacher, lesson.id, entity_type="lesson"))
        await school.settle()
        units = school.teacher.stub(UnitServiceStub, "content")
        await units.DeleteUnit(units_pb2.DeleteUnitRequest(id=lesson.unit_id))
        await school.settle()
        assert (await got(school.teacher, approval)).state == APPROVAL_STATE_VOIDED


class TestPolicies:
    async def test_are_put_in_force_only_with_an_approval_where_the_tenant_says_so(
        self, school: School, admin2: Person
    ) -> None:
        async with policies_need_approval(school):
            policy = await write_policy(school.admin)
            async with refused("APPROVAL_REQUIRED"):
                await activate(school.admin, policy)
            approval = await requested(school.admin, policy.id, entity_type="resource_policy")
            assert approval.content_hash == policy.content_hash
            async with refused("SELF_APPROVAL"):
                await approve(school.admin, approval)
            await approve(admin2, approval)
            await school.settle()
            assert (await policy_now(school.admin, policy)).approval_id == approval.id
            assert (await activate(school.admin, policy)).state == policies_pb2.POLICY_STATE_ACTIVE
            async with refused("APPROVAL_REQUIRED"):
                await redescribe(school.admin, policy)
            await deactivate(school.admin, policy)
            # It is what it was: nobody need look at it again.
            await activate(school.admin, policy)
            await deactivate(school.admin, policy)

    async def test_are_put_in_force_without_one_elsewhere(self, school: School) -> None:
        policy = await write_policy(school.admin)
        await activate(school.admin, policy)
        await redescribe(school.admin, policy)
        await deactivate(school.admin, policy)

    async def test_an_edit_voids(self, school: School, admin2: Person) -> None:
        policy = await write_policy(school.admin)
        approval = await approve(admin2, await requested(school.admin, policy.id, entity_type="resource_policy"))
        await school.settle()
        assert not (await redescribe(school.admin, policy)).approved
        await school.settle()
        assert (await got(school.admin, approval)).state == APPROVAL_STATE_VOIDED
        async with policies_need_approval(school), refused("APPROVAL_REQUIRED"):
            await activate(school.admin, policy)

    async def test_is_recorded_where_it_took_effect(self, school: School, admin2: Person) -> None:
        policy = await write_policy(school.admin)
        approval = await approve(admin2, await requested(school.admin, policy.id, entity_type="resource_policy"))
        found = await entries(school, Approval(id=policy.id), "resource_policy")
        assert [one.action for one in found] == ["create", "approve"]
        assert found[1].new_values["approval_id"] == approval.id

    async def test_teachers_may_not_decide(self, school: School) -> None:
        policy = await write_policy(school.admin)
        approval = await requested(school.admin, policy.id, entity_type="resource_policy")
        async with refused("PERMISSION_REQUIRED") as refusal:
            await approve(school.teacher, approval)
        assert refusal.metadata["permission"] == "resource_policy:approve"


class TestFourEyes:
    async def test_whoever_wrote_an_earlier_version_does_not_decide(self, school: School) -> None:
        story = await edit_story(school.teacher2, await write_story(school.teacher))
        approval = await requested(school.admin, story.current_version.id)
        assert approval.author_id == school.teacher2.user_id
        for person in (school.teacher, school.teacher2, school.admin):
            async with refused("SELF_APPROVAL"):
                await approve(person, approval)
        assert set((await version_of(school.admin, approval.entity_id)).contributor_ids) == {
            school.teacher.user_id,
            school.teacher2.user_id,
        }

    async def test_whoever_wrote_a_later_version_does(self, school: School) -> None:
        story = await write_story(school.teacher)
        approval = await requested(school.teacher, story.current_version.id)
        # Of another story.
        await edit_story(school.teacher2, await write_story(school.teacher))
        assert (await approve(school.teacher2, approval)).state == APPROVAL_STATE_APPROVED

    async def test_whoever_wrote_some_of_a_lesson_does_not_decide(self, school: School) -> None:
        lesson = await write_lesson(school.teacher)
        await change(school.teacher2, lesson, description="Tạm biệt")
        approval = await requested(school.admin, lesson.id, entity_type="lesson")
        assert approval.author_id == school.teacher2.user_id
        for person in (school.teacher, school.teacher2, school.admin):
            async with refused("SELF_APPROVAL"):
                await approve(person, approval)

    async def test_whoever_moved_a_lesson_has_written_nothing_of_it(self, school: School) -> None:
        lesson = await write_lesson(school.teacher)
        await change(school.teacher2, lesson, position=5)
        approval = await requested(school.teacher, lesson.id, entity_type="lesson")
        assert (await approve(school.teacher2, approval)).state == APPROVAL_STATE_APPROVED

    async def test_whoever_wrote_an_earlier_version_of_a_policy_does_not_decide(
        self, school: School, admin2: Person
    ) -> None:
        policy = await write_policy(school.admin)
        await redescribe(admin2, policy)
        approval = await requested(admin2, policy.id, entity_type="resource_policy")
        async with refused("SELF_APPROVAL"):
            await approve(school.admin, approval)


class TestSuperseded:
    async def test_is_not_asked_for(self, school: School) -> None:
        story = await write_story(school.teacher)
        await edit_story(school.teacher, story)
        async with refused("WRONG_STATE") as refusal:
            await requested(school.teacher, story.current_version.id)
        assert refusal.metadata["state"] == "superseded"

    async def test_an_approval_that_meets_an_edit_on_its_way_is_void(self, school: School) -> None:
        story = await write_story(school.teacher)
        approval = await requested(school.teacher, story.current_version.id)
        await asyncio.gather(approve(school.teacher2, approval), edit_story(school.teacher, story))
        await school.settle()
        assert (await got(school.teacher, approval)).state == APPROVAL_STATE_VOIDED
        assert not (await version_of(school.teacher, approval.entity_id)).approved

    async def test_what_was_asked_for_too_late_to_be_voided_is_void_when_it_is_granted(self, school: School) -> None:
        story = await write_story(school.teacher)
        approval = await requested(school.teacher, story.current_version.id)
        await edit_story(school.teacher, story)
        await school.settle()
        # As if the request had been under way during the edit.
        await in_tables(school, "UPDATE audit.approvals SET state = 'pending' WHERE id = $1::text::uuid", approval.id)
        await approve(school.teacher2, approval)
        await school.settle()
        assert not (await version_of(school.teacher, approval.entity_id)).approved
        assert (await got(school.teacher, approval)).state == APPROVAL_STATE_VOIDED

    async def test_a_deletion_takes_an_approval_back_for_good(self, school: School) -> None:
        story = await write_story(school.teacher)
        approval = await approve(school.teacher2, await requested(school.teacher, story.current_version.id))
        await school.settle()
        stories = school.teacher.stub(StoryServiceStub, "content")
        await stories.DeleteStory(DeleteStoryRequest(id=story.id))
        await stories.UndeleteStory(UndeleteStoryRequest(id=story.id))
        async with refused("APPROVAL_REQUIRED"):
            await publish_story(school.teacher, story)
        await school.settle()
        assert (await got(school.teacher, approval)).state == APPROVAL_STATE_VOIDED


class TestOutcome:
    """What content makes of decisions that arrive twice, late or out of place."""

    async def deliver(self, school: School, approval: Approval, state: Any, *, hash_: str = "", times: int = 1) -> None:
        decided = ApprovalDecided(
            approval_id=approval.id,
            entity_type=approval.entity_type,
            entity_id=approval.entity_id,
            content_hash=hash_ or approval.content_hash,
            state=state,
        )
        event = Event(
            id=str(new_id()),
            tenant_id=school.teacher.tenant_id,
            aggregate_type="approval",
            aggregate_id=approval.id,
        )
        event.occur_time.GetCurrentTime()
        event.payload.type_url = TYPE_URL + ApprovalDecided.DESCRIPTOR.full_name
        event.payload.value = decided.SerializeToString()
        inbox = school.stack.services["audit"]._relay._inboxes["content"]
        await asyncio.gather(*(inbox(DeliverEventsRequest(events=[event])) for _ in range(times)))

    async def approvals_recorded(self, school: School, version_id: str) -> int:
        await school.settle()
        statement = "SELECT count(*) FROM audit.audit_logs WHERE entity_id = $1::text::uuid AND action = 'approve'"
        return int((await in_tables(school, statement, version_id))[0][0])

    async def test_a_decision_delivered_often_takes_effect_once(self, school: School) -> None:
        story = await write_story(school.teacher)
        approval = await requested(school.teacher, story.current_version.id)
        await self.deliver(school, approval, ApprovalState.APPROVAL_STATE_APPROVED, times=5)
        assert await self.approvals_recorded(school, approval.entity_id) == 1
        assert (await version_of(school.teacher, approval.entity_id)).approval_id == approval.id

    async def test_a_decision_that_comes_after_the_edit_has_no_effect(self, school: School) -> None:
        story = await write_story(school.teacher)
        approval = await requested(school.teacher, story.current_version.id)
        await edit_story(school.teacher, story)
        await self.deliver(school, approval, ApprovalState.APPROVAL_STATE_APPROVED)
        assert await self.approvals_recorded(school, approval.entity_id) == 0
        assert not (await version_of(school.teacher, approval.entity_id)).approved

    async def test_a_decision_on_other_content_has_no_effect(self, school: School) -> None:
        story = await write_story(school.teacher)
        approval = await requested(school.teacher, story.current_version.id)
        await self.deliver(school, approval, ApprovalState.APPROVAL_STATE_APPROVED, hash_="f" * 64)
        assert not (await version_of(school.teacher, approval.entity_id)).approved

    @pytest.mark.parametrize("state", ["REJECTED", "WITHDRAWN", "VOIDED", "EXPIRED"])
    async def test_only_what_is_granted_has_one(self, school: School, state: str) -> None:
        story = await write_story(school.teacher)
        approval = await requested(school.teacher, story.current_version.id)
        await self.deliver(school, approval, ApprovalState.Value(f"APPROVAL_STATE_{state}"))
        assert not (await version_of(school.teacher, approval.entity_id)).approved

    async def test_what_is_not_there_any_more_is_left_alone(self, school: School) -> None:
        for kind in ("story_version", "lesson", "resource_policy"):
            gone = Approval(id=str(uuid4()), entity_type=kind, entity_id=str(uuid4()), content_hash="a" * 64)
            await self.deliver(school, gone, ApprovalState.APPROVAL_STATE_APPROVED)
        assert UUID(gone.id)
