"""Differences between texts: both can be had of them again, they are the shortest, and no text takes long."""

import random
from itertools import pairwise
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.content import diffing
from services.content.diffing import Comparison, WordChange, compare
from services.content.weaving import Annotation

TEXTS = st.one_of(
    st.text(max_size=80),
    st.text(alphabet=st.sampled_from("aăb́ \n\r\t.“”'-1猫🙂\u200d"), max_size=60),
    st.lists(st.sampled_from(["con mèo", "con chó", "đi", " ", "\n\n", ". ", "  "]), max_size=40).map("".join),
)
LANGUAGES = st.sampled_from(["vi", "en", "fr"])
CAT, DOG, SUN = "cat-id", "dog-id", "sun-id"


def pieces(base: str, text: str, language: str = "en") -> list[tuple[str, str]]:
    return list(diffing.segments(base, text, compare(base, text, language)))


def counted(found: Comparison) -> tuple[int, int, int]:
    return found.added, found.removed, found.changed


def longest_common(left: list[str], right: list[str]) -> int:
    """The length of the longest common subsequence, by the textbook's table."""
    row = [0] * (len(right) + 1)
    for one in left:
        above = row[:]
        for place, other in enumerate(right, 1):
            row[place] = above[place - 1] + 1 if one == other else max(above[place], row[place - 1])
    return row[-1]


class TestSegments:
    @given(TEXTS, TEXTS, LANGUAGES)
    def test_give_either_text_back(self, base: str, text: str, language: str) -> None:
        found = pieces(base, text, language)
        assert "".join(piece for kind, piece in found if kind != "insert") == base
        assert "".join(piece for kind, piece in found if kind != "delete") == text
        assert all(piece for _, piece in found)
        assert all(one[0] != other[0] for one, other in pairwise(found))

    @given(TEXTS, LANGUAGES)
    def test_of_a_text_and_itself_are_one(self, text: str, language: str) -> None:
        assert pieces(text, text, language) == ([("equal", text)] if text else [])
        assert counted(compare(text, text, language)) == (0, 0, 0)

    @pytest.mark.parametrize(
        ("base", "text", "wanted"),
        [
            ("The cat sleeps.", "The dog sleeps.", "The [cat|dog] sleeps."),
            ("The cat sleeps.", "The old cat sleeps.", "The [|old ]cat sleeps."),
            ("The old cat sleeps.", "The cat sleeps.", "The [old |]cat sleeps."),
            # A space between two differences is no reason to read two.
            ("the black dog ran", "the white cat ran", "the [black dog|white cat] ran"),
            ("One.\n\nTwo.\n\nThree.", "One.\n\nThree.", "One.\n\n[Two.\n\n|]Three."),
            ("Một.\n\nHai.", "Ba.\n\nBốn.", "[Một|Ba].\n\n[Hai|Bốn]."),
            ("a b c d", "c d a b", "[a b |]c d[| a b]"),
            ("don't go", "do not go", "[don't|do not] go"),
            ("", "new", "[|new]"),
        ],
    )
    def test_are_whole_words(self, base: str, text: str, wanted: str) -> None:
        shown = ""
        found = compare(base, text, "en")
        for block in found.blocks:
            before, now = base[block.base_start : block.base_end], text[block.start : block.end]
            shown += before if block.same else f"[{before}|{now}]"
        assert shown == wanted

    def test_of_words_keep_no_letter_apart_from_its_marks(self) -> None:
        # The same letter in both, composed and not, is another spelling: what is stored is what is compared.
        assert pieces("e\u0301 x", "\u00e9 x") == [("delete", "e\u0301"), ("insert", "\u00e9"), ("equal", " x")]


class TestAlignment:
    @given(st.lists(st.sampled_from("abcd"), max_size=25), st.lists(st.sampled_from("abcd"), max_size=25))
    def test_is_the_longest_where_no_word_stands_once(self, left: list[str], right: list[str]) -> None:
        # Twice each on one side: nothing to hold on to, so the search for the shortest script decides alone.
        base, text = [*"abcdabcd", *left], [*"dcbadcba", *right]
        numbers = [[ord(one) for one in side] for side in (base, text)]
        runs = diffing._Alignment(*numbers).runs()
        assert all(base[run.i : run.i + run.length] == text[run.j : run.j + run.length] for run in runs)
        # Equal ends come first, and never cost any length.
        assert sum(run.length for run in runs) == longest_common(base, text)

    def test_of_scripts_too_long_to_look_for_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(diffing, "MOST_EDITS", 3)
        assert counted(compare("a a b b c c", "c c b b a a", "en")) == (0, 0, 6)

    def test_ends_when_its_steps_are_spent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(diffing, "MOST_STEPS", 5)
        assert pieces("x a b c d y", "x d c b a y") == [
            ("equal", "x "),
            ("delete", "a b c d"),
            ("insert", "d c b a"),
            ("equal", " y"),
        ]


class TestCounts:
    @pytest.mark.parametrize(
        ("base", "text", "wanted"),
        [
            ("one two three", "one 2 three", (0, 0, 1)),
            ("one two three", "one 2 and more three", (2, 0, 1)),
            ("one two three", "three", (0, 2, 0)),
            ("one, two", "one; two", (0, 0, 0)),
            ("", "one two", (2, 0, 0)),
        ],
    )
    def test_are_of_words(self, base: str, text: str, wanted: tuple[int, int, int]) -> None:
        assert counted(compare(base, text, "en")) == wanted

    @given(TEXTS, TEXTS)
    def test_there_and_back_are_the_same(self, base: str, text: str) -> None:
        there, back = compare(base, text, "en"), compare(text, base, "en")
        assert there.added - there.removed == back.removed - back.added


def note(start: int, text: str, word: str, explain: str = "", length: int = 3) -> Annotation:
    return Annotation(start, start + length, word, text, explain)


def told(change: WordChange) -> tuple[str, int, int, int]:
    return change.vocabulary_id, change.base.occurrences, change.now.occurrences, change.kept


class TestWovenWords:
    BASE, TEXT = "mèo chó mèo", "Ôi, mèo chó mèo"

    def changes(self, base: list[Annotation], notes: list[Annotation]) -> list[WordChange]:
        return diffing.compare_weaves(base, notes, compare(self.BASE, self.TEXT, "vi"))

    def test_that_move_with_their_text_are_no_difference(self) -> None:
        now = [note(4, "cat", CAT), note(12, "cat", CAT)]
        assert self.changes([note(0, "Cat", CAT), note(8, "cat", CAT)], now) == []

    def test_are_added_removed_and_changed(self) -> None:
        base = [note(0, "cat", CAT, "A cat."), note(4, "dog", DOG)]
        now = [note(4, "puss", CAT, "A cat."), note(12, "puss", CAT), note(0, "sun", SUN, length=2)]
        found = self.changes(base, now)
        assert [told(one) for one in found] == [(CAT, 1, 2, 1), (SUN, 0, 1, 0), (DOG, 1, 0, 0)]
        assert (found[0].base.texts, found[0].now.texts) == (("cat",), ("puss",))
        assert diffing.count_changes(found) == (1, 1, 1)

    def test_in_another_place_are_changed(self) -> None:
        assert [told(one) for one in self.changes([note(0, "cat", CAT)], [note(12, "cat", CAT)])] == [(CAT, 1, 1, 0)]

    def test_explained_otherwise_are_changed(self) -> None:
        (one,) = self.changes([note(0, "cat", CAT, "A cat.")], [note(4, "cat", CAT, "A pet.")])
        assert (one.base.explanation, one.now.explanation) == ("A cat.", "A pet.")


def hostile() -> dict[str, tuple[str, str]]:
    """Pairs of texts of 100,000 code points that make matchers slow."""
    dice = random.Random(5)
    letters = ["".join(dice.choice("ab") + " " for _ in range(50_000)) for _ in range(2)]
    nested = [f"{number} " * 2 for number in range(9_000)]
    return {
        "random of two words": (letters[0], letters[1]),
        "one word and its reverse": ("a " * 50_000, " a" * 50_000),
        "signs": ("。、" * 50_000, "、。。" * 33_333),
        "other spaces": ("a  " * 33_333, "a \n" * 33_333),
        "words that become single one after the other": ("".join(nested), "".join(reversed(nested))),
        "nothing in common": ("x" * 100_000, "y" * 100_000),
        "words, shuffled": tuple(" ".join(dice.sample([str(n) for n in range(17_000)], 17_000)) for _ in range(2)),
        "marks": ("a\u0301" * 50_000, "\u0301" * 100_000),
    }


class TestTime:
    @pytest.mark.parametrize("name", hostile())
    def test_is_short_whatever_the_texts_are(self, name: str) -> None:
        base, text = hostile()[name]
        began = process_time()
        found = compare(base, text, "vi")
        assert process_time() - began < 3
        assert found.blocks[-1].end == len(text)
