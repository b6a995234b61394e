"""What grading rests on: answers, and the points of a question, whose shares are added exactly."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from enum import StrEnum
from fractions import Fraction
from math import lcm
from typing import Any, TypeVar

ZERO, NOTHING = Decimal(0), Fraction(0)
# Of a context of its own: a caller's precision must not change a grade.
_SHOWN = Context(prec=28)
# Of a question: many learners give the same answers, and who gives many others does not fill the memory.
MOST_GRADES_KEPT = 16
Kind = TypeVar("Kind")


class Scoring(StrEnum):
    """What an answer earns that is right in part: its parts, or nothing."""

    ALL_OR_NOTHING = "all_or_nothing"
    PARTIAL = "partial"


class Reason(StrEnum):
    """What points were given, taken or withheld for."""

    RIGHT_CHOICE = "right_choice"
    PARTLY_RIGHT_CHOICE = "partly_right_choice"
    WRONG_CHOICE = "wrong_choice"
    MISSED_CHOICE = "missed_choice"
    ACCEPTED = "accepted"
    ACCEPTED_WITH_TYPOS = "accepted_with_typos"
    PARTLY_ACCEPTED = "partly_accepted"
    NOT_ACCEPTED = "not_accepted"
    RIGHT_MATCH = "right_match"
    WRONG_MATCH = "wrong_match"
    RIGHT_ORDER = "right_order"
    WRONG_ORDER = "wrong_order"
    UNANSWERED = "unanswered"
    FULL_MARKS = "full_marks"
    DROPPED = "dropped"
    NOT_BELOW_ZERO = "not_below_zero"
    NOT_ABOVE_MAXIMUM = "not_above_maximum"
    ALL_OR_NOTHING = "all_or_nothing"


_RIGHT = frozenset(
    {Reason.RIGHT_CHOICE, Reason.ACCEPTED, Reason.ACCEPTED_WITH_TYPOS, Reason.RIGHT_MATCH, Reason.RIGHT_ORDER}
) | {Reason.FULL_MARKS}


@dataclass(frozen=True, slots=True)
class Selected:
    """The ids of the choices a learner selected; none is no answer."""

    choices: frozenset[str]


@dataclass(frozen=True, slots=True)
class Filled:
    """What a learner typed or picked, by blank id; a blank left out is empty."""

    blanks: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Typed:
    """What a learner typed as the answer; white space only is no answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Matched:
    """The target a learner gave each stem, by id; a stem left out has none."""

    targets: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Ordered:
    """The ids of all items in a learner's order; none is no answer."""

    items: tuple[str, ...]


Answer = Selected | Filled | Typed | Matched | Ordered


@dataclass(frozen=True, slots=True)
class Award:
    """Points for one part (`subject`: id of a choice, stem or item, number of a blank), or for the whole question (its
    own id); negative where taken away."""

    subject: str
    reason: Reason
    points: Decimal


@dataclass(frozen=True, slots=True)
class ItemGrade:
    """The grade of one question: 0 <= score <= max_score, and the awards that make it up. `correct`: right in every
    part. `exact` is the score where no decimal can hold it, as with thirds."""

    question_id: str
    awards: tuple[Award, ...]
    score: Decimal
    max_score: Decimal
    correct: bool
    exact: Fraction | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Credit:
    """An award made ready, its worth in whole units of the question, and whether it is for something right."""

    award: Award
    units: int
    right: bool


class Marks:
    """The points of one question as whole units, so that shares are added as integers."""

    __slots__ = ("_grades", "max_score", "points", "question_id", "scoring", "whole")

    def __init__(self, question_id: str, points: Decimal, shares: Iterable[Fraction], scoring: Scoring) -> None:
        if not points.is_finite() or points < 0:
            raise ValueError(f"points of {question_id!r} must be 0 or more, not {points}")
        self.question_id, self.max_score, self.points = question_id, points, Fraction(points)
        self.whole, self.scoring = lcm(*(share.denominator for share in shares)), scoring
        self._grades: dict[tuple[Credit, ...], ItemGrade] = {}

    def credit(self, subject: str, reason: Reason, share: Fraction = NOTHING) -> Credit:
        """The credit for a share of all points: 1 is all of them."""
        award = Award(subject, reason, decimal(share * self.points))
        return Credit(award, int(share * self.whole), reason in _RIGHT)

    def grade(self, parts: Iterable[Credit]) -> ItemGrade:
        """The sum of the parts, kept between nothing and all points, or nothing where it takes all parts."""
        known = tuple(parts)
        if (found := self._grades.get(known)) is None:
            if len(self._grades) >= MOST_GRADES_KEPT:
                self._grades.clear()
            found = self._grades[known] = self._graded(known)
        return found

    def _graded(self, parts: Sequence[Credit]) -> ItemGrade:
        awards, earned, correct = [], 0, True
        for one in parts:
            awards.append(one.award)
            earned += one.units
            correct = correct and one.right
        units, reason = self._kept(earned, correct=correct)
        if units != earned:
            balance = decimal(Fraction(units - earned, self.whole) * self.points)
            awards.append(Award(self.question_id, reason, balance))
        worth = Fraction(units, self.whole) * self.points
        score = decimal(worth)
        exact = None if Fraction(score) == worth else worth
        return ItemGrade(self.question_id, tuple(awards), score, self.max_score, correct, exact)

    def one(self, reason: Reason, share: Fraction = NOTHING) -> ItemGrade:
        """The grade of a question that is a single part."""
        return self.grade([self.credit(self.question_id, reason, share)])

    def _kept(self, units: int, *, correct: bool) -> tuple[int, Reason]:
        if units < 0:
            return 0, Reason.NOT_BELOW_ZERO
        if self.scoring is Scoring.ALL_OR_NOTHING:
            return (self.whole if correct else 0), Reason.ALL_OR_NOTHING
        return min(units, self.whole), Reason.NOT_ABOVE_MAXIMUM


def decimal(value: Fraction) -> Decimal:
    """A fraction as a decimal of 28 digits."""
    return _SHOWN.divide(Decimal(value.numerator), Decimal(value.denominator))


def answer_of(question_id: str, answer: Any, kind: type[Kind]) -> Kind:
    """The answer, which must be of this kind."""
    if isinstance(answer, kind):
        return answer
    raise ValueError(f"question {question_id!r} is not answered by {type(answer).__name__}")


def prepare(question: Any, **prepared: Any) -> None:
    """Sets what a question makes ready once, however often it is graded."""
    for name, value in prepared.items():
        object.__setattr__(question, name, value)


def check_unique(owner: str, ids: Sequence[str]) -> None:
    """Refuses ids that are there twice."""
    if len(set(ids)) < len(ids):
        raise ValueError(f"{owner!r} repeats an id: {ids}")
