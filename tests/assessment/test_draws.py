"""Quizzes whose attempts draw questions."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest

from kit.db import WriteSession
from services.assessment.queries import attempts
from services.assessment.queries.quizzes import CANDIDATES
from services.assessment.rules import Taking
from storyloom.assessment.v1.questions_pb2 import DeleteQuestionRequest, PurgeQuestionRequest, Question
from storyloom.assessment.v1.questions_pb2_grpc import QuestionServiceStub
from storyloom.assessment.v1.quizzes_pb2 import (
    ArchiveQuizRequest,
    DuplicateQuizRequest,
    GetQuizRequest,
    PublishQuizRequest,
    Quiz,
    QuizDraw,
    QuizItem,
    UpdateQuizRequest,
)
from storyloom.assessment.v1.quizzes_pb2_grpc import QuizServiceStub
from tests.assessment.calls import get, start, submit
from tests.assessment.conftest import Bank, owner_executes, picked
from tests.stack import Person, School, refused


def quizzes(person: Person) -> QuizServiceStub:
    return person.stub(QuizServiceStub, "assessment")


def draw(count: int, *questions: Question, points: str = "1", **fields: Any) -> QuizItem:
    return QuizItem(points=points, draw=QuizDraw(count=count, question_ids=[one.id for one in questions], **fields))


def ids(questions: Any) -> list[str]:
    return [getattr(one, "question_id", "") or one.id for one in questions]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The steps of a query's plan."""
    yield plan
    for one in plan.get("Plans", ()):
        yield from nodes(one)


async def delete(school: School, question: Question) -> None:
    await school.teacher.stub(QuestionServiceStub, "assessment").DeleteQuestion(DeleteQuestionRequest(id=question.id))


@pytest.fixture
async def tag() -> str:
    return f"tag {uuid4()}"


class TestFromAList:
    async def test_each_attempt_keeps_what_it_drew_and_is_graded_on_it(self, school: School, bank: Bank) -> None:
        fixed, *pool = [await bank.choice_question() for _ in range(6)]
        quiz = await bank.quiz(draw(2, *pool, points="0.3"), (fixed, "1.5"))
        assert (quiz.question_count, quiz.max_score) == (3, "2.1")
        drawn = set()
        for _ in range(6):
            attempt = await start(school.student, quiz)
            *two, last = ids(attempt.questions)
            assert last == fixed.id
            assert len({*two} & {*ids(pool)}) == 2
            assert await get(school.student, attempt) == attempt
            right = [picked(one, 0) for one in (*pool, fixed) if one.id in (*two, last)]
            graded = await submit(school.student, attempt, *right)
            assert (graded.result.score, graded.result.max_score) == ("2.1", "2.1")
            drawn.update(two)
        assert len(drawn) > 2

    async def test_refuses_responses_to_what_was_not_drawn(self, school: School, bank: Bank) -> None:
        pool = [await bank.choice_question() for _ in range(2)]
        attempt = await start(school.student, await bank.quiz(draw(1, *pool)))
        (other,) = [one for one in pool if one.id not in ids(attempt.questions)]
        async with refused("INVALID_FIELD", field="responses[0].question_id"):
            await submit(school.student, attempt, picked(other, 0))

    async def test_comes_back_as_it_was_written(self, school: School, bank: Bank) -> None:
        one, two, three = [await bank.choice_question() for _ in range(3)]
        items = [draw(1, two, three, points="2"), QuizItem(question_id=one.id, points="1"), QuizItem(points="0.5")]
        items[2].draw.CopyFrom(QuizDraw(count=1, tags=["x"], type="QUESTION_TYPE_NUMERIC"))
        quiz = await bank.quiz(*items, publish=False)
        assert list(quiz.items) == items
        read = await quizzes(school.teacher).GetQuiz(GetQuizRequest(id=quiz.id))
        assert read == quiz
        same = await quizzes(school.teacher).UpdateQuiz(UpdateQuizRequest(quiz=Quiz(id=quiz.id, items=items[::-1])))
        assert list(same.items) == items[::-1]

    async def test_refuses_a_list_that_is_too_short_or_names_what_the_quiz_has(
        self, school: School, bank: Bank
    ) -> None:
        one, two = [await bank.choice_question() for _ in range(2)]
        async with refused("INVALID_FIELD", field="quiz.items[0].draw.question_ids"):
            await bank.quiz(draw(3, one, two))
        async with refused("INVALID_FIELD", field="quiz.items"):
            await bank.quiz(one, draw(1, one, two))
        async with refused("INVALID_FIELD"):
            await bank.quiz(QuizItem(points="1"))
        async with refused("INVALID_FIELD", field="quiz.items[0].question_id"):
            await bank.quiz(QuizItem(question_id=""))
        async with refused("REFERENCE_NOT_FOUND"):
            await Bank(school.outsider_teacher).quiz(draw(1, one, two), publish=False)

    async def test_keeps_its_questions_from_being_deleted(self, school: School, bank: Bank) -> None:
        one, two = [await bank.choice_question() for _ in range(2)]
        quiz = await bank.quiz(draw(1, one, two))
        async with refused("WRONG_STATE"):
            await delete(school, two)
        await quizzes(school.teacher).ArchiveQuiz(ArchiveQuizRequest(id=quiz.id))
        await delete(school, two)


class TestFromTheBank:
    async def test_takes_only_what_fits(self, school: School, bank: Bank, tag: str) -> None:
        fitting = [await bank.choice_question(tags=[tag.upper(), "other"]) for _ in range(3)]
        await bank.choice_question(tags=["other"])
        await bank.blank_question(["x"], tags=[tag])
        deleted = await bank.choice_question(tags=[tag, "other"])
        await delete(school, deleted)
        item = draw(2, tags=[tag, "other"], type="QUESTION_TYPE_MULTIPLE_CHOICE", points="0.25")
        quiz = await bank.quiz(item, shuffle=True)
        assert (quiz.question_count, quiz.max_score) == (2, "0.5")
        drawn = set()
        for _ in range(6):
            attempt = await start(school.student, quiz)
            assert len(attempt.questions) == 2
            drawn.update(ids(attempt.questions))
            assert await get(school.student, attempt) == attempt
            assert (await submit(school.student, attempt)).result.max_score == "0.5"
        assert len(drawn & {*ids(fitting)}) == len(drawn) > 2

    @pytest.mark.parametrize(("kept", "wanted"), [("STRASSE", "Straße"), ("a  ΟΔΟΣ ", "A οδος")])
    async def test_finds_tags_as_questions_are_found_by_them(
        self, school: School, bank: Bank, tag: str, kept: str, wanted: str
    ) -> None:
        question = await bank.choice_question(tags=[tag, kept])
        quiz = await bank.quiz(draw(1, tags=[wanted, tag]))
        assert ids((await start(school.student, quiz)).questions) == [question.id]

    async def test_never_takes_a_question_that_is_purged_at_the_same_moment(
        self, school: School, bank: Bank, tag: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        question = await bank.choice_question(tags=[tag])
        quiz = await bank.quiz(draw(1, tags=[tag]))
        picked, purged = asyncio.Event(), asyncio.Event()
        insert = attempts.insert_attempt

        async def insert_late(session: WriteSession, attempt: Taking) -> None:
            picked.set()
            # Without taking turns the purge is done within this time.
            with suppress(TimeoutError):
                await asyncio.wait_for(purged.wait(), 0.5)
            await insert(session, attempt)

        async def purge() -> None:
            await picked.wait()
            await delete(school, question)
            try:
                stub = school.admin.stub(QuestionServiceStub, "assessment")
                await stub.PurgeQuestion(PurgeQuestionRequest(id=question.id))
            finally:
                purged.set()

        monkeypatch.setattr(attempts, "insert_attempt", insert_late)
        purging = asyncio.create_task(purge())
        attempt = await start(school.student, quiz)
        async with refused("WRONG_STATE"):
            await purging
        assert await get(school.student, attempt) == attempt

    async def test_looks_through_the_bank_once_for_all_draws(self, school: School, bank: Bank, tag: str) -> None:
        for _ in range(4):
            await bank.choice_question(tags=[tag])
        quiz = await bank.quiz(*(draw(1, tags=[tag]) for _ in range(4)))
        places = [1, 2, 3, 4]
        wanted = (UUID(school.teacher.tenant_id), UUID(quiz.id), uuid4(), places, [tag for _ in places])
        (row,) = await owner_executes(school, f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {CANDIDATES}", *wanted)
        scans = [one for one in nodes(json.loads(row[0])[0]["Plan"]) if one.get("Relation Name") == "questions"]
        assert [one["Actual Loops"] for one in scans] == [1]

    async def test_takes_none_that_the_quiz_has_anyway_or_another_draw_has_taken(
        self, school: School, bank: Bank, tag: str
    ) -> None:
        one, two, three = [await bank.choice_question(tags=[tag]) for _ in range(3)]
        special = await bank.choice_question(tags=[tag, f"{tag} special"])
        quiz = await bank.quiz(one, draw(2, tags=[tag]), draw(1, tags=[f"{tag} special"]))
        for _ in range(4):
            attempt = await start(school.student, quiz)
            found = ids(attempt.questions)
            assert found[0] == one.id
            assert {*found[1:3]} == {two.id, three.id}
            assert found[3] == special.id
            await submit(school.student, attempt)

    async def test_cannot_be_published_or_started_while_the_bank_has_too_few(
        self, school: School, bank: Bank, tag: str
    ) -> None:
        quiz = await bank.quiz(draw(2, tags=[tag]), publish=False)
        one = await bank.choice_question(tags=[tag])
        async with refused("WRONG_STATE", code=grpc.StatusCode.FAILED_PRECONDITION):
            await quizzes(school.teacher).PublishQuiz(PublishQuizRequest(id=quiz.id))
        await bank.choice_question(tags=[tag])
        await quizzes(school.teacher).PublishQuiz(PublishQuizRequest(id=quiz.id))
        attempt = await start(school.student, quiz)
        await delete(school, one)
        assert len((await submit(school.student, attempt)).result.items) == 2
        async with refused("WRONG_STATE"):
            await start(school.student, quiz)

    async def test_never_takes_questions_of_another_tenant(self, school: School, bank: Bank, tag: str) -> None:
        for _ in range(2):
            await Bank(school.outsider_teacher).choice_question(tags=[tag])
        async with refused("WRONG_STATE"):
            await bank.quiz(draw(1, tags=[tag]))

    async def test_finds_them_in_the_order_that_the_rules_have(self, school: School, bank: Bank, tag: str) -> None:
        """Of a large bank only the first ones are read: SQL and Python must agree which ones those are."""
        for _ in range(12):
            await bank.choice_question(tags=[tag])
        quiz = await bank.quiz(draw(1, tags=[tag]))
        drawn = set()
        for _ in range(8):
            attempt = await start(school.student, quiz)
            drawn.update(ids(attempt.questions))
            await submit(school.student, attempt)
        assert len(drawn) > 3


class TestDuplicateQuiz:
    async def test_is_a_draft_of_the_caller_with_the_same_settings_and_items(
        self, school: School, bank: Bank, tag: str
    ) -> None:
        one, two, three = [await bank.choice_question(tags=[tag]) for _ in range(3)]
        quiz = await bank.quiz(
            (one, "0.5"),
            draw(1, two, three),
            title="Tết",
            pass_mark="66.6",
            shuffle=True,
            attempts_allowed=3,
            review_policy={"score": "REVIEW_TIME_NEVER"},
        )
        copy = await quizzes(school.teacher2).DuplicateQuiz(DuplicateQuizRequest(id=quiz.id))
        assert copy.id != quiz.id
        assert (copy.status, copy.author_id, copy.etag) == (1, school.teacher2.user_id, "1")
        for name in ("title", "items", "pass_mark", "shuffle", "attempts_allowed", "review_policy", "max_score"):
            assert getattr(copy, name) == getattr(quiz, name)
        named = await quizzes(school.teacher2).DuplicateQuiz(DuplicateQuizRequest(id=quiz.id, title="Again"))
        assert named.title == "Again"
        assert Decimal(named.max_score) == Decimal("1.5")

    async def test_is_not_for_learners_and_not_across_tenants(self, school: School, bank: Bank) -> None:
        quiz = await bank.quiz(await bank.choice_question())
        async with refused("PERMISSION_REQUIRED"):
            await quizzes(school.student).DuplicateQuiz(DuplicateQuizRequest(id=quiz.id))
        async with refused("RESOURCE_NOT_FOUND"):
            await quizzes(school.outsider_teacher).DuplicateQuiz(DuplicateQuizRequest(id=quiz.id))


