"""What an answer earns, and why: choices, blanks and the totals of an attempt."""

import unicodedata
from decimal import Decimal, localcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.assessment.grading import (
    Award,
    Blank,
    Choice,
    FillBlank,
    Filled,
    Grade,
    ItemGrade,
    MultipleChoice,
    Question,
    Reason,
    Scoring,
    Selected,
    TextPolicy,
    grade,
    grade_item,
    normalise,
    presented,
)

DEFAULT = TextPolicy()


def choices(right: str, wrong: str) -> tuple[Choice, ...]:
    return tuple(Choice(name, correct=True) for name in right) + tuple(Choice(name, correct=False) for name in wrong)


def select(question: Question, names: str) -> ItemGrade:
    return grade_item(question, Selected(frozenset(names)))


def blank_question(*accepted: str, policy: TextPolicy = DEFAULT) -> FillBlank:
    return FillBlank("q", (Blank("b", Decimal(1), accepted),), policy)


def is_accepted(typed: str, *accepted: str, policy: TextPolicy = DEFAULT) -> bool:
    return grade_item(blank_question(*accepted, policy=policy), Filled({"b": typed})).score == 1


class TestSingleChoice:
    question = MultipleChoice("q", Decimal("2.5"), choices("a", "bc"))

    def test_gives_all_points_for_the_right_choice(self) -> None:
        assert select(self.question, "a") == ItemGrade(
            "q", (Award("a", Reason.RIGHT_CHOICE, Decimal("2.5")),), Decimal("2.5"), Decimal("2.5")
        )

    def test_gives_nothing_and_takes_nothing_for_a_wrong_choice(self) -> None:
        result = select(self.question, "b")
        assert result.score == 0
        assert [(award.subject, award.reason, award.points) for award in result.awards] == [
            ("a", Reason.MISSED_CHOICE, Decimal(0)),
            ("b", Reason.WRONG_CHOICE, Decimal(0)),
        ]

    @pytest.mark.parametrize("answer", [None, Selected(frozenset())])
    def test_tells_no_answer_from_a_wrong_one(self, answer: Selected | None) -> None:
        assert grade_item(self.question, answer).awards == (Award("q", Reason.UNANSWERED, Decimal(0)),)

    @pytest.mark.parametrize("answer", [Selected(frozenset("ab")), Selected(frozenset("x")), Filled({"a": "a"})])
    def test_refuses_an_answer_the_question_cannot_have(self, answer: Selected | Filled) -> None:
        with pytest.raises(ValueError, match="'q'"):
            grade_item(self.question, answer)

    def test_is_graded_alike_under_either_scoring(self) -> None:
        strict = MultipleChoice("q", self.question.points, self.question.choices, scoring=Scoring.ALL_OR_NOTHING)
        assert select(strict, "a") == select(self.question, "a")
        assert select(strict, "b") == select(self.question, "b")

    @pytest.mark.parametrize("right", ["", "ab"])
    def test_refuses_a_question_without_exactly_one_right_choice(self, right: str) -> None:
        with pytest.raises(ValueError, match="right choices"):
            MultipleChoice("q", Decimal(1), choices(right, "c"))


class TestPartialCredit:
    question = MultipleChoice("q", Decimal(6), choices("abc", "xy"), multiple=True)

    @pytest.mark.parametrize(
        ("selected", "score"),
        [("abc", 6), ("ab", 4), ("a", 2), ("abcx", 3), ("abx", 1), ("ax", 0), ("x", 0), ("abcxy", 0)],
    )
    def test_adds_for_right_choices_and_takes_off_for_wrong_ones(self, selected: str, score: int) -> None:
        assert select(self.question, selected).score == score

    def test_says_what_each_point_was_given_for(self) -> None:
        assert select(self.question, "ax").awards == (
            Award("a", Reason.RIGHT_CHOICE, Decimal(2)),
            Award("b", Reason.MISSED_CHOICE, Decimal(0)),
            Award("c", Reason.MISSED_CHOICE, Decimal(0)),
            Award("x", Reason.WRONG_CHOICE, Decimal(-3)),
            Award("q", Reason.NOT_BELOW_ZERO, Decimal(1)),
        )

    def test_is_earned_in_full_where_every_choice_is_right(self) -> None:
        question = MultipleChoice("q", Decimal(1), choices("ab", ""), multiple=True)
        assert select(question, "ab").score == 1

    @pytest.mark.parametrize(("selected", "score"), [("abc", 6), ("ab", 0), ("abcx", 0)])
    def test_is_not_given_where_the_question_is_all_or_nothing(self, selected: str, score: int) -> None:
        question = MultipleChoice("q", Decimal(6), self.question.choices, True, Scoring.ALL_OR_NOTHING)
        assert select(question, selected).score == score

    @settings(deadline=None)
    @given(
        right=st.integers(1, 6),
        wrong=st.integers(0, 6),
        points=st.decimals(0, 100, places=2),
        picks=st.sets(st.integers(0, 11)),
    )
    def test_stays_within_bounds_and_is_the_sum_of_its_awards(
        self, right: int, wrong: int, points: Decimal, picks: set[int]
    ) -> None:
        options = tuple(Choice(str(i), i < right) for i in range(right + wrong))
        selected = frozenset(str(i) for i in picks if i < right + wrong)
        result = grade_item(MultipleChoice("q", points, options, multiple=True), Selected(selected))
        assert 0 <= result.score <= result.max_score == points
        assert abs(sum(award.points for award in result.awards) - result.score) < Decimal("1e-20")
        full = selected == {choice.id for choice in options if choice.correct}
        assert (result.score == points) == (full or points == 0)
        if wrong and len(selected) == right + wrong:
            assert result.score == 0


class TestFillBlank:
    def test_grades_each_blank_on_its_own(self) -> None:
        question = FillBlank(
            "q",
            (
                Blank("animal", Decimal("1.5"), ("con mèo", "mèo")),
                Blank("verb", Decimal(1), ("ngủ",)),
                Blank("place", Decimal("0.5"), ("nhà",)),
            ),
        )
        result = grade_item(question, Filled({"animal": "Mèo", "verb": "ăn"}))
        assert result == ItemGrade(
            "q",
            (
                Award("animal", Reason.ACCEPTED, Decimal("1.5")),
                Award("verb", Reason.NOT_ACCEPTED, Decimal(0)),
                Award("place", Reason.UNANSWERED, Decimal(0)),
            ),
            Decimal("1.5"),
            Decimal(3),
        )

    def test_accepts_either_unicode_form(self) -> None:
        composed, decomposed = unicodedata.normalize("NFC", "tiếng Việt"), unicodedata.normalize("NFD", "tiếng Việt")
        assert composed != decomposed
        assert is_accepted(decomposed, composed)
        assert is_accepted(composed, decomposed)

    def test_accepts_marks_in_any_canonical_order(self) -> None:
        assert is_accepted("α\u0345\u0301", "α\u0301\u0345")

    @pytest.mark.parametrize("typed", ["  con mèo ", "con\u00a0mèo", "con \t mèo\r\n"])
    def test_ignores_how_white_space_is_typed(self, typed: str) -> None:
        assert is_accepted(typed, "con mèo")

    def test_does_not_ignore_where_white_space_is(self) -> None:
        assert not is_accepted("conmèo", "con mèo")

    def test_accepts_the_apostrophe_a_phone_types(self) -> None:
        assert is_accepted("don’t", "don't")

    def test_lets_case_count_only_on_request(self) -> None:
        assert is_accepted("STRASSE", "Straße")
        assert is_accepted("ĐÀ NẴNG", "Đà Nẵng")
        assert not is_accepted("đà nẵng", "Đà Nẵng", policy=TextPolicy(case_sensitive=True))
        assert is_accepted("Đà Nẵng", "Đà Nẵng", policy=TextPolicy(case_sensitive=True))

    @pytest.mark.parametrize("typed", ["ma", "mà", "mả", "mạ"])
    def test_tells_tones_apart_by_default(self, typed: str) -> None:
        assert not is_accepted(typed, "má")

    @pytest.mark.parametrize(
        "typed", ["duong pho", "Dường phổ", "đường phố", unicodedata.normalize("NFD", "đường phố")]
    )
    def test_lets_accents_go_on_request(self, typed: str) -> None:
        assert is_accepted(typed, "đường phố", policy=TextPolicy(accent_sensitive=False))

    def test_keeps_the_vowel_signs_of_other_scripts_when_accents_go(self) -> None:
        assert not is_accepted("कत", "किताब", policy=TextPolicy(accent_sensitive=False))
        assert not is_accepted("ก", "กิ", policy=TextPolicy(accent_sensitive=False))

    @pytest.mark.parametrize("typed", ["", "   ", "\u0301"])
    def test_never_accepts_an_empty_blank(self, typed: str) -> None:
        assert not is_accepted(typed, "", "\u0301", "mèo", policy=TextPolicy(accent_sensitive=False))

    @pytest.mark.parametrize("answer", [Filled({"x": "mèo"}), Selected(frozenset("b"))])
    def test_refuses_an_answer_the_question_cannot_have(self, answer: Selected | Filled) -> None:
        with pytest.raises(ValueError, match="'q'"):
            grade_item(blank_question("mèo"), answer)

    @settings(deadline=None)
    @given(text=st.text(), case=st.booleans(), accent=st.booleans())
    def test_normalisation_is_stable_and_blind_to_the_unicode_form(self, text: str, case: bool, accent: bool) -> None:
        policy = TextPolicy(case, accent)
        once = normalise(text, policy)
        assert unicodedata.is_normalized("NFC", once)
        assert normalise(once, policy) == once
        assert normalise(unicodedata.normalize("NFD", text), policy) == once
        assert normalise(unicodedata.normalize("NFC", text), policy) == once


class TestGrade:
    def thirds(self, count: int) -> list[MultipleChoice]:
        return [MultipleChoice(f"q{i}", Decimal(1), choices("abc", "x"), multiple=True) for i in range(count)]

    def test_sums_thirds_to_a_whole(self) -> None:
        result = grade(self.thirds(3), {f"q{i}": Selected(frozenset("a")) for i in range(3)})
        assert result.score == 1
        assert result.items[0].score == Decimal("0." + "3" * 28)

    def test_does_not_depend_on_the_callers_decimal_context(self) -> None:
        answers = {"q0": Selected(frozenset("a"))}
        wanted = grade(self.thirds(1), answers)
        with localcontext(prec=3):
            assert grade(self.thirds(1), answers) == wanted

    def test_keeps_the_order_of_the_questions_and_counts_unanswered_ones(self) -> None:
        questions: list[Question] = [MultipleChoice("z", Decimal("0.1"), choices("a", "b")), blank_question("mèo")]
        result = grade(questions, {"q": Filled({"b": "mèo"})})
        assert [item.question_id for item in result.items] == ["z", "q"]
        assert (result.score, result.max_score) == (Decimal(1), Decimal("1.1"))

    def test_of_nothing_is_zero(self) -> None:
        assert grade([], {}) == Grade((), Decimal(0), Decimal(0))

    def test_refuses_answers_to_other_questions_and_repeated_questions(self) -> None:
        with pytest.raises(ValueError, match="not asked"):
            grade([], {"q": Filled({})})
        with pytest.raises(ValueError, match="repeats"):
            grade([blank_question("a"), blank_question("b")], {})

    @pytest.mark.parametrize("points", ["-1", "NaN", "Infinity"])
    def test_refuses_points_that_cannot_be_summed(self, points: str) -> None:
        with pytest.raises(ValueError, match="points"):
            MultipleChoice("q", Decimal(points), choices("a", "b"))
        with pytest.raises(ValueError, match="points"):
            Blank("b", Decimal(points), ("a",))


class TestPresented:
    @pytest.mark.parametrize(
        ("score", "shown"), [("2.345", "2.35"), ("2.3449999", "2.34"), ("0.005", "0.01"), ("3", "3.00")]
    )
    def test_rounds_half_up_to_two_decimals(self, score: str, shown: str) -> None:
        assert str(presented(Decimal(score))) == shown
