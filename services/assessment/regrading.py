"""How regrades change the grading of questions: which one counts for a version, and what it does to an outcome."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from services.assessment import grading
from services.assessment.answering import prepared
from services.assessment.bodies import FILL_BLANK, MATCHING, MULTIPLE_CHOICE, ORDERING, Body
from services.assessment.marks import Reason

FULL_MARKS, DROP, KEY, ORIGINAL = "full_marks", "drop", "key", "original"
APPLYING, APPLIED = "applying", "applied"


@dataclass(frozen=True, slots=True)
class Change:
    """A regrade: the question is graded so in attempts that have it in `version` or an earlier one.

    `number` is its place among the regrades of the quiz; of a KEY, `key_id` is the version whose correct answers it is
    about, and `key` what that says.
    """

    number: int
    question_id: UUID
    kind: str
    version: int
    key_id: UUID | None = None
    key: Body | None = None


@dataclass(slots=True)
class Tally:
    """What a regrade does, counted."""

    attempts: int = 0
    unfitting: int = 0
    changed: int = 0
    raised: int = 0
    lowered: int = 0
    newly_passed: int = 0
    newly_failed: int = 0

    def count(self, before: Any, after: Any) -> None:
        """Counts a result that changes from one outcome to another."""
        self.changed += 1
        self.raised += after.percent > before.percent
        self.lowered += after.percent < before.percent
        self.newly_passed += after.passed and not before.passed
        self.newly_failed += before.passed and not after.passed


def shape(body: Body) -> Any:
    """What of a question decides whether an answer to it can be graded by another version's key: what there is to
    answer with. Free texts and numbers fit any key."""
    kind = body["type"]
    if kind == MULTIPLE_CHOICE:
        return body["multiple"], _ids(body["choices"])
    if kind == FILL_BLANK:
        return [set(blank["options"]) for blank in body["blanks"]]
    if kind == MATCHING:
        return [stem["id"] for stem in body["stems"]], _ids(body["targets"])
    return _ids(body["items"]) if kind == ORDERING else None


def _ids(parts: Iterable[Mapping[str, Any]]) -> set[str]:
    return {part["id"] for part in parts}


def fits(body: Body, key: Body) -> bool:
    """Whether what answers the one can be graded by the key of the other."""
    return bool(body["type"] == key["type"] and shape(body) == shape(key))


def in_force(changes: Iterable[Change], question_id: UUID, version: int, body: Body) -> Change | None:
    """The regrade that counts for this version of the question: the last one that is about it and fits."""
    found = [
        one
        for one in changes
        if one.question_id == question_id and version <= one.version and (one.key is None or fits(body, one.key))
    ]
    return max(found, key=lambda one: one.number, default=None)


def regraded(change: Change | None, version_id: UUID, body: Body, name: str, points: Decimal) -> grading.Question:
    """The question of this version as grading takes it, under this name, with the regrade that counts for it."""
    kind = change.kind if change else ORIGINAL
    if kind == FULL_MARKS:
        return grading.Settled(name, points, Reason.FULL_MARKS)
    if kind == DROP:
        return grading.Settled(name, Decimal(0), Reason.DROPPED)
    key_id = change.key_id if change and change.key_id else version_id
    return prepared(key_id, said(change, body), name, points)


def said(change: Change | None, body: Body) -> Body:
    """The body that says what is correct, and what is told of answers."""
    return change.key if change and change.key is not None else body
