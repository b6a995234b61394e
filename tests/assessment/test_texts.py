"""How what is typed is compared with what is accepted."""

import re
import time
import unicodedata
from decimal import Decimal
from itertools import permutations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.assessment.texts import (
    TextKey,
    TextPolicy,
    distance,
    fits,
    normalise,
    number,
    typos_allowed,
    wildcard_parts,
)

FEW = st.text("abc", max_size=7)


def osa(one: str, other: str) -> int:
    """The optimal string alignment distance as it is defined."""
    if not one or not other:
        return len(one) + len(other)
    costs = [
        osa(one[:-1], other) + 1,
        osa(one, other[:-1]) + 1,
        osa(one[:-1], other[:-1]) + (one[-1] != other[-1]),
    ]
    if len(one) > 1 and len(other) > 1 and one[-1] == other[-2] and one[-2] == other[-1]:
        costs.append(osa(one[:-2], other[:-2]) + 1)
    return min(costs)


class TestDistance:
    @given(one=st.text("ab", max_size=5), other=st.text("abc", max_size=5), most=st.integers(0, 3))
    @example("ca", "abc", 3)
    def test_is_what_its_definition_says_up_to_the_most(self, one: str, other: str, most: int) -> None:
        wanted = osa(one, other)
        assert distance(one, other, most) == (wanted if wanted <= most else None)

    @given(one=FEW, other=FEW)
    def test_is_the_same_both_ways(self, one: str, other: str) -> None:
        assert distance(one, other, 2) == distance(other, one, 2)

    def test_takes_no_time_over_long_texts_that_differ(self) -> None:
        start = time.perf_counter()
        for _ in range(20):
            assert distance("ab" * 100, "ba" * 100, 2) == 2
            assert distance("ab" * 100, "cd" * 100, 2) is None
        assert time.perf_counter() - start < 1


class TestTyposAllowed:
    @pytest.mark.parametrize(
        ("text", "most", "allowed"),
        [("cat", 2, 0), ("cats", 2, 1), ("elephant", 2, 2), ("elephant", 1, 1), ("1975 19", 2, 0), ("x" * 99, 0, 0)],
    )
    def test_are_one_in_four_letters(self, text: str, most: int, allowed: int) -> None:
        assert typos_allowed(text, most) == allowed


def found(typed: str, *accepted: str, **policy: bool | int) -> int | None:
    key = TextKey(accepted, [Decimal(100)] * len(accepted), TextPolicy(**policy))
    one = key.find(normalise(typed, key.policy))
    return None if one is None else one.index


class TestTextKey:
    @pytest.mark.parametrize("typed", ["elephent", "elephnt", "ellephant", "elehpant", "lephant"])
    def test_forgives_one_typo(self, typed: str) -> None:
        assert found(typed, "elephant", most_typos=1) == 0
        assert found(typed, "elephant") is None

    def test_forgives_no_digit(self) -> None:
        assert found("ngày 30 tháng 4", "ngày 30 tháng 4", most_typos=2) == 0
        assert found("ngay 30 tháng 4", "ngày 30 tháng 4", most_typos=2) == 0
        assert found("ngày 31 tháng 4", "ngày 30 tháng 4", most_typos=2) is None
        assert found("ngày 03 tháng 4", "ngày 30 tháng 4", most_typos=2) is None

    def test_takes_the_nearest_then_the_one_worth_most(self) -> None:
        assert found("abcdefgx", "abcdefgh", "abcdefxx", most_typos=2) == 0
        assert found("abcdefgx", "abcdefxx", "abcdefgh", most_typos=2) in {0, 1}
        key = TextKey(["abcdefga", "abcdefgb"], [Decimal(10), Decimal(90)], TextPolicy(most_typos=1))
        one = key.find("abcdefgc")
        assert one is not None
        assert (one.index, one.typos) == (1, True)

    def test_takes_a_wildcard_text_only_where_none_is_exact(self) -> None:
        assert found("a dog", "a *", "a dog", wildcards=True) == 1
        assert found("a cat", "a *", "a dog", wildcards=True) == 0

    @given(
        words=st.lists(st.text("abcdefg ", min_size=1, max_size=12), min_size=1, max_size=4),
        typed=st.text("abc ", max_size=9),
    )
    def test_finds_whatever_the_order_of_what_is_accepted(self, words: list[str], typed: str) -> None:
        policy = TextPolicy(most_typos=2)
        answers = {
            (one is not None)
            for order in permutations(words)
            for one in [TextKey(order, [Decimal(100)] * len(order), policy).find(normalise(typed, policy) or "x")]
        }
        assert len(answers) == 1

    @given(text=st.text("abcdé fg", min_size=1, max_size=20), most=st.integers(0, 2))
    def test_accepts_no_less_with_more_typos(self, text: str, most: int) -> None:
        typed = text[::-1]
        if found(typed or "x", text, most_typos=most) is not None:
            assert found(typed or "x", text, most_typos=2) is not None


class TestWildcards:
    @pytest.mark.parametrize(
        ("pattern", "text", "fit"),
        [
            ("a*c", "abbc", True),
            ("a*c", "ac", True),
            ("a*c", "acd", False),
            ("*", "", True),
            ("ab*ba", "aba", False),
            ("*ab*ab*", "xabxabx", True),
            ("*ab*ab*", "xabx", False),
            (r"5 \* *", "5 * 3", True),
            (r"5 \* *", "5 x 3", False),
        ],
    )
    def test_stand_for_any_characters(self, pattern: str, text: str, fit: bool) -> None:
        assert fits(wildcard_parts(pattern), text) == fit

    @given(pattern=st.text("ab*", max_size=8).filter(lambda one: "*" in one), text=st.text("ab", max_size=8))
    def test_fit_as_the_same_regular_expression_does(self, pattern: str, text: str) -> None:
        expression = ".*".join(re.escape(part) for part in pattern.split("*"))
        assert fits(wildcard_parts(pattern), text) == bool(re.fullmatch(expression, text))

    def test_take_no_time_over_texts_that_nearly_fit(self) -> None:
        start = time.perf_counter()
        for _ in range(100):
            assert not fits(wildcard_parts("a*" * 100 + "b"), "a" * 200)
        assert time.perf_counter() - start < 1


class TestNormalise:
    @given(text=st.text(), case=st.booleans(), accent=st.booleans())
    @example(text="İ", case=False, accent=True)
    @example(text="ς\u0345", case=False, accent=False)
    def test_is_stable_and_blind_to_the_unicode_form(self, text: str, case: bool, accent: bool) -> None:
        policy = TextPolicy(case, accent)
        once = normalise(text, policy)
        assert unicodedata.is_normalized("NFC", once)
        assert normalise(once, policy) == once
        assert normalise(unicodedata.normalize("NFD", text), policy) == once
        assert normalise(unicodedata.normalize("NFC", text), policy) == once

    @pytest.mark.parametrize("case", [True, False])
    def test_is_the_same_for_each_letter_next_to_one_that_takes_the_longer_way(self, case: bool) -> None:
        policy = TextPolicy(case)
        for letter in map(chr, range(0x21, 0x1F00)):
            if letter.isalnum() and not unicodedata.combining(letter):
                assert normalise(f"{letter} \u0133", policy) == f"{normalise(letter, policy)} \u0133"

    @given(text=st.text(st.characters(max_codepoint=127)), case=st.booleans(), accent=st.booleans())
    def test_is_the_same_for_plain_text_next_to_other(self, text: str, case: bool, accent: bool) -> None:
        """Plain ASCII takes a shorter way."""
        policy = TextPolicy(case, accent)
        assert normalise(f"{text} ố", policy) == f"{normalise(text, policy)} {normalise('ố', policy)}".strip()


class TestNumber:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1", "1"),
            ("-1.50", "-1.5"),
            ("−2", "-2"),
            ("0,25", "0.25"),
            (".5", "0.5"),
            ("5.", "5"),
            ("+3", "3"),
            (" 7 ", "7"),
            ("3e8", "3e8"),
            ("1.5E-3", "0.0015"),
            ("１２", "12"),
            ("٣", "3"),
        ],
    )
    def test_is_read_as_people_write_it(self, text: str, value: str) -> None:
        assert number(text) == Decimal(value)

    @pytest.mark.parametrize(
        "text",
        ["", ".", "-", "e5", "1.2.3", "1,234.5", "1 000", "1e100", "1" * 61, "0x1", "1_0", "nan", "inf", "1/2", "--1"],
    )
    def test_is_nothing_else(self, text: str) -> None:
        assert number(text) is None

    @given(text=st.text("0123456789.,+-eE ", max_size=20) | st.text(max_size=10))
    def test_never_fails(self, text: str) -> None:
        value = number(text)
        assert value is None or value.is_finite()

    @given(value=st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=-(10**40), max_value=10**40))
    def test_is_exact(self, value: Decimal) -> None:
        assert number(f"{value:f}") == value
        assert number(f"{value:f}".replace(".", ",")) == value
