"""The time learners spend in lessons."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from storyloom.audit.v1.approvals_pb2 import Approval, ApproveApprovalRequest, CreateApprovalRequest
from storyloom.audit.v1.approvals_pb2_grpc import ApprovalServiceStub
from storyloom.content.v1.stories_pb2 import CreateStoryRequest, PublishStoryRequest, Story
from storyloom.content.v1.stories_pb2_grpc import StoryServiceStub
from storyloom.learning.v1.learning_sessions_pb2 import (
    CreateLearningSessionRequest,
    EndLearningSessionRequest,
    GetLearningSessionRequest,
    HeartbeatLearningSessionRequest,
    LearningSession,
    LearningSessionState,
    ListLearningSessionsRequest,
)
from storyloom.learning.v1.learning_sessions_pb2_grpc import LearningSessionServiceStub
from tests.learning.conftest import Connection, Course, ListEntries, MakeCourse
from tests.stack import Person, Refusal, School, refused

OPEN = LearningSessionState.LEARNING_SESSION_STATE_OPEN
ENDED = LearningSessionState.LEARNING_SESSION_STATE_ENDED
ABANDONED = LearningSessionState.LEARNING_SESSION_STATE_ABANDONED


def sessions_of(person: Person) -> LearningSessionServiceStub:
    return person.stub(LearningSessionServiceStub, "learning")


async def begin(person: Person, lesson_id: str, story_id: str = "") -> LearningSession:
    wanted = LearningSession(lesson_id=lesson_id, story_id=story_id)
    return await sessions_of(person).CreateLearningSession(CreateLearningSessionRequest(learning_session=wanted))


async def beat(person: Person, session_id: str, interactions: int = 0) -> LearningSession:
    request = HeartbeatLearningSessionRequest(id=session_id, interactions=interactions)
    return await sessions_of(person).HeartbeatLearningSession(request)


async def end(person: Person, session_id: str, etag: str = "") -> LearningSession:
    return await sessions_of(person).EndLearningSession(EndLearningSessionRequest(id=session_id, etag=etag))


async def get(person: Person, session_id: str) -> LearningSession:
    return await sessions_of(person).GetLearningSession(GetLearningSessionRequest(id=session_id))


async def publish_story(school: School, lesson_id: str) -> str:
    stories = school.teacher.stub(StoryServiceStub, "content")
    text = "Sáng sớm, mẹ ra chợ nổi mua cá."
    story = await stories.CreateStory(
        CreateStoryRequest(story=Story(title="Chợ nổi", language="vi", lesson_id=lesson_id, text=text))
    )
    wanted = Approval(entity_type="story_version", entity_id=story.current_version.id)
    asked = await school.teacher.stub(ApprovalServiceStub, "audit").CreateApproval(
        CreateApprovalRequest(approval=wanted)
    )
    await school.teacher2.stub(ApprovalServiceStub, "audit").ApproveApproval(ApproveApprovalRequest(id=asked.id))
    await school.settle()
    await stories.PublishStory(PublishStoryRequest(id=story.id))
    return story.id


async def let_pass(tables: "Connection[Any]", session_id: str, time: timedelta) -> None:
    """Makes the session as it will be after that time without a sign of life."""
    await tables.execute(
        "UPDATE learning.learning_sessions SET start_time = start_time - $1::interval,"
        " last_seen_time = last_seen_time - $1"
        " WHERE id = $2",
        time, session_id,
    )  # fmt: skip


class TestCreateLearningSession:
    async def test_opens_a_session_of_the_caller(self, school: School, course: Course, entries_of: ListEntries) -> None:
        opened = await begin(school.student, course.lesson_ids[0])
        assert (opened.state, opened.user_id, opened.lesson_id) == (OPEN, school.student.user_id, course.lesson_ids[0])
        assert opened.start_time == opened.last_seen_time
        assert not opened.active_duration.ToTimedelta()
        assert not opened.HasField("end_time")
        assert await get(school.student, opened.id) == opened
        [entry] = await entries_of(entity_type="learning_session", entity_id=opened.id)
        assert (entry.action, entry.user_id) == ("create", school.student.user_id)

    async def test_ends_the_one_that_was_open(
        self, school: School, course: Course, tables: "Connection[Any]", entries_of: ListEntries
    ) -> None:
        first = await begin(school.student, course.lesson_ids[0])
        await let_pass(tables, first.id, timedelta(seconds=40))
        second = await begin(school.student, course.lesson_ids[1])
        earlier = await get(school.student, first.id)
        assert (earlier.state, second.state) == (ENDED, OPEN)
        assert earlier.end_time == second.start_time
        assert 40 <= earlier.active_duration.ToTimedelta().total_seconds() < 45
        created, ended = await entries_of(entity_type="learning_session", entity_id=first.id)
        assert (created.action, ended.action) == ("create", "end")
        assert (ended.old_values["state"], ended.new_values["state"]) == ("open", "ended")

    async def test_an_earlier_one_left_alone_was_abandoned_when_last_heard_of(
        self, school: School, course: Course, tables: "Connection[Any]"
    ) -> None:
        first = await begin(school.student, course.lesson_ids[0])
        await let_pass(tables, first.id, timedelta(minutes=45))
        silent = await get(school.student, first.id)
        assert silent.state == ABANDONED
        assert silent.end_time == silent.last_seen_time
        await begin(school.student, course.lesson_ids[0])
        after = await get(school.student, first.id)
        assert (after.state, after.end_time) == (ABANDONED, silent.last_seen_time)
        assert not after.active_duration.ToTimedelta()

    async def test_of_concurrent_beginnings_one_session_stays_open(self, school: School, course: Course) -> None:
        await asyncio.gather(*(begin(school.student, course.lesson_ids[0]) for _ in range(3)), return_exceptions=True)
        request = ListLearningSessionsRequest(lesson_id=course.lesson_ids[0], state=OPEN)
        listed = await sessions_of(school.student).ListLearningSessions(request)
        assert len(listed.learning_sessions) == 1

    async def test_refuses_lessons_that_are_not_the_learners(self, school: School, course: Course) -> None:
        async with refused("PERMISSION_REQUIRED"):
            await begin(school.student2, course.lesson_ids[0])
        draft = await course.add_lesson(published=False)
        await school.settle()
        async with refused("WRONG_STATE") as refusal:
            await begin(school.student, draft)
        assert refusal.metadata["state"] == "draft"

    async def test_a_foreign_lesson_is_as_absent_as_any(self, school: School, course: Course) -> None:
        answers: list[Refusal] = []
        for lesson_id in (course.lesson_ids[0], str(uuid4())):
            async with refused("RESOURCE_NOT_FOUND") as refusal:
                await begin(school.outsider, lesson_id)
            answers.append(refusal)
        assert answers[0].status == answers[1].status

    async def test_takes_a_story_of_the_lesson_only(self, school: School, course: Course) -> None:
        story_id = await publish_story(school, course.lesson_ids[0])
        opened = await begin(school.student, course.lesson_ids[0], story_id)
        assert opened.story_id == story_id
        for lesson_id, wrong_id in ((course.lesson_ids[1], story_id), (course.lesson_ids[0], str(uuid4()))):
            async with refused("RESOURCE_NOT_FOUND") as refusal:
                await begin(school.student, lesson_id, wrong_id)
            assert refusal.metadata["resource"] == "story"


class TestHeartbeatLearningSession:
    async def test_counts_the_time_since_the_last_one_and_what_is_believable(
        self, school: School, course: Course, tables: "Connection[Any]"
    ) -> None:
        opened = await begin(school.student, course.lesson_ids[0])
        await let_pass(tables, opened.id, timedelta(seconds=30))
        beaten = await beat(school.student, opened.id, 7)
        assert 30 <= beaten.active_duration.ToTimedelta().total_seconds() < 33
        assert beaten.interactions == 7
        assert (await beat(school.student, opened.id, 1000)).interactions < 7 + 30
        await let_pass(tables, opened.id, timedelta(minutes=10))
        idle = await beat(school.student, opened.id)
        assert 90 <= idle.active_duration.ToTimedelta().total_seconds() < 93
        assert idle.state == OPEN

    async def test_concurrent_ones_never_make_more_time_than_has_passed(self, school: School, course: Course) -> None:
        opened = await begin(school.student, course.lesson_ids[0])
        await asyncio.gather(*(beat(school.student, opened.id, 1) for _ in range(8)))
        found = await get(school.student, opened.id)
        assert found.active_duration.ToTimedelta() == (
            found.last_seen_time.ToDatetime() - found.start_time.ToDatetime()
        )

    async def test_refuses_a_session_that_does_not_go_on(
        self, school: School, course: Course, tables: "Connection[Any]"
    ) -> None:
        opened = await begin(school.student, course.lesson_ids[0])
        await let_pass(tables, opened.id, timedelta(minutes=31))
        async with refused("WRONG_STATE") as refusal:
            await beat(school.student, opened.id)
        assert refusal.metadata["state"] == "abandoned"
        another = await begin(school.student, course.lesson_ids[0])
        await end(school.student, another.id)
        async with refused("WRONG_STATE") as refusal:
            await beat(school.student, another.id)
        assert refusal.metadata["state"] == "ended"

    @pytest.mark.parametrize("interactions", [-1, 1001])
    async def test_refuses_numbers_out_of_range(self, school: School, interactions: int) -> None:
        async with refused("INVALID_FIELD", field="interactions"):
            await beat(school.student, str(uuid4()), interactions)

    async def test_nobody_lives_through_anothers_session(self, school: School, course: Course) -> None:
        opened = await begin(school.student, course.lesson_ids[0])
        for person in (school.student2, school.teacher, school.admin):
            async with refused("PERMISSION_REQUIRED"):
                await beat(person, opened.id)
            async with refused("PERMISSION_REQUIRED"):
                await end(person, opened.id)
        async with refused("RESOURCE_NOT_FOUND"):
            await beat(school.outsider, opened.id)


class TestEndLearningSession:
    async def test_counts_what_is_left_and_ends_once(
        self, school: School, course: Course, tables: "Connection[Any]", entries_of: ListEntries
    ) -> None:
        opened = await begin(school.student, course.lesson_ids[0])
        await let_pass(tables, opened.id, timedelta(seconds=20))
        ended = await end(school.student, opened.id, opened.etag)
        assert ended.state == ENDED
        assert ended.end_time == ended.last_seen_time
        assert 20 <= ended.active_duration.ToTimedelta().total_seconds() < 23
        assert await end(school.student, opened.id, opened.etag) == ended
        entries = await entries_of(entity_type="learning_session", entity_id=opened.id)
        assert [one.action for one in entries] == ["create", "end"]

    async def test_refuses_a_stale_etag_and_an_abandoned_session(
        self, school: School, course: Course, tables: "Connection[Any]"
    ) -> None:
        opened = await begin(school.student, course.lesson_ids[0])
        await beat(school.student, opened.id)
        async with refused("STALE_ETAG"):
            await end(school.student, opened.id, opened.etag)
        await let_pass(tables, opened.id, timedelta(minutes=31))
        async with refused("WRONG_STATE"):
            await end(school.student, opened.id)


class TestGetLearningSession:
    async def test_teachers_see_it_and_other_learners_do_not(self, school: School, course: Course) -> None:
        opened = await begin(school.student, course.lesson_ids[0])
        assert await get(school.teacher, opened.id) == opened
        async with refused("PERMISSION_REQUIRED"):
            await get(school.student2, opened.id)

    async def test_a_foreign_one_is_as_absent_as_any(self, school: School, course: Course) -> None:
        opened = await begin(school.student, course.lesson_ids[0])
        answers: list[Refusal] = []
        for session_id in (opened.id, str(uuid4())):
            async with refused("RESOURCE_NOT_FOUND") as refusal:
                await get(school.outsider_admin, session_id)
            answers.append(refusal)
        assert answers[0].status == answers[1].status


class TestListLearningSessions:
    async def test_filters_by_the_state_that_is_shown(
        self, school: School, course: Course, tables: "Connection[Any]"
    ) -> None:
        lesson = course.lesson_ids[0]
        ended = await begin(school.student, lesson)
        await end(school.student, ended.id)
        silent = await begin(school.student, lesson)
        await let_pass(tables, silent.id, timedelta(hours=1))
        for state, wanted in ((OPEN, []), (ENDED, [ended.id]), (ABANDONED, [silent.id]), (0, [silent.id, ended.id])):
            listed = await sessions_of(school.student).ListLearningSessions(
                ListLearningSessionsRequest(lesson_id=lesson, state=state)
            )
            assert [one.id for one in listed.learning_sessions] == wanted

    async def test_learners_list_their_own_teachers_everyones_and_strangers_nothing(
        self, school: School, course: Course, make_course: MakeCourse
    ) -> None:
        lesson = course.lesson_ids[0]
        await course.enrol(school.student2)
        mine, theirs = await begin(school.student, lesson), await begin(school.student2, lesson)
        request = ListLearningSessionsRequest(lesson_id=lesson)
        for person, wanted in (
            (school.student, {mine.id}),
            (school.student2, {theirs.id}),
            (school.teacher, {mine.id, theirs.id}),
            (school.outsider_admin, set()),
        ):
            listed = await sessions_of(person).ListLearningSessions(request)
            assert {one.id for one in listed.learning_sessions} == wanted
        of_one = ListLearningSessionsRequest(lesson_id=lesson, user_id=school.student2.user_id)
        assert not (await sessions_of(school.student).ListLearningSessions(of_one)).learning_sessions
