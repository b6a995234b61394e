"""Regrades: what they do to results is what the preview said, once, whoever submits meanwhile, and without loss."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from kit.errors import DeadlineExceeded
from services.assessment import regrades as module
from services.assessment.queries import attempts as attempt_queries
from services.assessment.regrade_effects import Grader
from services.assessment.regrading import Change
from storyloom.assessment.v1.attempts_pb2 import Attempt
from storyloom.assessment.v1.question_parts_pb2 import Choice
from storyloom.assessment.v1.questions_pb2 import Question, UpdateQuestionRequest
from storyloom.assessment.v1.questions_pb2_grpc import QuestionServiceStub
from storyloom.assessment.v1.quizzes_pb2 import DeleteQuizRequest, Quiz
from storyloom.assessment.v1.quizzes_pb2_grpc import QuizServiceStub
from storyloom.assessment.v1.regrades_pb2 import (
    CreateRegradeRequest,
    GetRegradeRequest,
    ListRegradeChangesRequest,
    ListRegradesRequest,
    PreviewRegradeRequest,
    PreviewRegradeResponse,
    Regrade,
    RegradeChange,
    RegradeKind,
    RegradeState,
)
from storyloom.assessment.v1.regrades_pb2_grpc import RegradeServiceStub
from storyloom.audit.v1.audit_logs_pb2 import ListAuditLogsRequest
from storyloom.audit.v1.audit_logs_pb2_grpc import AuditLogServiceStub
from tests.assessment.calls import entries, get, start, submit
from tests.assessment.conftest import Bank, owner_executes, picked
from tests.stack import Person, School, add_person, refused

APPLIED = RegradeState.REGRADE_STATE_APPLIED
RESULTS = """
SELECT a.id, a.version_ids, a.points, r.score, r.max_score, r.percent, r.passed, r.detail, r.pass_mark, r.regrade_count,
       (SELECT json_object_agg(p.version_id, p.answer)::text FROM assessment.responses p WHERE p.attempt_id = a.id)
         AS answers
FROM assessment.attempts a JOIN (
  SELECT attempt_id, score, max_score, percent, passed, detail, pass_mark, regrade_count FROM assessment.quiz_results
  UNION ALL
  SELECT attempt_id, score, max_score, percent, passed, detail, pass_mark, regrade_count FROM assessment.past_results
) r ON r.attempt_id = a.id WHERE a.quiz_id = $1 ORDER BY a.id, r.regrade_count
"""
CHANGES = """
SELECT g.number, g.question_id, g.kind, g.version, g.key_version_id, v.body
FROM assessment.regrades g LEFT JOIN assessment.question_versions v ON v.id = g.key_version_id WHERE g.quiz_id = $1
"""


def regrades(person: Person) -> RegradeServiceStub:
    return person.stub(RegradeServiceStub, "assessment")


def wanted(quiz: Quiz, question: Question, kind: str, version: int = 0) -> Regrade:
    return Regrade(quiz_id=quiz.id, question_id=question.id, kind=f"REGRADE_KIND_{kind}", version=version)


async def preview(person: Person, regrade: Regrade, **page: Any) -> PreviewRegradeResponse:
    return await regrades(person).PreviewRegrade(PreviewRegradeRequest(regrade=regrade, **page))


async def create(person: Person, regrade: Regrade) -> Regrade:
    return await regrades(person).CreateRegrade(CreateRegradeRequest(regrade=regrade))


async def changes_of(person: Person, regrade: Regrade) -> list[RegradeChange]:
    listed = await regrades(person).ListRegradeChanges(ListRegradeChangesRequest(regrade_id=regrade.id, page_size=100))
    return list(listed.changes)


async def with_key(school: School, question: Question, *right: int) -> Question:
    """A new version of the question in which these choices are right."""
    choices = [
        Choice(id=one.id, text=one.text, correct=n in right, feedback=f"new {one.text}")
        for n, one in enumerate(question.choices)
    ]
    stub = school.teacher.stub(QuestionServiceStub, "assessment")
    return await stub.UpdateQuestion(UpdateQuestionRequest(question=Question(id=question.id, choices=choices)))


async def recomputed(school: School, quiz: Quiz) -> int:
    """Computes all results of the quiz, past ones too, from what the attempts keep; returns how many there are."""
    made = await owner_executes(school, CHANGES, quiz.id)
    changes = [Change(*row[:5], json.loads(row[5]) if row[5] else None) for row in made]
    rows = await owner_executes(school, RESULTS, quiz.id)
    ids = {one for row in rows for one in row["version_ids"]}
    text = "SELECT id, question_id, version, body FROM assessment.question_versions WHERE id = ANY($1)"
    versions = {row[0]: (row[1], row[2], json.loads(row[3])) for row in await owner_executes(school, text, list(ids))}
    for row in rows:
        outcome = Grader([one for one in changes if one.number <= row["regrade_count"]], versions).outcome(
            SimpleNamespace(**row)
        )
        stored = (row["score"], row["max_score"], row["percent"], row["passed"], json.loads(row["detail"]))
        assert (outcome.score, outcome.max_score, outcome.percent, outcome.passed, outcome.detail) == stored
    return len(rows)


class Taken:
    """A quiz of two questions that several people have taken: the first right, wrong, and left open by turns."""

    def __init__(self, quiz: Quiz, questions: list[Question], attempts: list[Attempt]) -> None:
        self.quiz, self.questions, self.attempts = quiz, questions, attempts
        self.question = questions[0]


@pytest.fixture
async def taken(school: School, bank: Bank) -> Taken:
    questions = [await bank.choice_question() for _ in range(3)]
    quiz = await bank.quiz(*questions, pass_mark="60")
    attempts = []
    for person in (school.student, school.student2):
        for first in ((0,), (1,), ()):
            attempt = await start(person, quiz)
            responses = [picked(questions[0], *first), picked(questions[1], 0), picked(questions[2], 1)]
            attempts.append(await submit(person, attempt, *responses))
    return Taken(quiz, questions, attempts)


class TestPreviewRegrade:
    @pytest.mark.parametrize("kind", ["FULL_MARKS", "DROP", "KEY", "ORIGINAL"])
    async def test_says_exactly_what_the_regrade_does(self, school: School, taken: Taken, kind: str) -> None:
        if kind == "KEY":
            await with_key(school, taken.question, 1)
        regrade = wanted(taken.quiz, taken.question, kind)
        before = [await get(school.student, one) for one in taken.attempts[:3]]
        foreseen = await preview(school.teacher, regrade)
        assert [await get(school.student, one) for one in taken.attempts[:3]] == before
        made = await create(school.teacher, regrade)
        assert (made.state, made.effect) == (APPLIED, foreseen.effect)
        assert await changes_of(school.teacher, made) == list(foreseen.changes)
        assert foreseen.effect.attempts == 6
        assert foreseen.effect.changed == {"FULL_MARKS": 6, "DROP": 6, "KEY": 4, "ORIGINAL": 0}[kind]

    async def test_counts_who_passes_and_fails(self, school: School, taken: Taken) -> None:
        await with_key(school, taken.question, 1)
        effect = (await preview(school.teacher, wanted(taken.quiz, taken.question, "KEY"))).effect
        # Two of three are right for those who picked the first choice, and are not any more.
        assert (effect.raised, effect.lowered, effect.newly_passed, effect.newly_failed) == (2, 2, 2, 2)
        effect = (await preview(school.teacher, wanted(taken.quiz, taken.question, "FULL_MARKS"))).effect
        assert (effect.raised, effect.lowered, effect.newly_passed, effect.newly_failed) == (4, 0, 4, 0)

    async def test_comes_in_pages(self, school: School, taken: Taken) -> None:
        regrade, token, found = wanted(taken.quiz, taken.question, "DROP"), "", []
        while True:
            page = await preview(school.teacher, regrade, page_size=4, page_token=token)
            assert page.effect.changed == 6
            found += page.changes
            token = page.next_page_token
            if not token:
                break
        assert [one.attempt_id for one in found] == [one.id for one in taken.attempts]

    async def test_refuses_a_question_that_no_attempt_has(self, school: School, bank: Bank, taken: Taken) -> None:
        other = await bank.choice_question()
        async with refused("REFERENCE_NOT_FOUND"):
            await preview(school.teacher, wanted(taken.quiz, other, "DROP"))
        async with refused("REFERENCE_NOT_FOUND"):
            await preview(school.teacher, wanted(taken.quiz, taken.question, "KEY", 7))

    async def test_is_not_for_learners(self, school: School, taken: Taken) -> None:
        for call in (preview, create):
            async with refused("PERMISSION_REQUIRED"):
                await call(school.student, wanted(taken.quiz, taken.question, "DROP"))


class TestCreateRegrade:
    async def test_gives_full_marks_to_all(self, school: School, taken: Taken) -> None:
        await create(school.teacher, wanted(taken.quiz, taken.question, "FULL_MARKS"))
        for one in taken.attempts[:3]:
            after = await get(school.student, one)
            assert (after.result.score, after.result.max_score, after.result.passed) == ("2", "3", True)
            assert after.result.items[0].score == "1"
            assert after.etag != one.etag
            assert after.responses == one.responses

    async def test_drops_a_question_out_of_the_total(self, school: School, taken: Taken) -> None:
        await create(school.teacher, wanted(taken.quiz, taken.question, "DROP"))
        for one in taken.attempts[:3]:
            result = (await get(school.student, one)).result
            assert (result.score, result.max_score, result.percent, result.passed) == ("1", "2", "50", False)

    async def test_grades_by_another_key_and_tells_its_feedback(self, school: School, taken: Taken) -> None:
        await with_key(school, taken.question, 1)
        await create(school.teacher, wanted(taken.quiz, taken.question, "KEY"))
        right, wrong = [(await get(school.student, taken.attempts[n])).result for n in (1, 0)]
        assert (right.score, wrong.score) == ("2", "1")
        assert right.items[0].feedback.startswith("new no")

    async def test_twice_is_once(self, school: School, taken: Taken) -> None:
        regrade = wanted(taken.quiz, taken.question, "FULL_MARKS")
        made = await create(school.teacher, regrade)
        after = [await get(school.student, one) for one in taken.attempts[:3]]
        assert await create(school.teacher, regrade) == made
        assert [await get(school.student, one) for one in taken.attempts[:3]] == after
        assert (await preview(school.teacher, regrade)).effect.changed == 0
        assert await recomputed(school, taken.quiz) == 12

    async def test_is_taken_back_by_the_original(self, school: School, taken: Taken) -> None:
        await create(school.teacher, wanted(taken.quiz, taken.question, "DROP"))
        await create(school.teacher, wanted(taken.quiz, taken.question, "ORIGINAL"))
        for one in taken.attempts[:3]:
            assert (await get(school.student, one)).result == one.result
        assert await recomputed(school, taken.quiz) == 18

    async def test_of_different_questions_in_any_order_gives_the_same(self, school: School, bank: Bank) -> None:
        outcomes = []
        for order in ((0, 1), (1, 0)):
            questions = [await bank.choice_question() for _ in range(3)]
            quiz = await bank.quiz((questions[0], "0.7"), (questions[1], "1.3"), questions[2])
            attempt = await start(school.student, quiz)
            await submit(school.student, attempt, picked(questions[0], 1), picked(questions[2], 0))
            regrade = [wanted(quiz, questions[0], "FULL_MARKS"), wanted(quiz, questions[1], "DROP")]
            for n in order:
                await create(school.teacher, regrade[n])
            result = (await get(school.student, attempt)).result
            outcomes.append([result.score, result.max_score, result.percent, result.passed])
            outcomes[-1] += [item.score for item in result.items]
        assert outcomes[0] == outcomes[1] == ["1.7", "1.7", "100", True, "0.7", "0", "1"]

    async def test_counts_for_attempts_that_are_graded_later(self, school: School, taken: Taken) -> None:
        attempt = await start(school.student, taken.quiz)
        made = await create(school.teacher, wanted(taken.quiz, taken.question, "FULL_MARKS"))
        assert made.effect.attempts == 6
        assert (await submit(school.student, attempt)).result.score == "1"
        assert await recomputed(school, taken.quiz) == 13

    async def test_is_not_about_versions_made_afterwards(self, school: School, taken: Taken) -> None:
        await create(school.teacher, wanted(taken.quiz, taken.question, "FULL_MARKS"))
        await with_key(school, taken.question, 2)
        attempt = await submit(school.student, await start(school.student, taken.quiz), picked(taken.question, 0))
        assert attempt.result.score == "0"

    async def test_leaves_attempts_alone_whose_version_the_key_does_not_fit(
        self, school: School, taken: Taken
    ) -> None:
        choices = [Choice(id=one.id, text=one.text, correct=one.correct) for one in taken.question.choices[:2]]
        stub = school.teacher.stub(QuestionServiceStub, "assessment")
        await stub.UpdateQuestion(UpdateQuestionRequest(question=Question(id=taken.question.id, choices=choices)))
        async with refused("WRONG_STATE"):
            await create(school.teacher, wanted(taken.quiz, taken.question, "KEY"))
        await submit(school.student, await start(school.student, taken.quiz), picked(taken.question, 1))
        choices[0].correct, choices[1].correct = False, True
        await stub.UpdateQuestion(UpdateQuestionRequest(question=Question(id=taken.question.id, choices=choices)))
        made = await create(school.teacher, wanted(taken.quiz, taken.question, "KEY"))
        assert (made.effect.attempts, made.effect.unfitting, made.effect.changed) == (7, 6, 1)

    async def test_keeps_the_pass_mark_that_results_were_made_with(self, school: School, taken: Taken) -> None:
        await owner_executes(school, "UPDATE assessment.quizzes SET pass_mark = 0 WHERE id = $1", taken.quiz.id)
        effect = (await create(school.teacher, wanted(taken.quiz, taken.question, "DROP"))).effect
        assert (effect.newly_passed, effect.newly_failed) == (0, 2)

    async def test_leaves_one_entry_for_itself_and_one_for_each_result(self, school: School, taken: Taken) -> None:
        made = await create(school.teacher, wanted(taken.quiz, taken.question, "FULL_MARKS"))
        said = [one for one in await entries(school, taken.attempts[1]) if one.action == "regrade"]
        assert len(said) == 1
        old, new = said[0].old_values, said[0].new_values
        assert (old["score"], new["score"], new["regrade_id"]) == ("1", "2", made.id)
        stub = school.auditor.stub(AuditLogServiceStub, "audit")
        logs = await stub.ListAuditLogs(ListAuditLogsRequest(entity_type="quiz", entity_id=taken.quiz.id))
        found = [dict(one.new_values) for one in logs.audit_logs if one.action == "regrade"]
        assert found == [{"question_id": taken.question.id, "kind": "full_marks", "version": 1, "number": 1}]

    async def test_goes_on_where_a_call_ended_early(
        self, school: School, taken: Taken, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        apply, calls = module._apply, []

        async def breaks(*values: Any) -> bool:
            calls.append(values)
            if len(calls) == 2:
                raise DeadlineExceeded("Cut off.")
            return await apply(*values)

        monkeypatch.setattr(module, "ATTEMPTS_AT_ONCE", 4)
        monkeypatch.setattr(module, "_apply", breaks)
        async with refused("DEADLINE_TOO_SHORT"):
            await create(school.teacher, wanted(taken.quiz, taken.question, "DROP"))
        (half,) = await list_all(school, taken.quiz)
        assert (half.state, half.effect.changed) == (RegradeState.REGRADE_STATE_APPLYING, 4)
        # The next regrade of the quiz does the rest first.
        await create(school.teacher, wanted(taken.quiz, taken.questions[1], "FULL_MARKS"))
        _, done = await list_all(school, taken.quiz)
        assert (done.id, done.state, done.effect.changed) == (half.id, APPLIED, 6)
        assert await recomputed(school, taken.quiz) == 18

    async def test_reaches_who_was_being_graded_when_it_was_made(
        self, school: School, taken: Taken, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save, raced = attempt_queries.save_attempt, []

        async def overtaken(*values: Any) -> None:
            if not raced:
                raced.append(await create(school.teacher, wanted(taken.quiz, taken.question, "FULL_MARKS")))
            await save(*values)

        attempt = await start(school.student, taken.quiz)
        monkeypatch.setattr(attempt_queries, "save_attempt", overtaken)
        graded = await submit(school.student, attempt, picked(taken.question, 1))
        assert (raced[0].effect.attempts, graded.result.score) == (6, "1")
        assert await recomputed(school, taken.quiz) == 13

    async def test_waits_for_who_is_just_being_graded(
        self, school: School, taken: Taken, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save, begun = attempt_queries.save_attempt, []

        async def overtakes(*values: Any) -> None:
            await save(*values)
            begun.append(asyncio.create_task(create(school.teacher, wanted(taken.quiz, taken.question, "DROP"))))
            await asyncio.sleep(0.3)
            assert not begun[0].done()

        attempt = await start(school.student, taken.quiz)
        monkeypatch.setattr(attempt_queries, "save_attempt", overtakes)
        graded = await submit(school.student, attempt, picked(taken.question, 1))
        assert graded.result.max_score == "3"
        assert (await begun[0]).effect.attempts == 7
        assert (await get(school.student, attempt)).result.max_score == "2"

    async def test_misses_and_doubles_nobody_in_a_rush(self, school: School, bank: Bank) -> None:
        question, other = await bank.choice_question(), await bank.choice_question()
        quiz = await bank.quiz(question, other)
        people = [await add_person(school.admin, school.slug, f"quick{n}-{quiz.id[-8:]}", "student") for n in range(4)]
        for kind in ("FULL_MARKS", "DROP", "ORIGINAL"):
            begun = [await start(person, quiz) for person in people]
            await asyncio.gather(
                *(_submitted(*one, question, n) for n, one in enumerate(zip(people, begun, strict=True))),
                create(school.teacher, wanted(quiz, question, kind)),
            )
        assert await recomputed(school, quiz) > 12
        # The last one counts for everybody: each result is what it would be without regrades.
        scores = "SELECT DISTINCT r.score, r.max_score FROM assessment.quiz_results r"
        scores += " JOIN assessment.attempts a ON a.id = r.attempt_id WHERE a.quiz_id = $1 ORDER BY 1"
        assert [tuple(map(str, row)) for row in await owner_executes(school, scores, quiz.id)] == [
            ("0", "2"), ("1", "2")
        ]  # fmt: skip


async def _submitted(person: Person, attempt: Attempt, question: Question, n: int) -> None:
    """Hands the attempt in a moment later; a conflict with the regrade is tried again by the service itself."""
    await asyncio.sleep(n * 0.004)
    await submit(person, attempt, picked(question, n % 2))


async def list_all(school: School, quiz: Quiz) -> list[Regrade]:
    return list((await regrades(school.teacher).ListRegrades(ListRegradesRequest(quiz_id=quiz.id))).regrades)


class TestGetRegrade:
    async def test_tells_what_was_made(self, school: School, taken: Taken) -> None:
        made = await create(school.teacher, wanted(taken.quiz, taken.question, "DROP"))
        assert await regrades(school.teacher).GetRegrade(GetRegradeRequest(id=made.id)) == made
        assert (made.author_id, made.number, made.version) == (school.teacher.user_id, 1, 1)
        assert RegradeKind.Name(made.kind) == "REGRADE_KIND_DROP"

    async def test_finds_none_of_another_school_or_of_a_deleted_quiz(self, school: School, taken: Taken) -> None:
        made = await create(school.teacher, wanted(taken.quiz, taken.question, "DROP"))
        async with refused("RESOURCE_NOT_FOUND"):
            await regrades(school.outsider_teacher).GetRegrade(GetRegradeRequest(id=made.id))
        await school.teacher.stub(QuizServiceStub, "assessment").DeleteQuiz(DeleteQuizRequest(id=taken.quiz.id))
        async with refused("RESOURCE_NOT_FOUND"):
            await regrades(school.teacher).GetRegrade(GetRegradeRequest(id=made.id))


class TestListRegrades:
    async def test_has_the_newest_first(self, school: School, taken: Taken) -> None:
        for kind in ("DROP", "FULL_MARKS"):
            await create(school.teacher, wanted(taken.quiz, taken.question, kind))
        assert [one.number for one in await list_all(school, taken.quiz)] == [2, 1]


class TestListRegradeChanges:
    async def test_tells_before_and_after_of_each_regrade(self, school: School, taken: Taken) -> None:
        made = [await create(school.teacher, wanted(taken.quiz, taken.question, kind)) for kind in ("DROP", "ORIGINAL")]
        first, second = [await changes_of(school.teacher, one) for one in made]
        assert [one.after for one in first] == [one.before for one in second]
        assert [one.before for one in first] == [one.after for one in second]
        assert {UUID(one.attempt_id) for one in first} == {UUID(one.id) for one in taken.attempts}
