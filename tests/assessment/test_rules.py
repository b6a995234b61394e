"""What a question may be, who may take a quiz when, and what answers are worth."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import FailedPrecondition, InvalidArgument
from services.assessment import bodies, rules
from services.assessment.rules import Item, Taking
from storyloom.assessment.v1.attempts_pb2 import Response
from storyloom.type.v1.errors_pb2 import ErrorReason

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
EMPTY: dict[str, Any] = {
    "prompt": "Which?",
    "choices": [],
    "multiple": False,
    "blanks": [],
    "case_sensitive": False,
    "ignore_accents": False,
    "explanation": "",
}


def choice_body(right: int = 1, wrong: int = 2, **fields: Any) -> dict[str, Any]:
    choices = [
        {"id": str(uuid4()), "text": f"choice {n}", "correct": n < right, "feedback": f"feedback {n}"}
        for n in range(right + wrong)
    ]
    return EMPTY | {"type": "multiple_choice", "choices": choices} | fields


def blank_body(*accepted: list[str], **fields: Any) -> dict[str, Any]:
    prompt = " and ".join("___" for _ in accepted)
    return EMPTY | {"type": "fill_blank", "prompt": prompt, "blanks": list(accepted)} | fields


def item(body: dict[str, Any], points: str = "1", answer: list[str] | None = None) -> Item:
    return Item(uuid4(), uuid4(), 1, body, Decimal(points), answer)


def ids(body: dict[str, Any], *indexes: int) -> list[str]:
    return [body["choices"][index]["id"] for index in indexes]


def fields_of(error: InvalidArgument) -> list[str]:
    bad = next(one for one in error.details if isinstance(one, error_details_pb2.BadRequest))
    return [one.field for one in bad.field_violations]


class TestCheckBody:
    @pytest.mark.parametrize(
        "body",
        [
            choice_body(),
            choice_body(2, 0, multiple=True),
            blank_body(["river"]),
            blank_body(["a"], ["b"], case_sensitive=True, ignore_accents=True),
            blank_body(["a"], prompt="A long one: _____."),
        ],
    )
    def test_takes_what_fits_the_type(self, body: dict[str, Any]) -> None:
        bodies.check_body(body, known=ids(body, *range(len(body["choices"]))))

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            (choice_body(1, 0), "question.choices"),
            (choice_body(0, 2), "question.choices"),
            (choice_body(2, 1), "question.choices"),
            (choice_body(blanks=[["a"]]), "question.blanks"),
            (choice_body(case_sensitive=True), "question.case_sensitive"),
            (choice_body(ignore_accents=True), "question.ignore_accents"),
            (blank_body(), "question.blanks"),
            (blank_body(["a"], prompt="No blank at all"), "question.blanks"),
            (blank_body(["a"], prompt="___ and ___"), "question.blanks"),
            (blank_body(["a", "\u00a0"]), "question.blanks[0].accepted[1]"),
            (blank_body(["a"], multiple=True), "question.multiple"),
            (blank_body(["a"], choices=choice_body()["choices"]), "question.choices"),
        ],
    )
    def test_names_the_field_that_does_not_fit(self, body: dict[str, Any], field: str) -> None:
        with pytest.raises(InvalidArgument) as caught:
            bodies.check_body(body, known=[choice["id"] for choice in body["choices"]])
        assert fields_of(caught.value) == [field]

    def test_refuses_ids_of_choices_that_the_question_does_not_have(self) -> None:
        body = choice_body()
        with pytest.raises(InvalidArgument) as caught:
            bodies.check_body(body, known=ids(body, 0, 2))
        assert fields_of(caught.value) == ["question.choices[1].id"]

    def test_refuses_the_id_of_a_choice_twice(self) -> None:
        body = choice_body()
        body["choices"][2]["id"] = body["choices"][1]["id"]
        with pytest.raises(InvalidArgument) as caught:
            bodies.check_body(body, known=ids(body, 0, 1))
        assert fields_of(caught.value) == ["question.choices[1].id", "question.choices[2].id"]


class TestMoved:
    def test_leads_from_draft_to_published_to_archived(self) -> None:
        assert rules.moved("publish", "draft", 1) == "published"
        assert rules.moved("archive", "published", 1) == "archived"

    @pytest.mark.parametrize(
        ("action", "status", "count"),
        [
            ("publish", "published", 1),
            ("publish", "archived", 1),
            ("publish", "draft", 0),
            ("archive", "draft", 1),
            ("archive", "archived", 1),
        ],
    )
    def test_refuses_every_other_way(self, action: str, status: str, count: int) -> None:
        with pytest.raises(FailedPrecondition) as caught:
            rules.moved(action, status, count)
        assert (caught.value.reason, caught.value.metadata) == (ErrorReason.WRONG_STATE, {"state": status})


class TestCheckStart:
    def quiz(self, **fields: Any) -> Any:
        default = {"status": "published", "open_time": None, "close_time": None, "attempts_allowed": 0, "used": 0}
        return SimpleNamespace(**default | fields)

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"used": 1000},
            {"open_time": NOON},
            {"close_time": NOON + HOUR},
            {"attempts_allowed": 2, "used": 1},
        ],
    )
    def test_allows(self, fields: dict[str, Any]) -> None:
        rules.check_start(self.quiz(**fields), NOON)

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"status": "draft"}, ErrorReason.WRONG_STATE),
            ({"status": "archived"}, ErrorReason.WRONG_STATE),
            ({"open_time": NOON + HOUR}, ErrorReason.ATTEMPT_NOT_ALLOWED),
            ({"close_time": NOON}, ErrorReason.ATTEMPT_NOT_ALLOWED),
            ({"attempts_allowed": 2, "used": 2}, ErrorReason.ATTEMPT_NOT_ALLOWED),
        ],
    )
    def test_refuses(self, fields: dict[str, Any], reason: Any) -> None:
        with pytest.raises(FailedPrecondition) as caught:
            rules.check_start(self.quiz(**fields), NOON)
        assert caught.value.reason == reason


class TestDeadline:
    @pytest.mark.parametrize(
        ("limit", "close", "ends"),
        [
            (None, None, None),
            (HOUR, None, NOON + HOUR),
            (None, NOON + HOUR, NOON + HOUR),
            (2 * HOUR, NOON + HOUR, NOON + HOUR),
            (HOUR, NOON + 2 * HOUR, NOON + HOUR),
        ],
    )
    def test_is_what_comes_first(self, limit: timedelta | None, close: datetime | None, ends: datetime | None) -> None:
        assert rules.deadline(NOON, limit, close) == ends


class TestShuffled:
    @given(seed=st.uuids(), things=st.lists(st.text(), unique=True))
    def test_keeps_everything_and_the_order_of_the_seed(self, seed: UUID, things: list[str]) -> None:
        order = rules.shuffled(seed, things, key=str)
        assert sorted(order) == sorted(things)
        assert rules.shuffled(seed, reversed(things), key=str) == order

    def test_is_not_the_same_for_every_seed(self) -> None:
        assert len({tuple(rules.shuffled(UUID(int=n), "abcdef", key=str)) for n in range(20)}) > 15


class TestAnswered:
    def test_takes_choices_and_texts_by_version(self) -> None:
        choice, blank = item(choice_body()), item(blank_body(["a"], ["b"]))
        responses = [
            Response(question_id=str(choice.question_id).upper(), choice_ids=[ids(choice.body, 1)[0].upper()]),
            Response(question_id=str(blank.question_id), blanks=["x"]),
        ]
        assert rules.answered([choice, blank], responses) == {
            choice.version_id: ids(choice.body, 1),
            blank.version_id: ["x"],
        }

    def test_names_each_response_that_its_question_cannot_have(self) -> None:
        single, blank = item(choice_body()), item(blank_body(["a"]))
        strange = str(uuid4())
        cases = [
            (Response(question_id=strange), "responses[0].question_id"),
            (Response(question_id=str(single.question_id), choice_ids=[strange]), "responses[0].choice_ids[0]"),
            (
                Response(question_id=str(single.question_id), choice_ids=ids(single.body, 0, 1)),
                "responses[0].choice_ids",
            ),
            (Response(question_id=str(single.question_id), blanks=["a"]), "responses[0].blanks"),
            (Response(question_id=str(blank.question_id), choice_ids=[strange]), "responses[0].choice_ids"),
            (Response(question_id=str(blank.question_id), blanks=["a", "b"]), "responses[0].blanks"),
        ]
        for response, field in cases:
            with pytest.raises(InvalidArgument) as caught:
                rules.answered([single, blank], [response])
            assert fields_of(caught.value) == [field]

    def test_refuses_a_question_twice_however_its_id_is_written(self) -> None:
        one = item(choice_body())
        responses = [Response(question_id=str(one.question_id)), Response(question_id=str(one.question_id).upper())]
        with pytest.raises(InvalidArgument) as caught:
            rules.answered([one], responses)
        assert fields_of(caught.value) == ["responses[1].question_id"]


class TestGraded:
    def test_adds_up_and_rounds_only_what_is_shown(self) -> None:
        thirds = choice_body(3, 1, multiple=True)
        items = [
            item(choice_body(), "1.5"),
            item(thirds, "1", ids(thirds, 0, 1)),
            item(blank_body(["a"], ["b"], ["c"]), "1", ["A", "b", "C "]),
        ]
        outcome = rules.graded(items, Decimal("47.62"))
        assert outcome.score == Decimal("1.666666666666666666666666667")
        assert outcome.max_score == Decimal("3.5")
        assert (outcome.percent, outcome.passed) == (Decimal("47.62"), False)
        assert [entry["score"] for entry in outcome.detail] == ["0", "0.6666666666666666666666666667", "1"]
        assert [entry["correct"] for entry in outcome.detail] == [False, False, True]

    def test_three_blanks_share_a_point_and_are_worth_exactly_that(self) -> None:
        outcome = rules.graded([item(blank_body(["a"], ["b"], ["c"]), "1", ["a", "b", "c"])], Decimal(100))
        assert (outcome.score, outcome.max_score, outcome.percent, outcome.passed) == (1, 1, 100, True)

    def test_says_what_every_award_is_for(self) -> None:
        body = choice_body(1, 1)
        outcome = rules.graded([item(body, "2", ids(body, 1)), item(blank_body(["a"]), "1", [""])], Decimal(50))
        right, wrong = ids(body, 0, 1)
        assert outcome.detail[0]["awards"] == [[right, "missed_choice", "0"], [wrong, "wrong_choice", "0"]]
        assert outcome.detail[1]["awards"] == [["1", "unanswered", "0"]]

    @pytest.mark.parametrize(("mark", "passed"), [("50", True), ("50.000001", False), ("0", True)])
    def test_passes_from_the_pass_mark_on(self, mark: str, passed: bool) -> None:
        body = choice_body()
        items = [item(body, "1", ids(body, 0)), item(choice_body(), "1")]
        assert rules.graded(items, Decimal(mark)).passed is passed

    def test_of_nothing_to_earn_is_zero_percent(self) -> None:
        body = choice_body()
        outcome = rules.graded([item(body, "0", ids(body, 0))], Decimal(1))
        assert (outcome.score, outcome.percent, outcome.passed) == (0, 0, False)
        assert outcome.detail[0]["correct"]

    @given(data=st.data())
    def test_grades_whatever_passed_the_checks(self, data: st.DataObject) -> None:
        multiple = data.draw(st.booleans())
        right = data.draw(st.integers(1, 4 if multiple else 1))
        choice = choice_body(right, data.draw(st.integers(1, 4)), multiple=multiple)
        texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4)
        accepted = data.draw(st.lists(st.lists(texts, min_size=1, max_size=3), min_size=1, max_size=3))
        blank = blank_body(*accepted, ignore_accents=data.draw(st.booleans()))
        items = [item(choice, data.draw(POINTS)), item(blank, data.draw(POINTS))]
        responses = [
            Response(
                question_id=str(items[0].question_id),
                choice_ids=data.draw(st.lists(st.sampled_from([one["id"] for one in choice["choices"]]), max_size=3)),
            ),
            Response(question_id=str(items[1].question_id), blanks=data.draw(st.lists(texts, max_size=4))),
        ]
        try:
            bodies.check_body(blank)
            answers = rules.answered(items, responses)
        except InvalidArgument:
            return
        taken = [
            Item(one.question_id, one.version_id, 1, one.body, one.points, answers[one.version_id]) for one in items
        ]
        outcome = rules.graded(taken, Decimal(50))
        assert 0 <= outcome.score <= outcome.max_score == sum(one.points for one in items)
        assert 0 <= outcome.percent <= 100


POINTS = st.decimals(0, 999_999, places=6).map(str)


class TestFeedback:
    def test_has_a_line_for_each_pick_and_the_explanation(self) -> None:
        body = choice_body(2, 1, multiple=True, explanation="Because.")
        assert bodies.feedback(body, ids(body, 2, 0), explained=True) == "feedback 0\nfeedback 2\nBecause."
        assert bodies.feedback(body, None, explained=True) == "Because."
        assert bodies.feedback(choice_body(), [], explained=True) == ""
        assert bodies.feedback(body, ids(body, 2), explained=False) == "feedback 2"


class TestTaking:
    def attempt(self, deadline: datetime | None, answer: list[str] | None = None) -> Taking:
        return Taking(
            id=uuid4(),
            quiz_id=uuid4(),
            lesson_id=None,
            user_id=uuid4(),
            number=1,
            shuffled=False,
            deadline_time=deadline,
            created_at=NOON,
            updated_at=NOON,
            pass_mark=Decimal(50),
            items=[item(blank_body(["a"]), "1", answer)],
        )

    def test_expires_at_its_deadline(self) -> None:
        attempt = self.attempt(NOON + HOUR)
        assert attempt.state_at(NOON + HOUR - timedelta(microseconds=1)) == "open"
        assert attempt.state_at(NOON + HOUR) == "expired"
        assert self.attempt(None).state_at(NOON + 1000 * HOUR) == "open"

    def test_is_graded_when_closed_in_time(self) -> None:
        attempt = self.attempt(NOON + HOUR, ["a"])
        attempt.close(NOON)
        assert attempt.result
        assert (attempt.state, attempt.submit_time, attempt.result.score) == ("graded", NOON, 1)

    def test_expires_as_of_its_deadline_when_closed_late(self) -> None:
        attempt = self.attempt(NOON + HOUR, ["a"])
        attempt.close(NOON + 5 * HOUR)
        assert attempt.result
        assert (attempt.state, attempt.submit_time, attempt.result.score) == ("expired", NOON + HOUR, 1)

    def test_takes_new_answers_and_keeps_the_others(self) -> None:
        attempt = self.attempt(None, ["a"])
        attempt.answer({})
        assert attempt.items[0].answer == ["a"]
        attempt.answer({attempt.items[0].version_id: ["b"]})
        assert attempt.items[0].answer == ["b"]


class TestPlain:
    @given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9))
    def test_is_the_same_number_without_exponent(self, value: Decimal) -> None:
        text = rules.plain(value)
        assert Decimal(text) == value
        assert "E" not in text

    @pytest.mark.parametrize(("value", "text"), [("2.50", "2.5"), ("1E+2", "100"), ("0.00", "0"), ("10", "10")])
    def test_is_short(self, value: str, text: str) -> None:
        assert rules.plain(Decimal(value)) == text
