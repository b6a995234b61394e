"""How much of a text a vocabulary covers, by the occurrences that a weave would find."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from services.content.matching import Found, Term, find
from services.content.segmentation import addresses, names


@dataclass(frozen=True, slots=True)
class Cover:
    """Words of a text and those that are covered; `missing` are spelled as where they first lack, with how often."""

    running: int
    covered_running: int
    distinct: int
    covered_distinct: int
    missing: Sequence[tuple[str, int]]

    @property
    def running_share(self) -> Decimal:
        return _share(self.covered_running, self.running)

    @property
    def distinct_share(self) -> Decimal:
        return _share(self.covered_distinct, self.distinct)


def occurrences(text: str, terms: Iterable[Term], language: str) -> Found:
    """Every place where a term, or a form of it, stands."""
    return find(text, terms, language=language, ratios={})


def cover(found: Found) -> Cover:
    """Counts the words of the text: not those of names, of addresses and of numbers, unless they are covered."""
    tokens = found.tokens
    covered = {index for match in found.matches for index in range(match.first, match.end)}
    apart = {index for span in names(tokens, set(found.starts)) for index in range(*span)} | _in_addresses(found)
    running, hits = 0, 0
    known: set[str] = set()
    lacking: Counter[str] = Counter()
    spelled: dict[str, str] = {}
    for index, word in enumerate(tokens.folded):
        if index in covered:
            if _is_word(word):
                running, hits = running + 1, hits + 1
                known.add(word)
        elif index not in apart and _is_word(word):
            running += 1
            lacking[word] += 1
            spelled.setdefault(word, tokens.text[slice(*tokens.span(index, index + 1))])
    # Python sorts stably: of equally frequent words the first in the text comes first.
    missing = sorted(lacking.items(), key=lambda pair: -pair[1])
    return Cover(
        running=running,
        covered_running=hits,
        distinct=len(known | lacking.keys()),
        covered_distinct=len(known - lacking.keys()),
        missing=[(spelled[word], count) for word, count in missing],
    )


def _is_word(folded: str) -> bool:
    return any(map(str.isalpha, folded))


def _in_addresses(found: Found) -> set[int]:
    edges, spans = found.tokens.edges, addresses(found.tokens.text)
    return {index for start, end in spans for index in range(bisect_left(edges, start), bisect_left(edges, end))}


def _share(part: int, whole: int) -> Decimal:
    return Decimal(part) / whole if whole else Decimal(0)
