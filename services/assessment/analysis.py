"""How well a quiz measures: the statistics of classical test theory, of the points that attempts earned."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import fsum, sqrt
from operator import mul, sub
from typing import Any

BINS = 10
TAIL = 0.27
FEWEST = 2
# Of shares between 0 and 1: what is below is left by rounding, and the shares are all the same.
NO_VARIANCE = 1e-18


@dataclass(slots=True)
class Column:
    """The points of one question: in the attempts of these numbers, so many earned of so many."""

    rows: "array[int]" = field(default_factory=lambda: array("L"))
    scores: "array[float]" = field(default_factory=lambda: array("d"))
    maxima: "array[float]" = field(default_factory=lambda: array("d"))


@dataclass(slots=True)
class Sheet:
    """The points of all attempts, by question; attempts may have different questions."""

    columns: dict[Any, Column] = field(default_factory=dict)
    scores: "array[float]" = field(default_factory=lambda: array("d"))
    maxima: "array[float]" = field(default_factory=lambda: array("d"))

    def add(self, names: Iterable[Any], scores: Sequence[float], maxima: Sequence[float]) -> None:
        """Adds an attempt that has these questions."""
        row = len(self.scores)
        for name, score, most in zip(names, scores, maxima, strict=True):
            column = self.columns.get(name)
            if column is None:
                column = self.columns[name] = Column()
            column.rows.append(row)
            column.scores.append(score)
            column.maxima.append(most)
        self.scores.append(fsum(scores))
        self.maxima.append(fsum(maxima))


@dataclass(frozen=True, slots=True)
class ItemFigures:
    """One question; what is not defined is None."""

    attempts: int
    facility: float | None
    deviation: float | None
    point_biserial: float | None
    discrimination: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """A quiz; what is not defined is None. `upper` and `lower` are the numbers of the best and the weakest attempts."""

    distribution: tuple[int, ...]
    mean: float | None
    median: float | None
    deviation: float | None
    reliability: float | None
    standard_error: float | None
    items: dict[Any, ItemFigures]
    upper: tuple[int, ...]
    lower: tuple[int, ...]


def analyse(sheet: Sheet) -> Figures:
    """All figures of the attempts on the sheet."""
    shares = _shares(sheet.scores, sheet.maxima)
    percents = [share * 100 for share in shares]
    spread, alpha = deviation(percents), reliability(sheet)
    lower, upper = tails(shares)
    return Figures(
        distribution=distribution(percents),
        mean=mean(percents),
        median=median(percents),
        deviation=spread,
        reliability=alpha,
        standard_error=None if spread is None or alpha is None else spread * sqrt(max(0.0, 1 - alpha)),
        items={name: _item(column, sheet, shares) for name, column in sheet.columns.items()},
        upper=upper,
        lower=lower,
    )


def distribution(percents: Sequence[float]) -> tuple[int, ...]:
    """How many are in each tenth of the scale; the last one includes 100. A bound belongs to the tenth above it, though
    a binary fraction be a trifle below."""
    counts = [0] * BINS
    for percent in percents:
        counts[min(BINS - 1, int((percent + 1e-9) * BINS / 100))] += 1
    return tuple(counts)


def mean(values: Sequence[float]) -> float | None:
    """The arithmetic mean; None of nothing."""
    return fsum(values) / len(values) if values else None


def median(values: Sequence[float]) -> float | None:
    """The value in the middle, or between the two in the middle; None of nothing."""
    if not values:
        return None
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2


def deviation(values: Sequence[float]) -> float | None:
    """The standard deviation of a sample, with n - 1; None of fewer than two."""
    if len(values) < FEWEST:
        return None
    centred = _centred(values)
    return sqrt(sum(map(mul, centred, centred)) / (len(values) - 1))


def correlation(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Pearson's r; None where one of the two is the same throughout. Where x is 0 or 1 it is the point-biserial
    correlation: Lord and Novick, Statistical Theories of Mental Test Scores (1968), section 15.5."""
    if len(xs) < FEWEST:
        return None
    left, right = _centred(xs), _centred(ys)
    square = sum(map(mul, left, left)), sum(map(mul, right, right))
    if min(square) < NO_VARIANCE * len(xs):
        return None
    found = sum(map(mul, left, right)) / sqrt(square[0] * square[1])
    return max(-1.0, min(1.0, float(found)))


def reliability(sheet: Sheet) -> float | None:
    """Cronbach's alpha: m·c / (v + (m - 1)·c), of the mean variance v of a question's points, the mean covariance c of
    two questions' points, and the number m of questions: Cronbach, Psychometrika 16 (1951), 297-334, formula 2 and 17.

    Where attempts have different questions, c and v are pooled over the pairs of questions that an attempt has, m is
    the mean number of questions, and points are centred on their question's mean. Where all have the same it is the
    usual k/(k - 1)·(1 - sum of variances / variance of sums).
    """
    count = len(sheet.scores)
    sums, squares, sizes = [0.0] * count, [0.0] * count, [0] * count
    for column in sheet.columns.values():
        for row, value in zip(column.rows, _centred(column.scores), strict=True):
            sums[row] += value
            squares[row] += value * value
            sizes[row] += 1
    pairs, size = sum(n * (n - 1) for n in sizes), sum(sizes)
    if count < FEWEST or not pairs:
        return None
    variance = fsum(squares) / size
    covariance = (sum(map(mul, sums, sums)) - fsum(squares)) / pairs
    length = size / count
    below = variance + (length - 1) * covariance
    return length * covariance / below if variance > NO_VARIANCE and below > NO_VARIANCE else None


def tails(shares: Sequence[float]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The numbers of the 27 % with the lowest and the highest shares, which separate items best: Kelley, Journal of
    Educational Psychology 30 (1939), 17-24. Of equal shares the earlier attempt counts as the lower."""
    size = min(len(shares) // 2, max(1, int(TAIL * len(shares) + 0.5)))
    ranked = sorted(range(len(shares)), key=shares.__getitem__)
    return tuple(ranked[:size]), tuple(ranked[len(ranked) - size :])


def _item(column: Column, sheet: Sheet, shares: Sequence[float]) -> ItemFigures:
    """Of the attempts in which the question could earn something. The correlations are with the share that the attempt
    earned, as attempts may have different questions: of what all have, points give the same."""
    if 0.0 in column.maxima:
        column = _without_worthless(column)
    own = _shares(column.scores, column.maxima)
    # Allen and Yen, Introduction to Measurement Theory (1979), section 6.4: an item is no part of its own criterion.
    left = _rest(sheet.maxima, column.rows, column.maxima)
    rest = _shares(_rest(sheet.scores, column.rows, column.scores), left)
    return ItemFigures(
        attempts=len(own),
        facility=mean(own),
        deviation=deviation(own),
        point_biserial=correlation(own, [shares[row] for row in column.rows]),
        discrimination=correlation(own, rest) if any(most > NO_VARIANCE for most in left) else None,
    )


def _without_worthless(column: Column) -> Column:
    kept = [at for at, most in enumerate(column.maxima) if most]
    rows = array("L", (column.rows[at] for at in kept))
    scores, maxima = (array("d", (values[at] for at in kept)) for values in (column.scores, column.maxima))
    return Column(rows, scores, maxima)


def _rest(totals: Sequence[float], rows: Sequence[int], parts: Sequence[float]) -> list[float]:
    return list(map(sub, map(totals.__getitem__, rows), parts))


def _shares(scores: Sequence[float], maxima: Sequence[float]) -> list[float]:
    return [score / most if most > NO_VARIANCE else 0.0 for score, most in zip(scores, maxima, strict=True)]


def _centred(values: Sequence[float]) -> list[float]:
    middle = fsum(values) / len(values) if values else 0.0
    return [value - middle for value in values]
