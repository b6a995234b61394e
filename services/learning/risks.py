"""Which learners of a class may need help, by rules that their teachers can look up."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

# Days at the end of the range without an active one.
INACTIVE_DAYS = 7
# Percent points of completion below the median of the class.
BEHIND_PERCENT = 20
# Reviews of the last days are compared with those of the days before, when there are enough of either to tell.
RECENT_DAYS, EARLIER_DAYS = 14, 28
FORGETTING_PERCENT = 10
FEWEST_REVIEWS = 20

INACTIVE, BEHIND, FORGETTING = "inactive", "behind", "forgetting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviews:
    """Reviews of some days, and those of them in which the word was not remembered."""

    count: int = 0
    forgotten: int = 0

    @property
    def remembered(self) -> int:
        return self.count - self.forgotten


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is known of a learner: whether there was an active day of late, completion, and reviews."""

    recently_active: bool
    completed_percent: int
    recent: Reviews = Reviews()
    earlier: Reviews = Reviews()


def risks_of(learner: Standing, median_percent: float) -> list[str]:
    """Why the learner may need help, in a class with this median of completion."""
    found = [] if learner.recently_active else [INACTIVE]
    if median_percent - learner.completed_percent >= BEHIND_PERCENT:
        found.append(BEHIND)
    if _is_forgetting(learner.recent, learner.earlier):
        found.append(FORGETTING)
    return found


def _is_forgetting(recent: Reviews, earlier: Reviews) -> bool:
    if min(recent.count, earlier.count) < FEWEST_REVIEWS:
        return False
    # In whole numbers: a share that is ten points lower is so exactly.
    lost = earlier.remembered * recent.count - recent.remembered * earlier.count
    return 100 * lost >= FORGETTING_PERCENT * recent.count * earlier.count


def median_of(values: Sequence[float]) -> float:
    """The median; 0 of nothing."""
    return float(median(values)) if values else 0.0
