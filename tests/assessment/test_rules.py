"""Who may take a quiz when, what answers are worth, and what learners see of it."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import FailedPrecondition, InvalidArgument
from services.assessment import bodies, rules
from services.assessment.rules import Item, Standing, Taking
from storyloom.assessment.v1.answers_pb2 import Response
from storyloom.type.v1.errors_pb2 import ErrorReason

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def choice_body(right: int = 1, wrong: int = 2, **fields: Any) -> dict[str, Any]:
    choices = [
        {"id": str(uuid4()), "text": f"{n}", "correct": n < right, "feedback": f"feedback {n}", "percent": ""}
        for n in range(right + wrong)
    ]
    return bodies.new_body("multiple_choice", "Which?", choices=choices, **fields)


def blank_body(*accepted: list[str], **fields: Any) -> dict[str, Any]:
    prompt = " and ".join("___" for _ in accepted)
    blanks = [
        {"accepted": [{"text": text, "percent": "", "feedback": ""} for text in texts], "options": []}
        for texts in accepted
    ]
    return bodies.new_body("fill_blank", prompt, blanks=blanks, **fields)


def item(body: dict[str, Any], points: str = "1", answer: list[str] | None = None) -> Item:
    return Item(uuid4(), uuid4(), 1, body, Decimal(points), answer)


def ids(body: dict[str, Any], *indexes: int) -> list[str]:
    return [body["choices"][index]["id"] for index in indexes]


def fields_of(error: InvalidArgument) -> list[str]:
    bad = next(one for one in error.details if isinstance(one, error_details_pb2.BadRequest))
    return [one.field for one in bad.field_violations]


class TestMoved:
    def test_leads_from_draft_to_published_to_archived(self) -> None:
        assert rules.moved("quiz", "publish", "draft") == "published"
        assert rules.moved("quiz", "archive", "published") == "archived"

    @pytest.mark.parametrize(
        ("action", "status"),
        [("publish", "published"), ("publish", "archived"), ("archive", "draft"), ("archive", "archived")],
    )
    def test_refuses_every_other_way(self, action: str, status: str) -> None:
        with pytest.raises(FailedPrecondition) as caught:
            rules.moved("quiz", action, status)
        assert (caught.value.reason, caught.value.metadata) == (ErrorReason.WRONG_STATE, {"state": status})


class TestCheckStart:
    def quiz(self, **fields: Any) -> Any:
        default = {"status": "published", "open_time": None, "used": 0}
        default |= {"own_close_time": None, "own_attempts_allowed": 0}
        return SimpleNamespace(**default | fields)

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"used": 1000},
            {"open_time": NOON},
            {"own_close_time": NOON + HOUR},
            {"own_attempts_allowed": 2, "used": 1},
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
            ({"own_close_time": NOON}, ErrorReason.ATTEMPT_NOT_ALLOWED),
            ({"own_attempts_allowed": 2, "used": 2}, ErrorReason.ATTEMPT_NOT_ALLOWED),
        ],
    )
    def test_refuses(self, fields: dict[str, Any], reason: Any) -> None:
        with pytest.raises(FailedPrecondition) as caught:
            rules.check_start(self.quiz(**fields), NOON)
        assert caught.value.reason == reason


class TestDeadline:
    @pytest.mark.parametrize(
        ("limit", "extra", "close", "ends"),
        [
            (None, None, None, None),
            (None, HOUR, None, None),
            (HOUR, None, None, NOON + HOUR),
            (HOUR, HOUR, None, NOON + 2 * HOUR),
            (None, None, NOON + HOUR, NOON + HOUR),
            (2 * HOUR, None, NOON + HOUR, NOON + HOUR),
            (HOUR, 2 * HOUR, NOON + 2 * HOUR, NOON + 2 * HOUR),
            (HOUR, None, NOON + 2 * HOUR, NOON + HOUR),
        ],
    )
    def test_is_what_comes_first(
        self, limit: timedelta | None, extra: timedelta | None, close: datetime | None, ends: datetime | None
    ) -> None:
        assert rules.deadline(NOON, limit, extra, close) == ends


class TestStanding:
    """What holds for a learner of whose attempts one is over."""

    def standing(self, **fields: Any) -> Standing:
        default: dict[str, Any] = {"state": "graded", "status": "published", "used": 1, "answering": False}
        default |= {"own_close_time": None, "last_close_time": None, "own_attempts_allowed": 0}
        return rules.standing(SimpleNamespace(**default | fields), NOON)

    @pytest.mark.parametrize(
        ("fields", "holds"),
        [
            ({}, {}),
            ({"state": "open"}, {"over": False}),
            ({"state": "expired"}, {}),
            ({"answering": True}, {"answering": True}),
            ({"own_attempts_allowed": 2, "used": 1}, {}),
            ({"own_attempts_allowed": 2, "used": 2}, {"used_up": True}),
            ({"own_close_time": NOON + HOUR, "last_close_time": NOON + HOUR}, {}),
            ({"own_close_time": NOON, "last_close_time": NOON + HOUR}, {"closed": True}),
            ({"own_close_time": NOON + HOUR, "last_close_time": NOON}, {"closed_for_all": True}),
            ({"own_close_time": NOON, "last_close_time": NOON}, {"closed": True, "closed_for_all": True}),
            ({"status": "archived"}, {"closed": True, "closed_for_all": True}),
        ],
    )
    def test_is_read_off_the_attempt_and_its_quiz(self, fields: dict[str, Any], holds: dict[str, bool]) -> None:
        assert self.standing(**fields) == Standing(**holds)


EVERY = [Standing(*flags) for flags in product((False, True), repeat=5)]


class TestShown:
    # By the words of the proto, once more: each line is when, and how the learner stands.
    @pytest.mark.parametrize(
        ("time", "standing", "reached"),
        [
            ("never", Standing(), False),
            ("never", Standing(used_up=True, closed=True, closed_for_all=True), False),
            ("on_submit", Standing(), True),
            ("on_submit", Standing(answering=True), True),
            ("after_close", Standing(), False),
            ("after_close", Standing(used_up=True), False),
            ("after_close", Standing(closed=True), False),
            ("after_close", Standing(closed=True, closed_for_all=True), True),
            ("after_close", Standing(answering=True, closed=True, closed_for_all=True), False),
            ("no_attempts_left", Standing(), False),
            ("no_attempts_left", Standing(used_up=True), True),
            ("no_attempts_left", Standing(closed=True), True),
            ("no_attempts_left", Standing(closed_for_all=True), False),
            ("no_attempts_left", Standing(answering=True, used_up=True, closed=True), False),
        ],
    )
    @pytest.mark.parametrize("aspect", rules.REVIEW)
    def test_says_of_each_aspect_for_itself(self, aspect: str, time: str, standing: Standing, reached: bool) -> None:
        others = dict.fromkeys(rules.REVIEW, "never")
        assert rules.shown(others | {aspect: time}, standing) == ({aspect} if reached else set())

    @pytest.mark.parametrize("standing", [one for one in EVERY if not one.over])
    def test_is_nothing_but_the_own_responses_while_the_attempt_is_open(self, standing: Standing) -> None:
        for time in ("never", "on_submit", "after_close", "no_attempts_left"):
            assert rules.shown(dict.fromkeys(rules.REVIEW, time), standing) == {"responses"}

    @pytest.mark.parametrize("standing", [one for one in EVERY if one.over])
    def test_keeps_the_answers_back_by_default_while_the_learner_can_use_them(self, standing: Standing) -> None:
        over = (standing.closed or standing.used_up) and not standing.answering
        told = {"correct_answers", "explanations"} if over else set()
        assert rules.shown({}, standing) == {"score", "responses", "feedback"} | told


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

    def test_without_deadline_expires_after_thirty_silent_days(self) -> None:
        attempt, month = self.attempt(None, ["a"]), timedelta(days=30)
        assert attempt.state_at(NOON + month - timedelta(microseconds=1)) == "open"
        assert attempt.state_at(NOON + month) == "expired"
        attempt.close(NOON + 2 * month)
        assert attempt.result
        assert (attempt.state, attempt.submit_time, attempt.result.score) == ("expired", NOON + month, 1)

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
