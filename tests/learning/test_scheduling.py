"""What follows from reviews, without a database."""

from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

import pytest
from fsrs import Card, Rating, Scheduler, State
from hypothesis import given
from hypothesis import strategies as st

from services.learning.scheduling import (
    KNOWN_STABILITY_DAYS,
    MASTERED_STABILITY_DAYS,
    NOTHING,
    Change,
    Memory,
    Review,
    fold,
    in_force,
    interval_days,
    is_possible,
)
from tests.learning.reviewing import RATINGS, START

RETENTIONS = st.sampled_from([0.7, 0.8, 0.85, 0.9, 0.95, 0.97])


def review(
    rating: str = "good",
    at: datetime = START,
    *,
    source: str = "online",
    retention: float = 0.9,
    longest: int = 365,
    number: int = 1,
) -> Review:
    return Review(
        id=UUID(int=number),
        rating=rating,
        review_time=at,
        source=source,
        desired_retention=retention,
        maximum_interval_days=longest,
    )


@st.composite
def reviews(draw: st.DrawFn, *, sources: tuple[str, ...] = ("online", "known")) -> list[Review]:
    steps = st.one_of(st.integers(0, 3600), st.integers(0, 86_400 * 400))
    at, made = START, []
    for number in range(draw(st.integers(0, 25))):
        at += timedelta(seconds=draw(steps), microseconds=draw(st.integers(0, 999_999)))
        source = draw(st.sampled_from(sources))
        rating = draw(st.sampled_from(RATINGS))
        made.append(review(rating, at, source=source, retention=draw(RETENTIONS), number=number))
    return made


class TestFold:
    @given(history=reviews(), seed=st.integers(0, 2**32))
    def test_gives_the_same_however_it_is_cut(self, history: list[Review], seed: int) -> None:
        cut = Random(seed).randint(0, len(history))
        assert fold(history[cut:], fold(history[:cut])) == fold(history)

    @given(history=reviews(sources=("online",)))
    def test_is_what_the_package_says(self, history: list[Review]) -> None:
        card = Card(card_id=1, due=START)
        for one in history:
            scheduler = Scheduler(
                desired_retention=one.desired_retention, maximum_interval=365, enable_fuzzing=False
            )
            card, _ = scheduler.review_card(card, Rating[one.rating.title()], one.review_time)
        found = fold(history)
        assert (found.stability_days, found.difficulty, found.step) == (
            card.stability, card.difficulty, card.step if history else None,
        )  # fmt: skip
        assert found.due_time == (card.due if history else None)
        assert found.last_review_time == card.last_review

    @given(history=reviews())
    def test_counts(self, history: list[Review]) -> None:
        found = fold(history)
        assert found.review_count == len(history)
        assert found.lapse_count <= sum(one.rating == "again" for one in history)
        assert found.first_review_time == (history[0].review_time if history else None)
        assert found.known == (bool(history) and history[0].source == "known")

    def test_counts_as_a_lapse_only_what_had_been_learned(self) -> None:
        hard = [review("again", START + timedelta(minutes=at), number=at) for at in range(3)]
        assert fold(hard).lapse_count == 0
        learned = fold([review("easy")])
        assert fold([review("again", START + timedelta(days=9), number=2)], learned).lapse_count == 1

    def test_does_not_wait_for_the_clock(self) -> None:
        began = datetime.now(UTC)
        fold(review("good", START + timedelta(days=at), number=at) for at in range(1_000))
        assert datetime.now(UTC) - began < timedelta(seconds=0.9)

    @given(history=reviews(), later=st.integers(1, 10**6))
    def test_knows_whether_a_review_comes_after_all(self, history: list[Review], later: int) -> None:
        found = fold(history)
        last = history[-1].review_time if history else START
        assert found.precedes(review(at=last + timedelta(seconds=later)))
        if history:
            assert not found.precedes(history[-1])
            assert not found.precedes(review(at=last - timedelta(microseconds=1), number=99))


class TestStatus:
    @pytest.mark.parametrize(
        ("memory", "status"),
        [
            (NOTHING, "new"),
            (Memory(phase="learning", stability_days=2.0), "learning"),
            (Memory(phase="relearning", stability_days=400.0), "learning"),
            (Memory(phase="review", stability_days=MASTERED_STABILITY_DAYS - 0.001), "reviewing"),
            (Memory(phase="review", stability_days=MASTERED_STABILITY_DAYS), "mastered"),
        ],
    )
    def test_follows_from_phase_and_stability(self, memory: Memory, status: str) -> None:
        assert memory.status == status

    def test_of_a_word_reviewed_when_due_comes_to_mastered(self) -> None:
        memory, statuses = NOTHING, []
        at = START
        while memory.status != "mastered":
            memory = fold([review("good", at, number=memory.review_count + 1)], memory)
            statuses.append(memory.status)
            assert memory.due_time is not None
            at = memory.due_time
        assert statuses == ["learning", "reviewing", "reviewing", "reviewing", "mastered"]
        forgotten = fold([review("again", at, number=99)], memory)
        assert forgotten.status == "learning"


class TestKnown:
    def test_is_mastered_and_due_in_half_a_year(self) -> None:
        memory = fold([review("easy", source="known")])
        assert (memory.status, memory.stability_days, memory.known) == ("mastered", KNOWN_STABILITY_DAYS, True)
        assert memory.due_time == START + timedelta(days=180)

    def test_takes_nothing_away(self) -> None:
        stable = Memory(
            phase="review", stability_days=500.0, difficulty=3.0, review_count=9, last_review_time=START,
            first_review_time=START, due_time=START, last_review_id=UUID(int=0),
        )  # fmt: skip
        memory = fold([review("easy", START + timedelta(days=90), source="known")], stable)
        assert memory.stability_days is not None
        assert memory.stability_days > 500.0
        assert not memory.known

    def test_can_turn_out_wrong(self) -> None:
        memory = fold([review("easy", source="known"), review("again", START + timedelta(days=1), number=2)])
        assert memory.status == "learning"
        assert memory.lapse_count == 1


class TestIntervals:
    @given(history=reviews(sources=("online",)).filter(bool))
    def test_are_those_of_the_package(self, history: list[Review]) -> None:
        found, last = fold(history), history[-1]
        if found.phase == State.Review.name.lower() and found.stability_days and found.due_time:
            days = interval_days(found.stability_days, last.desired_retention, last.maximum_interval_days)
            assert found.due_time == last.review_time + timedelta(days=days)

    @pytest.mark.parametrize(("retention", "days"), [(0.9, 30), (0.97, 7), (0.7, 279)])
    def test_follow_the_desired_retention(self, retention: float, days: int) -> None:
        assert interval_days(30.0, retention, 3650) == days

    def test_have_their_limits(self) -> None:
        assert interval_days(0.01, 0.97, 365) == 1
        assert interval_days(10_000.0, 0.9, 365) == 365


def change(day: int, retention: float | None, longest: int | None = None) -> Change:
    at = START + timedelta(days=day)
    return Change(effective_time=at, desired_retention=retention, maximum_interval_days=longest)


class TestInForce:
    @pytest.mark.parametrize(
        ("day", "wanted"),
        [(0, (0.9, 365)), (1, (0.8, 365)), (2, (0.95, 100)), (3, (0.8, 50)), (4, (0.85, 50)), (400, (0.85, 50))],
    )
    def test_is_what_the_learner_chose_and_else_what_the_tenant_did(
        self, day: int, wanted: tuple[float, int]
    ) -> None:
        own = [change(3, None, 50), change(2, 0.95, 100)]
        common = [change(1, 0.8), change(4, 0.85)]
        assert in_force(own, common, START + timedelta(days=day)) == wanted

    def test_begins_at_its_time(self) -> None:
        assert in_force([change(1, 0.8)], [], START + timedelta(days=1, microseconds=-1)) == (0.9, 365)


class TestPossibleTimes:
    def test_are_at_most_a_day_ahead(self) -> None:
        assert is_possible(START + timedelta(hours=24), START)
        assert not is_possible(START + timedelta(hours=24, microseconds=1), START)
