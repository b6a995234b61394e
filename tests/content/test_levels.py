"""Levels of words and texts."""

from decimal import Decimal

import pytest

from services.content.levels import shares, spelled, text_level, up_to


class TestSpelled:
    @pytest.mark.parametrize(
        ("text", "level"), [("b1", "B1"), (" hsk 3 ", "HSK3"), ("TOPIK2", "TOPIK2"), ("B7", "B7"), ("", "")]
    )
    def test_is_the_level_as_it_is_stored_if_it_is_one(self, text: str, level: str) -> None:
        assert spelled(text) == level


class TestUpTo:
    @pytest.mark.parametrize(("level", "levels"), [("A1", ("A1",)), ("B1", ("A1", "A2", "B1")), ("N4", ("N5", "N4"))])
    def test_has_the_easier_levels_of_the_same_scale(self, level: str, levels: tuple[str, ...]) -> None:
        assert up_to(level) == levels


class TestTextLevel:
    @pytest.mark.parametrize(
        ("occurrences", "level"),
        [
            ({}, ""),
            ({"": 100}, ""),
            ({"A1": 95, "C2": 5}, "A1"),
            ({"A1": 94, "B1": 1, "C2": 5}, "B1"),
            ({"A1": 94, "C2": 6}, "C2"),
            ({"N1": 3, "A1": 2}, "N1"),
        ],
    )
    def test_is_the_lowest_with_nineteen_in_twenty(self, occurrences: dict[str, int], level: str) -> None:
        assert text_level(occurrences) == level

    def test_shares_add_up_from_the_easiest(self) -> None:
        assert shares({"B1": 1, "A1": 3, "HSK1": 2}) == [("A1", 3, Decimal("0.75")), ("B1", 1, Decimal(1))]
