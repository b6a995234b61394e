"""Where the words of a vocabulary stand in a text."""

import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate, pairwise
from operator import itemgetter
from typing import NamedTuple

from services.content.segmentation import (
    Tokens,
    addresses,
    fold_all,
    is_spaced,
    names,
    paragraphs,
    pieces_of,
    sentence_starts,
    tokenize,
)

_LETTER = re.compile(r"\w")
# Words, spaces and signs of a spelling: six words. At most so many spellings begin at a place in the text, each of
# another length, which keeps time and memory in proportion to the text whatever the vocabulary holds.
LONGEST_SPELLING = 12


class Term(NamedTuple):
    """A vocabulary word: `term` and its other `forms` in the story's language, with their translations.

    A form is (spelling, translation), the translation empty for that of the term.
    """

    id: str
    term: str
    translation: str
    part_of_speech: str
    explanation: str = ""
    forms: tuple[tuple[str, str], ...] = ()


class Match(NamedTuple):
    """An occurrence: tokens [first, end) of the text, spelled like `spelling` of `term`, which means `translation`."""

    first: int
    end: int
    term: Term
    translation: str
    spelling: str


# Whose a spelling is, what it means, and how it is written.
Entry = tuple[Term, str, str]


@dataclass(frozen=True, slots=True)
class Found:
    """The occurrences that may be woven, in the order of the text and without overlap; `starts` open sentences."""

    tokens: Tokens
    starts: Set[int]
    matches: Sequence[Match]


def find(
    text: str,
    terms: Iterable[Term],
    *,
    language: str,
    ratios: Mapping[str, Decimal],
    scopes: Sequence[int] | None = None,
    pins: Set[str] = frozenset(),
    bans: Set[str] = frozenset(),
    protected: Sequence[tuple[int, int]] = (),
) -> Found:
    """The arguments are those of `weaving.weave`, which tells what an occurrence is."""
    closed = _closed(text, scopes, protected)
    tokens = tokenize(text, language)
    starts = sentence_starts(tokens)
    owners = _owners(tokens, terms, language, ratios, pins, bans)
    proper = set(names(tokens, starts))
    folded, edges = tokens.folded, tokens.edges
    named, taken = bytearray(len(folded)), bytearray(len(folded))
    for first, end in proper:
        named[first:end] = b"\1" * (end - first)
    kept = []
    for first, end in _hits(tokens, owners, language):
        if taken.find(1, first, end) >= 0 or closed.find(1, edges[first], edges[end]) >= 0:
            continue
        match = Match(first, end, *owners["".join(folded[first:end])])
        if named.find(1, first, end) < 0 or ((first, end) in proper and _is_held(tokens, match, language)):
            taken[first:end] = b"\1" * (end - first)
            kept.append(match)
    return Found(tokens, starts, sorted(kept, key=itemgetter(0)))


def _closed(text: str, scopes: Sequence[int] | None, protected: Sequence[tuple[int, int]]) -> bytearray:
    """One byte per code point: 1 where nothing may be woven."""
    spans = paragraphs(text)
    closed = bytearray(b"\1") * len(text)
    for index in range(len(spans)) if scopes is None else scopes:
        if not 0 <= index < len(spans):
            raise ValueError(f"there is no paragraph {index}: the text has {len(spans)}")
        start, end = spans[index]
        closed[start:end] = bytes(end - start)
    for start, end in [*protected, *addresses(text)]:
        if not 0 <= start <= end <= len(text):
            raise ValueError(f"protected span {start}..{end} does not lie in a text of {len(text)} characters")
        closed[start:end] = b"\1" * (end - start)
    return closed


def _owners(
    tokens: Tokens,
    terms: Iterable[Term],
    language: str,
    ratios: Mapping[str, Decimal],
    pins: Set[str],
    bans: Set[str],
) -> dict[str, Entry]:
    """The owner of each spelling that may stand in the text, by its folded form. Blank translations drop out."""

    def rank(entry: Entry) -> tuple[object, ...]:
        term, translation, spelling = entry
        standing = (term.id in bans, term.id not in pins, not ratios.get(term.part_of_speech))
        return (*standing, spelling != term.term, term.part_of_speech, term.id, spelling, translation, term.explanation)

    owners: dict[str, Entry] = {}
    for key, entry in _likely(tokens, list(terms), language):
        if not entry[1].strip():
            continue
        other = owners.setdefault(key, entry)
        if other is not entry and rank(entry) < rank(other):
            owners[key] = entry
    return owners


def _likely(tokens: Tokens, terms: Sequence[Term], language: str) -> Iterator[tuple[str, Entry]]:
    """The spellings that may stand in the text: a small part of a large vocabulary."""
    forms: list[Entry] = [
        (term, translation or term.translation, form) for term in terms for form, translation in term.forms
    ]
    keys = fold_all([term.term for term in terms] + [form for _, _, form in forms])
    may_stand = _spaced_keys if is_spaced(language) else _unspaced_keys
    for place in may_stand(tokens, keys):
        if place >= len(terms):
            yield keys[place], forms[place - len(terms)]
        else:
            yield keys[place], (terms[place], terms[place].translation, terms[place].term)


def _spaced_keys(tokens: Tokens, keys: Sequence[str]) -> list[int]:
    """The places of spellings whose words are all in the text. A word is a token, unless there are signs in it: then
    they may be. Most spellings are ruled out by their first word alone."""
    words = {token for token in set(tokens.folded) if _LETTER.search(token)}
    return [
        place
        for place, key in enumerate(keys)
        if (
            first == key or words.issuperset(key.split(" ")) or not key.replace(" ", "").isalnum()
            if (first := key.partition(" ")[0]) in words
            else not first.isalnum() and _LETTER.search(key)
        )
    ]


def _unspaced_keys(tokens: Tokens, keys: Sequence[str]) -> list[int]:
    """The places of spellings whose first two characters are in the text: where words run together, no more is known.
    """
    text = "".join(tokens.folded)
    pairs = {*text, *map("".join, pairwise(text))}
    return [place for place, key in enumerate(keys) if key[:2] in pairs and _LETTER.search(key)]


def _hits(tokens: Tokens, owners: Mapping[str, Entry], language: str) -> Iterator[tuple[int, int]]:
    """The tokens [first, end) of every place where a spelling stands, overlaps included, longest phrase first."""
    heads = _heads(owners, language)
    folded, edges = tokens.folded, tokens.edges
    # A hit is one number in the array of its length: a long text of nothing but spellings has a million.
    found = [array("I") for _ in range(LONGEST_SPELLING + 1)]
    found[1].extend([first for first, key in enumerate(folded) if key in owners])
    for first in [first for first, key in enumerate(folded) if key in heads]:
        key, end = folded[first], first + 1
        last = min(first + LONGEST_SPELLING, len(folded))
        while key in heads and end < last:
            key += folded[end]
            end += 1
            if key in owners:
                found[end - first].append(first)
    # A token list of n words has 2n - 1 tokens, so its length orders phrases as their number of words does.
    for length in range(LONGEST_SPELLING, 0, -1):
        starts: Iterable[int] = found[length]
        if length > 1:
            sizes = [edges[one] - edges[one + length] for one in found[length]]
            starts = [one for _, one in sorted(zip(sizes, found[length], strict=True))]
        for first in starts:
            yield first, first + length


def _heads(owners: Iterable[str], language: str) -> set[str]:
    """What spellings of several tokens begin with, up to each of their tokens; up to each character where words run
    together, because a spelling is cut in one way in a sentence and may be in another alone."""
    heads: set[str] = set()
    for key in owners:
        if not is_spaced(language):
            heads.update(accumulate(key[:-1]))
        elif key.replace(" ", "").isalnum():
            place = key.find(" ")
            while place > 0:
                heads.add(key[:place])
                heads.add(key[: place + 1])
                place = key.find(" ", place + 1)
        else:
            heads.update(accumulate(pieces_of(key, language)[0][:-1]))
    return heads


def _is_held(tokens: Tokens, match: Match, language: str) -> bool:
    """Whether the vocabulary holds the very name that the match is ('Monday')."""
    if is_spaced(language):
        start, stop = tokens.span(match.first, match.end)
        return _plain(tokens.text[start:stop]) == _plain(match.spelling)
    # There are no capitals to tell. Many a word is also a family's name; of others, one must be a name alone as well.
    pieces, proper = pieces_of(match.spelling.strip(), language)
    return "N" not in tokens.shapes[match.first : match.end] and len(proper) == len(pieces)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())
