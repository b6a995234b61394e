"""What follows from events, as pure functions of sets of them."""

from datetime import timedelta
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.ids import new_id
from services.learning.offline import LessonEvent, Sign, advanced, corrected, held, skew, was_taken
from services.learning.rules import Status
from tests.learning.reviewing import START

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
STATUSES = st.sampled_from(("", *Status))
KINDS = st.sampled_from(("session_started", "session_heartbeat", "interacted", "session_ended"))
MOMENTS = st.integers(0, 400).map(lambda seconds: START + timedelta(seconds=seconds))


class TestSkew:
    @pytest.mark.parametrize(
        ("off", "found"),
        [
            (timedelta(0), timedelta(0)),
            (timedelta(seconds=29.9), timedelta(0)),
            (timedelta(seconds=-29.9), timedelta(0)),
            (timedelta(seconds=31), MINUTE),
            (-7 * HOUR + timedelta(seconds=12), -7 * HOUR),
            (31 * DAY, 31 * DAY),
            (31 * DAY + timedelta(seconds=1), None),
            (-40 * DAY, None),
        ],
    )
    def test_is_whole_minutes_or_not_believed(self, off: timedelta, found: timedelta | None) -> None:
        assert skew(START, START + off) == found

    @given(minutes=st.integers(-40_000, 40_000), way=st.floats(0, 29.9))
    def test_does_not_depend_on_the_way_of_the_request(self, minutes: int, way: float) -> None:
        sent = START - minutes * MINUTE
        assert skew(sent, START + timedelta(seconds=way)) == minutes * MINUTE

    def test_moves_events_of_the_past_and_none_into_the_future(self) -> None:
        assert corrected(START - HOUR, START, 2 * HOUR) == START + HOUR
        assert corrected(START + HOUR, START, 2 * HOUR) == START + 2 * HOUR


class TestWasTaken:
    BEGINS, ENDS = (START, START + 10 * DAY), (START + 3 * DAY, None)

    @pytest.mark.parametrize(
        ("at", "taken"),
        [
            (START - 2 * MINUTE, False),
            (START - MINUTE, True),
            (START + 3 * DAY + MINUTE, True),
            (START + 3 * DAY + 2 * MINUTE, False),
            (START + 11 * DAY, True),
        ],
    )
    def test_is_so_between_the_beginning_and_the_end_of_an_enrolment(self, at: object, taken: bool) -> None:
        assert was_taken(self.BEGINS, self.ENDS, at) is taken  # type: ignore[arg-type]

    def test_is_not_so_without_one(self) -> None:
        assert not was_taken((), (), START)


class TestAdvanced:
    @given(
        events=st.lists(st.builds(LessonEvent, MOMENTS, STATUSES, st.integers(0, 100)), min_size=1, max_size=12),
        reset=st.none() | MOMENTS,
        reopen=st.none() | MOMENTS,
        seed=st.integers(),
    )
    def test_is_the_same_in_any_order_and_twice(
        self, events: list[LessonEvent], reset: object, reopen: object, seed: int
    ) -> None:
        again = [*events, *events[:3]]
        Random(seed).shuffle(again)
        first, second = (advanced(those, reset, reopen) for those in (events, again))  # type: ignore[arg-type]
        assert first == second

    def test_counts_what_was_before_a_reset_as_a_view(self) -> None:
        found = advanced([LessonEvent(START, Status.COMPLETED, 100)], reset_time=START)
        assert (found.status, found.position_percent, found.start_time) == (Status.NOT_STARTED, 0, None)
        assert (found.last_view_time, found.complete_time) == (START, None)

    def test_leaves_the_learner_at_the_end_of_what_was_reopened(self) -> None:
        found = advanced([LessonEvent(START, Status.COMPLETED, 0)], reopen_time=START + MINUTE)
        assert (found.status, found.position_percent, found.start_time) == (Status.IN_PROGRESS, 100, START)
        assert found.complete_time is None


def sign(kind: str, seconds: int, interactions: int = 0) -> Sign:
    lesson = new_id() if kind == "session_started" else None
    at = START + timedelta(seconds=seconds)
    return Sign(id=new_id(), kind=kind, at=at, interactions=interactions, lesson_id=lesson)


class TestHeld:
    @given(
        told=st.lists(st.tuples(KINDS, st.integers(0, 200), st.integers(0, 900)), max_size=14), seed=st.integers()
    )
    def test_is_the_same_in_any_order(self, told: list[tuple[str, int, int]], seed: int) -> None:
        signs = [sign(*one) for one in told]
        shuffled = list(signs)
        Random(seed).shuffle(shuffled)
        found = held(signs)
        assert found == held(shuffled)
        if found:
            spent = [end - begin for begin, end in found.active_times]
            assert sum(spent, timedelta(0)) == found.active_duration
            assert all(before[1] < after[0] for before, after in pairwise(found.active_times))

    def test_is_nothing_without_a_start(self) -> None:
        assert held([sign("session_heartbeat", 3), sign("session_ended", 9)]) is None

    def test_counts_a_minute_of_a_long_silence_and_ten_interactions_a_second(self) -> None:
        found = held([sign("session_started", 0, 50), sign("interacted", 2, 50), sign("session_heartbeat", 500)])
        assert found
        assert (found.active_duration, found.interactions) == (timedelta(seconds=62), 20)
        assert found.active_times == [(START, START + timedelta(seconds=62))]
        assert (found.state, found.last_seen_time) == ("abandoned", START + timedelta(seconds=500))

    def test_takes_signs_of_one_moment_for_one(self) -> None:
        beats = [sign("session_heartbeat", 10, 30), sign("interacted", 10, 30)]
        found = held([sign("session_started", 0), *beats])
        assert found
        assert (found.active_duration, found.interactions) == (timedelta(seconds=10), 60)

    def test_ends_with_the_first_end_after_its_start(self) -> None:
        signs = [sign("session_ended", 0), sign("session_started", 5), sign("session_ended", 25)]
        found = held([*signs, sign("session_ended", 45), sign("session_heartbeat", 50)])
        assert found
        assert (found.state, found.active_duration) == ("ended", timedelta(seconds=20))
