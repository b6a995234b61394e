"""Pure grading: points for answers by the rules a question carries, exact until they are shown."""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from enum import StrEnum
from fractions import Fraction

_ACCENTS = re.compile("[\u0300-\u036f]")
_APOSTROPHES = str.maketrans("‘’ʼ", "'''")


class Scoring(StrEnum):
    """How a question with several right choices rewards a selection that is partly right."""

    ALL_OR_NOTHING = "all_or_nothing"
    PARTIAL = "partial"


class Reason(StrEnum):
    """What points were given, taken or withheld for."""

    RIGHT_CHOICE = "right_choice"
    WRONG_CHOICE = "wrong_choice"
    MISSED_CHOICE = "missed_choice"
    RIGHT_SELECTION = "right_selection"
    WRONG_SELECTION = "wrong_selection"
    NOT_BELOW_ZERO = "not_below_zero"
    ACCEPTED = "accepted"
    NOT_ACCEPTED = "not_accepted"
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True)
class Choice:
    """One option of a multiple-choice question."""

    id: str
    correct: bool


@dataclass(frozen=True, slots=True)
class MultipleChoice:
    """A question answered by choosing: exactly one right choice, or with `multiple` at least one.

    ValueError: points negative or not finite, choice ids repeated, or another number of right choices.
    """

    id: str
    points: Decimal
    choices: tuple[Choice, ...]
    multiple: bool = False
    scoring: Scoring = Scoring.PARTIAL

    def __post_init__(self) -> None:
        _check_points(self.id, self.points)
        _check_unique(self.id, [choice.id for choice in self.choices])
        right = sum(choice.correct for choice in self.choices)
        if right == 0 or (right > 1 and not self.multiple):
            raise ValueError(f"question {self.id!r} has {right} right choices")


@dataclass(frozen=True, slots=True)
class TextPolicy:
    """Which differences between a typed answer and an accepted one count. Accents do unless a teacher says otherwise:
    in Vietnamese 'ma', 'má' and 'mà' are three words."""

    case_sensitive: bool = False
    accent_sensitive: bool = True


@dataclass(frozen=True, slots=True)
class Blank:
    """A gap to fill: any of the `accepted` texts earns its points. ValueError: bad points, or nothing accepted.

    Points may be a fraction, so that three blanks can share one point and be worth exactly that together.
    """

    id: str
    points: Decimal | Fraction
    accepted: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_points(self.id, self.points)
        if not any(text.strip() for text in self.accepted):
            raise ValueError(f"blank {self.id!r} accepts no answer")


@dataclass(frozen=True, slots=True)
class FillBlank:
    """A question answered by typing into its blanks, which are graded one by one; worth the sum of their points."""

    id: str
    blanks: tuple[Blank, ...]
    policy: TextPolicy = TextPolicy()

    def __post_init__(self) -> None:
        _check_unique(self.id, [blank.id for blank in self.blanks])
        if not self.blanks:
            raise ValueError(f"question {self.id!r} has no blank")


Question = MultipleChoice | FillBlank


@dataclass(frozen=True, slots=True)
class Selected:
    """The ids of the choices a learner selected; none is no answer."""

    choices: frozenset[str]


@dataclass(frozen=True, slots=True)
class Filled:
    """What a learner typed, by blank id; a blank left out is empty."""

    blanks: Mapping[str, str]


Answer = Selected | Filled


@dataclass(frozen=True, slots=True)
class Award:
    """Points for one choice or blank (`subject`), or for the whole question (its own id); negative where taken away."""

    subject: str
    reason: Reason
    points: Decimal


@dataclass(frozen=True, slots=True)
class ItemGrade:
    """The grade of one question: 0 <= score <= max_score, and the awards that make it up."""

    question_id: str
    awards: tuple[Award, ...]
    score: Decimal
    max_score: Decimal


@dataclass(frozen=True, slots=True)
class Grade:
    """The grade of an attempt: its items in the order of the questions, and their totals."""

    items: tuple[ItemGrade, ...]
    score: Decimal
    max_score: Decimal


_Credit = tuple[str, Reason, Fraction]


def grade(questions: Sequence[Question], answers: Mapping[str, Answer]) -> Grade:
    """Grades `answers`, keyed by question id, against every one of `questions`; a missing answer earns nothing.

    Points are summed as fractions, so three thirds of a point are a whole one; each figure of the result is such a sum
    as a decimal of 28 digits. ValueError: a repeated question id, an answer to a question that is not asked, of the
    other type, or naming a choice or blank the question lacks, and more than one choice where one is asked for.
    """
    ids = [question.id for question in questions]
    _check_unique("attempt", ids)
    if strangers := answers.keys() - set(ids):
        raise ValueError(f"answers to questions that are not asked: {sorted(strangers)}")
    earned = [_credits(question, answers.get(question.id)) for question in questions]
    items = [_item(question, given) for question, given in zip(questions, earned, strict=True)]
    return Grade(
        tuple(items),
        _decimal(sum((_total(given) for given in earned), Fraction(0))),
        _decimal(sum((_max_points(question) for question in questions), Fraction(0))),
    )


def grade_item(question: Question, answer: Answer | None) -> ItemGrade:
    """Grades one question, None being no answer; ValueError as for `grade`."""
    return _item(question, _credits(question, answer))


def presented(score: Decimal) -> Decimal:
    """A score as people see it: two decimals, half away from zero (2.345 is 2.35). Never computed with further."""
    return score.quantize(Decimal("0.01"), ROUND_HALF_UP)


def normalise(text: str, policy: TextPolicy) -> str:
    """The form in which a typed answer is compared with the accepted ones.

    NFC, white space (no-break spaces too) trimmed and collapsed to single spaces, typographic apostrophes made plain as
    phones type them unasked; full case folding unless case counts. Where accents do not count, the combining marks
    U+0300 to U+036F go and đ becomes d, which Unicode does not decompose.
    """
    plain = unicodedata.normalize("NFD", " ".join(text.split()).translate(_APOSTROPHES))
    if not policy.case_sensitive:
        plain = plain.casefold()
    if not policy.accent_sensitive:
        plain = _ACCENTS.sub("", unicodedata.normalize("NFD", plain)).replace("đ", "d").replace("Đ", "D")
    return unicodedata.normalize("NFC", plain)


def _credits(question: Question, answer: Answer | None) -> list[_Credit]:
    match question, answer:
        case MultipleChoice(), Selected() | None:
            return _selection_credits(question, frozenset() if answer is None else answer.choices)
        case FillBlank(), Filled() | None:
            return list(_blank_credits(question, {} if answer is None else answer.blanks))
    raise ValueError(f"question {question.id!r} is not answered by {type(answer).__name__}")


def _selection_credits(question: MultipleChoice, selected: frozenset[str]) -> list[_Credit]:
    if strangers := selected - {choice.id for choice in question.choices}:
        raise ValueError(f"question {question.id!r} has no choices {sorted(strangers)}")
    if not question.multiple and len(selected) > 1:
        raise ValueError(f"question {question.id!r} takes one choice, not {len(selected)}")
    if not selected:
        return [(question.id, Reason.UNANSWERED, Fraction(0))]
    if question.multiple and question.scoring is Scoring.ALL_OR_NOTHING:
        return [_whole_credit(question, selected)]
    return _choice_credits(question, selected)


def _whole_credit(question: MultipleChoice, selected: frozenset[str]) -> _Credit:
    if selected == {choice.id for choice in question.choices if choice.correct}:
        return question.id, Reason.RIGHT_SELECTION, Fraction(question.points)
    return question.id, Reason.WRONG_SELECTION, Fraction(0)


def _choice_credits(question: MultipleChoice, selected: frozenset[str]) -> list[_Credit]:
    """Partial credit: points × (right selected / all right − wrong selected / all wrong), at least 0.

    The correction for guessing applied per choice: selecting everything earns nothing, as blind guessing does on
    average. A single choice is the same rule without the deduction, there being nothing to deduct from.
    """
    right = sum(choice.correct for choice in question.choices)
    wrong = len(question.choices) - right
    earned: list[_Credit] = []
    for choice in question.choices:
        if choice.id not in selected:
            if choice.correct:
                earned.append((choice.id, Reason.MISSED_CHOICE, Fraction(0)))
        elif choice.correct:
            earned.append((choice.id, Reason.RIGHT_CHOICE, Fraction(question.points) / right))
        else:
            deduction = Fraction(question.points) / wrong if question.multiple else Fraction(0)
            earned.append((choice.id, Reason.WRONG_CHOICE, -deduction))
    if (balance := _total(earned)) < 0:
        earned.append((question.id, Reason.NOT_BELOW_ZERO, -balance))
    return earned


def _blank_credits(question: FillBlank, typed: Mapping[str, str]) -> Iterator[_Credit]:
    if strangers := typed.keys() - {blank.id for blank in question.blanks}:
        raise ValueError(f"question {question.id!r} has no blanks {sorted(strangers)}")
    for blank in question.blanks:
        text = normalise(typed.get(blank.id, ""), question.policy)
        # A blank left empty is never right, even where dropping accents leaves nothing of an accepted answer.
        if not text:
            yield blank.id, Reason.UNANSWERED, Fraction(0)
        elif text in {normalise(accepted, question.policy) for accepted in blank.accepted}:
            yield blank.id, Reason.ACCEPTED, Fraction(blank.points)
        else:
            yield blank.id, Reason.NOT_ACCEPTED, Fraction(0)


def _item(question: Question, given: Sequence[_Credit]) -> ItemGrade:
    awards = tuple(Award(subject, reason, _decimal(points)) for subject, reason, points in given)
    return ItemGrade(question.id, awards, _decimal(_total(given)), _decimal(_max_points(question)))


def _total(given: Sequence[_Credit]) -> Fraction:
    return sum((points for _, _, points in given), Fraction(0))


def _max_points(question: Question) -> Fraction:
    if isinstance(question, MultipleChoice):
        return Fraction(question.points)
    return sum((Fraction(blank.points) for blank in question.blanks), Fraction(0))


def _decimal(value: Fraction) -> Decimal:
    # A context of its own: a caller's precision must not change a grade.
    return Context(prec=28).divide(Decimal(value.numerator), Decimal(value.denominator))


def _check_points(owner: str, points: Decimal | Fraction) -> None:
    if (isinstance(points, Decimal) and not points.is_finite()) or points < 0:
        raise ValueError(f"points of {owner!r} must be 0 or more, not {points}")


def _check_unique(owner: str, ids: Sequence[str]) -> None:
    if len(set(ids)) < len(ids):
        raise ValueError(f"{owner!r} repeats an id: {ids}")
