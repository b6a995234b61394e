"""How progress moves and which time counts, as tables and as properties of every sequence of reports and heartbeats."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kit.errors import FailedPrecondition
from services.learning import rules
from services.learning.rules import ABANDONED_AFTER, IDLE_CAP, INTERACTIONS_PER_SECOND, ORDER, Activity, Status
from storyloom.type.v1.errors_pb2 import ErrorReason

NEW, BEGUN, DONE = Status
BEGINNING = datetime(2026, 11, 22, 8, tzinfo=UTC)
LESSON, OTHER_LESSON = UUID(int=1), UUID(int=2)

told_statuses = st.sampled_from(["", *Status])
percents = st.integers(0, 100)
reports = st.tuples(told_statuses, percents)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


class TestAdvance:
    @pytest.mark.parametrize(
        ("recorded", "told", "wanted"),
        [
            ((NEW, 0), ("", 0), (NEW, 0)),
            ((NEW, 0), (NEW, 0), (NEW, 0)),
            ((NEW, 0), (BEGUN, 0), (BEGUN, 0)),
            ((NEW, 0), ("", 1), (BEGUN, 1)),
            ((NEW, 0), (NEW, 30), (BEGUN, 30)),
            ((NEW, 0), ("", 100), (BEGUN, 100)),
            ((NEW, 0), (DONE, 0), (DONE, 100)),
            ((BEGUN, 40), ("", 30), (BEGUN, 40)),
            ((BEGUN, 40), ("", 41), (BEGUN, 41)),
            ((BEGUN, 40), (NEW, 0), (BEGUN, 40)),
            ((BEGUN, 40), (DONE, 50), (DONE, 100)),
            ((DONE, 100), (BEGUN, 10), (DONE, 100)),
            ((DONE, 100), (NEW, 0), (DONE, 100)),
        ],
    )
    def test_moves_forward_only(
        self, recorded: tuple[str, int], told: tuple[str, int], wanted: tuple[str, int]
    ) -> None:
        assert rules.advance(recorded, told) == wanted

    @given(st.lists(reports, max_size=8))
    def test_never_goes_back_and_repeating_a_report_changes_nothing(self, told: list[tuple[str, int]]) -> None:
        current: tuple[str, int] = (NEW, 0)
        for report in told:
            after = rules.advance(current, report)
            assert ORDER.index(Status(after[0])) >= ORDER.index(Status(current[0]))
            assert after[1] >= current[1]
            assert rules.advance(after, report) == after
            current = after

    @given(st.permutations([("", 20), (BEGUN, 0), ("", 70), (DONE, 0), (NEW, 0)]), st.integers(0, 5))
    def test_the_order_of_reports_does_not_matter(self, told: list[tuple[str, int]], count: int) -> None:
        def fold(some: list[tuple[str, int]]) -> tuple[str, int]:
            current: tuple[str, int] = (NEW, 0)
            for one in some:
                current = rules.advance(current, one)
            return current

        assert fold(told[:count]) == fold(sorted(told[:count]))


class TestOverride:
    @pytest.mark.parametrize(
        ("recorded", "status", "set_to"),
        [
            ((NEW, 0), DONE, (DONE, 100)),
            ((BEGUN, 40), DONE, (DONE, 100)),
            ((DONE, 100), BEGUN, (BEGUN, 100)),
            ((BEGUN, 40), BEGUN, (BEGUN, 40)),
            ((DONE, 100), NEW, (NEW, 0)),
        ],
    )
    def test_sets_the_status_also_back(
        self, recorded: tuple[Status, int], status: str, set_to: tuple[Status, int]
    ) -> None:
        assert rules.override(recorded, status) == set_to

    @given(recorded=reports, report=reports)
    def test_a_report_adds_the_same_to_what_is_there_as_to_what_it_was_made_for(
        self, recorded: tuple[str, int], report: tuple[str, int]
    ) -> None:
        """So that writing what it says by itself loses nothing, and takes back nothing that was set since."""
        before = rules.advance(rules.NOTHING, recorded)
        alone = rules.advance(rules.NOTHING, report)
        assert rules.advance(before, alone) == rules.advance(before, report)


class TestViewIsDue:
    @pytest.mark.parametrize(
        ("last_view", "wanted"),
        [
            (None, True),
            (BEGINNING, False),
            (BEGINNING - seconds(59.9), False),
            (BEGINNING - seconds(60), True),
            (BEGINNING + seconds(5), False),
        ],
    )
    def test_at_most_once_a_minute(self, last_view: datetime | None, wanted: bool) -> None:
        assert rules.is_view_due(last_view, BEGINNING) is wanted


class TestChecks:
    @pytest.mark.parametrize(
        ("published", "enrolled", "state"),
        [(False, True, "draft"), (True, False, "not_enrolled"), (False, False, "not_enrolled")],
    )
    def test_a_lesson_is_open_when_published_to_who_is_enrolled(
        self, published: bool, enrolled: bool, state: str
    ) -> None:
        rules.check_open(published=True, enrolled=True)
        with pytest.raises(FailedPrecondition) as refusal:
            rules.check_open(published=published, enrolled=enrolled)
        assert refusal.value.metadata["state"] == state

    @pytest.mark.parametrize(
        ("missing", "status", "refused"),
        [
            ([], NEW, False),
            ([LESSON], NEW, True),
            ([LESSON], BEGUN, True),
            ([LESSON], DONE, False),
            ([OTHER_LESSON, LESSON], NEW, True),
        ],
    )
    def test_prerequisites_bind_until_the_lesson_is_completed(
        self, missing: list[UUID], status: str, refused: bool
    ) -> None:
        if not refused:
            rules.check_prerequisites(missing, status)
            return
        with pytest.raises(FailedPrecondition) as refusal:
            rules.check_prerequisites(missing, status)
        assert refusal.value.reason == ErrorReason.WRONG_STATE
        assert refusal.value.metadata["prerequisite_ids"] == ",".join(sorted(map(str, missing)))

    @pytest.mark.parametrize("state", ["ended", "abandoned"])
    def test_only_an_open_session_goes_on(self, state: str) -> None:
        rules.check_running("open")
        with pytest.raises(FailedPrecondition):
            rules.check_running(state)

    def test_only_an_active_enrolment_ends(self) -> None:
        rules.check_active("active")
        with pytest.raises(FailedPrecondition):
            rules.check_active("withdrawn")


@pytest.mark.parametrize(
    ("completed", "lessons", "percent"), [(0, 0, 0), (0, 3, 0), (1, 3, 33), (2, 3, 66), (199, 200, 99), (3, 3, 100)]
)
def test_percent_rounds_down_so_that_100_means_all(completed: int, lessons: int, percent: int) -> None:
    assert rules.percent_of(completed, lessons) == percent


class TestStateAt:
    @pytest.mark.parametrize(
        ("stored", "silence", "wanted"),
        [
            ("open", seconds(0), "open"),
            ("open", ABANDONED_AFTER, "open"),
            ("open", ABANDONED_AFTER + seconds(1), "abandoned"),
            ("ended", ABANDONED_AFTER * 2, "ended"),
            ("abandoned", seconds(0), "abandoned"),
        ],
    )
    def test_silence_abandons_an_open_session(self, stored: str, silence: timedelta, wanted: str) -> None:
        assert rules.state_at(stored, BEGINNING, BEGINNING + silence) == wanted


class TestAccrue:
    @pytest.mark.parametrize(
        ("gap", "told", "active", "counted"),
        [
            (0, 5, 0, 0),
            (0.5, 9, 0.5, 5),
            (30, 12, 30, 12),
            (60, 1000, 60, 600),
            (61, 0, 60, 0),
            (1700, 1000, 60, 1000),
            (-3, 7, 0, 0),
        ],
    )
    def test_caps_idle_time_and_unbelievable_interactions(
        self, gap: float, told: int, active: float, counted: int
    ) -> None:
        account = Activity(timedelta(0), BEGINNING, 0).accrue(BEGINNING + seconds(gap), told)
        assert account == Activity(seconds(active), BEGINNING + seconds(max(gap, 0)), counted)


class SessionAccounting(RuleBasedStateMachine):
    """Signs of life at any distance, from clocks that may differ a little."""

    def __init__(self) -> None:
        super().__init__()
        self.account = Activity(timedelta(0), BEGINNING, 0)
        self.clock = BEGINNING
        self.latest = BEGINNING
        self.told = 0

    @rule(step=st.integers(-2_000_000, 200_000_000), interactions=st.integers(0, 1000))
    def heartbeat(self, step: int, interactions: int) -> None:
        before = self.account
        self.clock = max(BEGINNING, self.clock + timedelta(microseconds=step))
        self.latest = max(self.latest, self.clock)
        self.told += interactions
        self.account = before.accrue(self.clock, interactions)
        assert timedelta(0) <= self.account.active - before.active <= IDLE_CAP
        assert self.account.interactions >= before.interactions

    @invariant()
    def active_time_is_within_time_passed(self) -> None:
        assert self.account.active <= self.latest - BEGINNING

    @invariant()
    def last_seen_is_the_latest_sign_of_life(self) -> None:
        assert self.account.last_seen == self.latest

    @invariant()
    def interactions_are_within_what_was_told_and_what_is_possible(self) -> None:
        possible = (self.latest - BEGINNING) * INTERACTIONS_PER_SECOND // timedelta(seconds=1)
        assert self.account.interactions <= min(self.told, possible)


TestSessionAccounting = SessionAccounting.TestCase
TestSessionAccounting.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@given(st.lists(st.integers(0, 60_000_000), min_size=1, max_size=20))
def test_without_idle_gaps_all_time_counts(gaps: list[int]) -> None:
    account, clock = Activity(timedelta(0), BEGINNING, 0), BEGINNING
    for gap in gaps:
        clock += timedelta(microseconds=gap)
        account = account.accrue(clock)
    assume(clock > BEGINNING)
    assert account.active == clock - BEGINNING
