"""Publishing together: all or nothing, as the preview says, and decided as for one story alone."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from storyloom.content.v1 import publications_pb2, stories_pb2
from storyloom.content.v1.lessons_pb2 import GetLessonRequest, Lesson, LessonStatus
from storyloom.content.v1.publications_pb2 import Publication, PublicationItem, PublicationOutcome
from storyloom.content.v1.stories_pb2 import Story, StoryStatus
from storyloom.identity.v1 import resource_policies_pb2
from storyloom.identity.v1.resource_policies_pb2_grpc import ResourcePolicyServiceStub
from storyloom.identity.v1.tenants_pb2 import Tenant, TenantSettings, UpdateTenantRequest
from storyloom.identity.v1.tenants_pb2_grpc import TenantServiceStub
from storyloom.type.v1.errors_pb2 import ErrorReason
from tests.content.conftest import Author, ListEntries, outcomes
from tests.identity.waiting import soon_refused
from tests.stack import School, refused

NOWHERE = "00000000-0000-7000-8000-000000000000"
NEW, UPDATED = PublicationOutcome.PUBLICATION_OUTCOME_NEW, PublicationOutcome.PUBLICATION_OUTCOME_UPDATED
UNCHANGED, BLOCKED = PublicationOutcome.PUBLICATION_OUTCOME_UNCHANGED, PublicationOutcome.PUBLICATION_OUTCOME_BLOCKED


def of_story(story: Story, version_id: str = "", etag: str = "") -> PublicationItem:
    return PublicationItem(story_id=story.id, version_id=version_id, etag=etag)


def of_lesson(lesson: Lesson, etag: str = "") -> PublicationItem:
    return PublicationItem(lesson_id=lesson.id, etag=etag)


async def publish(author: Author, *items: PublicationItem) -> Publication:
    return await author.publications.CreatePublication(publications_pb2.CreatePublicationRequest(items=items))


async def preview(author: Author, *items: PublicationItem) -> Publication:
    return await author.publications.PreviewPublication(publications_pb2.PreviewPublicationRequest(items=items))


async def read_lesson(author: Author, lesson: Lesson) -> Lesson:
    return await author.lessons.GetLesson(GetLessonRequest(id=lesson.id))


def outcome(publication: Publication) -> list[Any]:
    return [one.outcome for one in publication.stories]


@pytest.fixture
async def author(school: School, outsider: Author) -> AsyncIterator[Author]:
    """A teacher of a tenant that does without approvals meanwhile."""
    tenants = school.outsider_admin.stub(TenantServiceStub, "identity")

    async def require_approvals(required: bool) -> None:
        tenant = Tenant(id=school.outsider_admin.tenant_id, settings=TenantSettings(approval_required=required))
        await tenants.UpdateTenant(UpdateTenantRequest(tenant=tenant))
        await school.settle()

    await require_approvals(False)
    yield outsider
    await require_approvals(True)


async def new_lesson(author: Author, *, published: bool = True) -> Lesson:
    course = await author.course(published=published)
    return await author.lesson((await author.unit(course.id)).id)


class TestCreatePublication:
    async def test_publishes_a_lesson_with_its_stories(self, author: Author, entries_of: ListEntries) -> None:
        lesson = await new_lesson(author)
        stories = [await author.story(f"Truyện {n}", lesson_id=lesson.id) for n in range(3)]
        made = await publish(author, of_lesson(lesson))
        assert [one.story_id for one in made.stories] == [one.id for one in stories]
        assert outcome(made) == [NEW, NEW, NEW]
        assert [one.becomes_visible for one in made.lessons] == [True]
        now = await read_lesson(author, lesson)
        assert (now.status, now.etag) == (LessonStatus.LESSON_STATUS_PUBLISHED, made.lessons[0].etag)
        for story, told in zip(stories, made.stories, strict=True):
            found = await author.read(story.id)
            assert (found.status, found.etag) == (StoryStatus.STORY_STATUS_PUBLISHED, told.etag)
            assert found.published_version_id == told.version_id == story.current_version.id

    async def test_leaves_one_entry_for_each_of_one_request(
        self, teacher: Author, teacher2: Author, school: School, entries_of: ListEntries
    ) -> None:
        lesson = await new_lesson(teacher)
        story = await teacher.story(lesson_id=lesson.id)
        await teacher2.approve((await teacher.ask_approval(story.current_version.id)).id)
        await school.settle()
        await publish(teacher, of_lesson(lesson))
        await publish(teacher, of_lesson(lesson))
        (of_the_story,) = await entries_of(entity_id=story.id, action="publish")
        (of_the_lesson,) = await entries_of(entity_id=lesson.id, action="publish")
        assert of_the_story.request_id == of_the_lesson.request_id
        assert of_the_story.new_values["published_version_id"] == story.current_version.id

    async def test_is_all_or_nothing_and_says_which_item_it_is(
        self, teacher: Author, teacher2: Author, school: School
    ) -> None:
        approved, not_approved = await teacher.story(), await teacher.story()
        await teacher2.approve((await teacher.ask_approval(approved.current_version.id)).id)
        lesson = await new_lesson(teacher)
        inside = await teacher.story(lesson_id=lesson.id)
        await school.settle()
        async with refused("APPROVAL_REQUIRED") as refusal:
            await publish(teacher, of_story(approved), of_story(not_approved))
        assert refusal.metadata["item"] == "items[1]"
        async with refused("APPROVAL_REQUIRED") as refusal:
            await publish(teacher, of_story(approved), of_lesson(lesson))
        assert (refusal.metadata["item"], refusal.metadata["story_id"]) == ("items[1]", inside.id)
        async with refused("RESOURCE_NOT_FOUND") as refusal:
            await publish(teacher, of_story(approved), PublicationItem(story_id=NOWHERE))
        assert refusal.metadata["item"] == "items[1]"
        async with refused("STALE_ETAG") as refusal:
            await publish(teacher, of_story(approved, etag="99"))
        assert refusal.metadata["item"] == "items[0]"
        assert not (await teacher.read(approved.id)).published_version_id
        assert (await read_lesson(teacher, lesson)).status == LessonStatus.LESSON_STATUS_DRAFT

    async def test_takes_the_version_that_is_named(self, author: Author) -> None:
        lesson = await new_lesson(author)
        story = await author.story(text="Một.", lesson_id=lesson.id)
        await author.rewrite(story.id, "Hai.")
        made = await publish(author, of_lesson(lesson), of_story(story, story.current_version.id))
        assert [(one.item, one.version_id) for one in made.stories] == [("items[1]", story.current_version.id)]
        async with refused("RESOURCE_NOT_FOUND") as refusal:
            await publish(author, of_story(story, (await author.story()).current_version.id))
        assert refusal.metadata["item"] == "items[0]"

    async def test_leaves_out_the_archived_stories_of_a_lesson(self, author: Author) -> None:
        lesson = await new_lesson(author)
        old, story = [await author.story(lesson_id=lesson.id) for _ in range(2)]
        await author.publish(old.id)
        await author.stories.ArchiveStory(stories_pb2.ArchiveStoryRequest(id=old.id))
        assert [one.story_id for one in (await publish(author, of_lesson(lesson))).stories] == [story.id]
        async with refused("WRONG_STATE"):
            await publish(author, of_story(old))

    async def test_refuses_the_same_thing_twice(self, author: Author) -> None:
        story, lesson = await author.story(), await new_lesson(author)
        async with refused("INVALID_FIELD", field="items[1]"):
            await publish(author, of_story(story), PublicationItem(story_id=story.id.upper()))
        async with refused("INVALID_FIELD", field="items[1]"):
            await publish(author, of_lesson(lesson), of_lesson(lesson))

    async def test_is_not_for_those_who_may_not_publish(
        self, teacher: Author, student: Author, reader: Author, outsider: Author
    ) -> None:
        story = await teacher.story()
        for person in (student, reader):
            async with refused("PERMISSION_REQUIRED"):
                await publish(person, of_story(story))
            async with refused("PERMISSION_REQUIRED"):
                await preview(person, of_story(story))
        for call in (publish, preview):
            async with refused("RESOURCE_NOT_FOUND") as foreign:
                await call(outsider, of_story(story))
            async with refused("RESOURCE_NOT_FOUND") as absent:
                await call(outsider, PublicationItem(story_id=NOWHERE))
            assert foreign.status == absent.status

    async def test_at_once_with_edits_publishes_what_was_the_latest(self, author: Author) -> None:
        lesson = await new_lesson(author)
        stories = [await author.story(text="Bản 0.", lesson_id=lesson.id) for _ in range(3)]
        items = [of_story(one) for one in stories]
        done = await outcomes(
            *(publish(author, *order) for order in (items, items[::-1], [of_lesson(lesson)]) for _ in range(3)),
            *(author.rewrite(one.id, f"Bản {n}.") for one in stories for n in range(1, 4)),
        )
        assert not [one for one in done if isinstance(one, BaseException)]
        versions = {told.version_id for one in done[:9] for told in one.stories}
        for story in stories:
            now = await author.read(story.id)
            assert now.status == StoryStatus.STORY_STATUS_PUBLISHED
            assert now.published_version_id in versions
            assert now.current_version.number == 4


class TestPolicies:
    async def test_are_asked_for_each_row(self, school: School, author: Author) -> None:
        """A story that a policy keeps from teachers blocks what it is in; where they may not even read it, its id is
        not told either."""
        lesson = await new_lesson(author)
        open_one, closed = [await author.story(lesson_id=lesson.id) for _ in range(2)]
        policies = school.outsider_admin.stub(ResourcePolicyServiceStub, "identity")

        async def forbid(*actions: str) -> str:
            policy = resource_policies_pb2.ResourcePolicy(
                name=f"closed to {actions}",
                resource="story",
                actions=actions,
                effect="POLICY_EFFECT_DENY",
                priority=1000,
            )
            policy.conditions.struct_value.update({"field": "story.id", "operator": "eq", "value": closed.id})
            made = await policies.CreateResourcePolicy(
                resource_policies_pb2.CreateResourcePolicyRequest(policy=policy)
            )
            await policies.ActivateResourcePolicy(resource_policies_pb2.ActivateResourcePolicyRequest(id=made.id))
            await school.settle()
            return made.id

        first = await forbid("publish")
        await soon_refused("PERMISSION_REQUIRED", lambda: author.publish(closed.id))
        told = await preview(author, of_lesson(lesson))
        assert {one.story_id: one.outcome for one in told.stories} == {open_one.id: NEW, closed.id: BLOCKED}
        (blocked,) = (one for one in told.stories if one.outcome == BLOCKED)
        assert (blocked.title, blocked.version_id, blocked.etag) == ("", "", "")
        async with refused("PERMISSION_REQUIRED") as refusal:
            await publish(author, of_lesson(lesson))
        assert (refusal.metadata["item"], refusal.metadata["story_id"]) == ("items[0]", closed.id)
        second = await forbid("read")
        await soon_refused("PERMISSION_REQUIRED", lambda: author.read(closed.id))
        told = await preview(author, of_lesson(lesson))
        assert [one.story_id for one in told.stories] == [open_one.id]
        assert [(one.outcome, one.reason) for one in told.lessons] == [(BLOCKED, ErrorReason.PERMISSION_REQUIRED)]
        async with refused("PERMISSION_REQUIRED") as refusal:
            await publish(author, of_lesson(lesson))
        assert "story_id" not in refusal.metadata
        for policy_id in (first, second):
            request = resource_policies_pb2.DeactivateResourcePolicyRequest(id=policy_id)
            await policies.DeactivateResourcePolicy(request)


class TestPreviewPublication:
    async def test_says_what_publishing_then_does(self, author: Author) -> None:
        lesson = await new_lesson(author)
        _, changed, same = [await author.story(f"{n}", "Một hai ba.", lesson_id=lesson.id) for n in range(3)]
        await author.publish(changed.id)
        await author.publish(same.id)
        await author.rewrite(changed.id, "Một bốn ba năm.")
        items = (of_lesson(lesson), of_story(await author.story()))
        told = await preview(author, *items)
        before = {one.story_id: one.replaced_version_id for one in told.stories}
        assert [(await author.read(one)).published_version_id for one in before] == list(before.values())
        done = await publish(author, *items)
        assert outcome(told) == outcome(done) == [NEW, UPDATED, UNCHANGED, NEW]
        for one, other in zip([*told.stories, *told.lessons], [*done.stories, *done.lessons], strict=True):
            assert (one.item, one.outcome, one.title) == (other.item, other.outcome, other.title)
            assert (one.etag == other.etag) == (one.outcome == UNCHANGED)
        words = [(one.words.added, one.words.removed, one.words.changed) for one in told.stories[:3]]
        assert words == [(3, 0, 0), (1, 0, 1), (0, 0, 0)]
        for one in told.stories:
            assert (await author.read(one.story_id)).published_version_id == one.version_id
        again = await preview(author, *items)
        assert outcome(again) == [UNCHANGED] * 4
        assert again.lessons[0].outcome == UNCHANGED
        assert not again.lessons[0].becomes_visible

    async def test_says_why_something_is_blocked(self, teacher: Author, school: School, teacher2: Author) -> None:
        story, approved = await teacher.story(), await teacher.story()
        await teacher2.approve((await teacher.ask_approval(approved.current_version.id)).id)
        await school.settle()
        told = await preview(teacher, of_story(story), of_story(approved, etag="99"), of_story(await teacher.story()))
        reasons = [one.reason for one in told.stories]
        wanted = (ErrorReason.APPROVAL_REQUIRED, ErrorReason.STALE_ETAG, ErrorReason.APPROVAL_REQUIRED)
        assert reasons == list(wanted)
        assert outcome(told) == [BLOCKED] * 3
        assert all(one.message.endswith(".") for one in told.stories)

    async def test_counts_woven_words(self, author: Author) -> None:
        ids = await author.learn_words(("con mèo", "cat", "noun"), ("con chó", "dog", "noun"))
        assert ids
        story = await author.story(text="Con mèo và con chó.")
        await author.weave(story.id, "1")
        (told,) = (await preview(author, of_story(story))).stories
        assert (told.woven_words.added, told.woven_words.removed, told.woven_words.changed) == (2, 0, 0)
        await publish(author, of_story(story))
        await author.rewrite(story.id, "Con mèo và con gà.")
        await author.weave(story.id, "1")
        (told,) = (await preview(author, of_story(story))).stories
        assert (told.woven_words.added, told.woven_words.removed, told.woven_words.changed) == (0, 1, 0)

    async def test_counts_the_learners_of_what_changes(self, school: School, author: Author) -> None:
        lesson, other = await new_lesson(author), await new_lesson(author)
        draft = await new_lesson(author, published=False)
        for one in (lesson, other):
            await author.enrol(one.course_id, school.outsider)
        await author.enrol(lesson.course_id, school.outsider_teacher)
        await school.settle()
        story = await author.story(lesson_id=lesson.id)
        alone = of_story(await author.story())
        told = await preview(author, *map(of_lesson, (lesson, other, draft)), alone)
        assert [(one.becomes_visible, one.learner_count) for one in told.lessons] == [(True, 2), (True, 1), (False, 0)]
        assert {one.story_id: one.learner_count for one in told.stories}[story.id] == 2
        # Who takes both courses counts once.
        assert told.learner_count == 2
        await publish(author, of_lesson(lesson))
        assert (await preview(author, of_lesson(lesson))).learner_count == 0
