"""Questions of every type, said and shown."""

from uuid import UUID

import pytest

from storyloom.assessment.v1.question_parts_pb2 import (
    AcceptedNumber,
    AcceptedText,
    Blank,
    Choice,
    OrderItem,
    QuestionType,
    Scoring,
    Stem,
    Target,
)
from storyloom.assessment.v1.questions_pb2 import (
    CreateQuestionRequest,
    GetQuestionRequest,
    Question,
    UpdateQuestionRequest,
)
from tests.assessment.test_questions import questions
from tests.stack import School, refused

WIDE = [
    Question(
        type="QUESTION_TYPE_MULTIPLE_CHOICE",
        prompt="Which?",
        choices=[Choice(text="a", correct=True, percent="100"), Choice(text="b", percent="33.33333", feedback="So")],
        tags=["food"],
    ),
    Question(
        type="QUESTION_TYPE_FILL_BLANK",
        prompt="A ___ and a ___",
        blanks=[
            Blank(accepted=[AcceptedText(text="cat"), AcceptedText(text="dog", percent="0")], options=["cat", "dog"]),
            Blank(accepted=[AcceptedText(text="bird", percent="62.5", feedback="Bird.")]),
        ],
        most_typos=1,
        ignore_accents=True,
    ),
    Question(
        type="QUESTION_TYPE_SHORT_ANSWER",
        prompt="Say it",
        accepted=[AcceptedText(text="the * cat"), AcceptedText(text="cats", percent="50", feedback="One.")],
        wildcards=True,
        case_sensitive=True,
        most_typos=2,
        scoring="SCORING_ALL_OR_NOTHING",
    ),
    Question(
        type="QUESTION_TYPE_NUMERIC",
        prompt="How far?",
        numbers=[
            AcceptedNumber(value="-12.50", tolerance="0.05"),
            AcceptedNumber(value="12", percent="25", feedback="The sign."),
        ],
        explanation="West.",
    ),
    Question(
        type="QUESTION_TYPE_MATCHING",
        prompt="Match",
        stems=[Stem(text="one", target=2), Stem(text="two", target=1), Stem(text="uno", target=2)],
        targets=[Target(text="hai"), Target(text="một"), Target(text="ba")],
    ),
    Question(
        type="QUESTION_TYPE_ORDERING", prompt="Order", items=[OrderItem(text=text) for text in ("I", "am", "here")]
    ),
]


def without_ids(question: Question) -> Question:
    """What a client says of a question when it makes it."""
    kept = Question()
    kept.CopyFrom(question)
    for part in (*kept.choices, *kept.stems, *kept.targets, *kept.items):
        part.ClearField("id")
    for field in ("id", "version", "author_id", "etag", "create_time", "update_time", "delete_time"):
        kept.ClearField(field)
    return kept


def part_ids(question: Question) -> list[str]:
    return [part.id for part in (*question.choices, *question.stems, *question.targets, *question.items)]


class TestBodies:
    @pytest.mark.parametrize("wanted", WIDE, ids=lambda one: QuestionType.Name(one.type)[14:])
    async def test_come_back_as_they_were_made(self, school: School, wanted: Question) -> None:
        made = await questions(school.teacher).CreateQuestion(CreateQuestionRequest(question=wanted))
        assert await questions(school.teacher).GetQuestion(GetQuestionRequest(id=made.id)) == made
        expected = Question()
        expected.CopyFrom(wanted)
        expected.scoring = wanted.scoring or Scoring.SCORING_PARTIAL
        assert without_ids(made) == expected
        assert all(UUID(one).version == 4 for one in part_ids(made))
        assert len(set(part_ids(made))) == len(part_ids(made))

    @pytest.mark.parametrize("wanted", WIDE, ids=lambda one: QuestionType.Name(one.type)[14:])
    async def test_keep_their_parts_when_they_are_written_again(self, school: School, wanted: Question) -> None:
        made = await questions(school.teacher).CreateQuestion(CreateQuestionRequest(question=wanted))
        again = await questions(school.teacher).UpdateQuestion(UpdateQuestionRequest(question=made))
        assert part_ids(again) == part_ids(made)
        assert without_ids(again) == without_ids(made)
        assert again.version == 2

    async def test_refuse_what_is_of_another_type(self, school: School) -> None:
        question = Question(type="QUESTION_TYPE_NUMERIC", prompt="?", numbers=[AcceptedNumber(value="1")])
        others = {"choices": [Choice(text="a")], "multiple": True, "most_typos": 1, "wildcards": True}
        for name, value in others.items():
            wrong = Question(**{name: value})
            wrong.MergeFrom(question)
            async with refused("INVALID_FIELD", field=f"question.{name}"):
                await questions(school.teacher).CreateQuestion(CreateQuestionRequest(question=wrong))

    async def test_refuse_a_stem_whose_target_is_not_there(self, school: School) -> None:
        wanted = Question(
            type="QUESTION_TYPE_MATCHING",
            prompt="Match",
            stems=[Stem(text="a", target=3)],
            targets=[Target(text="x"), Target(text="y")],
        )
        async with refused("INVALID_FIELD", field="question.stems[0].target"):
            await questions(school.teacher).CreateQuestion(CreateQuestionRequest(question=wanted))

    async def test_refuse_to_lose_the_target_of_a_stem(self, school: School) -> None:
        made = await questions(school.teacher).CreateQuestion(CreateQuestionRequest(question=WIDE[4]))
        changed = Question(id=made.id, targets=[made.targets[1], made.targets[2]])
        async with refused("INVALID_FIELD", field="question.stems[1].target"):
            await questions(school.teacher).UpdateQuestion(UpdateQuestionRequest(question=changed))
        changed = Question(id=made.id, targets=made.targets[:2])
        kept = await questions(school.teacher).UpdateQuestion(UpdateQuestionRequest(question=changed))
        assert [stem.target for stem in kept.stems] == [2, 1, 2]
