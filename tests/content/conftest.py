"""People with content's stubs at hand, and what they write."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cached_property
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event as sqlalchemy_event

from storyloom.audit.v1.approvals_pb2 import Approval, ApproveApprovalRequest, CreateApprovalRequest
from storyloom.audit.v1.approvals_pb2_grpc import ApprovalServiceStub
from storyloom.audit.v1.audit_logs_pb2 import AuditLog, ListAuditLogsRequest
from storyloom.audit.v1.audit_logs_pb2_grpc import AuditLogServiceStub
from storyloom.content.v1 import (
    courses_pb2,
    lessons_pb2,
    stories_pb2,
    story_versions_pb2,
    units_pb2,
    vocabularies_pb2,
    weaves_pb2,
)
from storyloom.content.v1.courses_pb2_grpc import CourseServiceStub
from storyloom.content.v1.lessons_pb2_grpc import LessonServiceStub
from storyloom.content.v1.publications_pb2_grpc import PublicationServiceStub
from storyloom.content.v1.stories_pb2_grpc import StoryServiceStub
from storyloom.content.v1.story_versions_pb2_grpc import StoryVersionServiceStub
from storyloom.content.v1.units_pb2_grpc import UnitServiceStub
from storyloom.content.v1.vocabularies_pb2_grpc import VocabularyServiceStub
from storyloom.content.v1.weaves_pb2_grpc import WeaveServiceStub
from storyloom.identity.v1.tenants_pb2 import Tenant, TenantSettings, UpdateTenantRequest
from storyloom.identity.v1.tenants_pb2_grpc import TenantServiceStub
from storyloom.learning.v1.enrollments_pb2 import CreateEnrollmentRequest, Enrollment
from storyloom.learning.v1.enrollments_pb2_grpc import EnrollmentServiceStub
from tests.stack import Person, School, Stack, found_school

TEXT = (
    "Sáng sớm, mặt trời lên trên dòng sông. Ông nội chèo ghe ra chợ nổi, dòng sông còn im.\n\n"
    "Ghe của ông nội chở đầy dưa hấu. Nam ngồi trên ghe và nhìn mặt trời.\n\n"
    "“Dòng sông rộng quá!” Nam nói. Ông nội cười."
)
WORDS = (
    ("mặt trời", "sun", "noun"),
    ("dòng sông", "river", "noun"),
    ("ông nội", "grandfather", "noun"),
    ("ghe", "boat", "noun"),
    ("dưa hấu", "watermelon", "noun"),
    ("nhìn", "look at", "verb"),
    ("ngồi", "sit", "verb"),
)


class Author:
    """Somebody who calls content."""

    def __init__(self, person: Person) -> None:
        self.person = person

    @cached_property
    def courses(self) -> Any:
        return self.person.stub(CourseServiceStub, "content")

    @cached_property
    def units(self) -> Any:
        return self.person.stub(UnitServiceStub, "content")

    @cached_property
    def lessons(self) -> Any:
        return self.person.stub(LessonServiceStub, "content")

    @cached_property
    def stories(self) -> Any:
        return self.person.stub(StoryServiceStub, "content")

    @cached_property
    def versions(self) -> Any:
        return self.person.stub(StoryVersionServiceStub, "content")

    @cached_property
    def publications(self) -> Any:
        return self.person.stub(PublicationServiceStub, "content")

    @cached_property
    def words(self) -> Any:
        return self.person.stub(VocabularyServiceStub, "content")

    @cached_property
    def weaves(self) -> Any:
        return self.person.stub(WeaveServiceStub, "content")

    async def course(self, title: str = "Tiếng Anh", *, published: bool = False) -> courses_pb2.Course:
        made = await self.courses.CreateCourse(courses_pb2.CreateCourseRequest(course=courses_pb2.Course(title=title)))
        if published:
            return await self.courses.PublishCourse(courses_pb2.PublishCourseRequest(id=made.id))
        return made

    async def unit(self, course_id: str, title: str = "Chương", *, position: int = 0) -> units_pb2.Unit:
        unit = units_pb2.Unit(course_id=course_id, title=title, position=position)
        return await self.units.CreateUnit(units_pb2.CreateUnitRequest(unit=unit))

    async def lesson(
        self, unit_id: str, title: str = "Bài", *, published: bool = False, **more: Any
    ) -> lessons_pb2.Lesson:
        lesson = lessons_pb2.Lesson(unit_id=unit_id, title=title, **more)
        made = await self.lessons.CreateLesson(lessons_pb2.CreateLessonRequest(lesson=lesson))
        if published:
            return await self.lessons.PublishLesson(lessons_pb2.PublishLessonRequest(id=made.id))
        return made

    async def story(self, title: str = "Chợ nổi", text: str = TEXT, **more: Any) -> stories_pb2.Story:
        story = stories_pb2.Story(title=title, text=text, **more)
        return await self.stories.CreateStory(stories_pb2.CreateStoryRequest(story=story))

    async def read(self, story_id: str, view: Any = story_versions_pb2.FULL) -> stories_pb2.Story:
        return await self.stories.GetStory(stories_pb2.GetStoryRequest(id=story_id, view=view))

    async def rewrite(self, story_id: str, text: str) -> stories_pb2.Story:
        story = stories_pb2.Story(id=story_id, text=text)
        return await self.stories.UpdateStory(stories_pb2.UpdateStoryRequest(story=story))

    async def retitle(self, story_id: str, title: str) -> stories_pb2.Story:
        story = stories_pb2.Story(id=story_id, title=title)
        return await self.stories.UpdateStory(stories_pb2.UpdateStoryRequest(story=story))

    async def weave(self, story_id: str, noun: str = "0.4", **more: Any) -> stories_pb2.Story:
        target = weaves_pb2.ClozeConfig(part_of_speech="PART_OF_SPEECH_NOUN", ratio=noun)
        return await self.weaves.WeaveStory(weaves_pb2.WeaveStoryRequest(id=story_id, targets=[target], **more))

    async def publish(self, story_id: str, version_id: str = "") -> stories_pb2.Story:
        return await self.stories.PublishStory(stories_pb2.PublishStoryRequest(id=story_id, version_id=version_id))

    async def ask_approval(self, version_id: str) -> Approval:
        approvals = self.person.stub(ApprovalServiceStub, "audit")
        wanted = Approval(entity_type="story_version", entity_id=version_id)
        return await approvals.CreateApproval(CreateApprovalRequest(approval=wanted))

    async def approve(self, approval_id: str) -> Approval:
        approvals = self.person.stub(ApprovalServiceStub, "audit")
        return await approvals.ApproveApproval(ApproveApprovalRequest(id=approval_id))

    async def enrol(self, course_id: str, learner: Person) -> Enrollment:
        enrollments = self.person.stub(EnrollmentServiceStub, "learning")
        wanted = Enrollment(course_id=course_id, user_id=learner.user_id)
        return await enrollments.CreateEnrollment(CreateEnrollmentRequest(enrollment=wanted))

    async def learn_words(self, *words: tuple[str, str, str]) -> dict[str, str]:
        """Adds the words, if they are not there; the ids by term."""
        sent = [
            vocabularies_pb2.Vocabulary(
                term=term,
                translation=translation,
                part_of_speech=f"PART_OF_SPEECH_{part.upper()}",
                explanation=f"{translation}: {term}.",
            )
            for term, translation, part in words
        ]
        await self.words.BatchCreateVocabularies(vocabularies_pb2.BatchCreateVocabulariesRequest(vocabularies=sent))
        found = await self.words.ListVocabularies(vocabularies_pb2.ListVocabulariesRequest(page_size=100))
        return {one.term: one.id for one in found.vocabularies}


@pytest.fixture(scope="session")
def teacher(school: School) -> Author:
    return Author(school.teacher)


@pytest.fixture(scope="session")
def teacher2(school: School) -> Author:
    return Author(school.teacher2)


@pytest.fixture(scope="session")
def student(school: School) -> Author:
    return Author(school.student)


@pytest.fixture(scope="session")
def reader(school: School) -> Author:
    """Somebody whose role gives no permission here, so that the built-in rules alone decide."""
    return Author(school.auditor)


@pytest.fixture(scope="session")
def outsider(school: School) -> Author:
    """A teacher of another tenant."""
    return Author(school.outsider_teacher)


@pytest.fixture(scope="session")
async def principal(stack: Stack) -> Author:
    """An administrator of a school of its own, which publishes without approvals."""
    school = await found_school(stack, f"free{secrets.token_hex(4)}", f"beside{secrets.token_hex(4)}")
    tenant = Tenant(id=school.admin.tenant_id, settings=TenantSettings(approval_required=False))
    await school.admin.stub(TenantServiceStub, "identity").UpdateTenant(UpdateTenantRequest(tenant=tenant))
    await stack.settle()
    return Author(school.admin)


@pytest.fixture(scope="session")
async def words(teacher: Author) -> dict[str, str]:
    """The ids of the vocabulary that the story above is woven with, by term."""
    return await teacher.learn_words(*WORDS)


def undone(version: story_versions_pb2.StoryVersion) -> str:
    """The source text, of the chunks."""
    return "".join(
        chunk.source if chunk.kind == story_versions_pb2.CHUNK_KIND_CHEM else chunk.text
        for chunk in version.chunks
        if chunk.kind != story_versions_pb2.CHUNK_KIND_EXPLAIN
    )


PublishApproved = Callable[[str], Awaitable[stories_pb2.Story]]


@pytest.fixture
def publish_approved(school: School, teacher: Author, teacher2: Author) -> PublishApproved:
    """Has the story's current version approved by a second person, and publishes it."""

    async def publish(story_id: str) -> stories_pb2.Story:
        version = (await teacher.read(story_id)).current_version
        approval = await teacher.ask_approval(version.id)
        await teacher2.approve(approval.id)
        await school.settle()
        return await teacher.publish(story_id, version.id)

    return publish


@pytest.fixture
async def tables(school: School) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """The database as its superuser sees it."""
    connection = await asyncpg.connect(school.stack.cluster.superuser_url)
    yield connection
    await connection.close()


@pytest.fixture
def statements(school: School) -> Any:
    """Collects the statements that content sends, through its engine or past it, while the block runs."""
    service = school.stack.services["content"]
    engine, span = service.db.engine.sync_engine, service.telemetry.statement_span

    class Collected:
        def __init__(self) -> None:
            self.texts: list[str] = []

        def note(self, connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
            self.texts.append(statement)

        def past_the_engine(self, statement: str) -> Any:
            self.texts.append(statement)
            return span(statement)

        def __enter__(self) -> list[str]:
            sqlalchemy_event.listen(engine, "before_cursor_execute", self.note)
            service.telemetry.statement_span = self.past_the_engine  # type: ignore[method-assign]
            return self.texts

        def __exit__(self, *error: object) -> None:
            sqlalchemy_event.remove(engine, "before_cursor_execute", self.note)
            service.telemetry.statement_span = span  # type: ignore[method-assign]

    return Collected


ListEntries = Callable[..., Awaitable[list[AuditLog]]]


@pytest.fixture
def entries_of(school: School) -> ListEntries:
    """Audit entries, oldest first, once all of them are there."""

    async def entries(**wanted: str) -> list[AuditLog]:
        await school.settle()
        logs = school.auditor.stub(AuditLogServiceStub, "audit")
        found = await logs.ListAuditLogs(ListAuditLogsRequest(page_size=100, **wanted))
        return list(reversed(found.audit_logs))

    return entries


async def outcomes(*calls: Awaitable[Any]) -> list[Any]:
    """What came of calls made at once, errors too."""
    return await asyncio.gather(*calls, return_exceptions=True)
