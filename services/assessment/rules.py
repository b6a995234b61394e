"""Who may take a quiz when, and what an attempt is worth: decisions without a database."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from hashlib import sha256
from typing import Any, TypeVar
from uuid import UUID

from kit.errors import FailedPrecondition, InvalidArgument
from kit.ids import new_id
from services.assessment import grading
from services.assessment.bodies import Body, Violation, given_to_grade, misfits, to_grade
from storyloom.type.v1.errors_pb2 import ErrorReason

Thing = TypeVar("Thing")

OPEN, GRADED, EXPIRED = "open", "graded", "expired"
DRAFT, PUBLISHED, ARCHIVED = "draft", "published", "archived"
MOVES = {"publish": (DRAFT, PUBLISHED), "archive": (PUBLISHED, ARCHIVED)}
MISSED = grading.Reason.MISSED_CHOICE.value
RIGHT = frozenset({grading.Reason.RIGHT_CHOICE, grading.Reason.ACCEPTED})


@dataclass(frozen=True, slots=True)
class Item:
    """A question of an attempt: the version it keeps, its points and the learner's answer (None: never given)."""

    question_id: UUID
    version_id: UUID
    version: int
    body: Body
    points: Decimal
    answer: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The grade of an attempt. `percent` is rounded to two decimals; `passed` was decided before.

    `detail` has for each item, in their order, `score`, `max_score`, `correct` and `awards`: lists of subject (id of a
    choice, number of a blank from 1, or id of the question), reason and points. Points are decimals as text.
    """

    score: Decimal
    max_score: Decimal
    percent: Decimal
    passed: bool
    detail: list[dict[str, Any]]


@dataclass(slots=True, kw_only=True)
class Taking:
    """An attempt with all that it takes to show, answer and grade it; `result` is there once it is over.

    Of the quiz, `used` is the number of attempts that the learner has made, `answering` whether another one is open.
    """

    id: UUID
    quiz_id: UUID
    lesson_id: UUID | None
    user_id: UUID
    number: int
    state: str = OPEN
    shuffled: bool
    deadline_time: datetime | None
    submit_time: datetime | None = None
    created_at: datetime
    updated_at: datetime
    revision: int = 1
    pass_mark: Decimal
    items: list[Item]
    result: Outcome | None = None
    status: str = PUBLISHED
    close_time: datetime | None = None
    attempts_allowed: int = 0
    used: int = 1
    answering: bool = False

    @property
    def etag(self) -> str:
        return str(self.revision)

    def state_at(self, at: datetime) -> str:
        """The state; past its deadline an attempt has expired, though nobody came by to write it down."""
        overdue = self.state == OPEN and self.deadline_time is not None and at >= self.deadline_time
        return EXPIRED if overdue else self.state

    def may_be_repeated(self, at: datetime) -> bool:
        """Whether the learner can still answer the same questions, in another attempt."""
        closed = self.status != PUBLISHED or (self.close_time is not None and at >= self.close_time)
        used_up = 0 < self.attempts_allowed <= self.used
        return self.answering or not (closed or used_up)

    def answer(self, answers: Mapping[UUID, list[str]]) -> None:
        """Takes over answers, by version id."""
        self.items = [replace(item, answer=answers.get(item.version_id, item.answer)) for item in self.items]

    def close(self, at: datetime) -> None:
        """Ends and grades it, as of its deadline when that has passed."""
        expired = self.state_at(at) == EXPIRED
        self.state, self.submit_time = (EXPIRED, self.deadline_time) if expired else (GRADED, at)
        self.result = graded(self.items, self.pass_mark)


def plain(value: Decimal) -> str:
    """The shortest text of a decimal, without exponent: `2.5`, `100`, `0`."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


# Quizzes


def wrong_state(message: str, state: str) -> FailedPrecondition:
    """The refusal for the state that something is in."""
    return FailedPrecondition(message, reason=ErrorReason.WRONG_STATE, metadata={"state": state})


def moved(action: str, status: str, question_count: int) -> str:
    """The status of a quiz after the action `publish` or `archive`."""
    needed, result = MOVES[action]
    if status != needed:
        raise wrong_state(f"The quiz is {status}; it must be {needed} to {action} it.", status)
    if not question_count:
        raise wrong_state("The quiz has no items; add some before it is published.", status)
    return result


def check_update(status: str, *, items_change: bool) -> None:
    """Refuses what may no longer change."""
    if status == ARCHIVED:
        raise wrong_state("The quiz is archived; it can no longer be changed.", status)
    if items_change and status != DRAFT:
        raise wrong_state("The quiz is published; its items can no longer be changed.", status)


def check_window(open_time: datetime | None, close_time: datetime | None) -> None:
    """Refuses a window that ends before it begins."""
    if open_time and close_time and open_time >= close_time:
        raise InvalidArgument.fields([("quiz.close_time", "must be later than open_time")])


# Taking a quiz


def check_start(quiz: Any, at: datetime) -> None:
    """Refuses an attempt at a quiz that is not in use, outside its window, or beyond the attempts allowed.

    `quiz` has the columns of the table, and as `used` the number of attempts that the user has made.
    """
    if quiz.status != PUBLISHED:
        raise wrong_state(f"The quiz is {quiz.status}; only a published one can be taken.", quiz.status)
    if quiz.open_time and at < quiz.open_time:
        raise not_allowed("The quiz has not opened yet.")
    if quiz.close_time and at >= quiz.close_time:
        raise not_allowed("The quiz has closed.")
    if quiz.attempts_allowed and quiz.used >= quiz.attempts_allowed:
        raise not_allowed(f"All {quiz.attempts_allowed} attempts at the quiz are used.")


def not_allowed(message: str) -> FailedPrecondition:
    """The refusal for the time, or the number of attempts."""
    return FailedPrecondition(message, reason=ErrorReason.ATTEMPT_NOT_ALLOWED)


def start(quiz: Any, items: Sequence[Item], user_id: UUID, at: datetime) -> Taking:
    """The user's next attempt at a quiz that `check_start` lets them take."""
    attempt_id = new_id()
    if quiz.shuffle:
        items = shuffled(attempt_id, items, key=lambda item: str(item.question_id))
    return Taking(
        id=attempt_id,
        quiz_id=quiz.id,
        lesson_id=quiz.lesson_id,
        user_id=user_id,
        number=quiz.used + 1,
        shuffled=quiz.shuffle,
        deadline_time=deadline(at, quiz.time_limit, quiz.close_time),
        created_at=at,
        updated_at=at,
        pass_mark=quiz.pass_mark,
        items=list(items),
    )


def deadline(start: datetime, time_limit: timedelta | None, close_time: datetime | None) -> datetime | None:
    """When an attempt is over: by its time limit, or before that by the quiz's closing."""
    ends = [end for end in (time_limit and start + time_limit, close_time) if end]
    return min(ends, default=None)


def shuffled(seed: UUID, things: Iterable[Thing], key: Callable[[Thing], str]) -> list[Thing]:
    """The things in an order that the seed decides, the same for ever. Keys must differ."""
    return sorted(things, key=lambda thing: sha256(seed.bytes + key(thing).encode()).digest())


# Answers


def answered(items: Sequence[Item], responses: Sequence[Any]) -> dict[UUID, list[str]]:
    """The answers in the responses, by version id; INVALID_ARGUMENT naming each that its question cannot have."""
    by_question = {item.question_id: item for item in items}
    wrong: list[Violation] = []
    answers: dict[UUID, list[str]] = {}
    for index, response in enumerate(responses):
        item = by_question.get(UUID(response.question_id))
        if item is None:
            wrong.append((f"responses[{index}].question_id", "is not a question of the attempt"))
        elif item.version_id in answers:
            wrong.append((f"responses[{index}].question_id", "is there twice"))
        else:
            answer = [str(UUID(one)) for one in response.choice_ids]
            wrong.extend((f"responses[{index}].{field}", text) for field, text in misfits(item.body, answer, response))
            answers[item.version_id] = answer or list(response.blanks)
    if wrong:
        raise InvalidArgument.fields(wrong)
    return answers


def graded(items: Sequence[Item], pass_mark: Decimal) -> Outcome:
    """Grades the answers of the items. `pass_mark` is in percent."""
    grade = grading.grade(
        [to_grade(item.body, str(item.question_id), item.points) for item in items],
        {str(item.question_id): given_to_grade(item.body, item.answer) for item in items if item.answer is not None},
    )
    percent = Fraction(grade.score) * 100 / Fraction(grade.max_score) if grade.max_score else Fraction(0)
    return Outcome(
        score=grade.score,
        max_score=grade.max_score,
        percent=grading.presented(Decimal(percent.numerator) / Decimal(percent.denominator)),
        passed=percent >= Fraction(pass_mark),
        detail=[_entry(one) for one in grade.items],
    )


def _entry(grade: grading.ItemGrade) -> dict[str, Any]:
    return {
        "score": plain(grade.score),
        "max_score": plain(grade.max_score),
        "correct": all(award.reason in RIGHT for award in grade.awards),
        "awards": [[award.subject, award.reason.value, plain(award.points)] for award in grade.awards],
    }
