"""What matching and ordering earn."""

from decimal import Decimal
from fractions import Fraction
from itertools import combinations, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.assessment.arranging import Matching, Ordering, in_right_order
from services.assessment.marks import Award, ItemGrade, Matched, Ordered, Reason, Scoring, Typed


def ordering(texts: str, points: str = "4", scoring: Scoring = Scoring.PARTIAL) -> Ordering:
    """Items named 0, 1, … in the right order."""
    return Ordering("q", Decimal(points), tuple((str(n), text) for n, text in enumerate(texts)), scoring)


def put(question: Ordering, order: str) -> ItemGrade:
    return question.grade(Ordered(tuple(order)))


class TestOrdering:
    @pytest.mark.parametrize(
        ("order", "score"),
        [("01234", 4), ("12340", 3), ("40123", 3), ("10234", 3), ("10324", 2), ("34012", 2), ("43210", 0)],
    )
    def test_costs_a_part_for_each_item_that_has_to_be_moved(self, order: str, score: int) -> None:
        result = put(ordering("abcde"), order)
        assert (result.score, result.correct) == (score, score == 4)

    def test_says_what_each_point_was_given_for(self) -> None:
        assert put(ordering("abc", "1"), "120") == ItemGrade(
            "q",
            (
                Award("2", Reason.RIGHT_ORDER, Decimal("0.5")),
                Award("0", Reason.WRONG_ORDER, Decimal(0)),
            ),
            Decimal("0.5"),
            Decimal(1),
            correct=False,
        )

    def test_takes_the_same_text_for_the_same(self) -> None:
        question = ordering("aba")
        assert put(question, "210").score == 4
        assert put(question, "021").score == 2

    def test_gives_nothing_for_a_part_where_it_is_all_or_nothing(self) -> None:
        question = ordering("abc", scoring=Scoring.ALL_OR_NOTHING)
        assert put(question, "102").score == 0
        assert put(question, "102").awards[-1] == Award("q", Reason.ALL_OR_NOTHING, Decimal(-2))
        assert put(question, "012").score == 4

    @pytest.mark.parametrize("answer", [None, Ordered(())])
    def test_tells_no_answer_from_a_wrong_one(self, answer: Ordered | None) -> None:
        assert ordering("ab").grade(answer).awards == (Award("q", Reason.UNANSWERED, Decimal(0)),)

    @pytest.mark.parametrize("answer", [Ordered(("0",)), Ordered(("0", "0")), Ordered(("0", "1", "2")), Typed("01")])
    def test_refuses_an_answer_the_question_cannot_have(self, answer: Ordered | Typed) -> None:
        with pytest.raises(ValueError, match="'q'"):
            ordering("ab").grade(answer)

    def test_refuses_a_question_with_nothing_to_put_in_order(self) -> None:
        for texts in ("", "a", "aaa"):
            with pytest.raises(ValueError, match="nothing to put in order"):
                ordering(texts)

    @given(texts=st.sampled_from(["ab", "abc", "abcd", "abcdef"]), data=st.data())
    def test_never_earns_less_with_two_neighbours_put_right(self, texts: str, data: st.DataObject) -> None:
        question = ordering(texts)
        order = data.draw(st.permutations([str(n) for n in range(len(texts))]))
        score = put(question, "".join(order)).score
        for n in range(len(order) - 1):
            if order[n] > order[n + 1]:
                better = [*order[:n], order[n + 1], order[n], *order[n + 2 :]]
                assert put(question, "".join(better)).score >= score

    @pytest.mark.parametrize("count", [2, 3, 5])
    def test_is_what_trying_all_says(self, count: int) -> None:
        """The most items that are in order among themselves, of all ways to take some."""
        question = ordering("abcde"[:count], "1")
        for order in permutations("01234"[:count]):
            most = max(
                size for size in range(1, count + 1) for some in combinations(order, size) if list(some) == sorted(some)
            )
            wanted = Fraction(most - 1, count - 1)
            result = put(question, "".join(order))
            assert result.exact == wanted or Fraction(result.score) == wanted


TARGETS = frozenset("xyz")
PAIRS = {"a": frozenset("x"), "b": frozenset("xy"), "c": frozenset("z")}


class TestMatching:
    question = Matching("q", Decimal(6), PAIRS, TARGETS)

    def test_gives_each_stem_its_part(self) -> None:
        result = self.question.grade(Matched({"a": "x", "b": "z"}))
        assert result.awards == (
            Award("a", Reason.RIGHT_MATCH, Decimal(2)),
            Award("b", Reason.WRONG_MATCH, Decimal(0)),
            Award("c", Reason.UNANSWERED, Decimal(0)),
        )
        assert (result.score, result.correct) == (2, False)

    def test_takes_any_target_that_is_right(self) -> None:
        for target in "xy":
            assert self.question.grade(Matched({"a": "x", "b": target, "c": "z"})).correct

    def test_gives_nothing_for_a_part_where_it_is_all_or_nothing(self) -> None:
        strict = Matching("q", Decimal(6), PAIRS, TARGETS, Scoring.ALL_OR_NOTHING)
        assert strict.grade(Matched({"a": "x", "b": "y"})).score == 0
        assert strict.grade(Matched({"a": "x", "b": "y", "c": "z"})).score == 6

    @pytest.mark.parametrize("answer", [Matched({"d": "x"}), Matched({"a": "w"}), Typed("x")])
    def test_refuses_an_answer_the_question_cannot_have(self, answer: Matched | Typed) -> None:
        with pytest.raises(ValueError, match="'q'"):
            self.question.grade(answer)

    @pytest.mark.parametrize("pairs", [{}, {"a": frozenset()}, {"a": frozenset("w")}])
    def test_refuses_a_question_without_a_right_target_for_each_stem(self, pairs: dict[str, frozenset[str]]) -> None:
        with pytest.raises(ValueError, match="stem"):
            Matching("q", Decimal(1), pairs, TARGETS)

    @given(
        given_targets=st.dictionaries(st.sampled_from("abc"), st.sampled_from(["", "x", "y", "z"])),
        points=st.decimals(0, 100, places=2),
    )
    def test_never_earns_less_with_one_stem_put_right(self, given_targets: dict[str, str], points: Decimal) -> None:
        question = Matching("q", points, PAIRS, TARGETS)
        score = question.grade(Matched(given_targets)).score
        for stem, right in PAIRS.items():
            for target in right:
                assert score <= question.grade(Matched({**given_targets, stem: target})).score <= points


def longest(one: str, other: str) -> int:
    """The length of the longest common subsequence as it is defined."""
    if not one or not other:
        return 0
    if one[-1] == other[-1]:
        return longest(one[:-1], other[:-1]) + 1
    return max(longest(one[:-1], other), longest(one, other[:-1]))


class TestInRightOrder:
    @given(right=st.text("abcde", min_size=1, max_size=7), data=st.data())
    def test_is_a_longest_common_subsequence(self, right: str, data: st.DataObject) -> None:
        given_order = "".join(data.draw(st.permutations(right)))
        run = in_right_order([[n for n, one in enumerate(right) if one == letter] for letter in given_order])
        assert run == sorted(set(run))
        assert len(run) == longest(given_order, right)
        assert longest("".join(given_order[n] for n in run), right) == len(run)
