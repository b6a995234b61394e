"""What follows from the reviews of a word: when it is due, and how well it is known. FSRS-6, by the package `fsrs`."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

from fsrs import Card, Rating, Scheduler, State

DEFAULT_RETENTION = 0.9
DEFAULT_MAXIMUM_INTERVAL_DAYS = 365
DEFAULT_NEW_WORDS_PER_DAY = 20
# The longest gap of a school year is its summer, some twelve weeks: a word is mastered when it outlasts that. Statuses
# are kept with the progress: after a change of this, the job `rebuild_vocabulary_progress` brings them up to date.
MASTERED_STABILITY_DAYS = 90.0
# A word said to be known counts as mastered with as much again to spare, and so is asked for in half a year.
KNOWN_STABILITY_DAYS = 2 * MASTERED_STABILITY_DAYS
# What a client's clock may be ahead. What is further ahead is no time of a review.
FUTURE = timedelta(hours=24)
# A late review is folded in with all reviews of its word: nobody reviews a word daily for longer than three years.
MOST_REVIEWS = 1_000

KNOWN = "known"
RATINGS = {"again": Rating.Again, "hard": Rating.Hard, "good": Rating.Good, "easy": Rating.Easy}
PHASES = {"learning": State.Learning, "review": State.Review, "relearning": State.Relearning}
NAMES = {state: name for name, state in PHASES.items()}
# When a card is due that nobody has reviewed yet: what follows from its first review does not depend on it.
NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A review as the log has it. `rating` is `again`, `hard`, `good` or `easy`; times are in UTC; `source` is `known`
    for a word that the learner said to know. Reviews are in order by their times and, of equal ones, by their ids."""

    id: UUID
    rating: str
    review_time: datetime
    source: str
    desired_retention: float
    maximum_interval_days: int

    @property
    def place(self) -> tuple[datetime, UUID]:
        """Where it stands among the reviews of its word."""
        return self.review_time, self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What follows from the reviews of a word so far; `phase` is `new` without any, and else FSRS's state."""

    phase: str = "new"
    step: int | None = None
    stability_days: float | None = None
    difficulty: float | None = None
    due_time: datetime | None = None
    first_review_time: datetime | None = None
    last_review_time: datetime | None = None
    last_review_id: UUID | None = None
    review_count: int = 0
    lapse_count: int = 0
    known: bool = False
    learn_time: datetime | None = None

    @property
    def status(self) -> str:
        """`new`, `learning`, `reviewing` or `mastered`."""
        if self.phase != "review":
            return "new" if self.phase == "new" else "learning"
        return "mastered" if (self.stability_days or 0.0) >= MASTERED_STABILITY_DAYS else "reviewing"

    def precedes(self, review: Review) -> bool:
        """Whether the review comes after all that this follows from, so that it can be added without the others."""
        if self.last_review_time is None or self.last_review_id is None:
            return True
        return (self.last_review_time, self.last_review_id) < review.place


NOTHING = Memory()


def fold(reviews: Iterable[Any], memory: Memory = NOTHING) -> Memory:
    """What follows from the reviews (`Review`, or rows of the log), which are in order and come after all that `memory`
    follows from.

    Folding them at once or one by one, from any `memory` on the way, gives the same to the last bit.
    """
    card = _card(memory)
    first, learned, known = memory.first_review_time, memory.learn_time, memory.known
    count, lapses, review = memory.review_count, memory.lapse_count, None
    for review in reviews:
        rating, told_known = RATINGS[review.rating], review.source == KNOWN
        lapses += card.state is State.Review and rating is Rating.Again
        scheduler = scheduler_for(review.desired_retention, review.maximum_interval_days)
        card, _ = scheduler.review_card(card, rating, review.review_time)
        if told_known:
            _make_known(card, review)
        first, known = first or review.review_time, known if count else told_known
        if learned is None and card.state is State.Review and not told_known:
            learned = review.review_time
        count += 1
    if review is None:
        return memory
    return Memory(
        phase=NAMES[card.state],
        step=card.step,
        stability_days=card.stability,
        difficulty=card.difficulty,
        due_time=card.due,
        first_review_time=first,
        last_review_time=review.review_time,
        last_review_id=review.id,
        review_count=count,
        lapse_count=lapses,
        known=known,
        learn_time=learned,
    )


class Working(Card):
    """A card that nobody else has. The package copies each card before it changes it, which takes as long as half of
    all else that it does."""

    def __copy__(self) -> "Working":
        return self


def _card(memory: Memory) -> Card:
    # Without an id, or a time, the package makes one of the clock, and sleeps to make the id unique.
    return Working(
        card_id=0,
        state=PHASES.get(memory.phase, State.Learning),
        step=memory.step,
        stability=memory.stability_days,
        difficulty=memory.difficulty,
        due=memory.due_time or NEVER,
        last_review=memory.last_review_time,
    )


def _make_known(card: Card, review: Any) -> None:
    """As after an easy review, but learned, and at least as stable as what is known."""
    card.state, card.step = State.Review, None
    card.stability = max(card.stability or 0.0, KNOWN_STABILITY_DAYS)
    days = interval_days(card.stability, review.desired_retention, review.maximum_interval_days)
    card.due = review.review_time + timedelta(days=days)


@lru_cache(maxsize=256)
def scheduler_for(desired_retention: float, maximum_interval_days: int) -> Scheduler:
    """The scheduler of reviews with these settings. Without its random element: the same reviews give the same."""
    return Scheduler(
        desired_retention=desired_retention, maximum_interval=maximum_interval_days, enable_fuzzing=False
    )


def interval_days(stability_days: float, desired_retention: float, maximum_interval_days: int) -> int:
    """Whole days until the probability of remembering falls to the desired one, at least 1: FSRS-6's forgetting curve,
    R(t) = (1 + f·t/S) ** -w20, solved for t."""
    decay = -scheduler_for(desired_retention, maximum_interval_days).parameters[20]
    factor: float = 0.9 ** (1 / decay) - 1
    days: int = round(stability_days / factor * (desired_retention ** (1 / decay) - 1))
    return min(max(days, 1), maximum_interval_days)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a learner, or else the tenant, chose from a time on; None for what they left open."""

    effective_time: datetime
    desired_retention: float | None
    maximum_interval_days: int | None


def in_force(learners: Iterable[Change], tenants: Iterable[Change], at: datetime) -> tuple[float, int]:
    """The desired retention and the longest interval at a time, of the changes by the learner and by the tenant."""
    own, common = last_change(learners, at), last_change(tenants, at)
    retention = own.desired_retention or common.desired_retention or DEFAULT_RETENTION
    return retention, own.maximum_interval_days or DEFAULT_MAXIMUM_INTERVAL_DAYS


def last_change(changes: Iterable[Change], at: datetime) -> Change:
    """What is in force at a time, of the changes by one; nothing chosen before the first."""
    found = Change(effective_time=at, desired_retention=None, maximum_interval_days=None)
    past = [one for one in changes if one.effective_time <= at]
    return max(past, key=lambda one: one.effective_time, default=found)


def is_possible(review_time: datetime, receive_time: datetime) -> bool:
    """Whether a review that was told of at `receive_time` can have been done at `review_time`."""
    return review_time <= receive_time + FUTURE

