"""Grading of what is put together or in order."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

from services.assessment.marks import (
    NOTHING,
    Answer,
    Credit,
    ItemGrade,
    Marks,
    Matched,
    Ordered,
    Reason,
    Scoring,
    answer_of,
    check_unique,
    prepare,
)

FEWEST_TO_ORDER = 2


@dataclass(frozen=True, slots=True)
class Matching:
    """A question answered by giving each stem a target: `pairs` has the right targets of each, which are worth the
    same. ValueError: bad points, no stem, or a right target that is not one of `targets`."""

    id: str
    points: Decimal
    pairs: Mapping[str, frozenset[str]]
    targets: frozenset[str]
    scoring: Scoring = Scoring.PARTIAL
    _marks: Marks = field(init=False, repr=False, compare=False)
    _credits: dict[str, dict[Reason, Credit]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.pairs or not all(right and right <= self.targets for right in self.pairs.values()):
            raise ValueError(f"question {self.id!r} has a stem without target, or none")
        part = Fraction(1, len(self.pairs))
        marks = Marks(self.id, self.points, [part], self.scoring)
        shares = {Reason.RIGHT_MATCH: part, Reason.WRONG_MATCH: NOTHING, Reason.UNANSWERED: NOTHING}
        earned = {stem: {one: marks.credit(stem, one, shares[one]) for one in shares} for stem in self.pairs}
        prepare(self, _marks=marks, _credits=earned)

    def grade(self, answer: Answer | None) -> ItemGrade:
        """What the answer earns; ValueError when the question cannot have it."""
        given: Mapping[str, str] = {} if answer is None else answer_of(self.id, answer, Matched).targets
        if strangers := (given.keys() - self.pairs.keys()) | (set(given.values()) - self.targets - {""}):
            raise ValueError(f"question {self.id!r} has no stems or targets {sorted(strangers)}")
        return self._marks.grade([self._credits[stem][self._reason(stem, given.get(stem))] for stem in self.pairs])

    def _reason(self, stem: str, target: str | None) -> Reason:
        if not target:
            return Reason.UNANSWERED
        return Reason.RIGHT_MATCH if target in self.pairs[stem] else Reason.WRONG_MATCH


@dataclass(frozen=True, slots=True)
class Ordering:
    """A question answered by putting `items` (id and text, given in the right order) in order; the same text is the
    same thing.

    Partial credit: of n items, those that need not be moved: points × (longest run in the right order − 1) / (n − 1),
    so that one item out of its place costs one part however far it went, and an order turned round earns nothing.
    ValueError: bad points, ids repeated, or no two texts to tell apart.
    """

    id: str
    points: Decimal
    items: tuple[tuple[str, str], ...]
    scoring: Scoring = Scoring.PARTIAL
    _marks: Marks = field(init=False, repr=False, compare=False)
    _places: dict[str, list[int]] = field(init=False, repr=False, compare=False)
    _credits: dict[bool, dict[str, Credit]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_unique(self.id, [item for item, _ in self.items])
        if len({text for _, text in self.items}) < FEWEST_TO_ORDER:
            raise ValueError(f"question {self.id!r} has nothing to put in order")
        places: dict[str, list[int]] = {}
        for place, (_, text) in enumerate(self.items):
            places.setdefault(text, []).append(place)
        part = Fraction(1, len(self.items) - 1)
        marks = Marks(self.id, self.points, [part], self.scoring)
        shares = {True: (Reason.RIGHT_ORDER, part), False: (Reason.WRONG_ORDER, NOTHING)}
        earned = {right: {item: marks.credit(item, *shares[right]) for item, _ in self.items} for right in shares}
        prepare(self, _marks=marks, _places={item: places[text] for item, text in self.items}, _credits=earned)

    def grade(self, answer: Answer | None) -> ItemGrade:
        """What the answer earns; ValueError when the question cannot have it."""
        order = () if answer is None else answer_of(self.id, answer, Ordered).items
        if not order:
            return self._marks.one(Reason.UNANSWERED)
        if sorted(order) != sorted(self._places):
            raise ValueError(f"question {self.id!r} has other items than {list(order)}")
        first, *others = in_right_order([self._places[item] for item in order])
        # The first of the run follows none: it is where the run begins.
        kept = set(others)
        rest = [(item, index in kept) for index, item in enumerate(order) if index != first]
        return self._marks.grade([self._credits[right][item] for item, right in rest])


def in_right_order(places: Sequence[Sequence[int]]) -> list[int]:
    """The longest run of things, by their index, that can be said to be in order: things may have several places, as
    those that look alike do, and each takes one that is later than that of the one before.

    The longest common subsequence by way of the longest increasing one (Hunt and Szymanski 1977), with the first of
    several runs; time grows with the number of places times its logarithm.
    """
    # Of the runs of each length, the one that ends earliest: its last place, and what has it.
    ends: list[int] = []
    last: list[int] = []
    before: dict[tuple[int, int], tuple[int, int] | None] = {}
    for index, options in enumerate(places):
        for place in sorted(options, reverse=True):
            length = bisect_left(ends, place)
            before[place, index] = (ends[length - 1], last[length - 1]) if length else None
            ends[length : length + 1], last[length : length + 1] = [place], [index]
    run: list[int] = []
    step = (ends[-1], last[-1]) if ends else None
    while step:
        run.append(step[1])
        step = before[step]
    return run[::-1]
