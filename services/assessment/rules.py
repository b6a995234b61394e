"""Who may take a quiz when, and what an attempt is worth: decisions without a database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from kit.errors import FailedPrecondition, InvalidArgument, wrong_state
from kit.ids import NIL
from services.assessment import grading
from services.assessment.answering import answer_in, given_to_grade, misfits
from services.assessment.bodies import Body, Violation
from services.assessment.marks import ItemGrade, Reason
from services.assessment.regrading import Change, regraded, said
from storyloom.type.v1.errors_pb2 import ErrorReason

OPEN, GRADED, EXPIRED = "open", "graded", "expired"
DRAFT, PUBLISHED, ARCHIVED = "draft", "published", "archived"
MOVES = {"publish": (DRAFT, PUBLISHED), "archive": (PUBLISHED, ARCHIVED)}
MISSED = Reason.MISSED_CHOICE.value
# After so much silence an attempt that has no deadline is over.
ABANDONED_AFTER = timedelta(days=30)
NEVER, ON_SUBMIT, AFTER_CLOSE, NO_ATTEMPTS_LEFT = "never", "on_submit", "after_close", "no_attempts_left"
# What a review policy speaks of, and when each is shown if it does not say.
REVIEW = {
    "score": ON_SUBMIT,
    "responses": ON_SUBMIT,
    "feedback": ON_SUBMIT,
    "correct_answers": NO_ATTEMPTS_LEFT,
    "explanations": NO_ATTEMPTS_LEFT,
}


class Item(NamedTuple):
    """A question of an attempt: the version it keeps, its points, the learner's answer (None: never given), and the
    regrade that counts for it."""

    question_id: UUID
    version_id: UUID
    version: int
    body: Body
    points: Decimal
    answer: Sequence[str] | None = None
    change: Change | None = None

    @property
    def said(self) -> Body:
        """What says what is correct, and what is told of answers."""
        return said(self.change, self.body)


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


@dataclass(frozen=True, slots=True)
class Standing:
    """What a review policy looks at: whether the attempt is `over`, whether the learner is `answering` another one,
    has `used_up` all attempts, and whether the quiz has `closed` for them, or for everybody."""

    over: bool = True
    answering: bool = False
    used_up: bool = False
    closed: bool = False
    closed_for_all: bool = False


@dataclass(slots=True, kw_only=True)
class Taking:
    """An attempt with all that it takes to show, answer and grade it; `result` is there once it is over.

    Of the quiz, `used` is the number of attempts that the learner has made, `answering` whether another one is open.
    `own_close_time` and `own_attempts_allowed` are with what the learner was given; `last_close_time` is when the quiz
    closes for the last of all learners.
    """

    id: UUID
    quiz_id: UUID
    lesson_id: UUID | None
    user_id: UUID
    number: int
    state: str = OPEN
    shuffled: bool
    time_limit: timedelta | None = None
    deadline_time: datetime | None
    submit_time: datetime | None = None
    created_at: datetime
    updated_at: datetime
    revision: int = 1
    pass_mark: Decimal
    items: list[Item]
    result: Outcome | None = None
    status: str = PUBLISHED
    review_policy: Mapping[str, str] = field(default_factory=dict)
    own_close_time: datetime | None = None
    last_close_time: datetime | None = None
    own_attempts_allowed: int = 0
    used: int = 1
    answering: bool = False
    regrade_count: int = 0

    @property
    def etag(self) -> str:
        return str(self.revision)

    def state_at(self, at: datetime) -> str:
        """The state; past its end an attempt has expired, though nobody came by to write it down."""
        return state_at(self, at)

    def answer(self, answers: Mapping[UUID, list[str]]) -> None:
        """Takes over answers, by version id."""
        self.items = [
            item._replace(answer=answers[item.version_id]) if item.version_id in answers else item
            for item in self.items
        ]

    def close(self, at: datetime) -> None:
        """Ends and grades it, as of its end when that has passed."""
        expired = self.state_at(at) == EXPIRED
        self.state, self.submit_time = (EXPIRED, end_of(self)) if expired else (GRADED, at)
        self.result = graded(self.items, self.pass_mark)


@lru_cache(maxsize=1000)
def plain(value: Decimal) -> str:
    """The shortest text of a decimal, without exponent: `2.5`, `100`, `0`."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


# Quizzes


def moved(what: str, action: str, status: str) -> str:
    """The status of a quiz or an exercise after the action `publish` or `archive`."""
    needed, result = MOVES[action]
    if status != needed:
        raise wrong_state(f"The {what} is {status}; it must be {needed} to {action} it.", status)
    return result


def check_asks(question_count: int) -> None:
    """Refuses to publish a quiz that asks nothing."""
    if not question_count:
        raise wrong_state("The quiz has no items; add some before it is published.", DRAFT)


def check_update(status: str) -> None:
    """Refuses to change what may no longer change."""
    if status == ARCHIVED:
        raise wrong_state("The quiz is archived; it can no longer be changed.", status)


def check_items_change(status: str) -> None:
    """Refuses other items once learners may have attempts."""
    if status != DRAFT:
        raise wrong_state("The quiz is published; its items can no longer be changed.", status)


def check_not_archived(status: str) -> None:
    """Refuses to give learners more of a quiz that nobody takes any more."""
    if status == ARCHIVED:
        raise wrong_state("The quiz is archived; nobody takes it any more.", status)


def check_window(open_time: datetime | None, close_time: datetime | None) -> None:
    """Refuses a window that ends before it begins."""
    if open_time and close_time and open_time >= close_time:
        raise InvalidArgument.fields([("quiz.close_time", "must be later than open_time")])


# Taking a quiz


def check_start(quiz: Any, at: datetime) -> None:
    """Refuses an attempt at a quiz that is not in use, outside its window, or beyond the attempts allowed.

    `quiz` has the columns of the table, as `used` the number of attempts that the user has made, and as
    `own_close_time` and `own_attempts_allowed` what holds for the user.
    """
    if quiz.status != PUBLISHED:
        raise wrong_state(f"The quiz is {quiz.status}; only a published one can be taken.", quiz.status)
    if quiz.open_time and at < quiz.open_time:
        raise not_allowed("The quiz has not opened yet.")
    if quiz.own_close_time and at >= quiz.own_close_time:
        raise not_allowed("The quiz has closed.")
    if quiz.own_attempts_allowed and quiz.used >= quiz.own_attempts_allowed:
        raise not_allowed(f"All {quiz.own_attempts_allowed} attempts at the quiz are used.")


def not_allowed(message: str) -> FailedPrecondition:
    """The refusal for the time, or the number of attempts."""
    return FailedPrecondition(message, reason=ErrorReason.ATTEMPT_NOT_ALLOWED)


def start(attempt_id: UUID, quiz: Any, items: Sequence[Item], user_id: UUID, at: datetime) -> Taking:
    """The user's next attempt at a quiz that `check_start` lets them take."""
    return Taking(
        id=attempt_id,
        quiz_id=quiz.id,
        lesson_id=quiz.lesson_id,
        user_id=user_id,
        number=quiz.used + 1,
        shuffled=quiz.shuffle,
        time_limit=quiz.time_limit,
        deadline_time=deadline(at, quiz.time_limit, quiz.extra_time, quiz.own_close_time),
        created_at=at,
        updated_at=at,
        pass_mark=quiz.pass_mark,
        items=list(items),
    )


def preview(seed: UUID, quiz: Any, items: Sequence[Item], at: datetime) -> Taking:
    """What would be a learner's first attempt at a published quiz, whose columns these are; it is nobody's."""
    return Taking(
        id=seed,
        quiz_id=quiz.id,
        lesson_id=quiz.lesson_id,
        user_id=NIL,
        number=1,
        shuffled=quiz.shuffle,
        deadline_time=None,
        created_at=at,
        updated_at=at,
        pass_mark=quiz.pass_mark,
        items=list(items),
        review_policy=quiz.review_policy,
        own_attempts_allowed=quiz.attempts_allowed,
    )


def deadline(
    start: datetime, time_limit: timedelta | None, extra_time: timedelta | None, close_time: datetime | None
) -> datetime | None:
    """When an attempt is over: by its time limit and what is added to it, or before that by the quiz's closing."""
    limited = start + time_limit + (extra_time or timedelta(0)) if time_limit else None
    return min((end for end in (limited, close_time) if end), default=None)


def end_of(attempt: Any) -> datetime:
    """When an open attempt is over if nothing more comes: at its deadline, or after the silence that ends it."""
    end: datetime = attempt.deadline_time or attempt.updated_at + ABANDONED_AFTER
    return end


def state_at(attempt: Any, at: datetime) -> str:
    """The state of an attempt with the columns of the table; past its end it has expired."""
    state: str = attempt.state
    return EXPIRED if state == OPEN and at >= end_of(attempt) else state


# What learners see of it


def standing(attempt: Any, at: datetime) -> Standing:
    """Of a `Taking`, or a row with its fields."""
    closed = attempt.status != PUBLISHED
    return Standing(
        over=attempt.state != OPEN,
        answering=attempt.answering,
        used_up=0 < attempt.own_attempts_allowed <= attempt.used,
        closed=closed or (attempt.own_close_time is not None and at >= attempt.own_close_time),
        closed_for_all=closed or (attempt.last_close_time is not None and at >= attempt.last_close_time),
    )


def shown(policy: Mapping[str, str], standing: Standing) -> frozenset[str]:
    """What of `REVIEW` the learner may see of an attempt by its quiz's policy. The only place that decides it."""
    if not standing.over:
        return frozenset({"responses"})
    reached = {
        NEVER: False,
        ON_SUBMIT: True,
        AFTER_CLOSE: standing.closed_for_all and not standing.answering,
        NO_ATTEMPTS_LEFT: (standing.closed or standing.used_up) and not standing.answering,
    }
    return frozenset(name for name, default in REVIEW.items() if reached[policy.get(name, default)])


def hides_score(policy: Mapping[str, str]) -> bool:
    """Whether the policy keeps the score back when an attempt is submitted, from whatever else would tell of it."""
    return policy.get("score", REVIEW["score"]) != ON_SUBMIT


# Answers


def answered(items: Sequence[Item], responses: Sequence[Any]) -> dict[UUID, list[str]]:
    """The answers in the responses, by version id; INVALID_ARGUMENT naming each that its question cannot have."""
    by_question = {str(item.question_id): item for item in items}
    wrong: list[Violation] = []
    answers: dict[UUID, list[str]] = {}
    for index, response in enumerate(responses):
        item = by_question.get(response.question_id.lower())
        if item is None:
            wrong.append((f"responses[{index}].question_id", "is not a question of the attempt"))
        elif item.version_id in answers:
            wrong.append((f"responses[{index}].question_id", "is there twice"))
        else:
            misfit = [(f"responses[{index}].{field}", text) for field, text in misfits(item.body, response)]
            wrong.extend(misfit)
            answers[item.version_id] = [] if misfit else answer_in(item.body, response)
    if wrong:
        raise InvalidArgument.fields(wrong)
    return answers


def graded(items: Sequence[Item], pass_mark: Decimal) -> Outcome:
    """Grades the answers of the items. `pass_mark` is in percent."""
    grade = grading.grade(
        [regraded(item.change, item.version_id, item.body, str(item.question_id), item.points) for item in items],
        {str(item.question_id): given_to_grade(item.said, item.answer) for item in items if item.answer is not None},
    )
    percent = Fraction(grade.score) * 100 / Fraction(grade.max_score) if grade.max_score else Fraction(0)
    return Outcome(
        score=grade.score,
        max_score=grade.max_score,
        percent=grading.presented(Decimal(percent.numerator) / Decimal(percent.denominator)),
        passed=percent >= Fraction(pass_mark),
        detail=[_entry(one) for one in grade.items],
    )


def _entry(grade: ItemGrade) -> dict[str, Any]:
    return {
        "score": plain(grade.score),
        "max_score": plain(grade.max_score),
        "correct": grade.correct,
        "awards": [[award.subject, award.reason.value, plain(award.points)] for award in grade.awards],
    }
