"""How progress moves, what a lesson asks of its learner, and which time counts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from uuid import UUID, uuid5

from kit.errors import InvalidArgument, wrong_state

IDLE_CAP = timedelta(seconds=60)
ABANDONED_AFTER = timedelta(minutes=30)
INTERACTIONS_PER_SECOND = 10
MOST_MEMBERS = 500
DAY = timedelta(days=1)
USUAL_DAYS, MOST_DAYS = 30, 366
# A view that brings nothing new is written down at most this often.
VIEW_PRECISION = timedelta(minutes=1)


class Status(StrEnum):
    """How far a learner has come in a lesson, in this order."""

    NOT_STARTED = "not_started"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"


ORDER = tuple(Status)
NOTHING = (Status.NOT_STARTED, 0)


def own_id(user_id: UUID, chosen: UUID) -> UUID:
    """The id of what a client has named: whatever ids clients choose, one user's are never another's."""
    return uuid5(user_id, str(chosen))


def advance(recorded: tuple[str, int], told: tuple[str, int]) -> tuple[Status, int]:
    """Status and percentage after a report of both; neither goes back.

    An empty status in the report is none told. A percentage above 0 means in progress at least, and completed means
    100 percent; 100 percent does not mean completed.
    """
    moved = Status.IN_PROGRESS if told[1] else Status.NOT_STARTED
    status = max(Status(recorded[0]), Status(told[0] or Status.NOT_STARTED), moved, key=ORDER.index)
    return status, 100 if status is Status.COMPLETED else max(recorded[1], told[1])


def override(recorded: tuple[str, int], status: str) -> tuple[Status, int]:
    """Status and percentage after a teacher has set the status, also back."""
    percent = {Status.NOT_STARTED: 0, Status.IN_PROGRESS: recorded[1], Status.COMPLETED: 100}
    return Status(status), percent[Status(status)]


def is_view_due(last_view: datetime | None, now: datetime) -> bool:
    """Whether a view at `now` is to be written down though it brings nothing new."""
    return last_view is None or now - last_view >= VIEW_PRECISION


def check_open(*, published: bool, enrolled: bool) -> None:
    """Raises WRONG_STATE unless the lesson is published and the learner enrolled in its course."""
    if not enrolled:
        raise wrong_state("The learner is not enrolled in the course of the lesson.", "not_enrolled")
    if not published:
        raise wrong_state("The lesson is not published.", "draft")


def check_prerequisites(missing: Sequence[UUID], status: str) -> None:
    """Raises WRONG_STATE, naming the lessons, while prerequisites are not completed.

    Who has completed the lesson stays free of prerequisites added since.
    """
    if missing and status != Status.COMPLETED:
        ids = ",".join(sorted(map(str, missing)))
        raise wrong_state("Complete the prerequisites of the lesson first.", "locked", prerequisite_ids=ids)


def check_member(*, enrolled: bool, recorded: bool) -> None:
    """Raises WRONG_STATE unless the learner takes the course of the lesson, or has progress in the lesson."""
    if not enrolled and not recorded:
        raise wrong_state("The learner is not enrolled in the course of the lesson.", "not_enrolled")


def check_size(members: int) -> None:
    """Raises WRONG_STATE when these are more members than a cohort may have."""
    if members > MOST_MEMBERS:
        raise wrong_state(f"A cohort has at most {MOST_MEMBERS} members.", "full")


def check_deleted(deleted_at: datetime | None) -> None:
    """Raises WRONG_STATE unless the cohort is deleted."""
    if deleted_at is None:
        raise wrong_state("The cohort is not deleted.", "undeleted")


def day_range(start_day: str, end_day: str, today: date) -> tuple[date, date]:
    """The range that a request asks for: 30 days up to today unless it says otherwise.

    Raises INVALID_FIELD when a day is none, or the range ends before it begins or is longer than `MOST_DAYS`.
    """
    end = _day("end_day", end_day) or today
    start = _day("start_day", start_day) or end - (USUAL_DAYS - 1) * DAY
    if start > end:
        raise InvalidArgument.fields([("end_day", "is before start_day")])
    if end - start >= MOST_DAYS * DAY:
        raise InvalidArgument.fields([("start_day", f"is not one of the {MOST_DAYS} days up to end_day")])
    return start, end


def _day(field: str, text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise InvalidArgument.fields([(field, "is no day of the calendar")]) from error


def percent_of(completed: int, lessons: int) -> int:
    """Whole percent, rounded down; 0 of no lessons."""
    return completed * 100 // lessons if lessons else 0


@dataclass(frozen=True, slots=True)
class Activity:
    """What a session has on its account: time the learner was active, when last heard of, interactions."""

    active: timedelta
    last_seen: datetime
    interactions: int

    def accrue(self, now: datetime, interactions: int = 0) -> "Activity":
        """The account after a sign of life at `now` with so many interactions since the one before.

        Of the time between two signs of life at most `IDLE_CAP` counts, and of the interactions at most
        `INTERACTIONS_PER_SECOND` for each second. Active time is never more than the time that has passed.
        """
        passed = max(now - self.last_seen, timedelta(0))
        believable = passed * INTERACTIONS_PER_SECOND // timedelta(seconds=1)
        return Activity(
            self.active + min(passed, IDLE_CAP),
            # Clocks of two processes differ a little: what was counted once is not counted again.
            max(now, self.last_seen),
            self.interactions + min(interactions, believable),
        )


Span = tuple[datetime, datetime]


def active_times(moments: Iterable[datetime]) -> list[Span]:
    """When a learner was active who gave signs of life at these moments, in order: after each of them until the next,
    and at most for `IDLE_CAP`. Together they are as long as `Activity` counts."""
    return joined((before, before + min(at - before, IDLE_CAP)) for before, at in pairwise(moments))


def joined(spans: Iterable[Span]) -> list[Span]:
    """The spans in order, as few as there can be: those that meet or overlap are one."""
    found: list[Span] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        elif begin < end:
            found.append((begin, end))
    return found


def state_at(state: str, last_seen: datetime, now: datetime) -> str:
    """The state of a session stored as `state`: open without a sign of life for long enough is abandoned."""
    return "abandoned" if state == "open" and now - last_seen > ABANDONED_AFTER else state


def check_running(state: str) -> None:
    """Raises WRONG_STATE unless the state is open."""
    if state != "open":
        raise wrong_state("The session is not open any more.", state)


def check_active(state: str) -> None:
    """Raises WRONG_STATE unless the enrolment's state is active."""
    if state != "active":
        raise wrong_state("The enrolment has ended already.", state)
