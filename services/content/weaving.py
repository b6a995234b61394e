"""The weave engine: which words of a story are replaced by their translation, and the chunks a reader is shown."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from hashlib import sha256
from typing import Literal, NamedTuple

from services.content.matching import Found, Match, Term, find

# What stands for a word that the reader is to find: of one width, so that it tells nothing of the word.
GAP = "____"


@dataclass(frozen=True, slots=True)
class Target:
    """The share, 0 to 1, of the matched occurrences of a part of speech that is to be woven; ValueError outside it."""

    part_of_speech: str
    ratio: Decimal

    def __post_init__(self) -> None:
        if not (self.ratio.is_finite() and 0 <= self.ratio <= 1):
            raise ValueError(f"ratio of {self.part_of_speech!r} must be between 0 and 1, not {self.ratio}")


class Annotation(NamedTuple):
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


class Chunk(NamedTuple):
    """`text` is what a reader sees, `source` what it stands for: nothing for 'explain', itself for 'normal'."""

    position: int
    kind: Literal["normal", "chem", "explain"]
    text: str
    source: str
    vocabulary_id: str


def weave(
    text: str,
    terms: Iterable[Term],
    targets: Iterable[Target],
    *,
    language: str,
    seed: str,
    scopes: Sequence[int] | None = None,
    pins: Set[str] = frozenset(),
    bans: Set[str] = frozenset(),
    protected: Sequence[tuple[int, int]] = (),
) -> Weave:
    """Chooses the words of `text` to replace; the same arguments give the same weave in any process.

    `language` is the text's, as a BCP 47 tag, by which it is cut into words (see `segmentation.tokenize`). `scopes` are
    indexes into `paragraphs(text)`, None for all; `protected` are code-point spans [start, end) to leave alone, beside
    addresses and proper names, which always are. `pins` and `bans` are vocabulary ids; a ban beats a pin.

    Occurrences are whole words, compared after Unicode folding, longest phrase first (in words, then in characters,
    then from the left); those of more than `matching.LONGEST_SPELLING` tokens are not looked for. A spelling that terms
    share belongs to one that is not banned, then to a pinned one, then to a part of speech with a target above 0, then
    to a main spelling over a form, then to the first in the order of part of speech and id. What is found, and the time
    it takes, is linear in the text and in the vocabulary.

    Per part of speech, round-half-up(ratio × occurrences) are woven: all of the pinned, none of the banned (both count
    as occurrences), the rest by systematic sampling (Madow and Madow 1944). Without a target the ratio is 0.

    ValueError: two targets for a part of speech, a paragraph that does not exist, a span that is not inside the text.
    """
    ratios = ratios_of(targets)
    found = find(
        text, terms, language=language, ratios=ratios, scopes=scopes, pins=pins, bans=bans, protected=protected
    )
    parts = by_part(found.matches, ratios)
    woven = [
        match
        for part, matches in parts.items()
        for match in _choose(matches, ratios.get(part, Decimal(0)), seed, pins - bans, bans)
    ]
    return Weave(annotate(found, woven), shares_of(parts, ratios, woven))


def chunks(text: str, annotations: Iterable[Annotation], *, cloze: bool = False) -> list[Chunk]:
    """What a reader is shown: untouched stretches, woven words and explanations, positions counted from 0.

    For a `cloze` a gap stands for each woven word, whose source is the hint, and nothing is explained: that would give
    it away. `annotations` come in any order; ValueError if one is empty, leaves the text or overlaps another.
    """
    parts: list[Chunk] = []
    done = 0
    for note in sorted(annotations, key=lambda note: note.start):
        if not done <= note.start < note.end <= len(text):
            raise ValueError(f"annotation {note.start}..{note.end} is empty, overlaps or leaves the text")
        if done < note.start:
            parts.append(_normal(len(parts), text[done : note.start]))
        shown, source = GAP if cloze else note.replacement, text[note.start : note.end]
        parts.append(Chunk(len(parts), "chem", shown, source, note.vocabulary_id))
        if note.explain and not cloze:
            parts.append(Chunk(len(parts), "explain", note.explain, "", note.vocabulary_id))
        done = note.end
    if done < len(text):
        parts.append(_normal(len(parts), text[done:]))
    return parts


def _normal(position: int, text: str) -> Chunk:
    return Chunk(position, "normal", text, text, "")


def ratios_of(targets: Iterable[Target]) -> dict[str, Decimal]:
    """The ratio of each part of speech; ValueError where there are two targets for one."""
    ratios: dict[str, Decimal] = {}
    for target in targets:
        if target.part_of_speech in ratios:
            raise ValueError(f"two targets for {target.part_of_speech!r}")
        ratios[target.part_of_speech] = target.ratio
    return ratios


def wanted(ratio: Decimal, occurrences: int) -> int:
    """How many of the occurrences come nearest to the ratio, the greater where two do."""
    return int((ratio * occurrences).to_integral_value(ROUND_HALF_UP))


def by_part(matches: Iterable[Match], ratios: Mapping[str, Decimal]) -> dict[str, list[Match]]:
    """The matches of each part of speech, those with a target always, in their order."""
    found: dict[str, list[Match]] = {part: [] for part in ratios}
    for match in matches:
        found.setdefault(match.term.part_of_speech, []).append(match)
    return dict(sorted(found.items()))


def shares_of(
    found: Mapping[str, Sequence[Match]], ratios: Mapping[str, Decimal], woven: Iterable[Match]
) -> tuple[Share, ...]:
    """What weaving some of the matches found makes of each part of speech."""
    count = Counter(match.term.part_of_speech for match in woven)
    return tuple(
        Share.of(part, len(matches), count[part], ratios.get(part, Decimal(0))) for part, matches in found.items()
    )


def _choose(matches: list[Match], ratio: Decimal, seed: str, pins: Set[str], bans: Set[str]) -> list[Match]:
    """The matches of one part of speech to weave: as near to `ratio` of them as pins and bans allow, evenly spread."""
    pinned = [match for match in matches if match.term.id in pins]
    free = [match for match in matches if match.term.id not in pins and match.term.id not in bans]
    count = max(0, min(wanted(ratio, len(matches)) - len(pinned), len(free)))
    # Systematic sampling: every len(free)/count-th one from a start drawn by the seed, in whole numbers of 2^-64.
    start = int.from_bytes(sha256(seed.encode("utf-8", "surrogatepass")).digest()[:8])
    return pinned + [free[((step << 64) + start) * len(free) // (count << 64)] for step in range(count)]


def annotate(found: Found, matches: Iterable[Match], known: Set[str] = frozenset()) -> tuple[Annotation, ...]:
    """The annotations, in the order of the text, of the occurrences to weave: at its first appearance a word is
    explained, unless its id is among the `known`."""
    explained = set(known)
    annotations = []
    for match in sorted(matches, key=lambda match: match.first):
        start, end = found.tokens.span(match.first, match.end)
        replacement = _carry_capitals(found.tokens.text[start:end], match, opens=match.first in found.starts)
        explain = "" if match.term.id in explained else match.term.explanation
        explained.add(match.term.id)
        annotations.append(Annotation(start, end, match.term.id, replacement, explain))
    return tuple(annotations)


def _carry_capitals(source: str, match: Match, *, opens: bool) -> str:
    """The translation in the capitals of the source, so far as they are not how the vocabulary spells the word."""
    spelling = match.spelling.strip()
    if _all_capitals(source) and not _all_capitals(spelling):
        return match.translation.upper()
    if source[0].isupper() and (opens or not spelling[0].isupper()):
        first = next((i for i, letter in enumerate(match.translation) if letter.isalpha()), 0)
        return match.translation[:first] + match.translation[first : first + 1].title() + match.translation[first + 1 :]
    return match.translation


def _all_capitals(text: str) -> bool:
    return text.isupper() and sum(map(str.isalpha, text)) > 1
