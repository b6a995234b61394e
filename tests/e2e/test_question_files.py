"""The sample file of each format: imported, taken as a quiz, graded, regraded, exported, and compared."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from storyloom.assessment.v1.answers_pb2 import Match, Response
from storyloom.assessment.v1.question_files_pb2 import ImportQuestionsResponse, QuestionFormat
from storyloom.assessment.v1.question_parts_pb2 import QuestionType
from storyloom.assessment.v1.questions_pb2 import GetQuestionRequest, Question
from storyloom.assessment.v1.questions_pb2_grpc import QuestionServiceStub
from storyloom.assessment.v1.quizzes_pb2 import PublishQuizRequest, Quiz
from storyloom.assessment.v1.quizzes_pb2_grpc import QuizServiceStub
from storyloom.assessment.v1.regrades_pb2 import CreateRegradeRequest, Regrade, RegradeKind
from storyloom.assessment.v1.regrades_pb2_grpc import RegradeServiceStub
from tests.assessment.calls import get, start, submit
from tests.assessment.filing import bring, fetch, preview
from tests.assessment.packages import folder_packed
from tests.stack import Person, School

SAMPLES = {"gift": "animals.gift", "moodle_xml": "animals.xml", "qti": "animals"}
FOLDER = Path(__file__).parents[2] / "docs" / "samples"
WIDTH = 24


def say(line: str) -> None:
    print(line)  # noqa: T201  # what the manual shows, with -s


async def question(person: Person, question_id: str) -> Question:
    return await person.stub(QuestionServiceStub, "assessment").GetQuestion(GetQuestionRequest(id=question_id))


def right(one: Question) -> Response:
    """What earns all points."""
    answered: dict[QuestionType, dict[str, Any]] = {
        QuestionType.QUESTION_TYPE_MULTIPLE_CHOICE: {"choice_ids": [each.id for each in one.choices if each.correct]},
        QuestionType.QUESTION_TYPE_FILL_BLANK: {"blanks": [each.accepted[0].text for each in one.blanks]},
        QuestionType.QUESTION_TYPE_SHORT_ANSWER: {"text": one.accepted[0].text if one.accepted else ""},
        QuestionType.QUESTION_TYPE_NUMERIC: {"text": one.numbers[0].value if one.numbers else ""},
        QuestionType.QUESTION_TYPE_MATCHING: {
            "matches": [Match(stem_id=each.id, target_id=one.targets[each.target - 1].id) for each in one.stems]
        },
        QuestionType.QUESTION_TYPE_ORDERING: {"item_ids": [each.id for each in one.items]},
    }
    return Response(question_id=one.id, **answered[one.type])


def told(name: str, made: ImportQuestionsResponse) -> None:
    kinds = ("mapped", "preserved", "refused")
    counts = {kind: sum(len(one.lines) for one in made.findings if one.kind == n) for n, kind in enumerate(kinds, 1)}
    say(f"{name}: {made.created} questions created, {made.found} found; elements {counts}")
    for one in made.findings:
        if one.kind != 1:
            say(f"  {kinds[one.kind - 1]:9} line {one.lines[0]:3} {one.element:{WIDTH}} {one.message}")


async def taken(school: School, made: ImportQuestionsResponse) -> None:
    """A learner answers all but the first question rightly, and is given full marks for it later."""
    quizzes = school.teacher.stub(QuizServiceStub, "assessment")
    quiz = await quizzes.PublishQuiz(PublishQuizRequest(id=made.quiz_id))
    asked = [await question(school.teacher, one.question_id) for one in made.questions]
    attempt = await start(school.student, quiz)
    await submit(school.student, attempt, *(right(one) for one in asked[1:]))
    graded = (await get(school.teacher, attempt)).result
    assert (graded.max_score, graded.score) == (quiz.max_score, str(Decimal(quiz.max_score) - worth(quiz, 0)))
    regrades = school.teacher.stub(RegradeServiceStub, "assessment")
    wish = Regrade(quiz_id=quiz.id, question_id=asked[0].id, kind=RegradeKind.REGRADE_KIND_FULL_MARKS)
    await regrades.CreateRegrade(CreateRegradeRequest(regrade=wish))
    await school.settle()
    regraded = (await get(school.teacher, attempt)).result
    say(f"  taken: {graded.score} of {graded.max_score}; regraded: {regraded.score} of {regraded.max_score}")
    assert regraded.score == quiz.max_score


def worth(quiz: Quiz, index: int) -> Decimal:
    return Decimal(quiz.items[index].points)


async def compared(school: School, made: ImportQuestionsResponse, name: str) -> None:
    """The export of the quiz has everything, and brings the same questions into another tenant."""
    wish = {"format": QuestionFormat.Value(f"QUESTION_FORMAT_{name.upper()}"), "quiz_id": made.quiz_id}
    data = await fetch(school.teacher, **wish)
    left_out = (await preview(school.teacher, **wish)).findings
    other = school.outsider_teacher
    again = await bring(other, data, quiz_title=f"Animals ({name})")
    assert again.created + again.found == len(made.questions)
    assert await fetch(other, **wish | {"quiz_id": again.quiz_id}) == data
    for before, after in zip(made.questions, again.questions, strict=True):
        one, two = await question(school.teacher, before.question_id), await question(other, after.question_id)
        assert plain(one) == plain(two)
    say(f"  exported: {len(data)} bytes, {len(left_out)} kinds of things left out; imported again: the same")


def plain(one: Question) -> Question:
    """The question without what every copy has of its own."""
    made = Question()
    made.CopyFrom(one)
    for field in ("id", "author_id", "etag", "create_time", "update_time", "version", "facility"):
        made.ClearField(field)
    for part in (*made.choices, *made.stems, *made.targets, *made.items):
        part.ClearField("id")
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SAMPLES])
async def test_a_sample_is_imported_taken_graded_regraded_exported_and_compared(school: School, name: str) -> None:
    sample = FOLDER / SAMPLES[name]
    data = folder_packed(sample) if sample.is_dir() else sample.read_bytes()
    made = await bring(school.teacher, data, quiz_title=f"Animals ({name})")
    told(SAMPLES[name], made)
    # Some are in the samples of several formats, with the same content.
    assert made.refused == 0
    await taken(school, made)
    await compared(school, made, name)
