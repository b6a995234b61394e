"""Highlights: where words are, in code points of the text as it is, whatever accents and marks it has."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.content.highlighting import SNIPPET, excerpt, highlight, pattern_of, tiers

LETTERS = "abdeđêóôơưạặềỗộứÁĐƠỪ"


def found(text: str, *words: str, prefix: bool = False) -> list[str]:
    return [text[one.start : one.end] for one in highlight(text, pattern_of(words, prefix=prefix))]


def folded(text: str) -> str:
    plain = unicodedata.normalize("NFD", text.lower())
    return "".join(one for one in plain if not unicodedata.combining(one)).replace("đ", "d")


class TestHighlight:
    @pytest.mark.parametrize("form", ["NFC", "NFD"])
    def test_finds_words_however_they_are_accented(self, form: str) -> None:
        text = unicodedata.normalize(form, "Truyện CHÊM, trường-chém chém1 đường")  # type: ignore[arg-type]
        parts = [unicodedata.normalize("NFC", one) for one in found(text, "truyen", "chem", "duong")]
        assert parts == ["Truyện", "CHÊM", "chém", "đường"]

    def test_finds_beginnings_only_of_the_last_word(self) -> None:
        assert found("chợ chờm truyện truyệnx", "cho", "truy", prefix=True) == ["chợ", "truyện", "truyệnx"]
        assert found("chợ chờm", "cho") == ["chợ"]

    def test_takes_the_longer_word_where_one_begins_with_another(self) -> None:
        assert found("ba bao", "ba", "bao") == ["ba", "bao"]
        assert found("bao", "bao", "ba", prefix=True) == ["bao"]

    def test_takes_no_word_for_a_pattern(self) -> None:
        assert found("a.c abc [x]", "a.c") == ["a.c"]
        assert highlight("anything", pattern_of([], prefix=True)) == []

    @settings(max_examples=200)
    @given(st.lists(st.text(LETTERS, min_size=1, max_size=6), min_size=1, max_size=8), st.data())
    def test_finds_every_occurrence_of_a_word_and_nothing_else(self, words: list[str], data: st.DataObject) -> None:
        text = " ".join(words)
        wanted = folded(data.draw(st.sampled_from(words)))
        assert found(text, wanted) == [one for one in words if folded(one) == wanted]
        decomposed = unicodedata.normalize("NFD", text)
        assert found(decomposed, wanted) == [one for one in decomposed.split() if folded(one) == wanted]


class TestExcerpt:
    @settings(max_examples=200)
    @given(st.text(max_size=300), st.text(max_size=300))
    def test_is_a_part_of_the_text_around_the_word(self, before: str, after: str) -> None:
        text = f"{before} zebra {after}"
        part = excerpt(text, pattern_of(["zebra"], prefix=False))
        assert part.text in text
        assert len(part.text) <= SNIPPET + 30
        assert "zebra" in [part.text[one.start : one.end] for one in part.ranges]

    def test_of_a_text_without_spaces_is_no_longer(self) -> None:
        assert len(excerpt("字" * 5_000, None).text) == SNIPPET


class TestTiers:
    def test_exclude_one_another(self) -> None:
        first, second, third, fourth = tiers(["truyen", "ch"], ["truyện", "ch"], prefix=True)
        assert first == "'^=truyện' & '^=ch'"
        assert second == "'^truyen' & '^ch':* & !('^=truyện' & '^=ch')"
        assert third.startswith("'=truyện' & '=ch' & !(")
        assert fourth.count("!(") == 3
