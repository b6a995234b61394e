"""A story for one reader: which of its words are woven, by how well the reader knows them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from typing import Literal

from services.content.matching import Found, Match
from services.content.weaving import Annotation, Share, annotate, by_part, shares_of, wanted

# Readers follow a text of which they know 95 % of the words with some help, and 98 % without (Laufer 1989, "What
# percentage of text-lexis is essential for comprehension?"; Hu and Nation 2000, Reading in a Foreign Language 13;
# Laufer and Ravenhorst-Kalovski 2010, ibid. 22). The rest of a woven story is in the reader's own language, and new
# words are explained where they first stand, so that the lower bound is enough.
LARGEST_UNKNOWN_SHARE = Decimal("0.05")
Status = Literal["new", "learning", "reviewing", "mastered"]


@dataclass(frozen=True, slots=True)
class State:
    """How well the reader knows a word, and whether it is due for review now. A word never met is 'new'."""

    status: Status = "new"
    due: bool = False


@dataclass(frozen=True, slots=True)
class Personal:
    """A weave for one reader; `unknown` is the share of the text's words that unknown words replace, unrounded."""

    annotations: tuple[Annotation, ...]
    shares: tuple[Share, ...]
    unknown: Decimal


def personalise(
    found: Found,
    ratios: Mapping[str, Decimal],
    states: Mapping[str, State],
    *,
    seed: str,
    pins: Set[str] = frozenset(),
    bans: Set[str] = frozenset(),
) -> Personal:
    """Chooses among the occurrences for a reader; the same arguments give the same choice in any process.

    Of each part of speech no more are woven than the ratio asks for, as in `weaving.weave`. All of the pinned are, none
    of the banned; then the words that are due, each once before any a second time; then new words, each as often as it
    stands in the text before the next; then known ones, the least known first. New words, and pinned ones with them,
    are woven while they replace at most LARGEST_UNKNOWN_SHARE of the words of the text. Which of several that are alike
    come first is drawn by the seed. Words that are mastered are not explained.
    """
    parts = by_part(found.matches, ratios)
    total = found.tokens.words(0, len(found.tokens.folded))
    pinned = [match for match in found.matches if match.term.id in pins - bans]
    left = Counter({part: wanted(ratios.get(part, Decimal(0)), len(matches)) for part, matches in parts.items()})
    left.subtract(match.term.part_of_speech for match in pinned)
    budget = int(total * LARGEST_UNKNOWN_SHARE) - sum(_unknown_words(found, match, states) for match in pinned)
    woven = list(pinned)
    for match in _by_merit([one for one in found.matches if one.term.id not in pins | bans], states, seed):
        cost = _unknown_words(found, match, states)
        if left[match.term.part_of_speech] > 0 and (cost == 0 or cost <= budget):
            woven.append(match)
            left[match.term.part_of_speech] -= 1
            budget -= cost
    unknown = sum(_unknown_words(found, match, states) for match in woven)
    mastered = {term_id for term_id, state in states.items() if state.status == "mastered"}
    share = Decimal(unknown) / total if total else Decimal(0)
    return Personal(annotate(found, woven, mastered), shares_of(parts, ratios, woven), share)


def most_frequent(matches: Iterable[Match], pins: Set[str], most: int) -> Sequence[str]:
    """The ids of the words found, at most so many: the pinned, then those that stand most often in the text."""
    count = Counter(match.term.id for match in matches)
    return sorted(count, key=lambda one: (one not in pins, -count[one], one))[:most]


def _unknown_words(found: Found, match: Match, states: Mapping[str, State]) -> int:
    """How many words of the text the match replaces by one that the reader does not know."""
    known = _class_of(states.get(match.term.id, State())) != NEW
    return 0 if known else found.tokens.words(match.first, match.end)


DUE, NEW = 0, 1
KNOWN = {"learning": 2, "reviewing": 3, "mastered": 4}


def _class_of(state: State) -> int:
    if state.status == "new":
        return NEW
    return DUE if state.due else KNOWN[state.status]


def _by_merit(matches: Iterable[Match], states: Mapping[str, State], seed: str) -> list[Match]:
    """The best to weave first."""
    places: defaultdict[str, list[Match]] = defaultdict(list)
    for match in matches:
        places[match.term.id].append(match)
    ranked = []
    for term_id, occurrences in places.items():
        merit = _class_of(states.get(term_id, State()))
        lot = sha256(f"{seed}\0{term_id}".encode("utf-8", "surrogatepass")).digest()
        # New words stay woven from where they first stand; of others, the place that comes first is drawn too.
        turn = 0 if merit == NEW else int.from_bytes(lot[:4]) % len(occurrences)
        for time, match in enumerate(occurrences[turn:] + occurrences[:turn]):
            order = (lot, time) if merit == NEW else (time, lot)
            ranked.append(((merit, *order), match))
    return [match for _, match in sorted(ranked, key=lambda one: one[0])]
