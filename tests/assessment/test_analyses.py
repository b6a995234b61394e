"""Analyses: what the service says of a quiz that people have taken, to whom, and as a file."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.assessment.analyses import COLUMNS
from storyloom.assessment.v1.analyses_pb2 import (
    Analysis,
    AnalyzedAttempts,
    ExportAnalysisRequest,
    GetAnalysisRequest,
    ItemAnalysis,
)
from storyloom.assessment.v1.analyses_pb2_grpc import AnalysisServiceStub
from storyloom.assessment.v1.questions_pb2 import GetQuestionRequest, Question
from storyloom.assessment.v1.questions_pb2_grpc import QuestionServiceStub
from storyloom.assessment.v1.quizzes_pb2 import CreateQuizRequest, PublishQuizRequest, Quiz, QuizItem
from storyloom.assessment.v1.quizzes_pb2_grpc import QuizServiceStub
from tests.assessment.calls import start, submit
from tests.assessment.conftest import Bank, filled, picked
from tests.assessment.test_regrades import create, wanted, with_key
from tests.contract.population import ask
from tests.stack import Person, School, refused

ALL = AnalyzedAttempts.ANALYZED_ATTEMPTS_ALL
FIRST = AnalyzedAttempts.ANALYZED_ATTEMPTS_FIRST


async def analysis_of(person: Person, quiz: Quiz, attempts: AnalyzedAttempts = FIRST) -> Analysis:
    stub = person.stub(AnalysisServiceStub, "assessment")
    return await stub.GetAnalysis(GetAnalysisRequest(quiz_id=quiz.id, attempts=attempts))


class Taken:
    """A quiz of two questions with choices and one with a blank, taken by two people, by the first of them twice."""

    def __init__(self, quiz: Quiz, questions: list[Question]) -> None:
        self.quiz, self.questions = quiz, questions


@pytest.fixture
async def taken(school: School, bank: Bank) -> Taken:
    one, two = [await bank.choice_question() for _ in range(2)]
    blank = await bank.blank_question(["sea"], prompt="=The ___")
    quiz = await bank.quiz(one, two, (blank, "2"))
    for person, responses in (
        (school.student, [picked(one, 0), picked(two, 1), filled(blank, "sea")]),
        (school.student2, [picked(one, 2), picked(two, 0), filled(blank, "")]),
        (school.student, [picked(one, 0), picked(two, 0), filled(blank, "sea")]),
    ):
        await submit(person, await start(person, quiz), *responses)
    return Taken(quiz, [one, two, blank])


class TestGetAnalysis:
    async def test_looks_at_the_first_attempts_of_learners(self, school: School, taken: Taken) -> None:
        found = await analysis_of(school.teacher, taken.quiz)
        assert (found.attempt_count, found.learner_count, found.attempts) == (2, 2, FIRST)
        # 3 and 1 of 4 points.
        assert (found.mean, found.median, found.standard_deviation) == ("50", "50", "35.355339")
        assert list(found.distribution) == [0, 0, 1, 0, 0, 0, 0, 1, 0, 0]
        assert [one.facility for one in found.items] == ["0.5", "0.5", "0.5"]
        # Of the rest of the attempt: who had the first right had 2 of 3 other points, and the other 1.
        assert [one.discrimination for one in found.items] == ["1", "-1", ""]
        assert [one.point_biserial for one in found.items] == ["1", "-1", "1"]
        assert [one.question_id for one in found.items] == [one.id for one in taken.questions]

    async def test_looks_at_all_attempts_when_told_to(self, school: School, taken: Taken) -> None:
        found = await analysis_of(school.teacher, taken.quiz, ALL)
        assert (found.attempt_count, found.learner_count) == (3, 2)
        assert [one.facility for one in found.items] == ["0.666667"] * 3

    async def test_counts_who_picked_what_and_who_left_it_open(self, school: School, taken: Taken) -> None:
        one, _, blank = (await analysis_of(school.teacher, taken.quiz, ALL)).items
        assert [(c.text, c.correct, c.picked) for c in one.choices] == [
            ("yes", True, 2), ("no", False, 0), ("perhaps", False, 1)
        ]  # fmt: skip
        assert [(c.picked_by_upper, c.picked_by_lower) for c in one.choices] == [(1, 0), (0, 0), (0, 1)]
        assert (blank.attempts, blank.omitted, list(blank.choices)) == (3, 1, [])

    async def test_of_a_quiz_that_nobody_took_is_empty(self, school: School, bank: Bank) -> None:
        found = await analysis_of(school.teacher, await bank.quiz(await bank.choice_question()))
        assert (found.attempt_count, found.mean, found.reliability, list(found.items)) == (0, "", "", [])

    async def test_follows_regrades(self, school: School, taken: Taken) -> None:
        await create(school.teacher, wanted(taken.quiz, taken.questions[0], "FULL_MARKS"))
        await create(school.teacher, wanted(taken.quiz, taken.questions[1], "DROP"))
        first, dropped, _ = (await analysis_of(school.teacher, taken.quiz)).items
        assert (first.facility, first.discrimination, dropped.facility) == ("1", "", "")

    async def test_tells_the_key_by_which_results_were_made(self, school: School, taken: Taken) -> None:
        await with_key(school, taken.questions[0], 2)
        first = (await analysis_of(school.teacher, taken.quiz)).items[0]
        assert [one.correct for one in first.choices] == [True, False, False]
        await create(school.teacher, wanted(taken.quiz, taken.questions[0], "KEY"))
        first = (await analysis_of(school.teacher, taken.quiz)).items[0]
        assert [one.correct for one in first.choices] == [False, False, True]

    async def test_notes_how_hard_questions_are(self, school: School, taken: Taken) -> None:
        stub = school.teacher.stub(QuestionServiceStub, "assessment")
        before = await stub.GetQuestion(GetQuestionRequest(id=taken.questions[0].id))
        await analysis_of(school.teacher, taken.quiz)
        after = await stub.GetQuestion(GetQuestionRequest(id=taken.questions[0].id))
        assert (before.facility, after.facility, after.etag) == ("", "0.5", before.etag)
        assert after.HasField("facility_time")

    async def test_counts_draws_of_different_questions(self, school: School, bank: Bank) -> None:
        questions = [await bank.choice_question() for _ in range(4)]
        draw = {"count": 2, "question_ids": [one.id for one in questions]}
        quiz = await _drawn(bank, draw)
        for _ in range(6):
            attempt = await start(school.student, quiz)
            asked = [one for one in questions if one.id in {q.question_id for q in attempt.questions}]
            await submit(school.student, attempt, *(picked(one, 0) for one in asked))
        found = await analysis_of(school.teacher, quiz, ALL)
        assert sum(one.attempts for one in found.items) == 12
        assert {one.facility for one in found.items} == {"1"}

    async def test_is_not_for_learners_nor_for_other_schools(self, school: School, taken: Taken) -> None:
        async with refused("PERMISSION_REQUIRED"):
            await analysis_of(school.student, taken.quiz)
        async with refused("RESOURCE_NOT_FOUND"):
            await analysis_of(school.outsider_teacher, taken.quiz)

    async def test_leaves_out_attempts_that_the_caller_may_not_list(
        self, school: School, taken: Taken, hidden: None
    ) -> None:
        async with asyncio.timeout(5):
            while (found := await analysis_of(school.teacher, taken.quiz)).attempt_count != 1:
                await asyncio.sleep(0.1)
        assert (found.learner_count, found.mean) == (1, "75")
        assert found.items[0].choices[2].picked == 0


    async def test_tells_nothing_of_what_a_question_says_to_who_may_not_read_it(
        self, school: School, taken: Taken
    ) -> None:
        shut, *others = taken.questions
        async with denied_to_teachers(school, "question", "read", {"field": "question.id", "value": shut.id}):
            async with asyncio.timeout(5):
                while (found := await analysis_of(school.teacher, taken.quiz)).items[0].prompt:
                    await asyncio.sleep(0.1)
            assert (found.items[0].facility, len(found.items[0].choices)) == ("0.5", 0)
            assert [one.prompt for one in found.items[1:]] == [one.prompt for one in others]
            assert len(found.items[1].choices) == 3


@asynccontextmanager
async def denied_to_teachers(school: School, resource: str, action: str, which: dict[str, str]) -> AsyncIterator[None]:
    """Teachers may not do this to what fits, until the block ends."""
    conditions = [
        {"operator": "eq", **which},
        {"field": "user.role", "operator": "contains", "value": "teacher"},
    ]
    policy = {"name": f"no {resource}s", "resource": resource, "actions": [action], "effect": "POLICY_EFFECT_DENY"}
    made = await ask(school.admin, "CreateResourcePolicy", policy={**policy, "conditions": {"all": conditions}})
    await ask(school.admin, "ActivateResourcePolicy", id=made.id)
    try:
        yield
    finally:
        await ask(school.admin, "DeactivateResourcePolicy", id=made.id)


@pytest.fixture
async def hidden(school: School, taken: Taken) -> AsyncIterator[None]:
    """The second student's attempts are hidden from teachers; afterwards they are seen again."""
    which = {"field": "attempt.user_id", "value": school.student2.user_id}
    async with denied_to_teachers(school, "attempt", "list", which):
        yield
    async with asyncio.timeout(5):
        while (await analysis_of(school.teacher, taken.quiz)).attempt_count == 1:
            await asyncio.sleep(0.1)


async def _drawn(bank: Bank, draw: dict[str, object]) -> Quiz:
    stub = bank.teacher.stub(QuizServiceStub, "assessment")
    quiz = Quiz(title="Drawn", items=[QuizItem(draw=draw)])
    made = await stub.CreateQuiz(CreateQuizRequest(quiz=quiz))
    return await stub.PublishQuiz(PublishQuizRequest(id=made.id))


class TestExportAnalysis:
    async def test_is_the_analysis_as_a_file(self, school: School, taken: Taken) -> None:
        stub = school.teacher.stub(AnalysisServiceStub, "assessment")
        pieces = [one.body async for one in stub.ExportAnalysis(ExportAnalysisRequest(quiz_id=taken.quiz.id))]
        assert {one.content_type for one in pieces} == {"text/csv; charset=utf-8; header=present"}
        rows = list(csv.DictReader(io.StringIO(b"".join(one.data for one in pieces).decode())))
        found = await analysis_of(school.teacher, taken.quiz)
        assert [row["level"] for row in rows] == ["quiz", *(["question"] + ["choice"] * 3) * 2, "question"]
        assert (rows[0]["mean"], rows[0]["reliability"]) == (found.mean, found.reliability)
        questions = [row for row in rows if row["level"] == "question"]
        assert [row["discrimination"] for row in questions] == [one.discrimination for one in found.items]
        picks = [int(row["picked"]) for row in rows if row["level"] == "choice"]
        assert picks == [choice.picked for item in found.items for choice in item.choices]

    async def test_has_numbers_as_numbers_and_no_formula(self, school: School, taken: Taken) -> None:
        stub = school.teacher.stub(AnalysisServiceStub, "assessment")
        pieces = [one.body.data async for one in stub.ExportAnalysis(ExportAnalysisRequest(quiz_id=taken.quiz.id))]
        rows = list(csv.DictReader(io.StringIO(b"".join(pieces).decode())))
        assert rows[-1]["text"] == "'=The ___"
        assert rows[5]["point_biserial"] == "-1"


def test_every_figure_has_a_column() -> None:
    told = {field.name for field in ItemAnalysis.DESCRIPTOR.fields} - {"prompt", "choices"}
    assert told <= {*COLUMNS}
