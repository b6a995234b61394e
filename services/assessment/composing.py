"""What a quiz is made of, and which questions an attempt at it asks in which order."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from typing import TypeVar
from uuid import UUID

from kit.errors import InvalidArgument, wrong_state
from services.assessment.bodies import Violation

Thing = TypeVar("Thing")

# Of an attempt, drawn by it, and in a quiz with its lists.
MOST_QUESTIONS, MOST_DRAWS, MOST_LISTED = 200, 20, 1000


@dataclass(frozen=True, slots=True)
class Pick:
    """A question that an attempt may ask: the version it would keep, and its points."""

    question_id: UUID
    version_id: UUID
    version: int
    points: Decimal
    exercise_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a quiz: `count` of these questions, of which a question that is always asked is the only one."""

    count: int
    picks: list[Pick]


@dataclass(frozen=True, slots=True)
class Composed:
    """An item of a quiz as it is written: a question, or what each attempt draws, which is `count` of the questions
    listed or, without a list, of those of the bank that have all tags and the type."""

    points: Decimal
    question_ids: tuple[UUID, ...] = ()
    count: int = 1
    tags: tuple[str, ...] = ()
    type: str = ""
    drawn: bool = False


def check_items(items: Sequence[Composed]) -> None:
    """Refuses items that no attempt could have."""
    wrong: list[Violation] = []
    ids = [one for item in items for one in item.question_ids]
    # Validation compares the ids of questions as they are written, and a UUID can be written in two ways.
    if len(set(ids)) < len(ids):
        wrong.append(("quiz.items", "has a question twice"))
    if len(ids) > MOST_LISTED:
        wrong.append(("quiz.items", f"must name {MOST_LISTED} questions at most, those of lists included"))
    if sum(item.count for item in items) > MOST_QUESTIONS:
        wrong.append(("quiz.items", f"must have {MOST_QUESTIONS} questions at most in an attempt"))
    if sum(item.drawn for item in items) > MOST_DRAWS:
        wrong.append(("quiz.items", f"must have {MOST_DRAWS} draws at most"))
    for index, item in enumerate(items):
        if item.drawn and item.question_ids and (item.tags or item.type):
            wrong.append((f"quiz.items[{index}].draw", "must have either question_ids or tags and type"))
        if item.drawn and 0 < len(item.question_ids) < item.count:
            wrong.append((f"quiz.items[{index}].draw.question_ids", f"must have at least {item.count} items"))
    if wrong:
        raise InvalidArgument.fields(wrong)


def total(items: Iterable[Composed]) -> tuple[int, Decimal]:
    """How many questions an attempt has, and what they are worth together."""
    counted = [(item.count, item.points * item.count) for item in items]
    return sum(count for count, _ in counted), sum((points for _, points in counted), Decimal(0))


def asked(seed: UUID, slots: Sequence[Slot], *, shuffle: bool) -> list[Pick]:
    """What the attempt of this id asks, in its order: of each slot as many questions as it counts, each question once.

    Each slot takes the first of its questions in the order that the seed decides; where slots want the same ones, those
    before give way as far as they can (augmenting paths, H. W. Kuhn 1955), so that it depends on the bank alone, and
    never on the seed, whether there are enough.
    """
    orders = [shuffled(seed, slot.picks, key=lambda pick: str(pick.question_id)) for slot in slots]
    taken: dict[UUID, int] = {}
    for number, slot in enumerate(slots):
        for _ in range(slot.count):
            if not _take(number, orders, taken, {number}):
                raise wrong_state("The bank has too few questions for the quiz.", "too_few_questions")
    picks = [
        pick for number, order in enumerate(orders) for pick in order if taken.get(pick.question_id) == number
    ]
    groups = _by_exercise(picks)
    order = shuffled(seed, groups, key=str) if shuffle else groups
    return [pick for group in order for pick in groups[group]]


def _by_exercise(picks: Iterable[Pick]) -> dict[UUID, list[Pick]]:
    """Questions about one exercise together, where the first of them stands; any other question by itself."""
    groups: dict[UUID, list[Pick]] = {}
    for pick in picks:
        groups.setdefault(pick.exercise_id or pick.question_id, []).append(pick)
    return groups


def _take(number: int, orders: Sequence[Sequence[Pick]], taken: dict[UUID, int], tried: set[int]) -> bool:
    """Gives the slot of this number one more question, if need be one of another slot that can take another."""
    for pick in orders[number]:
        if pick.question_id not in taken:
            taken[pick.question_id] = number
            return True
    for pick in orders[number]:
        owner = taken[pick.question_id]
        if owner not in tried:
            tried.add(owner)
            if _take(owner, orders, taken, tried):
                taken[pick.question_id] = number
                return True
    return False


def shuffled(seed: UUID, things: Iterable[Thing], key: Callable[[Thing], str]) -> list[Thing]:
    """The things in an order that the seed decides, the same for ever. Keys must differ."""
    return sorted(things, key=lambda thing: sha256(seed.bytes + key(thing).encode()).digest())
