"""Copies of courses: within a tenant, and into another one by somebody who is at home in both."""

import asyncio
import io
from typing import Any

import grpc
import pytest

from services.content import packaging
from storyloom.content.v1.course_copies_pb2 import CourseOriginKind
from storyloom.content.v1.courses_pb2 import CourseStatus, DeleteCourseRequest
from storyloom.content.v1.lessons_pb2 import LessonStatus
from storyloom.content.v1.stories_pb2 import DeleteStoryRequest, ListStoriesRequest
from storyloom.content.v1.vocabularies_pb2 import DeleteVocabularyRequest
from storyloom.identity.v1.sessions_pb2 import DeleteSessionRequest
from storyloom.identity.v1.sessions_pb2_grpc import SessionServiceStub
from storyloom.identity.v1.tenants_pb2 import ResumeTenantRequest, SuspendTenantRequest
from storyloom.identity.v1.tenants_pb2_grpc import TenantServiceStub
from tests.content.archives import long_course, packed
from tests.content.conftest import Author, ListEntries, PublishApproved
from tests.content.copies import bring, copy, copy_to, export, full_course, origin, spoken_course, told
from tests.content.recording import Narrator
from tests.contract.population import ask
from tests.stack import School, refused

ABSENT = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def admin(school: School) -> Author:
    return Author(school.admin)


async def refusal_of(author: Author, course_id: str, token: str) -> str:
    """What such a copy is refused with, once every service has heard of what happened."""
    async with asyncio.timeout(5):
        while True:
            try:
                await copy_to(author, course_id, token)
            except grpc.aio.AioRpcError as error:
                return error.details() or ""
            await asyncio.sleep(0.1)


class TestCopyCourse:
    async def test_makes_drafts_of_everything_in_the_course(self, teacher: Author) -> None:
        course = await full_course(teacher)
        made = await copy(teacher, course.id)
        assert (made.units, made.lessons, made.stories, made.words_created) == (2, 3, 3, 0)
        assert made.course.id != course.id
        assert await told(teacher, made.course.id) == await told(teacher, course.id)

    async def test_leaves_statuses_behind(self, teacher: Author, publish_approved: PublishApproved) -> None:
        course = await teacher.course(published=True)
        unit = await teacher.unit(course.id)
        lesson = await teacher.lesson(unit.id, published=True)
        await publish_approved((await teacher.story(lesson_id=lesson.id)).id)
        made = await copy(teacher, course.id, "Bản sao")
        found = await told(teacher, made.course.id)
        assert made.course.title == "Bản sao"
        assert found["statuses"] == {CourseStatus.COURSE_STATUS_DRAFT, LessonStatus.LESSON_STATUS_DRAFT}
        assert len(found["stories"]) == 1

    async def test_belongs_to_whoever_makes_it(self, teacher: Author, teacher2: Author) -> None:
        course = await full_course(teacher)
        assert (await copy(teacher2, course.id)).course.author_id == teacher2.person.user_id

    async def test_is_on_its_own(self, teacher: Author) -> None:
        course = await full_course(teacher)
        made = await copy(teacher, course.id)
        before = await told(teacher, made.course.id)
        await teacher.courses.DeleteCourse(DeleteCourseRequest(id=course.id))
        assert await told(teacher, made.course.id) == before

    async def test_leaves_out_what_is_deleted(self, teacher: Author) -> None:
        course = await full_course(teacher)
        lesson = (await told(teacher, course.id))["stories"]
        listed = (await teacher.stories.ListStories(ListStoriesRequest(query="Không", page_size=100))).stories
        await asyncio.gather(*(teacher.stories.DeleteStory(DeleteStoryRequest(id=one.id)) for one in listed))
        assert len((await told(teacher, (await copy(teacher, course.id)).course.id))["stories"]) == len(lesson) - 1

    async def test_keeps_what_is_woven_with_a_word_that_is_gone(self, teacher: Author) -> None:
        ids = await teacher.learn_words(("thuyền thúng", "basket boat", "noun"))
        course = await teacher.course()
        lesson = await teacher.lesson((await teacher.unit(course.id)).id)
        story = await teacher.story("t", "Một thuyền thúng đi.", lesson_id=lesson.id)
        await teacher.weave(story.id, "1")
        await teacher.words.DeleteVocabulary(DeleteVocabularyRequest(id=ids["thuyền thúng"]))
        made = await copy(teacher, course.id)
        (stories,) = [(await told(teacher, one))["stories"] for one in (made.course.id,)]
        assert b"basket boat" in stories[0][1]["version"]

    async def test_has_the_recordings_and_when_chunks_are_heard(self, teacher: Author) -> None:
        course = await spoken_course(teacher)
        made = await copy(teacher, course.id)
        found = await told(teacher, made.course.id)
        assert found == await told(teacher, course.id)
        (recording,) = next(one["heard"] for _, one in found["stories"] if one["heard"])
        assert recording[5] == [(1, 10)]

    async def test_is_heard_when_the_original_is_gone(self, school: School, admin: Author, teacher: Author) -> None:
        course = await spoken_course(teacher)
        made = await copy(teacher, course.id)
        before = await told(teacher, made.course.id)
        source = (await origin(teacher, made.course.id)).stories[-1].source_story_id
        (audio,) = await Narrator.of(teacher.person).list(story_id=source)
        for verb in ("Delete", "Purge"):
            await Narrator.of(admin.person).act(verb, audio)
        await asyncio.sleep(0.5)
        assert await told(teacher, made.course.id) == before

    async def test_of_200_stories_is_done_within_the_time_of_a_call(self, outsider: Author) -> None:
        brought = await bring(outsider, packed(long_course(200, "con mèo và con chó. " * 30)))
        made = await copy(outsider, brought.course_id, timeout=10)
        assert (made.lessons, made.stories) == (200, 200)

    async def test_has_its_stories_in_their_order(self, teacher: Author) -> None:
        course = await full_course(teacher, stories=5)
        made = await copy(teacher, course.id)
        assert made.stories == 6
        sources = [one.source_story_id for one in (await origin(teacher, made.course.id)).stories]
        titles = [(await teacher.read(one)).title for one in sources]
        assert titles == [*(f"Chợ nổi {number}" for number in range(5)), "Không chêm"]

    async def test_has_what_the_caller_sees_alone(self, school: School, admin: Author, teacher: Author) -> None:
        course = await full_course(teacher)
        hidden = (await teacher.stories.ListStories(ListStoriesRequest(query="Không chêm", page_size=1))).stories[0]
        condition = {"field": "story.id", "operator": "eq", "value": hidden.id}
        policy = {"name": "hidden", "resource": "story", "effect": "POLICY_EFFECT_DENY", "conditions": [condition]}
        made = await ask(admin.person, "CreateResourcePolicy", policy=policy)
        await ask(admin.person, "ActivateResourcePolicy", id=made.id)
        try:
            async with asyncio.timeout(5):
                while (await copy(teacher, course.id)).stories != 2:
                    await asyncio.sleep(0.2)
        finally:
            await ask(admin.person, "DeactivateResourcePolicy", id=made.id)
        async with asyncio.timeout(5):
            while (await copy(teacher, course.id)).stories != 3:
                await asyncio.sleep(0.2)

    async def test_is_one_entry_for_each_thing(self, teacher: Author, entries_of: ListEntries) -> None:
        course = await full_course(teacher)
        made = await copy(teacher, course.id)
        (entry,) = await entries_of(entity_id=made.course.id)
        assert entry.action == "copy"
        values = entry.new_values
        assert values["source_course_id"] == course.id
        assert values["digest"] == (await origin(teacher, made.course.id)).digest
        entries = await entries_of(request_id=entry.request_id)
        kinds = sorted((one.action, one.entity_type) for one in entries)
        assert kinds == sorted(
            [("copy", "course"), *[("create", "unit")] * 2, *[("create", "lesson")] * 3, *[("create", "story")] * 3]
        )

    async def test_sent_twice_with_a_key_makes_one(self, teacher: Author) -> None:
        course = await full_course(teacher)
        key = (("idempotency-key", course.id),)
        first, second = [await copy(teacher, course.id, metadata=key) for _ in range(2)]
        assert first == second

    async def test_is_not_for_those_who_may_not_create(self, teacher: Author, student: Author) -> None:
        course = await teacher.course(published=True)
        async with refused("PERMISSION_REQUIRED") as refusal:
            await copy(student, course.id)
        assert refusal.metadata["permission"] == "course:create"

    async def test_of_what_is_not_there_or_not_ours_is_refused_alike(self, teacher: Author, outsider: Author) -> None:
        course = await outsider.course()
        async with refused("RESOURCE_NOT_FOUND") as foreign:
            await copy(teacher, course.id)
        async with refused("RESOURCE_NOT_FOUND") as absent:
            await copy(teacher, ABSENT)
        assert foreign.status == absent.status

    async def test_of_too_much_is_refused(self, teacher: Author, monkeypatch: pytest.MonkeyPatch) -> None:
        course = await full_course(teacher)
        monkeypatch.setattr("services.content.material.MOST", {"stories": 2})
        async with refused("WRONG_STATE") as refusal:
            await copy(teacher, course.id)
        assert refusal.metadata == {"state": "too_large"}


class TestCopyCourseToTenant:
    async def test_writes_there_what_was_read_here(self, admin: Author, teacher: Author, outsider: Author) -> None:
        course = await full_course(teacher)
        made = await copy_to(admin, course.id, outsider.person.token)
        assert made.course.author_id == outsider.person.user_id
        assert await told(outsider, made.course.id) == await told(teacher, course.id)
        again = await copy_to(admin, course.id, outsider.person.token)
        assert (again.words_created, again.words_matched) == (0, made.words_created + made.words_matched)
        async with refused("RESOURCE_NOT_FOUND"):
            await origin(teacher, made.course.id)

    async def test_brings_the_recordings_with_it(self, admin: Author, teacher: Author, outsider: Author) -> None:
        course = await spoken_course(teacher)
        made = await copy_to(admin, course.id, outsider.person.token)
        await asyncio.sleep(0.2)
        assert await told(outsider, made.course.id) == await told(teacher, course.id)

    async def test_is_known_in_full_to_whoever_made_it_alone(
        self, school: School, admin: Author, teacher: Author, outsider: Author
    ) -> None:
        course = await full_course(teacher)
        made = await copy_to(admin, course.id, outsider.person.token)
        theirs = await origin(outsider, made.course.id)
        assert theirs.kind == CourseOriginKind.COURSE_ORIGIN_KIND_FOREIGN_COPY
        assert (theirs.source_tenant_id, theirs.source_course_id) == (school.teacher.tenant_id, course.id)
        assert all(one.source_story_id for one in theirs.stories)
        others = await origin(Author(school.outsider_admin), made.course.id)
        assert others.digest == theirs.digest
        assert school.teacher.tenant_id not in str(others)
        assert course.id not in str(others)
        assert not any(one.source_story_id or one.source_version_id for one in others.stories)

    async def test_is_in_both_logs_neither_of_which_names_the_other_tenant(
        self, school: School, admin: Author, teacher: Author, outsider: Author, tables: Any
    ) -> None:
        course = await full_course(teacher)
        key = (("x-request-id", "both-logs"),)
        made = await copy_to(admin, course.id, outsider.person.token, metadata=key)
        await school.settle()
        rows = await tables.fetch(
            "SELECT *, convert_from(leaf, 'UTF8') AS said FROM audit.audit_logs WHERE request_id = $1", key[0][1]
        )
        here = [row for row in rows if str(row["tenant_id"]) == school.admin.tenant_id]
        there = [row for row in rows if str(row["tenant_id"]) == school.outsider_admin.tenant_id]
        assert len(here) + len(there) == len(rows)
        (export,) = here
        assert (export["action"], str(export["entity_id"])) == ("export", course.id)
        assert str(export["user_id"]) == school.admin.user_id
        assert {str(row["user_id"]) for row in there} == {outsider.person.user_id}
        assert ("copy", made.course.id) in [(row["action"], str(row["entity_id"])) for row in there]
        assert not any(course.id in row["said"] or school.admin.tenant_id in row["said"] for row in there)
        assert made.course.id not in export["said"]
        assert school.outsider_admin.tenant_id not in export["said"]

    async def test_sent_twice_with_a_key_makes_one(self, admin: Author, teacher: Author, outsider: Author) -> None:
        course = await full_course(teacher)
        key = (("idempotency-key", course.id),)
        first, second = [await copy_to(admin, course.id, outsider.person.token, metadata=key) for _ in range(2)]
        assert first.course == second.course

    async def test_does_not_keep_the_token(self, admin: Author, teacher: Author, outsider: Author, tables: Any) -> None:
        course = await full_course(teacher)
        await copy_to(admin, course.id, outsider.person.token)
        for table in ("outbox", "idempotency_keys", "course_origins"):
            assert not await tables.fetchval(
                f"SELECT count(*) FROM content.{table} AS r WHERE r::text LIKE '%' || $1 || '%'", outsider.person.token
            )

    async def test_takes_export_here_and_create_there(
        self, school: School, admin: Author, teacher: Author, outsider: Author
    ) -> None:
        course = await teacher.course()
        async with refused("PERMISSION_REQUIRED") as refusal:
            await copy_to(teacher, course.id, outsider.person.token)
        assert refusal.metadata["permission"] == "course:export"
        async with refused("PERMISSION_REQUIRED") as refusal:
            await copy_to(admin, course.id, school.outsider.token)
        assert refusal.metadata["permission"] == "course:create"

    async def test_refused_there_is_in_the_log_there(
        self, school: School, admin: Author, teacher: Author, tables: Any
    ) -> None:
        course = await teacher.course()
        async with refused("PERMISSION_REQUIRED"):
            await copy_to(admin, course.id, school.outsider.token)
        await school.settle()
        rows = await tables.fetch(
            "SELECT tenant_id, user_id FROM audit.audit_logs WHERE action = 'deny' AND rpc LIKE '%/CopyCourseToTenant'"
        )
        theirs = (school.outsider_admin.tenant_id, school.outsider.user_id)
        assert theirs in {(str(row["tenant_id"]), str(row["user_id"])) for row in rows}

    @pytest.mark.parametrize("token", ["x", "a.b.c", "Bearer x"])
    async def test_refuses_what_is_no_token(self, admin: Author, teacher: Author, token: str) -> None:
        course = await teacher.course()
        async with refused("INVALID_FIELD", field="target_access_token"):
            await copy_to(admin, course.id, token)

    async def test_refuses_a_token_that_was_changed(self, admin: Author, teacher: Author, outsider: Author) -> None:
        course = await teacher.course()
        head, body, signature = outsider.person.token.split(".")
        forged = ".".join((head, body, signature[:-4] + ("AAAA" if signature[-4:] != "AAAA" else "BBBB")))
        async with refused("INVALID_FIELD", field="target_access_token"):
            await copy_to(admin, course.id, forged)

    async def test_refuses_one_of_the_same_tenant_whosever_it_is(
        self, school: School, admin: Author, teacher: Author
    ) -> None:
        course = await teacher.course()
        for person in (school.admin, school.teacher2):
            async with refused("INVALID_FIELD", field="target_access_token"):
                await copy_to(admin, course.id, person.token)

    async def test_refuses_one_whose_session_has_ended(self, school: School, admin: Author, teacher: Author) -> None:
        course = await teacher.course()
        slug = school.outsider_admin.email.partition("@")[2].removesuffix(".example")
        gone = await school.stack.sign_in(slug, school.outsider_teacher.email)
        await gone.stub(SessionServiceStub, "identity").DeleteSession(DeleteSessionRequest())
        assert "target_access_token" in await refusal_of(admin, course.id, gone.token)

    async def test_does_not_tell_courses_of_other_tenants_from_none(
        self, admin: Author, outsider: Author, teacher: Author
    ) -> None:
        course = await outsider.course()
        async with refused("RESOURCE_NOT_FOUND") as foreign:
            await copy_to(admin, course.id, outsider.person.token)
        async with refused("RESOURCE_NOT_FOUND") as absent:
            await copy_to(admin, ABSENT, outsider.person.token)
        assert foreign.status == absent.status

    async def test_refuses_the_token_of_a_suspended_tenant(
        self, school: School, admin: Author, teacher: Author, outsider: Author
    ) -> None:
        course = await teacher.course()
        tenants = school.root.stub(TenantServiceStub, "identity")
        theirs = school.outsider_admin.tenant_id
        await tenants.SuspendTenant(SuspendTenantRequest(id=theirs))
        try:
            assert "suspended" in await refusal_of(admin, course.id, outsider.person.token)
        finally:
            await tenants.ResumeTenant(ResumeTenantRequest(id=theirs))
            await asyncio.sleep(0.5)


class TestGetCourseOrigin:
    async def test_says_where_a_copy_comes_from(self, teacher: Author, teacher2: Author) -> None:
        course = await full_course(teacher)
        made = await copy(teacher2, course.id)
        found = await origin(teacher, made.course.id)
        assert found.kind == CourseOriginKind.COURSE_ORIGIN_KIND_COPY
        assert (found.source_course_id, found.source_tenant_id) == (course.id, "")
        assert found.user_id == teacher2.person.user_id
        assert len(found.stories) == 3
        assert all(one.source_story_id and one.source_version_id and one.digest for one in found.stories)

    async def test_says_that_copies_of_the_same_are_the_same(self, teacher: Author) -> None:
        course = await full_course(teacher)
        first, second = [(await copy(teacher, course.id)).course for _ in range(2)]
        third = (await copy(teacher, first.id)).course
        digests = {(await origin(teacher, one.id)).digest for one in (first, second, third)}
        assert len(digests) == 1

    async def test_says_what_a_package_of_it_says(self, admin: Author, teacher: Author, outsider: Author) -> None:
        course = await spoken_course(teacher)
        made = await copy(teacher, course.id)
        away = await copy_to(admin, course.id, outsider.person.token)
        digest = packaging.read(io.BytesIO(await export(admin, course.id))).digest
        assert (await origin(teacher, made.course.id)).digest == digest
        assert (await origin(outsider, away.course.id)).digest == digest

    async def test_says_of_others_that_they_were_written_here(self, teacher: Author) -> None:
        found = await origin(teacher, (await teacher.course()).id)
        assert found.kind == CourseOriginKind.COURSE_ORIGIN_KIND_ORIGINAL
        assert (found.digest, found.user_id, list(found.stories)) == ("", "", [])

    async def test_is_not_for_readers(self, teacher: Author, student: Author) -> None:
        made = await copy(teacher, (await teacher.course()).id)
        async with refused("PERMISSION_REQUIRED"):
            await origin(student, made.course.id)
