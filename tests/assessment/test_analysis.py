"""The statistics of an analysis against the textbooks' formulas, worked out exactly or by the standard library."""

import statistics
from fractions import Fraction
from math import isclose, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.assessment.analysis import Sheet, analyse, correlation, distribution, tails

POINTS = st.integers(0, 4)


@st.composite
def tables(draw: st.DrawFn) -> list[list[int]]:
    """Points from 0 to 4 for some questions, by attempt."""
    width = draw(st.integers(1, 6))
    return draw(st.lists(st.lists(POINTS, min_size=width, max_size=width), max_size=25))


@st.composite
def draws(draw: st.DrawFn) -> list[dict[int, int]]:
    """Points by attempt and question, each attempt having some of the questions."""
    return draw(st.lists(st.dictionaries(st.integers(0, 5), POINTS, min_size=1), min_size=1, max_size=25))


def sheet_of(rows: list[dict[int, int]]) -> Sheet:
    sheet = Sheet()
    for row in rows:
        sheet.add(row.keys(), [float(points) for points in row.values()], [4.0] * len(row))
    return sheet


def full(table: list[list[int]]) -> Sheet:
    return sheet_of([dict(enumerate(row)) for row in table])


def exact_variance(values: list[Fraction]) -> Fraction:
    middle = sum(values, Fraction(0)) / len(values)
    return sum(((value - middle) ** 2 for value in values), Fraction(0)) / (len(values) - 1)


def exact_correlation(xs: list[Fraction], ys: list[Fraction]) -> float | None:
    """The covariance by the definition, over the deviations."""
    if len(xs) < 2 or not exact_variance(xs) or not exact_variance(ys):
        return None
    left, right = sum(xs, Fraction(0)) / len(xs), sum(ys, Fraction(0)) / len(ys)
    covariance = sum(((x - left) * (y - right) for x, y in zip(xs, ys, strict=True)), Fraction(0)) / (len(xs) - 1)
    return float(covariance) / sqrt(exact_variance(xs) * exact_variance(ys))


def same(found: float | None, wanted: float | None) -> bool:
    if found is None or wanted is None:
        return found is wanted
    return isclose(found, wanted, rel_tol=1e-9, abs_tol=1e-9)


class TestOfAQuiz:
    @given(tables())
    def test_mean_median_and_deviation_are_those_of_the_standard_library(self, table: list[list[int]]) -> None:
        figures = analyse(full(table))
        percents = [Fraction(sum(row) * 100, 4 * len(row)) for row in table]
        assert same(figures.mean, float(statistics.mean(percents)) if percents else None)
        assert same(figures.median, float(statistics.median(percents)) if percents else None)
        assert same(figures.deviation, float(statistics.stdev(percents)) if len(percents) > 1 else None)

    @given(tables())
    def test_alpha_is_the_usual_one_where_all_have_the_same_questions(self, table: list[list[int]]) -> None:
        wanted = None
        if len(table) > 1 and len(table[0]) > 1:
            columns = [[Fraction(row[k]) for row in table] for k in range(len(table[0]))]
            whole = exact_variance([Fraction(sum(row)) for row in table])
            parts = sum(map(exact_variance, columns), Fraction(0))
            if whole and parts:
                count = len(columns)
                wanted = float(Fraction(count, count - 1) * (1 - parts / whole))
        found = analyse(full(table)).reliability
        assert same(found, wanted)

    def test_alpha_of_a_worked_example(self) -> None:
        # Cronbach's alpha of four items and five people, worked out by hand: 4/3 × (1 - 4.7/12.8).
        table = [[2, 3, 2, 3], [1, 1, 1, 2], [4, 4, 3, 4], [3, 2, 2, 3], [4, 3, 4, 4]]
        figures = analyse(full(table))
        variances = sum(statistics.variance(column) for column in zip(*table, strict=True))
        alpha = 4 / 3 * (1 - variances / statistics.variance(map(sum, table)))
        assert same(figures.reliability, alpha)
        assert figures.deviation is not None
        assert same(figures.standard_error, figures.deviation * sqrt(1 - alpha))

    @given(draws())
    def test_alpha_of_draws_pools_the_pairs_that_attempts_have(self, rows: list[dict[int, int]]) -> None:
        means = {
            name: statistics.mean([Fraction(row[name]) for row in rows if name in row])
            for name in {name for row in rows for name in row}
        }
        centred = [{name: points - means[name] for name, points in row.items()} for row in rows]
        products = [row[a] * row[b] for row in centred for a in row for b in row if a != b]
        squares = [value * value for row in centred for value in row.values()]
        wanted = None
        if len(rows) > 1 and products:
            covariance, variance = statistics.mean(products), statistics.mean(squares)
            length = Fraction(sum(map(len, rows)), len(rows))
            below = variance + (length - 1) * covariance
            wanted = float(length * covariance / below) if variance and below > 0 else None
        assert same(analyse(sheet_of(rows)).reliability, wanted)

    @given(st.lists(st.integers(0, 1000)))
    def test_every_percentage_is_in_one_tenth(self, thousandths: list[int]) -> None:
        counts = distribution([number / 10 for number in thousandths])
        assert list(counts) == [sum(min(number // 100, 9) == n for number in thousandths) for n in range(10)]

    def test_of_nothing_has_no_figures(self) -> None:
        figures = analyse(Sheet())
        assert (figures.mean, figures.median, figures.deviation, figures.reliability) == (None,) * 4
        assert figures.distribution == (0,) * 10

    def test_that_everybody_gets_right_says_nothing_of_reliability(self) -> None:
        figures = analyse(full([[4, 4, 4]] * 5))
        assert (figures.mean, figures.deviation, figures.reliability) == (100.0, 0.0, None)
        assert {(one.facility, one.discrimination) for one in figures.items.values()} == {(1.0, None)}


class TestOfAQuestion:
    @given(draws())
    def test_figures_are_those_of_the_attempts_that_have_it(self, rows: list[dict[int, int]]) -> None:
        figures = analyse(sheet_of(rows)).items
        for name, found in figures.items():
            having = [row for row in rows if name in row]
            own = [Fraction(row[name], 4) for row in having]
            wholes = [Fraction(sum(row.values()), 4 * len(row)) for row in having]
            rests = [
                Fraction(sum(row.values()) - row[name], 4 * (len(row) - 1)) if len(row) > 1 else Fraction(0)
                for row in having
            ]
            assert found.attempts == len(having)
            assert same(found.facility, float(statistics.mean(own)))
            assert same(found.deviation, float(statistics.stdev(own)) if len(own) > 1 else None)
            assert same(found.point_biserial, exact_correlation(own, wholes))
            alone = all(len(row) == 1 for row in having)
            assert same(found.discrimination, None if alone else exact_correlation(own, rests))

    def test_that_is_right_or_wrong_has_the_point_biserial_correlation(self) -> None:
        right, totals = [1, 0, 1, 1, 0, 0, 1], [9.0, 4.0, 7.0, 8.0, 5.0, 2.0, 6.0]
        ones = [total for one, total in zip(right, totals, strict=True) if one]
        zeros = [total for one, total in zip(right, totals, strict=True) if not one]
        share = len(ones) / len(right)
        wanted = (statistics.mean(ones) - statistics.mean(zeros)) / statistics.pstdev(totals)
        assert same(correlation(list(map(float, right)), totals), wanted * sqrt(share * (1 - share)))

    def test_that_was_left_out_counts_nowhere(self) -> None:
        sheet = Sheet()
        for points in (1.0, 0.0, 1.0):
            sheet.add(("dropped", "kept"), (0.0, points), (0.0, 1.0))
        items = analyse(sheet).items
        assert (items["dropped"].attempts, items["dropped"].facility, items["kept"].attempts) == (0, None, 3)

    def test_rounding_makes_no_correlation(self) -> None:
        third = 1 / 3
        sheet = Sheet()
        for n in range(9):
            sheet.add(("a", "b"), (third * (n % 3), third), (1.0, 1.0))
        assert analyse(sheet).items["b"].discrimination is None
        assert analyse(sheet).items["a"].discrimination is None


class TestTails:
    @given(st.lists(st.integers(0, 20).map(lambda n: n / 20), max_size=60))
    def test_are_the_weakest_and_the_best_and_do_not_meet(self, shares: list[float]) -> None:
        lower, upper = tails(shares)
        assert len(lower) == len(upper) == min(len(shares) // 2, max(1, round(0.27 * len(shares) + 1e-9)))
        assert not {*lower} & {*upper}
        rest = {*range(len(shares))} - {*lower}
        assert all(shares[low] <= shares[other] for low in lower for other in rest)
        rest = {*range(len(shares))} - {*upper}
        assert all(shares[high] >= shares[other] for high in upper for other in rest)

    @pytest.mark.parametrize(("count", "size"), [(0, 0), (1, 0), (2, 1), (10, 3), (100, 27)])
    def test_are_27_percent(self, count: int, size: int) -> None:
        assert len(tails([n / 100 for n in range(count)])[0]) == size
