"""Where in a text the words of a search are, whatever their accents, and the part of it worth showing."""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

SNIPPET = 200
# So much of a snippet stands before the first word found.
BEFORE = 60
# Beyond these, letters with accents are not those of any language that is searched without.
LATIN_AND_GREEK = 0x2000
# All of them or none: a word does not end between a letter and its marks.
_MARKS = "[\u0300-\u036f]*+"
_WORD = r"[^\W_]"
_STROKED = str.maketrans({"đ": "d", "ø": "o", "ł": "l", "ħ": "h", "ı": "i"})


class Range(NamedTuple):
    """Code points [start, end) of a text."""

    start: int
    end: int


class Excerpt(NamedTuple):
    """A part of a text, and where in that part words were found."""

    text: str
    ranges: Sequence[Range]


def _base(character: str) -> str:
    """The character without accents, in lower case; longer where it is no one letter."""
    decomposed = unicodedata.normalize("NFD", character.lower())
    return "".join(one for one in decomposed if not "\u0300" <= one <= "\u036f").translate(_STROKED)


def _spellings() -> dict[str, str]:
    """All characters that have the same base, by it."""
    found: dict[str, str] = {}
    for character in map(chr, range(LATIN_AND_GREEK)):
        if character.isalnum() and len(base := _base(character)) == 1:
            found[base] = found.get(base, "") + character
    return found


_SPELLINGS = _spellings()


def pattern_of(words: Sequence[str], *, prefix: bool) -> re.Pattern[str] | None:
    """Finds any of the words, which are without accents; `prefix` says that the last may be the beginning of one.
    None when there are no words."""
    if not words:
        return None
    ends = [*(f"(?!{_WORD})" for _ in words[:-1]), f"{_WORD}*" if prefix else f"(?!{_WORD})"]
    # A longer word first: the shorter may be how it begins.
    pairs = sorted(zip(words, ends, strict=True), key=lambda pair: -len(pair[0]))
    return re.compile(f"(?<!{_WORD})(?<![\u0300-\u036f])(?:{'|'.join(_letters(word) + end for word, end in pairs)})")


def _letters(word: str) -> str:
    return "".join(f"[{re.escape(_SPELLINGS.get(one, one + one.upper()))}]{_MARKS}" for one in word)


def highlight(text: str, words: re.Pattern[str] | None) -> list[Range]:
    """Where the words are in the text, in order."""
    return [Range(*found.span()) for found in words.finditer(text)] if words else []


def excerpt(text: str, words: re.Pattern[str] | None) -> Excerpt:
    """Some `SNIPPET` code points of the text around the first of the words, or its beginning; cut between words."""
    first = words.search(text) if words else None
    start = _cut(text, first.start() - BEFORE) if first else 0
    end = max(_cut(text, start + SNIPPET), first.end() if first else 0)
    part = text[start:end]
    return Excerpt(part, highlight(part, words))


def _cut(text: str, near: int) -> int:
    """The place after the last white space before `near`; `near` itself where none is close."""
    if near <= 0 or near >= len(text):
        return max(0, min(near, len(text)))
    for place in range(near, max(0, near - 30), -1):
        if text[place - 1].isspace():
            return place
    return near


def tiers(folded: Sequence[str], lowered: Sequence[str], *, prefix: bool) -> list[str]:
    """Conditions on the lexemes of documents, the most relevant first, none of which holds where one before it does:
    all words in the title as they are spelled, all in the title, all in title and text as spelled, all.

    They are texts of `tsquery`. `folded` are the query's words without accents, `lowered` with them.
    """
    last = ":*" if prefix else ""
    in_title = [_all([f"^={one}" for one in lowered]), _all([f"^{one}" for one in folded], last)]
    wanted = [*in_title, _all([f"={one}" for one in lowered]), _all(folded, last)]
    return [" & ".join([one, *(f"!({before})" for before in wanted[:nth])]) for nth, one in enumerate(wanted)]


def _all(lexemes: Sequence[str], last: str = "") -> str:
    # Lexemes are of letters and digits, with `^` and `=` before them: nothing that quotes could end with.
    quoted = [f"'{one}'" for one in lexemes]
    return " & ".join([*quoted[:-1], quoted[-1] + last])
