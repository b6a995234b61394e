"""Which learners of a class may need help."""

import pytest

from services.learning.risks import BEHIND, FORGETTING, INACTIVE, Reviews, Standing, median_of, risks_of


def standing(
    *,
    recently_active: bool = True,
    percent: int = 50,
    recent: tuple[int, int] = (0, 0),
    earlier: tuple[int, int] = (0, 0),
) -> Standing:
    return Standing(
        recently_active=recently_active,
        completed_percent=percent,
        recent=Reviews(count=recent[0], forgotten=recent[1]),
        earlier=Reviews(count=earlier[0], forgotten=earlier[1]),
    )


class TestRisksOf:
    def test_who_does_as_the_others_do_is_at_none(self) -> None:
        assert risks_of(standing(recent=(40, 4), earlier=(80, 8)), 50.0) == []

    def test_who_does_nothing_is_inactive(self) -> None:
        assert risks_of(standing(recently_active=False), 50.0) == [INACTIVE]

    @pytest.mark.parametrize(("percent", "behind"), [(31, False), (30, True), (29, True)])
    def test_who_is_twenty_percent_below_the_median_is_behind(self, percent: int, behind: bool) -> None:
        assert risks_of(standing(percent=percent), 50.0) == [BEHIND] * behind

    def test_nobody_is_behind_while_the_class_has_hardly_begun(self) -> None:
        assert risks_of(standing(percent=0), 19.5) == []

    @pytest.mark.parametrize(
        ("recent", "earlier", "forgetting"),
        [
            # 80 percent after 90: ten points, exactly.
            ((20, 4), (20, 2), True),
            ((30, 6), (100, 10), True),
            ((100, 19), (100, 10), False),
            # One review too few to tell.
            ((19, 19), (100, 0), False),
            ((100, 100), (19, 0), False),
            # Better than before.
            ((50, 2), (50, 20), False),
        ],
    )
    def test_who_remembers_ten_points_less_is_forgetting(
        self, recent: tuple[int, int], earlier: tuple[int, int], forgetting: bool
    ) -> None:
        assert risks_of(standing(recent=recent, earlier=earlier), 0.0) == [FORGETTING] * forgetting

    def test_are_told_all(self) -> None:
        learner = standing(recently_active=False, percent=0, recent=(20, 20), earlier=(20, 0))
        assert risks_of(learner, 20.0) == [INACTIVE, BEHIND, FORGETTING]


class TestMedianOf:
    @pytest.mark.parametrize(("values", "found"), [([], 0.0), ([3], 3.0), ([1, 100, 3], 3.0), ([1, 2], 1.5)])
    def test_is_what_half_of_them_are_below(self, values: list[int], found: float) -> None:
        assert median_of(values) == found
