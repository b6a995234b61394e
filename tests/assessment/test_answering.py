"""Answers to questions of every type: what may be given, and that grading them keeps its promises."""

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.assessment import grading
from services.assessment.answering import (
    ANSWERED_BY,
    answer_in,
    feedback,
    given_to_grade,
    misfits,
    prepared,
    right_answer,
    to_grade,
)
from services.assessment.bodies import check_body, new_body
from services.assessment.marks import Reason
from services.assessment.papers import response_to_proto
from services.assessment.rules import Item
from storyloom.assessment.v1.answers_pb2 import Match, Response
from tests.assessment.test_bodies import blank, choice, choices, matching, numeric, ordering, said, short
from tests.assessment.test_bodies import number as number_of

TEXTS = st.text("abcdé 1-.*", max_size=12)
SOLID = TEXTS.filter(str.strip)
PERCENTS = st.sampled_from(["", "100", "50", "33.3333333", "12.5", "0.0000001"])
KINDS = sorted(ANSWERED_BY)


@st.composite
def bodies(draw: st.DrawFn, kinds: list[str] = KINDS) -> dict[str, Any]:
    """A body that fits its type."""
    kind = draw(st.sampled_from(kinds))
    body = new_body(kind, "?", **DRAWN[kind](draw))
    if kind == "fill_blank":
        body["prompt"] = " ___ " * len(body["blanks"])
    body["scoring"] = draw(st.sampled_from(["partial", "all_or_nothing"]))
    check_body(body)
    return body


def _choices(draw: st.DrawFn) -> dict[str, Any]:
    multiple = draw(st.booleans())
    signs = st.sampled_from(["", "-50", "-33.3333333", "0"] + ([] if multiple else ["50", "99.9"]))
    right = [choice(correct=True, percent=draw(PERCENTS) if multiple else "") for _ in range(draw(st.integers(1, 4)))]
    wrong = [choice(percent=draw(signs)) for _ in range(draw(st.integers(1, 4)))]
    return {"multiple": multiple, "choices": draw(st.permutations((right if multiple else right[:1]) + wrong))}


def _accepted(draw: st.DrawFn) -> list[dict[str, Any]]:
    some = draw(st.lists(st.builds(said, SOLID, st.sampled_from(["", "0", "50"])), max_size=3))
    return [*some, said(draw(SOLID), draw(PERCENTS))]


def _typing(draw: st.DrawFn) -> dict[str, Any]:
    flags = {name: draw(st.booleans()) for name in ("case_sensitive", "ignore_accents")}
    return {**flags, "most_typos": draw(st.integers(0, 2))}


def _blanks(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.integers(1, 3))
    blanks: list[dict[str, Any]] = [{"accepted": _accepted(draw), "options": []} for _ in range(count)]
    if draw(st.booleans()):
        blanks.append({"accepted": [said("cat")], "options": ["cat", "dog", "Cat"]})
    return {"blanks": blanks, **_typing(draw)}


def _numbers(draw: st.DrawFn) -> dict[str, Any]:
    made = st.builds(
        number_of, st.sampled_from(["0", "1", "-1.5", "3.14"]), st.sampled_from(["", "0.5", "1"]), PERCENTS
    )
    return {"numbers": draw(st.lists(made, min_size=1, max_size=4))}


def _matching(draw: st.DrawFn) -> dict[str, Any]:
    stems = [{"id": str(uuid4()), "text": "s"} for _ in range(draw(st.integers(1, 5)))]
    targets = [{"id": str(uuid4()), "text": text} for text in draw(st.lists(SOLID, min_size=2, max_size=6))]
    ids = st.sampled_from([target["id"] for target in targets])
    return {"stems": stems, "targets": targets, "pairs": [[stem["id"], draw(ids)] for stem in stems]}


def _items(draw: st.DrawFn) -> dict[str, Any]:
    texts = draw(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=7).filter(lambda one: len(set(one)) > 1))
    return {"items": [{"id": str(uuid4()), "text": text} for text in texts]}


DRAWN: dict[str, Any] = {
    "multiple_choice": _choices,
    "fill_blank": _blanks,
    "short_answer": lambda draw: {"accepted": _accepted(draw), "wildcards": draw(st.booleans()), **_typing(draw)},
    "numeric": _numbers,
    "matching": _matching,
    "ordering": _items,
}


def answers(body: dict[str, Any]) -> st.SearchStrategy[list[str]]:
    """Answers that a question may have, as they are stored."""
    kind = body["type"]
    if kind == "multiple_choice":
        ids = st.lists(st.sampled_from([one["id"] for one in body["choices"]]), unique=True)
        return ids if body["multiple"] else ids.map(lambda one: one[:1])
    if kind == "fill_blank":
        each = [st.sampled_from(["", *blank["options"]]) if blank["options"] else TEXTS for blank in body["blanks"]]
        return st.tuples(*each).map(list)
    if kind == "matching":
        return st.tuples(*(st.sampled_from(["", *(t["id"] for t in body["targets"])]) for _ in body["stems"])).map(list)
    if kind == "ordering":
        return st.one_of(st.just([]), st.permutations([one["id"] for one in body["items"]]))
    return st.lists(TEXTS | st.sampled_from(["1", "-1,5", "3.2", "2"]), min_size=1, max_size=1)


POINTS = st.decimals(0, 100, places=3)


class TestGrading:
    @given(data=st.data(), body=bodies(), points=POINTS)
    def test_stays_within_bounds_and_is_the_sum_of_its_awards(
        self, data: st.DataObject, body: dict[str, Any], points: Decimal
    ) -> None:
        result = to_grade(body, "q", points).grade(given_to_grade(body, data.draw(answers(body))))
        assert 0 <= result.score <= result.max_score == points
        assert abs(sum(award.points for award in result.awards) - result.score) < Decimal("1e-20")
        assert result.exact is None or abs(Fraction(result.score) - result.exact) < Fraction(1, 10**20)
        if body["scoring"] == "all_or_nothing":
            assert result.score == (points if result.correct else 0)

    @given(data=st.data(), body=bodies(), points=POINTS)
    def test_says_the_same_again(self, data: st.DataObject, body: dict[str, Any], points: Decimal) -> None:
        """Of the stored body, of one that went through the database, and of one that is remembered."""
        answer, version_id = data.draw(answers(body)), uuid4()
        result = to_grade(body, "q", points).grade(given_to_grade(body, answer))
        stored = json.loads(json.dumps(body, sort_keys=True))
        assert to_grade(stored, "q", points).grade(given_to_grade(stored, answer)) == result
        for _ in range(2):
            assert prepared(version_id, body, "q", points).grade(given_to_grade(body, answer)) == result

    @given(body=bodies(["multiple_choice", "numeric", "matching", "ordering"]), points=POINTS)
    def test_gives_most_for_what_is_told_as_right(self, body: dict[str, Any], points: Decimal) -> None:
        for name in ("choices", "numbers"):
            for one in body.get(name, ()):
                one["percent"] = ""
        result = to_grade(body, "q", points).grade(given_to_grade(body, right_answer(body)))
        assert (result.score, result.correct) == (points, True)

    @given(body=bodies(), points=POINTS)
    def test_gives_nothing_for_no_answer(self, body: dict[str, Any], points: Decimal) -> None:
        question = to_grade(body, "q", points)
        for answer in (None, given_to_grade(body, [])):
            result = question.grade(answer)
            assert (result.score, result.correct) == (0, False)
            assert {award.reason for award in result.awards} == {Reason.UNANSWERED}

    @given(data=st.data(), body=bodies(["multiple_choice"]), points=POINTS)
    def test_never_gives_less_for_a_better_choice(
        self, data: st.DataObject, body: dict[str, Any], points: Decimal
    ) -> None:
        body["multiple"] = True
        for one in body["choices"]:
            one["percent"] = "" if not one["correct"] and not one["percent"].startswith("-") else one["percent"]
        question, picked = to_grade(body, "q", points), set(data.draw(answers(body)))
        score = question.grade(given_to_grade(body, sorted(picked))).score
        for one in body["choices"]:
            better = picked | {one["id"]} if one["correct"] else picked - {one["id"]}
            assert question.grade(given_to_grade(body, sorted(better))).score >= score

    @given(data=st.data(), body=bodies(["multiple_choice"]), points=POINTS)
    def test_takes_choices_in_any_order(self, data: st.DataObject, body: dict[str, Any], points: Decimal) -> None:
        answer = data.draw(answers(body))
        question = to_grade(body, "q", points)
        shuffled = data.draw(st.permutations(answer))
        assert question.grade(given_to_grade(body, shuffled)) == question.grade(given_to_grade(body, answer))
        other = to_grade(body | {"choices": data.draw(st.permutations(body["choices"]))}, "q", points)
        assert other.grade(given_to_grade(body, answer)).score == question.grade(given_to_grade(body, answer)).score

    @given(data=st.data(), some=st.lists(bodies(), max_size=4), points=POINTS)
    def test_of_an_attempt_is_the_sum_whatever_the_order(
        self, data: st.DataObject, some: list[dict[str, Any]], points: Decimal
    ) -> None:
        questions = [to_grade(body, str(n), points) for n, body in enumerate(some)]
        given_answers = {str(n): given_to_grade(body, data.draw(answers(body))) for n, body in enumerate(some)}
        whole = grading.grade(questions, given_answers)
        again = grading.grade(questions[::-1], given_answers)
        assert (again.score, again.max_score, again.items[::-1]) == (whole.score, whole.max_score, whole.items)
        exact = sum((Fraction(one.score) if one.exact is None else one.exact for one in whole.items), Fraction(0))
        assert abs(Fraction(whole.score) - exact) < Fraction(1, 10**20)
        assert 0 <= whole.score <= whole.max_score == points * len(some)


class TestAnswerIn:
    @given(data=st.data(), body=bodies())
    def test_keeps_what_a_response_says(self, data: st.DataObject, body: dict[str, Any]) -> None:
        answer = data.draw(answers(body))
        response = response_to_proto(Item(uuid4(), uuid4(), 1, body, Decimal(1)), answer)
        assert not list(misfits(body, response))
        kept = answer_in(body, response)
        assert kept == answer or not any(kept + answer)


MATCHING, ORDERING = matching(2, 2), ordering("a", "b", "c")
STEMS, TARGETS = ([one["id"] for one in MATCHING[name]] for name in ("stems", "targets"))
ITEMS = [one["id"] for one in ORDERING["items"]]
CHOICES = choices(choice(correct=True), choice())
PICKS = [one["id"] for one in CHOICES["choices"]]
OTHER = str(uuid4())


def shouted(one: str) -> str:
    return str(UUID(one)).upper()


class TestMisfits:
    @pytest.mark.parametrize(
        ("body", "response", "field"),
        [
            (CHOICES, Response(choice_ids=PICKS), "choice_ids"),
            (CHOICES, Response(choice_ids=[OTHER]), "choice_ids[0]"),
            (CHOICES, Response(choice_ids=[PICKS[0], shouted(PICKS[0])]), "choice_ids[1]"),
            (CHOICES, Response(text="a"), "text"),
            (blank(said()), Response(blanks=["a", "b"]), "blanks"),
            (blank(said("a"), options=("a", "b")), Response(blanks=["A"]), "blanks[0]"),
            (blank(said()), Response(item_ids=[OTHER]), "item_ids"),
            (short(said()), Response(blanks=["a"]), "blanks"),
            (numeric(number_of()), Response(choice_ids=[OTHER]), "choice_ids"),
            (MATCHING, Response(matches=[Match(stem_id=OTHER, target_id=TARGETS[0])]), "matches[0].stem_id"),
            (MATCHING, Response(matches=[Match(stem_id=STEMS[0], target_id=OTHER)]), "matches[0].target_id"),
            (
                MATCHING,
                Response(matches=[Match(stem_id=one, target_id=TARGETS[0]) for one in (STEMS[0], shouted(STEMS[0]))]),
                "matches[1].stem_id",
            ),
            (ORDERING, Response(item_ids=ITEMS[:2]), "item_ids"),
            (ORDERING, Response(item_ids=[*ITEMS[:2], OTHER]), "item_ids[2]"),
            (ORDERING, Response(item_ids=[*ITEMS[:2], shouted(ITEMS[0])]), "item_ids[2]"),
            (ORDERING, Response(matches=[Match(stem_id=OTHER, target_id=OTHER)]), "matches"),
        ],
    )
    def test_are_named(self, body: dict[str, Any], response: Response, field: str) -> None:
        assert field in {one for one, _ in misfits(body, response)}

    def test_are_not_in_how_an_id_is_written(self) -> None:
        response = Response(item_ids=[shouted(one) for one in ITEMS[::-1]])
        assert not list(misfits(ORDERING, response))
        assert answer_in(ORDERING, response) == ITEMS[::-1]


class TestFeedback:
    @pytest.mark.parametrize(
        ("body", "answer", "told"),
        [
            (choices(choice(correct=True), choice(id=OTHER, feedback="No.")), [OTHER], "No."),
            (blank(said("cat"), said("dog", "0", "A dog is not a cat.")), ["DOG"], "A dog is not a cat."),
            (short(said("cat", feedback="Yes."), said("*", "0", "Try again."), wildcards=True), ["cow"], "Try again."),
            (short(said("cat", feedback="Yes.")), ["cow"], ""),
            (numeric(number_of("5") | {"feedback": "Five."}), ["5,0"], "Five."),
            (numeric(number_of("5") | {"feedback": "Five."}), [], ""),
        ],
    )
    def test_is_that_of_the_answer_given(self, body: dict[str, Any], answer: list[str], told: str) -> None:
        assert feedback(body, answer, explained=False) == told
        explained = feedback(body | {"explanation": "Because."}, answer, explained=True)
        assert explained == "\n".join(line for line in (told, "Because.") if line)
