"""Pure grading: points for answers by the rules a question carries, exact until they are shown."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Context, Decimal
from fractions import Fraction

from services.assessment.arranging import Matching, Ordering
from services.assessment.marks import (
    NOTHING,
    ZERO,
    Answer,
    Credit,
    Filled,
    ItemGrade,
    Marks,
    Reason,
    Scoring,
    Selected,
    Typed,
    answer_of,
    check_unique,
    decimal,
    prepare,
)
from services.assessment.texts import TextKey, TextPolicy, normalise, number

HUNDRED = Decimal(100)
EXACTLY, PICKED = TextPolicy(), TextPolicy(case_sensitive=True)
# Points have few digits: so many of them add up exactly.
_EXACT = Context(prec=100)


@dataclass(frozen=True, slots=True)
class Choice:
    """One option of a multiple-choice question. `percent` is what picking it earns, None being an equal share."""

    id: str
    correct: bool
    percent: Decimal | None = None


@dataclass(frozen=True, slots=True)
class MultipleChoice:
    """A question answered by choosing one choice, or with `multiple` any number.

    Partial credit: points × (right selected / all right − wrong selected / all wrong), at least 0: the correction for
    guessing applied per choice. Selecting everything earns nothing, as blind guessing does on average. A single choice
    is the same rule without the deduction, there being nothing to deduct from. A choice with `percent` earns that
    instead. ValueError: points negative or not finite, choice ids repeated, no right choice.
    """

    id: str
    points: Decimal
    choices: tuple[Choice, ...]
    multiple: bool = False
    scoring: Scoring = Scoring.PARTIAL
    _marks: Marks = field(init=False, repr=False, compare=False)
    _picked: dict[str, Credit] = field(init=False, repr=False, compare=False)
    _missed: dict[str, Credit] = field(init=False, repr=False, compare=False)
    _grades: dict[str, ItemGrade] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_unique(self.id, [choice.id for choice in self.choices])
        if not any(choice.correct for choice in self.choices):
            raise ValueError(f"question {self.id!r} has no right choice")
        shares = {choice.id: self._share(choice) for choice in self.choices}
        marks = Marks(self.id, self.points, shares.values(), self.scoring)
        picked = {
            one.id: marks.credit(one.id, _choice_reason(one, shares[one.id]), shares[one.id]) for one in self.choices
        }
        missed = {one.id: marks.credit(one.id, Reason.MISSED_CHOICE) for one in self.choices if one.correct}
        grades = {"": marks.one(Reason.UNANSWERED)}
        prepare(self, _marks=marks, _picked=picked, _missed=missed, _grades=grades)
        if not self.multiple:
            self._grades.update({one.id: self._selected(frozenset({one.id})) for one in self.choices})

    def _share(self, choice: Choice) -> Fraction:
        if choice.percent is not None:
            return Fraction(choice.percent) / 100
        right = sum(one.correct for one in self.choices)
        if choice.correct:
            return Fraction(1, right if self.multiple else 1)
        return Fraction(-1, len(self.choices) - right) if self.multiple else NOTHING

    def grade(self, answer: Answer | None) -> ItemGrade:
        """What the answer earns; ValueError when the question cannot have it."""
        selected = frozenset[str]() if answer is None else answer_of(self.id, answer, Selected).choices
        if strangers := selected - self._picked.keys():
            raise ValueError(f"question {self.id!r} has no choices {sorted(strangers)}")
        if len(selected) > 1 and not self.multiple:
            raise ValueError(f"question {self.id!r} takes one choice, not {len(selected)}")
        if self.multiple and selected:
            return self._selected(selected)
        return self._grades[next(iter(selected), "")]

    def _selected(self, selected: frozenset[str]) -> ItemGrade:
        right = any(choice.correct and choice.id in selected for choice in self.choices)
        parts = []
        for choice in self.choices:
            if choice.id in selected:
                parts.append(self._picked[choice.id])
            elif choice.correct and (self.multiple or not right):
                parts.append(self._missed[choice.id])
        return self._marks.grade(parts)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A text that earns `percent` of the points; 0 is one known to be wrong."""

    text: str
    percent: Decimal = HUNDRED


class _Texts:
    """The accepted texts of a question or blank, with the credit for each: `part` is what the best is worth."""

    __slots__ = ("_credits", "_key", "_none", "_wrong")

    def __init__(
        self, marks: Marks, subject: str, accepted: Sequence[Accepted], policy: TextPolicy, part: Fraction
    ) -> None:
        self._key = TextKey([one.text for one in accepted], [one.percent for one in accepted], policy)
        self._none, self._wrong = (marks.credit(subject, one) for one in (Reason.UNANSWERED, Reason.NOT_ACCEPTED))
        self._credits = [
            [marks.credit(subject, _reason(one.percent, typos), part * Fraction(one.percent) / 100) for one in accepted]
            for typos in (False, True)
        ]

    def credit(self, typed: str) -> Credit:
        text = normalise(typed, self._key.policy)
        # What is left empty is never right, even where dropping accents leaves nothing of an accepted answer.
        if not text:
            return self._none
        found = self._key.find(text)
        return self._credits[found.typos][found.index] if found else self._wrong

    def found(self, typed: str) -> int | None:
        found = self._key.find(normalise(typed, self._key.policy))
        return found.index if found else None


@dataclass(frozen=True, slots=True)
class Blank:
    """A gap to fill: any of the `accepted` texts earns its part. `picked`: from options, so that no letter may differ.
    ValueError: nothing accepted."""

    id: str
    accepted: tuple[Accepted, ...]
    picked: bool = False

    def __post_init__(self) -> None:
        _check_accepted(self.id, self.accepted)


@dataclass(frozen=True, slots=True)
class FillBlank:
    """A question answered by filling its blanks, which are graded one by one and worth the same."""

    id: str
    points: Decimal
    blanks: tuple[Blank, ...]
    policy: TextPolicy = EXACTLY
    scoring: Scoring = Scoring.PARTIAL
    _marks: Marks = field(init=False, repr=False, compare=False)
    _texts: dict[str, _Texts] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_unique(self.id, [blank.id for blank in self.blanks])
        if not self.blanks:
            raise ValueError(f"question {self.id!r} has no blank")
        part = Fraction(1, len(self.blanks))
        percents = (one.percent for blank in self.blanks for one in blank.accepted)
        marks = Marks(self.id, self.points, (part, *(part * Fraction(one) / 100 for one in percents)), self.scoring)
        policies = {False: self.policy, True: PICKED}
        texts = {one.id: _Texts(marks, one.id, one.accepted, policies[one.picked], part) for one in self.blanks}
        prepare(self, _marks=marks, _texts=texts)

    def grade(self, answer: Answer | None) -> ItemGrade:
        """What the answer earns; ValueError when the question cannot have it."""
        typed: Mapping[str, str] = {} if answer is None else answer_of(self.id, answer, Filled).blanks
        if not typed.keys() <= self._texts.keys():
            raise ValueError(f"question {self.id!r} has other blanks than {sorted(typed)}")
        return self._marks.grade([texts.credit(typed.get(name, "")) for name, texts in self._texts.items()])

    def found(self, name: str, typed: str) -> int | None:
        """The place of the accepted text that was given for a blank."""
        return self._texts[name].found(typed)


@dataclass(frozen=True, slots=True)
class ShortAnswer:
    """A question answered by typing a few words: any of the `accepted` texts. ValueError: bad points, or nothing
    accepted."""

    id: str
    points: Decimal
    accepted: tuple[Accepted, ...]
    policy: TextPolicy = EXACTLY
    scoring: Scoring = Scoring.PARTIAL
    _marks: Marks = field(init=False, repr=False, compare=False)
    _texts: _Texts = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_accepted(self.id, self.accepted)
        marks = Marks(self.id, self.points, (Fraction(one.percent) / 100 for one in self.accepted), self.scoring)
        prepare(self, _marks=marks, _texts=_Texts(marks, self.id, self.accepted, self.policy, Fraction(1)))

    def grade(self, answer: Answer | None) -> ItemGrade:
        """What the answer earns; ValueError when the question cannot have it."""
        return self._marks.grade([self._texts.credit("" if answer is None else answer_of(self.id, answer, Typed).text)])

    def found(self, typed: str) -> int | None:
        """The place of the accepted text that was typed."""
        return self._texts.found(typed)


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers that earn `percent` of the points: those at most `tolerance` away from `value`."""

    value: Decimal
    tolerance: Decimal = ZERO
    percent: Decimal = HUNDRED

    def holds(self, answer: Decimal) -> bool:
        """Whether the number is one of them, exactly."""
        return _EXACT.subtract(self.value, self.tolerance) <= answer <= _EXACT.add(self.value, self.tolerance)


@dataclass(frozen=True, slots=True)
class Numeric:
    """A question answered by typing a number: of the ranges that hold it, the one that earns most counts. ValueError:
    bad points, a negative tolerance, or nothing accepted."""

    id: str
    points: Decimal
    accepted: tuple[Range, ...]
    scoring: Scoring = Scoring.PARTIAL
    _grades: list[ItemGrade] = field(init=False, repr=False, compare=False)
    _open: ItemGrade = field(init=False, repr=False, compare=False)
    _wrong: ItemGrade = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not any(one.percent > 0 for one in self.accepted):
            raise ValueError(f"{self.id!r} accepts no answer")
        if any(one.tolerance < 0 for one in self.accepted):
            raise ValueError(f"{self.id!r} has a tolerance below 0")
        shares = [Fraction(one.percent) / 100 for one in self.accepted]
        marks = Marks(self.id, self.points, shares, self.scoring)
        pairs = zip(self.accepted, shares, strict=True)
        grades = [marks.one(_reason(one.percent, typos=False), share) for one, share in pairs]
        prepare(self, _grades=grades, _open=marks.one(Reason.UNANSWERED), _wrong=marks.one(Reason.NOT_ACCEPTED))

    def grade(self, answer: Answer | None) -> ItemGrade:
        """What the answer earns; ValueError when the question cannot have it."""
        typed = "" if answer is None else answer_of(self.id, answer, Typed).text
        if not typed.strip():
            return self._open
        found = self.found(typed)
        return self._wrong if found is None else self._grades[found]

    def found(self, typed: str) -> int | None:
        """The place of the range that counts for what was typed."""
        answer = number(typed)
        holding = [n for n, one in enumerate(self.accepted) if answer is not None and one.holds(answer)]
        return max(holding, key=lambda n: self.accepted[n].percent, default=None)


@dataclass(frozen=True, slots=True)
class Grade:
    """The grade of an attempt: its items in the order of the questions, and their totals."""

    items: tuple[ItemGrade, ...]
    score: Decimal
    max_score: Decimal


@dataclass(frozen=True, slots=True)
class Settled:
    """A question with the same grade for everybody, whatever they answered: all points for this reason."""

    id: str
    points: Decimal
    reason: Reason

    def grade(self, answer: Answer | None) -> ItemGrade:
        """All points."""
        return Marks(self.id, self.points, (), Scoring.PARTIAL).one(self.reason, Fraction(1))


Question = Settled | MultipleChoice | FillBlank | ShortAnswer | Numeric | Matching | Ordering


def grade(questions: Sequence[Question], answers: Mapping[str, Answer]) -> Grade:
    """Grades `answers`, keyed by question id, against every one of `questions`; a missing answer earns nothing.

    Points are summed as fractions, so three thirds of a point are a whole one; each figure of the result is such a sum
    as a decimal of 28 digits. ValueError: a repeated question id, an answer to a question that is not asked, of
    another type, or naming a part the question lacks, and more than one choice where one is asked for.
    """
    ids = [question.id for question in questions]
    check_unique("attempt", ids)
    if strangers := answers.keys() - set(ids):
        raise ValueError(f"answers to questions that are not asked: {sorted(strangers)}")
    items = [question.grade(answers.get(question.id)) for question in questions]
    return Grade(tuple(items), _total(items), _sum(item.max_score for item in items))


def presented(score: Decimal) -> Decimal:
    """A score as people see it: two decimals, half away from zero (2.345 is 2.35). Never computed with further."""
    return score.quantize(Decimal("0.01"), ROUND_HALF_UP)


def _total(items: Sequence[ItemGrade]) -> Decimal:
    whole = _sum(item.score for item in items if item.exact is None)
    parts = [item.exact for item in items if item.exact is not None]
    return decimal(sum(parts, Fraction(whole))) if parts else whole


def _sum(points: Iterable[Decimal]) -> Decimal:
    total = ZERO
    for one in points:
        total = _EXACT.add(total, one)
    return total


def _choice_reason(choice: Choice, share: Fraction) -> Reason:
    if choice.correct:
        return Reason.RIGHT_CHOICE
    return Reason.PARTLY_RIGHT_CHOICE if share > 0 else Reason.WRONG_CHOICE


def _reason(percent: Decimal, typos: bool) -> Reason:
    if percent >= HUNDRED:
        return Reason.ACCEPTED_WITH_TYPOS if typos else Reason.ACCEPTED
    return Reason.PARTLY_ACCEPTED if percent > 0 else Reason.NOT_ACCEPTED


def _check_accepted(owner: str, accepted: Sequence[Accepted]) -> None:
    if not any(one.text.strip() and one.percent > 0 for one in accepted):
        raise ValueError(f"{owner!r} accepts no answer")
