"""How two versions of a story differ: their texts word by word, in bounded time, and the words woven into them."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple

from services.content.segmentation import pieces_of
from services.content.weaving import Annotation

# A look at a token and a step of the search cost some 0.3 µs alike: a third of a second, whatever the texts are.
MOST_STEPS = 1_000_000
# The search keeps the square of so many numbers.
MOST_EDITS = 500


class Block(NamedTuple):
    """Code points [base_start, base_end) of the base and [start, end) of the text: the same, or one for the other."""

    same: bool
    base_start: int
    base_end: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """`blocks` cover both texts, in order and without gaps; the counts are of words that are not the same.

    Where words stand in the place of others, as many as both sides have are `changed`, the rest `added` or `removed`.
    """

    blocks: tuple[Block, ...]
    added: int
    removed: int
    changed: int

    def place_of(self, start: int, end: int) -> tuple[int, int] | None:
        """Where code points [start, end) of the base stand in the text; None unless all of them do, in one piece."""
        index = bisect_right(self.blocks, start, key=lambda block: block.base_start) - 1
        block = self.blocks[index] if self.blocks else None
        if block is None or not block.same or end > block.base_end:
            return None
        return start - block.base_start + block.start, end - block.base_start + block.start


@dataclass(frozen=True, slots=True)
class Weaving:
    """How one word is woven into a text: how often, what is shown, each once, and the explanation of it."""

    occurrences: int = 0
    texts: tuple[str, ...] = ()
    explanation: str = ""


@dataclass(frozen=True, slots=True)
class WordChange:
    """A woven word that differs; `kept` are the places that it has in both texts."""

    vocabulary_id: str
    base: Weaving
    now: Weaving
    kept: int


class _Op(NamedTuple):
    """Tokens [i, i_end) of the base and [j, j_end) of the text: the same, or one for the other."""

    same: bool
    i: int
    i_end: int
    j: int
    j_end: int


class _Run(NamedTuple):
    """So many tokens from `i` of the base and from `j` of the text are the same."""

    i: int
    j: int
    length: int


def compare(base: str, text: str, language: str) -> Comparison:
    """Aligns the words of two texts in the BCP 47 `language`, of any length and content; always in the same way.

    Equal ends come first, then words that stand once on either side, in the longest order that both share (patience
    diff: Bram Cohen; the longest increasing subsequence as in Fredman 1975, Discrete Mathematics 11), again between
    each two of these, and where there are none the shortest edit script (Myers 1986, "An O(ND) difference algorithm",
    Algorithmica 1). Once MOST_STEPS are spent, or a script would be longer than MOST_EDITS, what is left counts as
    replaced. So the time is linear in the length of the texts but for a constant, which a quadratic matcher such as
    difflib's is not.
    """
    old, new = pieces_of(base, language)[0], pieces_of(text, language)[0]
    numbers: dict[str, int] = {}
    left, right = ([numbers.setdefault(piece, len(numbers)) for piece in pieces] for pieces in (old, new))
    ops = _joined(_ops(_Alignment(left, right).runs(), len(old), len(new)), old)
    counts = [(_words(old[op.i : op.i_end]), _words(new[op.j : op.j_end])) for op in ops if not op.same]
    here, there = ([0, *accumulate(map(len, pieces))] for pieces in (old, new))
    return Comparison(
        blocks=tuple(Block(op.same, here[op.i], here[op.i_end], there[op.j], there[op.j_end]) for op in ops),
        added=sum(max(now - before, 0) for before, now in counts),
        removed=sum(max(before - now, 0) for before, now in counts),
        changed=sum(map(min, counts)),
    )


def segments(base: str, text: str, found: Comparison) -> Iterator[tuple[Literal["equal", "insert", "delete"], str]]:
    """The pieces of both texts: 'equal' and 'delete' together are `base`, 'equal' and 'insert' are `text`."""
    for block in found.blocks:
        if block.same:
            yield "equal", text[block.start : block.end]
            continue
        if block.base_start < block.base_end:
            yield "delete", base[block.base_start : block.base_end]
        if block.start < block.end:
            yield "insert", text[block.start : block.end]


def compare_weaves(
    base: Sequence[Annotation], notes: Sequence[Annotation], found: Comparison
) -> list[WordChange]:
    """The woven words that differ between two texts, whose comparison is `found`: in the order in which the second
    shows them, then those that it has no more. Capitals, which come from the text around a word, make no difference."""
    before, after = _weavings(base), _weavings(notes)
    places = {(note.start, note.end): note.vocabulary_id for note in notes}
    kept = Counter(
        note.vocabulary_id
        for note in base
        if places.get(found.place_of(note.start, note.end) or (0, 0)) == note.vocabulary_id
    )
    nothing = Weaving()
    changes = (
        WordChange(word, before.get(word, nothing), after.get(word, nothing), kept[word])
        for word in [*after, *(word for word in before if word not in after)]
    )
    return [one for one in changes if _differs(one)]


def count_changes(changes: Iterable[WordChange]) -> tuple[int, int, int]:
    """How many words are woven in now and were not, were and are not any more, and are woven in otherwise."""
    added = removed = changed = 0
    for one in changes:
        added += not one.base.occurrences
        removed += not one.now.occurrences
        changed += bool(one.base.occurrences and one.now.occurrences)
    return added, removed, changed


def _weavings(notes: Sequence[Annotation]) -> Mapping[str, Weaving]:
    """By word, in order of first appearance."""
    shown: dict[str, dict[str, None]] = {}
    explained: dict[str, str] = {}
    for note in notes:
        shown.setdefault(note.vocabulary_id, {})[note.replacement] = None
        if note.explain:
            explained.setdefault(note.vocabulary_id, note.explain)
    counts = Counter(note.vocabulary_id for note in notes)
    return {word: Weaving(counts[word], tuple(texts), explained.get(word, "")) for word, texts in shown.items()}


def _differs(one: WordChange) -> bool:
    spelled = {text.casefold() for text in one.base.texts} != {text.casefold() for text in one.now.texts}
    moved = not one.kept == one.base.occurrences == one.now.occurrences
    return spelled or moved or one.base.explanation != one.now.explanation


def _words(pieces: Iterable[str]) -> int:
    return sum(map(_is_word, pieces))


def _is_word(piece: str) -> bool:
    return piece[0].isalnum() or piece[0] == "_"


class _Alignment:
    """The search for what two sequences of numbers have in common, and how much of it is still allowed."""

    def __init__(self, left: list[int], right: list[int]) -> None:
        self.left, self.right, self.steps = left, right, MOST_STEPS

    def runs(self) -> list[_Run]:
        """What is the same, in order."""
        found: list[_Run] = []
        pending = [(0, len(self.left), 0, len(self.right))]
        while pending:
            i, i_end, j, j_end = self._without_ends(*pending.pop(), found)
            if i == i_end or j == j_end or not self._spend(i_end - i + j_end - j):
                continue
            anchors = self._anchors(i, i_end, j, j_end)
            if anchors:
                found += anchors
                edges = [_Run(i - 1, j - 1, 1), *anchors, _Run(i_end, j_end, 1)]
                pending += [(one.i + 1, two.i, one.j + 1, two.j) for one, two in pairwise(edges)]
            else:
                found += self._shortest_script(i, i_end, j, j_end)
        return sorted(found)

    def _spend(self, steps: int) -> bool:
        """Whether there was so much left."""
        self.steps -= steps
        return self.steps >= 0

    def _without_ends(self, i: int, i_end: int, j: int, j_end: int, found: list[_Run]) -> tuple[int, int, int, int]:
        """What is left between the equal ends, which are found."""
        first = i, j
        while i < i_end and j < j_end and self.left[i] == self.right[j]:
            i, j = i + 1, j + 1
        found.append(_Run(*first, i - first[0]))
        last = i_end
        while i < i_end and j < j_end and self.left[i_end - 1] == self.right[j_end - 1]:
            i_end, j_end = i_end - 1, j_end - 1
        found.append(_Run(i_end, j_end, last - i_end))
        return i, i_end, j, j_end

    def _anchors(self, i: int, i_end: int, j: int, j_end: int) -> list[_Run]:
        """The longest series, ascending on both sides, of tokens that stand there once."""
        there = _once(self.right, j, j_end)
        pairs = [(place, there[token]) for token, place in _once(self.left, i, i_end).items() if token in there]
        lasts: list[int] = []
        ends: list[int] = []
        before: list[int] = []
        for index, (_, place) in enumerate(pairs):
            length = bisect_left(lasts, place)
            lasts[length : length + 1] = [place]
            ends[length : length + 1] = [index]
            before.append(ends[length - 1] if length else -1)
        series = []
        index = ends[-1] if ends else -1
        while index >= 0:
            series.append(_Run(*pairs[index], 1))
            index = before[index]
        return series[::-1]

    def _shortest_script(self, i: int, i_end: int, j: int, j_end: int) -> list[_Run]:
        """What the shortest edit script keeps; nothing when it is too long to look for.

        levels[d][t] is how far into the left side d edits lead on the diagonal 2t - d.
        """
        left, right = self.left[i:i_end], self.right[j:j_end]
        n, m = len(left), len(right)
        levels: list[list[int]] = []
        for d in range(min(n + m, MOST_EDITS) + 1):
            before = levels[-1] if levels else [0]
            level: list[int] = []
            levels.append(level)
            for t in range(d + 1):
                x = start = _begin(before, d, t)
                y = x - (2 * t - d)
                if x > n or y > m:
                    x = start = OUTSIDE
                while 0 <= x < n and y < m and left[x] == right[y]:
                    x, y = x + 1, y + 1
                level.append(x)
                if x == n and y == m:
                    return _traced(levels, t, i, j)
                if not self._spend(1 + x - start):
                    return []
        return []


# Farther out than any number of steps leads back.
OUTSIDE = -(1 << 40)


def _begin(before: list[int], d: int, t: int) -> int:
    """How far the d-th edit leads on its diagonal, from the better of its neighbours: an insertion or a deletion."""
    if d == 0:
        return 0
    if t == 0 or (t < d and before[t - 1] < before[t]):
        return before[t]
    return before[t - 1] + 1


def _traced(levels: Sequence[list[int]], t: int, i: int, j: int) -> list[_Run]:
    """The equal stretches on the way to the end, which the last level reaches on its diagonal t."""
    runs = []
    for d in range(len(levels) - 1, -1, -1):
        before = levels[d - 1] if d else [0]
        end, start = levels[d][t], _begin(before, d, t)
        runs.append(_Run(i + start, j + start - (2 * t - d), end - start))
        if d and not (t == 0 or (t < d and before[t - 1] < before[t])):
            t -= 1
    return runs


def _once(tokens: list[int], first: int, end: int) -> dict[int, int]:
    """The places of those tokens in [first, end) that stand there once."""
    counts = Counter(tokens[first:end])
    return {tokens[place]: place for place in range(first, end) if counts[tokens[place]] == 1}


def _ops(runs: Iterable[_Run], n: int, m: int) -> Iterator[_Op]:
    """The runs and what stands between them."""
    i = j = 0
    for run in [*runs, _Run(n, m, 0)]:
        if i < run.i or j < run.j:
            yield _Op(False, i, run.i, j, run.j)
        i, j = run.i + run.length, run.j + run.length
        if run.length:
            yield _Op(True, run.i, i, run.j, j)


def _joined(ops: Iterable[_Op], old: Sequence[str]) -> list[_Op]:
    """Neighbours of one kind are one. So are differences with nothing but signs and spaces of one line between them:
    'white cat' for 'black dog' is one difference, and easier to read than two around a space."""
    joined: list[_Op] = []
    for op in ops:
        between = joined[-1] if len(joined) > 1 and joined[-1].same and not op.same else None
        slight = between is not None and _is_slight(old[between.i : between.i_end])
        if slight:
            joined.pop()
        if joined and (slight or joined[-1].same == op.same):
            joined[-1] = joined[-1]._replace(i_end=op.i_end, j_end=op.j_end)
        else:
            joined.append(op)
    return joined


def _is_slight(pieces: Iterable[str]) -> bool:
    return not any(_is_word(piece) or "\n" in piece or "\r" in piece for piece in pieces)
