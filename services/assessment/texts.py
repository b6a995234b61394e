"""Pure comparison of what is typed with what is accepted: normal forms, wildcards, typos and numbers."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

_ACCENTS = re.compile("[\u0300-\u036f]")
# Letters of Vietnamese and its neighbours that are one character each, and whose case folding is lower case.
_SIMPLE = re.compile("[ -~À-ÖØ-Þà-öø-ÿĂăĐđĨĩŨũƠơƯưẠ-ỹ]*")
_APOSTROPHES = str.maketrans("‘’ʼ", "'''")
_STAR = re.compile(r"(?<!\\)\*+")
_NUMBER = re.compile(r"[+-]?(?=[.,]?\d)\d{0,60}(?:[.,]\d{0,60})?(?:[eE][+-]?\d{1,2})?")
_MINUS = str.maketrans("−", "-")
LETTERS_PER_TYPO = 4


@dataclass(frozen=True, slots=True)
class TextPolicy:
    """Which differences between a typed answer and an accepted one count. Accents do unless a teacher says otherwise:
    in Vietnamese 'ma', 'má' and 'mà' are three words. With `wildcards`, `*` stands for anything."""

    case_sensitive: bool = False
    accent_sensitive: bool = True
    most_typos: int = 0
    wildcards: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """Which of the accepted texts an answer is, by its place, and whether typos were forgiven."""

    index: int
    typos: bool


class TextKey:
    """Accepted texts, made ready to be found again and again.

    `worth` ranks them: of several that fit equally well, the one worth most counts, then the first. An exact text comes
    before one with wildcards, and that before one with typos, fewer before more.
    """

    __slots__ = ("_exact", "_near", "_patterns", "policy")

    def __init__(self, accepted: Sequence[str], worth: Sequence[Decimal], policy: TextPolicy) -> None:
        self.policy = policy
        self._exact: dict[str, Found] = {}
        self._patterns: list[tuple[list[str], Found]] = []
        self._near: list[tuple[str, int, Found]] = []
        for index in sorted(range(len(accepted)), key=lambda one: -worth[one]):
            self._add(normalise(accepted[index], policy), index)

    def _add(self, text: str, index: int) -> None:
        parts = wildcard_parts(text) if self.policy.wildcards else [text]
        if len(parts) > 1:
            self._patterns.append((parts, Found(index, typos=False)))
        elif parts[0] and parts[0] not in self._exact:
            self._exact[parts[0]] = Found(index, typos=False)
            if most := typos_allowed(parts[0], self.policy.most_typos):
                self._near.append((parts[0], most, Found(index, typos=True)))

    def find(self, typed: str) -> Found | None:
        """The accepted text that a normalised, non-empty answer is."""
        if found := self._exact.get(typed):
            return found
        for parts, found in self._patterns:
            if fits(parts, typed):
                return found
        nearest: tuple[int, Found] | None = None
        for text, most, found in self._near:
            away = distance(text, typed, most)
            if away is not None and digits(text) == digits(typed) and (nearest is None or away < nearest[0]):
                nearest = away, found
        return nearest[1] if nearest else None


def normalise(text: str, policy: TextPolicy) -> str:
    """The form in which a typed answer is compared with the accepted ones.

    NFC, white space (no-break spaces too) trimmed and collapsed to single spaces, typographic apostrophes made plain as
    phones type them unasked; full case folding unless case counts. Where accents do not count, the combining marks
    U+0300 to U+036F go and đ becomes d, which Unicode does not decompose.
    """
    plain = " ".join(text.split())
    if plain.isascii() or (policy.accent_sensitive and _SIMPLE.fullmatch(plain)):
        return plain if policy.case_sensitive else plain.lower()
    plain = unicodedata.normalize("NFD", plain.translate(_APOSTROPHES))
    if not policy.case_sensitive:
        plain = plain.casefold()
    if not policy.accent_sensitive:
        plain = _ACCENTS.sub("", unicodedata.normalize("NFD", plain)).replace("đ", "d").replace("Đ", "D")
    return unicodedata.normalize("NFC", plain)


def wildcard_parts(text: str) -> list[str]:
    r"""What is between the wildcards of a text: `a*b` is `a` and `b`, while `\*` is a star. One part: there is none."""
    return [part.replace(r"\*", "*") for part in _STAR.split(text)]


def fits(parts: Sequence[str], text: str) -> bool:
    """Whether the text is these parts in order, with anything between them: greedy, each part searched for once."""
    first, *middle, last = parts
    at, end = len(first), len(text) - len(last)
    if at > end or not text.startswith(first) or not text.endswith(last):
        return False
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def digits(text: str) -> list[str]:
    """The digits of a text in order: a wrong digit is another number, and no typo."""
    return [one for one in text if one.isdigit()]


def typos_allowed(text: str, most: int) -> int:
    """Typos that an accepted text allows: at most `most`, and one in four of its letters."""
    return min(most, sum(map(str.isalpha, text)) // LETTERS_PER_TYPO) if most else 0


def distance(one: str, other: str, most: int) -> int | None:
    """Letters missing, too many or other ones, and neighbours swapped, that lie between two texts; None beyond `most`.

    The optimal string alignment distance (Damerau 1964; no part is edited twice), within a band of `most` beside the
    diagonal: time grows with the length of the texts times `most`.
    """
    if abs(len(one) - len(other)) > most:
        return None
    one, other = _differing(one, other)
    far = most + 1
    before, row = [far] * (len(other) + 1), [min(n, far) for n in range(len(other) + 1)]
    for i, letter in enumerate(one, 1):
        if min(row) > most and min(before) > most:
            return None
        low, high = max(1, i - most), min(len(other), i + most)
        fresh = [far] * (len(other) + 1)
        fresh[0] = min(i, far)
        for j in range(low, high + 1):
            same = letter == other[j - 1]
            cost = min(row[j] + 1, fresh[j - 1] + 1, row[j - 1] + (not same))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == other[j - 1]:
                cost = min(cost, before[j - 2] + 1)
            fresh[j] = min(cost, far)
        before, row = row, fresh
    return row[-1] if row[-1] <= most else None


def _differing(one: str, other: str) -> tuple[str, str]:
    """The texts without what they begin and end alike with, which no fewest changes touch."""
    shorter = min(len(one), len(other))
    start = next((n for n in range(shorter) if one[n] != other[n]), shorter)
    end = next((n for n in range(shorter - start) if one[-1 - n] != other[-1 - n]), shorter - start)
    return one[start : len(one) - end], other[start : len(other) - end]


def number(text: str) -> Decimal | None:
    """The number that a text says, exactly, with a decimal point or comma, a sign and an exponent of ten of at most two
    digits; None when it says none, or one of more than 60 digits before or after the point."""
    plain = text if text.isascii() else unicodedata.normalize("NFKC", text).translate(_MINUS)
    plain = plain.strip()
    return Decimal(plain.replace(",", ".")) if _NUMBER.fullmatch(plain) else None


def repeated(texts: Sequence[str]) -> Iterator[int]:
    """The indexes of texts that were there before."""
    seen: set[str] = set()
    for index, text in enumerate(texts):
        if text in seen:
            yield index
        seen.add(text)
