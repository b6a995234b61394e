"""The weave engine: which words of a story are replaced by their translation, and the chunks a reader is shown."""

import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from hashlib import sha256
from typing import Literal, NamedTuple

import ahocorasick

from services.content.segmentation import (
    Token,
    addresses,
    names,
    paragraphs,
    reading_minutes,
    sentence_starts,
    tokenize,
    word_count,
)

__all__ = [
    "Annotation",
    "Chunk",
    "Share",
    "Target",
    "Term",
    "Weave",
    "chunks",
    "paragraphs",
    "reading_minutes",
    "undo",
    "weave",
    "word_count",
]

# Words, spaces and signs of a spelling: six words. At most so many spellings begin at a place in the text, each of
# another length, which keeps time and memory in proportion to the text whatever the vocabulary holds.
LONGEST_SPELLING = 12


@dataclass(frozen=True, slots=True)
class Term:
    """A vocabulary word: `term` and its other spellings in the story's language, `translation` in the learned one."""

    id: str
    term: str
    translation: str
    part_of_speech: str
    explanation: str = ""
    forms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """The share, 0 to 1, of the matched occurrences of a part of speech that is to be woven; ValueError outside it."""

    part_of_speech: str
    ratio: Decimal

    def __post_init__(self) -> None:
        if not (self.ratio.is_finite() and 0 <= self.ratio <= 1):
            raise ValueError(f"ratio of {self.part_of_speech!r} must be between 0 and 1, not {self.ratio}")


@dataclass(frozen=True, slots=True)
class Annotation:
    """`replacement` stands for code points [start, end) of the source; `explain` follows it unless it is empty."""

    start: int
    end: int
    vocabulary_id: str
    replacement: str
    explain: str


@dataclass(frozen=True, slots=True)
class Share:
    """How much of a part of speech was woven; `realised` is woven / occurrences, unrounded, and 0 without any."""

    part_of_speech: str
    occurrences: int
    woven: int
    target: Decimal
    realised: Decimal

    @classmethod
    def of(cls, part_of_speech: str, occurrences: int, woven: int, target: Decimal) -> "Share":
        realised = Decimal(woven) / occurrences if occurrences else Decimal(0)
        return cls(part_of_speech, occurrences, woven, target, realised)


@dataclass(frozen=True, slots=True)
class Weave:
    """Annotations in the order of the text, shares in the order of the part of speech."""

    annotations: tuple[Annotation, ...]
    shares: tuple[Share, ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """`text` is what a reader sees, `source` what it stands for: nothing for 'explain', itself for 'normal'."""

    position: int
    kind: Literal["normal", "chem", "explain"]
    text: str
    source: str
    vocabulary_id: str


class _Match(NamedTuple):
    """An occurrence: tokens [first, end) of the text, spelled like `spelling` of `term`."""

    first: int
    end: int
    term: Term
    spelling: str


def weave(
    text: str,
    terms: Iterable[Term],
    targets: Iterable[Target],
    *,
    seed: str,
    scopes: Sequence[int] | None = None,
    pins: Set[str] = frozenset(),
    bans: Set[str] = frozenset(),
    protected: Sequence[tuple[int, int]] = (),
) -> Weave:
    """Chooses the words of `text` to replace; the same arguments give the same weave in any process.

    `scopes` are indexes into `paragraphs(text)`, None for all; `protected` are code-point spans [start, end) to leave
    alone, beside addresses and proper names, which always are. `pins` and `bans` are vocabulary ids; a ban beats a pin.

    Occurrences are whole words, compared after Unicode folding, longest phrase first (in words, then in characters,
    then from the left), found by Aho and Corasick's automaton (CACM 18, 1975) in time linear in the text; those of more
    than LONGEST_SPELLING tokens are not looked for. A spelling that terms share belongs to one that is not banned, then
    to a pinned one, then to a part of speech with a target above 0, then to a main spelling over a form, then to the
    first in the order of part of speech and id.

    Per part of speech, round-half-up(ratio × occurrences) are woven: all of the pinned, none of the banned (both count
    as occurrences), the rest by systematic sampling (Madow and Madow 1944). Without a target the ratio is 0.

    ValueError: two targets for a part of speech, a paragraph that does not exist, a span that is not inside the text.
    """
    ratios = _ratios(targets)
    closed = _closed(text, scopes, protected)
    tokens = tokenize(text)
    starts = sentence_starts(text, tokens)
    matches = _occurrences(text, tokens, starts, _spellings(terms, ratios, pins, bans), closed)
    woven, shares = _select(matches, ratios, seed, pins - bans, bans)
    return Weave(_annotate(text, tokens, starts, woven), shares)


def chunks(text: str, annotations: Iterable[Annotation]) -> list[Chunk]:
    """What a reader is shown: untouched stretches, woven words and explanations, positions counted from 0.

    `annotations` come in any order; ValueError if one is empty, leaves the text or overlaps another.
    """
    parts: list[Chunk] = []
    done = 0
    for note in sorted(annotations, key=lambda note: note.start):
        if not done <= note.start < note.end <= len(text):
            raise ValueError(f"annotation {note.start}..{note.end} is empty, overlaps or leaves the text")
        if done < note.start:
            parts.append(_normal(len(parts), text[done : note.start]))
        source = text[note.start : note.end]
        parts.append(Chunk(len(parts), "chem", note.replacement, source, note.vocabulary_id))
        if note.explain:
            parts.append(Chunk(len(parts), "explain", note.explain, "", note.vocabulary_id))
        done = note.end
    if done < len(text):
        parts.append(_normal(len(parts), text[done:]))
    return parts


def undo(chunks: Iterable[Chunk]) -> str:
    """The source text, exactly, from its chunks in the order of their positions."""
    return "".join(chunk.source for chunk in chunks if chunk.kind != "explain")


def _normal(position: int, text: str) -> Chunk:
    return Chunk(position, "normal", text, text, "")


def _ratios(targets: Iterable[Target]) -> dict[str, Decimal]:
    ratios: dict[str, Decimal] = {}
    for target in targets:
        if target.part_of_speech in ratios:
            raise ValueError(f"two targets for {target.part_of_speech!r}")
        ratios[target.part_of_speech] = target.ratio
    return ratios


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


def _spellings(
    terms: Iterable[Term], ratios: dict[str, Decimal], pins: Set[str], bans: Set[str]
) -> dict[tuple[str, ...], tuple[Term, str]]:
    """The owner of each spelling, keyed by its folded tokens; blank spellings and blank translations drop out."""
    ranked = []
    for term in terms:
        if not term.translation.strip():
            continue
        standing = (term.id in bans, term.id not in pins, not ratios.get(term.part_of_speech))
        for spelling in (term.term, *term.forms):
            rank = (*standing, spelling != term.term, term.part_of_speech, term.id, spelling, term.translation)
            ranked.append((rank, term.explanation, spelling, term))
    owners: dict[tuple[str, ...], tuple[Term, str]] = {}
    for _, _, spelling, term in sorted(ranked, key=lambda entry: entry[:2]):
        parts = tokenize(spelling.strip())
        if len(parts) <= LONGEST_SPELLING and any(part.kind == "word" for part in parts):
            owners.setdefault(tuple(part.folded for part in parts), (term, spelling.strip()))
    return owners


def _occurrences(
    text: str,
    tokens: Sequence[Token],
    starts: set[int],
    owners: dict[tuple[str, ...], tuple[Term, str]],
    closed: bytearray,
) -> list[_Match]:
    """All occurrences that may be woven, without overlap, in the order of the text."""
    name_of = {index: span for span in names(text, tokens, starts) for index in range(*span)}
    taken = bytearray(len(tokens))
    kept = []
    for first, end in _hits(tokens, owners):
        if 1 in taken[first:end] or 1 in closed[tokens[first].start : tokens[end - 1].end]:
            continue
        match = _Match(first, end, *owners[tuple(token.folded for token in tokens[first:end])])
        if not _breaks_name(text, tokens, match, name_of):
            taken[first:end] = b"\1" * (end - first)
            kept.append(match)
    return sorted(kept, key=lambda match: match.first)


def _hits(tokens: Sequence[Token], owners: dict[tuple[str, ...], tuple[Term, str]]) -> Iterator[tuple[int, int]]:
    """The tokens [first, end) of every place where a spelling stands, overlaps included, longest phrase first."""
    if not owners:
        return
    numbers: dict[str, int] = {}
    automaton = ahocorasick.Automaton(ahocorasick.STORE_ANY, ahocorasick.KEY_SEQUENCE)
    for key in owners:
        # Letters of the automaton are whole tokens, so it cannot match inside a word. 0 is for words of no term.
        automaton.add_word(tuple(numbers.setdefault(part, len(numbers) + 1) for part in key), len(key))
    automaton.make_automaton()
    # A hit is one number in the array of its length: a long text of nothing but spellings has a million.
    found = [array("I") for _ in range(LONGEST_SPELLING + 1)]
    for last, length in automaton.iter(tuple(numbers.get(token.folded, 0) for token in tokens)):
        found[length].append(last + 1 - length)
    # A token list of n words has 2n - 1 tokens, so its length orders phrases as their number of words does.
    for length in range(LONGEST_SPELLING, 0, -1):
        for _, first in sorted((tokens[one].start - tokens[one + length - 1].end, one) for one in found[length]):
            yield first, first + length


def _breaks_name(text: str, tokens: Sequence[Token], match: _Match, name_of: dict[int, tuple[int, int]]) -> bool:
    """Whether the match touches a name, unless it is all of it and the vocabulary spells it so ('Monday', 'Hà Nội')."""
    if name_of.keys().isdisjoint(range(match.first, match.end)):
        return False
    if name_of.get(match.first) != (match.first, match.end):
        return True
    source = text[tokens[match.first].start : tokens[match.end - 1].end]
    return unicodedata.normalize("NFC", source) != unicodedata.normalize("NFC", match.spelling)


def _select(
    matches: Iterable[_Match], ratios: dict[str, Decimal], seed: str, pins: Set[str], bans: Set[str]
) -> tuple[list[_Match], tuple[Share, ...]]:
    """The matches to weave, in the order of the text, and what that makes of each part of speech."""
    found: dict[str, list[_Match]] = {part: [] for part in ratios}
    for match in matches:
        found.setdefault(match.term.part_of_speech, []).append(match)
    woven: list[_Match] = []
    shares = []
    for part, candidates in sorted(found.items()):
        ratio = ratios.get(part, Decimal(0))
        chosen = _choose(candidates, ratio, seed, pins, bans)
        woven += chosen
        shares.append(Share.of(part, len(candidates), len(chosen), ratio))
    return sorted(woven, key=lambda match: match.first), tuple(shares)


def _choose(matches: list[_Match], ratio: Decimal, seed: str, pins: Set[str], bans: Set[str]) -> list[_Match]:
    """The matches of one part of speech to weave: as near to `ratio` of them as pins and bans allow, evenly spread."""
    pinned = [match for match in matches if match.term.id in pins]
    free = [match for match in matches if match.term.id not in pins and match.term.id not in bans]
    wanted = int((ratio * len(matches)).to_integral_value(ROUND_HALF_UP)) - len(pinned)
    count = max(0, min(wanted, len(free)))
    # Systematic sampling: every len(free)/count-th one from a start drawn by the seed, in whole numbers of 2^-64.
    start = int.from_bytes(sha256(seed.encode("utf-8", "surrogatepass")).digest()[:8])
    return pinned + [free[((step << 64) + start) * len(free) // (count << 64)] for step in range(count)]


def _annotate(
    text: str, tokens: Sequence[Token], starts: set[int], matches: Sequence[_Match]
) -> tuple[Annotation, ...]:
    explained: set[str] = set()
    annotations = []
    for match in matches:
        start, end = tokens[match.first].start, tokens[match.end - 1].end
        replacement = _carry_capitals(text[start:end], match, opens=match.first in starts)
        explain = "" if match.term.id in explained else match.term.explanation
        explained.add(match.term.id)
        annotations.append(Annotation(start, end, match.term.id, replacement, explain))
    return tuple(annotations)


def _carry_capitals(source: str, match: _Match, *, opens: bool) -> str:
    """The translation in the capitals of the source, so far as they are not how the vocabulary spells the word."""
    translation = match.term.translation
    if _all_capitals(source) and not _all_capitals(match.spelling):
        return translation.upper()
    if source[0].isupper() and (opens or not match.spelling[0].isupper()):
        first = next((i for i, letter in enumerate(translation) if letter.isalpha()), 0)
        return translation[:first] + translation[first : first + 1].title() + translation[first + 1 :]
    return translation


def _all_capitals(text: str) -> bool:
    return text.isupper() and sum(map(str.isalpha, text)) > 1
