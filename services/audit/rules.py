"""What becomes of an approval, and who may decide on it."""

from collections.abc import Collection, Mapping
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from kit.errors import AlreadyExists, PermissionDenied, wrong_state
from storyloom.type.v1.errors_pb2 import ErrorReason


class State(StrEnum):
    """What became of an approval. Only a pending one changes, but for one that was granted and is voided before use."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    VOIDED = "voided"
    EXPIRED = "expired"


class Verdict(StrEnum):
    """What one person decided."""

    APPROVE = "approve"
    REJECT = "reject"


def decide(
    verdict: Verdict,
    by: UUID,
    *,
    state: str,
    requester_id: UUID,
    authors: Collection[UUID],
    decisions: Mapping[UUID, str],
    quorum: int,
) -> State:
    """The state after this person's decision. `authors` are all who wrote some of what is approved, `decisions` the
    verdicts before this one, by user.

    One rejection rejects; `quorum` different people approve. Raises SELF_APPROVAL for the requester and the authors,
    whatever their rights, WRONG_STATE unless it is pending, RESOURCE_ALREADY_EXISTS for a second decision of the same
    person.
    """
    if by == requester_id or by in authors:
        raise PermissionDenied(
            "Who asked for an approval, or wrote some of what it is of, may not decide on it.",
            reason=ErrorReason.SELF_APPROVAL,
        )
    _require_pending(state)
    if by in decisions:
        raise AlreadyExists("You have decided on this approval already.")
    if verdict is Verdict.REJECT:
        return State.REJECTED
    in_favour = 1 + sum(one == Verdict.APPROVE for one in decisions.values())
    return State.APPROVED if in_favour >= quorum else State.PENDING


def withdraw(by: UUID, *, state: str, requester_id: UUID) -> State:
    """The state after the requester took the request back. Raises PERMISSION_REQUIRED for anybody else, WRONG_STATE
    unless it is pending."""
    if by != requester_id:
        raise PermissionDenied(
            "Only who asked for an approval may withdraw it.",
            metadata={"permission": "approval:withdraw", "resource": "approval"},
        )
    _require_pending(state)
    return State.WITHDRAWN


def state_at(state: str, due: datetime | None, now: datetime) -> State:
    """The state by then: one that is not decided on in time has expired, whether or not that was written down yet."""
    return State.EXPIRED if state == State.PENDING and due is not None and due <= now else State(state)


def after_edit(state: State, *, used: bool) -> State:
    """The state once the content says something else. `used` says that what was approved took effect."""
    open_states = (State.PENDING,) if used else (State.PENDING, State.APPROVED)
    return State.VOIDED if state in open_states else state


def _require_pending(state: str) -> None:
    if state != State.PENDING:
        raise wrong_state(f"The approval is {state}, not pending.", state)
