"""What rows of words say."""

import csv
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.content.wordlists import COLUMNS, Word, read_forms, row_of, word_of, write_forms

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8).map(str.strip)
FORMS = st.lists(st.tuples(TEXTS.filter(bool), TEXTS), max_size=3).map(tuple)


def said(**cells: str) -> Word:
    word, problems = word_of({"term": "dog", "part_of_speech": "noun", **cells})
    assert problems == []
    return word


def problems(**cells: str) -> list[tuple[str, str]]:
    return [(one.field, one.sentence) for one in word_of(cells)[1]]


class TestForms:
    @pytest.mark.parametrize(
        ("text", "forms"),
        [
            ("", ()),
            ("dogs", (("dogs", ""),)),
            ("dogs=chiens|doggie", (("dogs", "chiens"), ("doggie", ""))),
            (" dogs = chiens | | doggie ", (("dogs", "chiens"), ("doggie", ""))),
            ("a=b=c", (("a", "b=c"),)),
            (r"a\|b\==\\|c\d", (("a|b=", "\\"), ("cd", ""))),
            ("a\\", (("a\\", ""),)),
        ],
    )
    def test_are_read(self, text: str, forms: tuple[tuple[str, str], ...]) -> None:
        assert read_forms(text) == forms

    @given(FORMS)
    @example((("a\\", "b|"), ("=", "\\=")))
    def test_are_read_as_they_were_written(self, forms: tuple[tuple[str, str], ...]) -> None:
        assert read_forms(write_forms(forms)) == forms


class TestRows:
    @given(
        st.builds(
            Word,
            term=TEXTS.filter(bool),
            translation=TEXTS,
            part_of_speech=st.sampled_from(["noun", "phrase"]),
            sense=st.integers(1, 100),
            level=st.sampled_from(["", "A1", "HSK3"]),
            explanation=TEXTS,
            forms=FORMS,
            language=st.just("vi"),
            learning_language=st.just("en"),
        )
    )
    def test_are_read_as_they_were_written(self, word: Word) -> None:
        (row,) = csv.reader(io.StringIO(row_of(word).decode(), newline=""))
        cells = {name: cell.strip() for name, cell in zip(COLUMNS, row, strict=True) if cell.strip()}
        assert word_of(cells) == (word, [])

    def test_levels_and_parts_of_speech_are_spelled_in_any_case(self) -> None:
        word = said(part_of_speech="NOUN", level="hsk 3")
        assert (word.part_of_speech, word.level) == ("noun", "HSK3")

    def test_what_cannot_be_read_is_told_of_each_column(self) -> None:
        assert problems(sense="-1") == [
            ("term", "is required"),
            ("part_of_speech", "is required"),
            ("sense", "is no number"),
        ]
        ((column, sentence),) = problems(term="dog", part_of_speech="animal")
        assert column == "part_of_speech"
        assert sentence.startswith("is none of noun, verb, ")
