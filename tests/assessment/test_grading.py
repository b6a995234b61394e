"""What an answer earns, and why: choices, blanks and the totals of an attempt."""

import unicodedata
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.assessment.grading import (
    Accepted,
    Blank,
    Choice,
    FillBlank,
    Grade,
    MultipleChoice,
    Numeric,
    Question,
    Range,
    Settled,
    ShortAnswer,
    grade,
    presented,
)
from services.assessment.marks import Answer, Award, Filled, ItemGrade, Reason, Scoring, Selected, Typed
from services.assessment.texts import TextPolicy

DEFAULT = TextPolicy()


def choices(right: str, wrong: str) -> tuple[Choice, ...]:
    return tuple(Choice(name, correct=True) for name in right) + tuple(Choice(name, correct=False) for name in wrong)


def select(question: Question, names: str) -> ItemGrade:
    return question.grade(Selected(frozenset(names)))


def texts(*accepted: str) -> tuple[Accepted, ...]:
    return tuple(Accepted(text) for text in accepted)


def blank_question(*accepted: str, policy: TextPolicy = DEFAULT) -> FillBlank:
    return FillBlank("q", Decimal(1), (Blank("b", texts(*accepted)),), policy)


def is_accepted(typed: str, *accepted: str, policy: TextPolicy = DEFAULT) -> bool:
    return blank_question(*accepted, policy=policy).grade(Filled({"b": typed})).score == 1


class TestSingleChoice:
    question = MultipleChoice("q", Decimal("2.5"), choices("a", "bc"))

    def test_gives_all_points_for_the_right_choice(self) -> None:
        assert select(self.question, "a") == ItemGrade(
            "q", (Award("a", Reason.RIGHT_CHOICE, Decimal("2.5")),), Decimal("2.5"), Decimal("2.5"), correct=True
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
        assert self.question.grade(answer).awards == (Award("q", Reason.UNANSWERED, Decimal(0)),)

    @pytest.mark.parametrize("answer", [Selected(frozenset("ab")), Selected(frozenset("x")), Filled({"a": "a"})])
    def test_refuses_an_answer_the_question_cannot_have(self, answer: Selected | Filled) -> None:
        with pytest.raises(ValueError, match="'q'"):
            self.question.grade(answer)

    def test_is_graded_alike_under_either_scoring(self) -> None:
        strict = MultipleChoice("q", self.question.points, self.question.choices, scoring=Scoring.ALL_OR_NOTHING)
        assert select(strict, "a") == select(self.question, "a")
        assert select(strict, "b") == select(self.question, "b")

    def test_refuses_a_question_without_a_right_choice(self) -> None:
        with pytest.raises(ValueError, match="right choice"):
            MultipleChoice("q", Decimal(1), choices("", "c"))

    @pytest.mark.parametrize(
        ("picked", "score", "reasons"),
        [
            ("a", "10", ["right_choice"]),
            ("b", "10", ["right_choice"]),
            ("c", "3.3333333", ["missed_choice", "missed_choice", "partly_right_choice"]),
            ("d", "0", ["missed_choice", "missed_choice", "wrong_choice", "not_below_zero"]),
        ],
    )
    def test_gives_what_the_choice_says(self, picked: str, score: str, reasons: list[str]) -> None:
        percents = {"a": "100", "b": "100", "c": "33.333333", "d": "-50"}
        options = tuple(Choice(name, name in "ab", Decimal(percents[name])) for name in percents)
        result = select(MultipleChoice("q", Decimal(10), options), picked)
        assert (result.score, [award.reason for award in result.awards]) == (Decimal(score), reasons)
        assert result.correct == (picked in "ab")


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

    def test_takes_back_what_goes_beyond_all_points(self) -> None:
        options = tuple(Choice(name, correct=True, percent=Decimal(60)) for name in "ab")
        result = select(MultipleChoice("q", Decimal(5), options, multiple=True), "ab")
        assert [(award.reason, award.points) for award in result.awards] == [
            (Reason.RIGHT_CHOICE, 3),
            (Reason.RIGHT_CHOICE, 3),
            (Reason.NOT_ABOVE_MAXIMUM, -1),
        ]
        assert (result.score, result.correct) == (5, True)


class TestFillBlank:
    def test_grades_each_blank_on_its_own(self) -> None:
        blanks = {"animal": ("con mèo", "mèo"), "verb": ("ngủ",), "place": ("nhà",)}
        question = FillBlank("q", Decimal("1.5"), tuple(Blank(name, texts(*blanks[name])) for name in blanks))
        assert question.grade(Filled({"animal": "Mèo", "verb": "ăn"})) == ItemGrade(
            "q",
            (
                Award("animal", Reason.ACCEPTED, Decimal("0.5")),
                Award("verb", Reason.NOT_ACCEPTED, Decimal(0)),
                Award("place", Reason.UNANSWERED, Decimal(0)),
            ),
            Decimal("0.5"),
            Decimal("1.5"),
            correct=False,
        )

    def test_gives_what_each_text_says(self) -> None:
        accepted = (Accepted("mèo"), Accepted("thú", Decimal(50)), Accepted("chó", Decimal(0)))
        question = FillBlank("q", Decimal(4), (Blank("1", accepted), Blank("2", accepted)))
        result = question.grade(Filled({"1": "thú", "2": "chó"}))
        assert [(award.reason, award.points) for award in result.awards] == [
            (Reason.PARTLY_ACCEPTED, 1),
            (Reason.NOT_ACCEPTED, 0),
        ]

    def test_takes_an_option_only_as_it_is(self) -> None:
        policy = TextPolicy(accent_sensitive=False, most_typos=2)
        question = FillBlank("q", Decimal(1), (Blank("1", texts("Vietnamese"), picked=True),), policy)
        assert question.grade(Filled({"1": "Vietnamese"})).score == 1
        assert question.grade(Filled({"1": "vietnamese"})).score == 0
        assert question.grade(Filled({"1": "Vietnamise"})).score == 0

    def test_gives_nothing_for_a_part_where_it_is_all_or_nothing(self) -> None:
        blanks = (Blank("1", texts("a")), Blank("2", texts("b")))
        question = FillBlank("q", Decimal(3), blanks, scoring=Scoring.ALL_OR_NOTHING)
        result = question.grade(Filled({"1": "a", "2": "c"}))
        assert result.awards[-1] == Award("q", Reason.ALL_OR_NOTHING, Decimal("-1.5"))
        assert (result.score, result.correct) == (0, False)
        assert question.grade(Filled({"1": "a", "2": "b"})).score == 3

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
            blank_question("mèo").grade(answer)


class TestShortAnswer:
    def short(self, *accepted: str, **policy: bool | int) -> ShortAnswer:
        return ShortAnswer("q", Decimal(2), texts(*accepted), TextPolicy(**policy))

    def test_says_when_typos_were_forgiven(self) -> None:
        result = self.short("dictionary", most_typos=1).grade(Typed("dictoinary"))
        assert result == ItemGrade(
            "q", (Award("q", Reason.ACCEPTED_WITH_TYPOS, Decimal(2)),), Decimal(2), Decimal(2), correct=True
        )

    def test_prefers_what_is_exact_to_what_earns_more(self) -> None:
        accepted = (Accepted("whether"), Accepted("weather", Decimal(25)))
        question = ShortAnswer("q", Decimal(4), accepted, TextPolicy(most_typos=2))
        assert question.grade(Typed("weather")).score == 1
        assert question.grade(Typed("wheather")).score == 4

    def test_takes_a_star_as_it_is_unless_it_is_a_wildcard(self) -> None:
        assert self.short("a*c").grade(Typed("abc")).score == 0
        assert self.short("a*c").grade(Typed("A*C")).score == 2
        assert self.short("a*c", wildcards=True).grade(Typed("ab c")).score == 2

    @pytest.mark.parametrize("answer", [None, Typed(""), Typed(" \u00a0")])
    def test_tells_no_answer_from_a_wrong_one(self, answer: Answer | None) -> None:
        assert self.short("a").grade(answer).awards == (Award("q", Reason.UNANSWERED, Decimal(0)),)

    def test_refuses_a_question_that_accepts_nothing(self) -> None:
        with pytest.raises(ValueError, match="accepts no answer"):
            ShortAnswer("q", Decimal(1), (Accepted("a", Decimal(0)),))


class TestNumeric:
    question = Numeric(
        "q",
        Decimal(4),
        (
            Range(Decimal("0.3")),
            Range(Decimal("0.3"), Decimal("0.1"), Decimal(50)),
            Range(Decimal("0.3"), Decimal("1e-30"), Decimal(75)),
        ),
    )

    @pytest.mark.parametrize(
        ("typed", "score"),
        [
            ("0.3", 4),
            ("0,3", 4),
            (" +.3 ", 4),
            ("3e-1", 4),
            ("0.30000000000000000000000000000", 4),
            ("0.300000000000000000000000000001", 3),
            ("0.3000000000000000000000000000011", 2),
            ("0.4", 2),
            ("0.2", 2),
            ("0.4000000001", 0),
            ("-0.3", 0),
            ("3/10", 0),
            ("0.3 m", 0),
            ("NaN", 0),
            ("Infinity", 0),
        ],
    )
    def test_gives_what_the_best_range_says(self, typed: str, score: int) -> None:
        assert self.question.grade(Typed(typed)).score == score

    def test_does_not_depend_on_the_callers_decimal_context(self) -> None:
        with localcontext(prec=2):
            assert self.question.grade(Typed("0.4000000001")).score == 0

    @given(
        value=st.decimals(-(10**20), 10**20, places=9),
        tolerance=st.decimals(0, 10**9, places=9),
        away=st.fractions(0, 2, max_denominator=1000),
        below=st.booleans(),
    )
    def test_accepts_what_is_no_further_away_than_the_tolerance(
        self, value: Decimal, tolerance: Decimal, away: Fraction, below: bool
    ) -> None:
        with localcontext(prec=90):
            typed = value + (-1 if below else 1) * tolerance * away.numerator / away.denominator
            exact = abs(Fraction(typed) - Fraction(value)) <= Fraction(tolerance)
        question = Numeric("q", Decimal(1), (Range(value, tolerance),))
        if len(f"{typed:f}".partition(".")[2]) <= 60:
            assert question.grade(Typed(f"{typed:f}")).correct == exact

    def test_refuses_a_tolerance_below_zero(self) -> None:
        with pytest.raises(ValueError, match="tolerance"):
            Numeric("q", Decimal(1), (Range(Decimal(1), Decimal(-1)),))


class TestSettled:
    def test_gives_all_points_whatever_was_answered(self) -> None:
        question = Settled("q", Decimal("2.5"), Reason.FULL_MARKS)
        for answer in (None, Typed("x"), Selected(frozenset("a"))):
            result = question.grade(answer)
            assert (result.score, result.max_score, result.correct) == (Decimal("2.5"), Decimal("2.5"), True)
            assert result.awards == (Award("q", Reason.FULL_MARKS, Decimal("2.5")),)


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
            ShortAnswer("b", Decimal(points), texts("a"))


class TestPresented:
    @pytest.mark.parametrize(
        ("score", "shown"), [("2.345", "2.35"), ("2.3449999", "2.34"), ("0.005", "0.01"), ("3", "3.00")]
    )
    def test_rounds_half_up_to_two_decimals(self, score: str, shown: str) -> None:
        assert str(presented(Decimal(score))) == shown
