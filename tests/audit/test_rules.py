"""What becomes of an approval, as tables and as a property of every sequence of decisions."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import AlreadyExists, FailedPrecondition, PermissionDenied, StoryloomError
from services.audit.rules import State, Verdict, after_edit, decide, state_at, withdraw
from storyloom.type.v1.errors_pb2 import ErrorReason

REQUESTER, AUTHOR, COAUTHOR, ANN, BOB, COLIN = (UUID(int=number) for number in range(1, 7))
FINAL = [state for state in State if state is not State.PENDING]
APPROVE, REJECT = Verdict.APPROVE, Verdict.REJECT


def decided(
    verdict: Verdict,
    by: UUID,
    state: str = State.PENDING,
    decisions: dict[UUID, str] | None = None,
    quorum: int = 1,
) -> State:
    return decide(
        verdict,
        by,
        state=state,
        requester_id=REQUESTER,
        authors={AUTHOR, COAUTHOR},
        decisions=decisions or {},
        quorum=quorum,
    )


class TestDecide:
    @pytest.mark.parametrize(
        ("verdict", "decisions", "quorum", "state"),
        [
            (APPROVE, {}, 1, State.APPROVED),
            (APPROVE, {}, 2, State.PENDING),
            (APPROVE, {BOB: APPROVE}, 2, State.APPROVED),
            (APPROVE, {BOB: APPROVE}, 3, State.PENDING),
            (APPROVE, {BOB: APPROVE, COLIN: APPROVE}, 3, State.APPROVED),
            (REJECT, {}, 1, State.REJECTED),
            (REJECT, {}, 3, State.REJECTED),
            (REJECT, {BOB: APPROVE, COLIN: APPROVE}, 3, State.REJECTED),
        ],
    )
    def test_counts_different_people_and_takes_one_rejection(
        self, verdict: Verdict, decisions: dict[UUID, str], quorum: int, state: State
    ) -> None:
        assert decided(verdict, ANN, decisions=decisions, quorum=quorum) is state

    @pytest.mark.parametrize("verdict", Verdict)
    @pytest.mark.parametrize("state", State)
    @pytest.mark.parametrize("by", [REQUESTER, AUTHOR, COAUTHOR])
    def test_never_by_the_requester_or_an_author_in_any_state(self, verdict: Verdict, state: State, by: UUID) -> None:
        with pytest.raises(PermissionDenied) as refusal:
            decided(verdict, by, state)
        assert refusal.value.reason == ErrorReason.SELF_APPROVAL

    @pytest.mark.parametrize("verdict", Verdict)
    @pytest.mark.parametrize("state", FINAL)
    def test_only_while_it_is_pending(self, verdict: Verdict, state: State) -> None:
        with pytest.raises(FailedPrecondition) as refusal:
            decided(verdict, ANN, state)
        assert refusal.value.reason == ErrorReason.WRONG_STATE
        assert refusal.value.metadata == {"state": state}

    @pytest.mark.parametrize("verdict", Verdict)
    def test_once_for_each_person(self, verdict: Verdict) -> None:
        with pytest.raises(AlreadyExists):
            decided(verdict, ANN, decisions={ANN: APPROVE}, quorum=2)

    @given(
        votes=st.lists(
            st.tuples(st.sampled_from([REQUESTER, AUTHOR, COAUTHOR, ANN, BOB, COLIN]), st.sampled_from(Verdict)),
            max_size=12,
        ),
        quorum=st.integers(1, 4),
    )
    def test_is_approved_exactly_when_a_quorum_came_before_any_rejection(
        self, votes: list[tuple[UUID, Verdict]], quorum: int
    ) -> None:
        state, decisions = State.PENDING, dict[UUID, str]()
        for by, verdict in votes:
            try:
                state = decided(verdict, by, state, decisions, quorum)
            except StoryloomError:
                continue
            decisions[by] = verdict
        first: dict[UUID, Verdict] = {}
        for by, verdict in votes:
            if by not in (REQUESTER, AUTHOR, COAUTHOR):
                first.setdefault(by, verdict)
        verdicts = list(first.values())
        before = verdicts.index(REJECT) if REJECT in verdicts else len(verdicts)
        expected = State.APPROVED if before >= quorum else State.REJECTED if REJECT in verdicts else State.PENDING
        assert state is expected


class TestWithdraw:
    def test_by_the_requester_while_it_is_pending(self) -> None:
        assert withdraw(REQUESTER, state=State.PENDING, requester_id=REQUESTER) is State.WITHDRAWN

    @pytest.mark.parametrize("state", FINAL)
    def test_not_after_the_decision(self, state: State) -> None:
        with pytest.raises(FailedPrecondition):
            withdraw(REQUESTER, state=state, requester_id=REQUESTER)

    @pytest.mark.parametrize("state", State)
    def test_not_by_anybody_else(self, state: State) -> None:
        with pytest.raises(PermissionDenied):
            withdraw(ANN, state=state, requester_id=REQUESTER)


class TestStateAt:
    NOW = datetime(2026, 11, 22, tzinfo=UTC)

    @pytest.mark.parametrize(
        ("due", "state"),
        [
            (None, State.PENDING),
            (NOW + timedelta(microseconds=1), State.PENDING),
            (NOW, State.EXPIRED),
            (NOW - timedelta(days=1), State.EXPIRED),
        ],
    )
    def test_a_pending_one_expires_when_it_is_due(self, due: datetime | None, state: State) -> None:
        assert state_at(State.PENDING, due, self.NOW) is state

    @pytest.mark.parametrize("state", FINAL)
    def test_what_is_decided_stays_so(self, state: State) -> None:
        assert state_at(state, self.NOW - timedelta(days=1), self.NOW) is state


class TestAfterEdit:
    @pytest.mark.parametrize(
        ("state", "used", "after"),
        [
            (State.PENDING, False, State.VOIDED),
            (State.PENDING, True, State.VOIDED),
            (State.APPROVED, False, State.VOIDED),
            (State.APPROVED, True, State.APPROVED),
            *((state, used, state) for state in FINAL if state is not State.APPROVED for used in (True, False)),
        ],
    )
    def test_voids_what_is_open_or_granted_and_not_used(self, state: State, used: bool, after: State) -> None:
        assert after_edit(state, used=used) is after
