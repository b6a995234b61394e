"""Extensions: more time, more attempts or another closing time for single learners."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from storyloom.assessment.v1.attempts_pb2 import Attempt
from storyloom.assessment.v1.extensions_pb2 import (
    CreateExtensionRequest,
    DeleteExtensionRequest,
    Extension,
    GetExtensionRequest,
    ListExtensionsRequest,
    UpdateExtensionRequest,
)
from storyloom.assessment.v1.extensions_pb2_grpc import ExtensionServiceStub
from storyloom.assessment.v1.quizzes_pb2 import ArchiveQuizRequest, Quiz
from storyloom.assessment.v1.quizzes_pb2_grpc import QuizServiceStub
from storyloom.audit.v1.audit_logs_pb2 import ListAuditLogsRequest
from storyloom.audit.v1.audit_logs_pb2_grpc import AuditLogServiceStub
from tests.assessment.calls import EXPIRED, GRADED, OPEN, entries, get, save, start, submit
from tests.assessment.conftest import Bank, picked, run_out
from tests.stack import Person, School, refused

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def extensions(person: Person) -> ExtensionServiceStub:
    return person.stub(ExtensionServiceStub, "assessment")


async def give(school: School, quiz: Quiz, *, by: Person | None = None, **fields: Any) -> Extension:
    """Gives the student something."""
    made = Extension(quiz_id=quiz.id, **{"user_id": school.student.user_id} | fields)
    return await extensions(by or school.teacher).CreateExtension(CreateExtensionRequest(extension=made))


async def change(school: School, extension: Extension, *paths: str, **fields: Any) -> Extension:
    changed = Extension(id=extension.id, **fields)
    request = UpdateExtensionRequest(extension=changed, update_mask=FieldMask(paths=paths) if paths else None)
    return await extensions(school.teacher).UpdateExtension(request)


async def take_back(school: School, extension: Extension, **fields: Any) -> Extension:
    return await extensions(school.teacher).DeleteExtension(DeleteExtensionRequest(id=extension.id, **fields))


def limit(attempt: Attempt) -> timedelta:
    return attempt.deadline_time.ToDatetime() - attempt.create_time.ToDatetime()


@pytest.fixture
async def quiz(bank: Bank) -> Quiz:
    """Ten minutes, once."""
    return await bank.quiz(await bank.choice_question(), time_limit=10 * MINUTE, attempts_allowed=1)


class TestCreateExtension:
    async def test_gives_more_time_to_the_open_attempt_at_once(self, school: School, quiz: Quiz) -> None:
        mine, other = await start(school.student, quiz), await start(school.student2, quiz)
        await give(school, quiz, extra_time=5 * MINUTE)
        longer = await get(school.student, mine)
        assert limit(longer) == 15 * MINUTE
        assert (longer.state, longer.etag) == (OPEN, "2")
        assert await get(school.student2, other) == other

    async def test_gives_more_time_to_attempts_to_come(self, school: School, quiz: Quiz) -> None:
        await give(school, quiz, extra_time=5 * MINUTE)
        assert limit(await start(school.student, quiz)) == 15 * MINUTE
        assert limit(await start(school.student2, quiz)) == 10 * MINUTE

    async def test_gives_more_attempts(self, school: School, quiz: Quiz) -> None:
        await submit(school.student, await start(school.student, quiz))
        async with refused("ATTEMPT_NOT_ALLOWED"):
            await start(school.student, quiz)
        await give(school, quiz, extra_attempts=1)
        await submit(school.student, await start(school.student, quiz))
        async with refused("ATTEMPT_NOT_ALLOWED"):
            await start(school.student, quiz)
        await submit(school.student2, await start(school.student2, quiz))
        async with refused("ATTEMPT_NOT_ALLOWED"):
            await start(school.student2, quiz)

    async def test_closes_the_quiz_at_another_time(self, school: School, bank: Bank) -> None:
        now = datetime.now(UTC)
        quiz = await bank.quiz(await bank.choice_question(), close_time=now - HOUR)
        async with refused("ATTEMPT_NOT_ALLOWED"):
            await start(school.student, quiz)
        await give(school, quiz, close_time=now + HOUR)
        attempt = await start(school.student, quiz)
        assert attempt.deadline_time.ToDatetime(tzinfo=UTC) == now + HOUR
        async with refused("ATTEMPT_NOT_ALLOWED"):
            await start(school.student2, quiz)

    async def test_keeps_the_answers_back_until_the_learner_has_used_it(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        quiz = await bank.quiz(question, attempts_allowed=1)
        graded = await submit(school.student, await start(school.student, quiz), picked(question, 1))
        assert graded.result.items[0].HasField("correct_response")
        await give(school, quiz, extra_attempts=1)
        assert not (await get(school.student, graded)).result.items[0].HasField("correct_response")

    async def test_does_not_open_an_attempt_again(self, school: School, quiz: Quiz) -> None:
        attempt = await start(school.student, quiz)
        await run_out(school, attempt)
        await give(school, quiz, extra_time=23 * HOUR)
        over = await get(school.student, attempt)
        assert over.state == EXPIRED
        assert over.submit_time == over.deadline_time

    async def test_is_one_for_each_learner_and_quiz(self, school: School, quiz: Quiz) -> None:
        await give(school, quiz, extra_time=5 * MINUTE)
        await give(school, quiz, extra_time=5 * MINUTE, user_id=school.student2.user_id)
        async with refused("RESOURCE_ALREADY_EXISTS", code=grpc.StatusCode.ALREADY_EXISTS):
            await give(school, quiz, extra_attempts=1)

    async def test_refuses_what_is_not_there(self, school: School, quiz: Quiz, bank: Bank) -> None:
        for fields in ({"quiz_id": str(uuid4())}, {"user_id": str(uuid4())}, {"user_id": school.outsider.user_id}):
            made = Extension(**{"quiz_id": quiz.id, "user_id": school.student.user_id} | fields)
            async with refused("REFERENCE_NOT_FOUND", code=grpc.StatusCode.FAILED_PRECONDITION) as refusal:
                await extensions(school.teacher).CreateExtension(CreateExtensionRequest(extension=made))
            assert refusal.metadata["field"] == f"extension.{next(iter(fields))}"
        async with refused("REFERENCE_NOT_FOUND"):
            await give(school, quiz, by=school.outsider_teacher, user_id=school.outsider.user_id)

    async def test_refuses_an_archived_quiz(self, school: School, quiz: Quiz) -> None:
        await school.teacher.stub(QuizServiceStub, "assessment").ArchiveQuiz(ArchiveQuizRequest(id=quiz.id))
        async with refused("WRONG_STATE"):
            await give(school, quiz, extra_attempts=1)

    async def test_is_not_for_learners(self, school: School, quiz: Quiz) -> None:
        async with refused("PERMISSION_REQUIRED"):
            await give(school, quiz, by=school.student, extra_time=HOUR)

    async def test_misses_no_attempt_that_starts_at_the_same_moment(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        for _ in range(8):
            quiz = await bank.quiz(question, time_limit=10 * MINUTE)
            attempt, _ = await asyncio.gather(
                start(school.student, quiz), give(school, quiz, extra_time=5 * MINUTE)
            )
            assert limit(await get(school.student, attempt)) == 15 * MINUTE

    async def test_is_audited_with_the_attempt_that_it_extends_and_its_reason_sealed(
        self, school: School, quiz: Quiz
    ) -> None:
        attempt = await start(school.student, quiz)
        extension = await give(school, quiz, extra_time=5 * MINUTE, reason="canary-illness")
        *_, extended = await entries(school, attempt)
        assert (extended.action, extended.user_id) == ("extend", school.teacher.user_id)
        assert {*dict(extended.new_values)} == {*dict(extended.old_values)} == {"deadline_time"}
        stub = school.auditor.stub(AuditLogServiceStub, "audit")
        request = ListAuditLogsRequest(entity_type="extension", entity_id=extension.id)
        (entry,) = (await stub.ListAuditLogs(request)).audit_logs
        assert entry.action == "create"
        assert dict(entry.new_values)["user_id"] == school.student.user_id


class TestGetExtension:
    async def test_is_for_teachers_and_the_learner(self, school: School, quiz: Quiz) -> None:
        extension = await give(school, quiz, extra_time=5 * MINUTE, reason="ill")
        request = GetExtensionRequest(id=extension.id)
        for person in (school.teacher, school.teacher2, school.student):
            assert await extensions(person).GetExtension(request) == extension
        async with refused("PERMISSION_REQUIRED"):
            await extensions(school.student2).GetExtension(request)
        async with refused("RESOURCE_NOT_FOUND"):
            await extensions(school.outsider_admin).GetExtension(request)


class TestListExtensions:
    async def test_shows_learners_their_own(self, school: School, quiz: Quiz) -> None:
        mine = await give(school, quiz, extra_attempts=1)
        other = await give(school, quiz, extra_attempts=2, user_id=school.student2.user_id)
        request = ListExtensionsRequest(quiz_id=quiz.id)
        assert list((await extensions(school.teacher).ListExtensions(request)).extensions) == [other, mine]
        assert list((await extensions(school.student).ListExtensions(request)).extensions) == [mine]
        assert not (await extensions(school.outsider_admin).ListExtensions(request)).extensions
        request.user_id = school.student2.user_id
        assert list((await extensions(school.teacher).ListExtensions(request)).extensions) == [other]
        assert not (await extensions(school.student).ListExtensions(request)).extensions


class TestUpdateExtension:
    async def test_moves_the_deadline_of_the_open_attempt(self, school: School, quiz: Quiz) -> None:
        attempt = await start(school.student, quiz)
        extension = await give(school, quiz, extra_time=5 * MINUTE)
        changed = await change(school, extension, extra_time=30 * MINUTE)
        assert (changed.extra_time.ToTimedelta(), changed.etag) == (30 * MINUTE, "2")
        assert limit(await get(school.student, attempt)) == 40 * MINUTE
        await change(school, extension, "extra_time")
        assert limit(await get(school.student, attempt)) == 10 * MINUTE

    async def test_ends_the_attempt_at_once_and_never_in_the_past(self, school: School, quiz: Quiz) -> None:
        attempt = await start(school.student, quiz)
        extension = await give(school, quiz, extra_time=5 * MINUTE)
        before = datetime.now(UTC)
        await change(school, extension, close_time=before - HOUR)
        over = await get(school.student, attempt)
        assert over.state == EXPIRED
        assert over.submit_time.ToDatetime(tzinfo=UTC) >= before

    async def test_refuses_a_stale_etag(self, school: School, quiz: Quiz) -> None:
        extension = await give(school, quiz, extra_time=5 * MINUTE)
        async with refused("STALE_ETAG"):
            await change(school, extension, extra_attempts=1, etag="7")


class TestDeleteExtension:
    async def test_gives_the_open_attempt_the_deadline_that_it_had(self, school: School, quiz: Quiz) -> None:
        attempt = await start(school.student, quiz)
        extension = await give(school, quiz, extra_time=5 * MINUTE)
        assert await take_back(school, extension) == extension
        assert limit(await get(school.student, attempt)) == 10 * MINUTE
        async with refused("RESOURCE_NOT_FOUND"):
            await take_back(school, extension)
        await give(school, quiz, extra_attempts=1)

    async def test_refuses_a_stale_etag(self, school: School, quiz: Quiz) -> None:
        extension = await give(school, quiz, extra_time=5 * MINUTE)
        async with refused("STALE_ETAG"):
            await take_back(school, extension, etag="7")


class TestTimeAtAll:
    async def test_a_response_saved_in_the_time_that_was_given_counts(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        quiz = await bank.quiz(question, close_time=datetime.now(UTC) + timedelta(seconds=1.5))
        attempt = await start(school.student, quiz)
        await give(school, quiz, close_time=datetime.now(UTC) + HOUR)
        await asyncio.sleep(1.6)
        await save(school.student, attempt, picked(question, 0))
        assert (await submit(school.student, attempt)).state == GRADED
