"""The condition language of policies and built-in rules: one tree, evaluated here and compiled to SQL beside it."""

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

OPERATORS = ("eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "contains")
# What a comparison says when it is read from its right side. `within`, `lacks` and `present` exist only so.
MIRRORED = {"eq": "eq", "ne": "ne", "gt": "lt", "gte": "lte", "lt": "gt", "lte": "gte"}
MANY = (frozenset, set, tuple, list)
LEFT, RIGHT, EITHER = "left", "right", ""
_OTHER = {LEFT: RIGHT, RIGHT: LEFT, EITHER: EITHER}
_PLAIN = frozenset({str, UUID, int, bool, Decimal, datetime, timedelta})


class ConditionError(ValueError):
    """A condition has not the documented form; the message names the offending part."""


@dataclass(frozen=True, slots=True)
class Ref:
    """The value of another attribute, such as `user.id`."""

    path: str


@dataclass(frozen=True, slots=True)
class Compare:
    """`field operator value`; false when either side is missing or null, or the types cannot be compared."""

    field: str
    operator: str
    value: Any


@dataclass(frozen=True, slots=True)
class All:
    """True when every item is; true when there is none."""

    items: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """True when at least one item is; false when there is none."""

    items: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """True when the item is false; so also when the item could not be evaluated."""

    item: "Condition"


@dataclass(frozen=True, slots=True)
class Always:
    """True."""


Condition = Compare | All | AnyOf | Not | Always
NEVER = AnyOf(())
Attributes = Callable[[str], Any]


def row_field(path: str, resource: str) -> str:
    """The field of the resource that the path names; '' for an attribute of the caller or of the request.

    `resource.<field>` is a field of whatever the resource is. So is `<its name>.<field>`, but for users: `user` is
    always who calls.
    """
    owner, _, field = path.partition(".")
    return field if owner == "resource" or (owner == resource and owner != "user") else ""


def comparisons(condition: Condition) -> Iterator[Compare]:
    """Every comparison in the tree, from left to right."""
    match condition:
        case Compare():
            yield condition
        case All(items) | AnyOf(items):
            for item in items:
                yield from comparisons(item)
        case Not(item):
            yield from comparisons(item)


def paths(condition: Condition) -> frozenset[str]:
    """Every attribute that the condition looks at."""
    found = list(comparisons(condition))
    return frozenset([one.field for one in found] + [one.value.path for one in found if isinstance(one.value, Ref)])


def evaluate(condition: Condition, attributes: Attributes, resource: str = "") -> bool:
    """Whether the condition holds for the attributes, given as a function from path to value (None: missing)."""
    match condition:
        case Compare(field, name, value):
            ref = value.path if isinstance(value, Ref) else ""
            right = attributes(ref) if ref else value
            of_row = LEFT if row_field(field, resource) else RIGHT if row_field(ref, resource) else EITHER
            return holds(attributes(field), name, right, of_row)
        case All(items):
            return all(evaluate(item, attributes, resource) for item in items)
        case AnyOf(items):
            return any(evaluate(item, attributes, resource) for item in items)
        case Not(item):
            return not evaluate(item, attributes, resource)
        case Always():
            return True


def holds(left: Any, name: str, right: Any, of_row: str) -> bool:
    """`left name right`. A multi-valued left side, such as `user.role`: true if any of its values matches, and for
    negations if all do. `of_row` is the side that is a field of the resource, to whose kind the other is converted."""
    if left is None or right is None:
        return False
    if not isinstance(left, MANY):
        return _holds_one(left, name, right, of_row)
    if name in {"contains", "lacks"}:
        return _is_in(right, left, _OTHER[of_row]) == (name == "contains")
    if name == "present":
        return True
    each = (_holds_one(one, name, right, of_row) for one in left)
    return all(each) if name in {"ne", "nin"} else any(each)


def _holds_one(left: Any, name: str, right: Any, of_row: str) -> bool:
    if name in {"in", "nin"}:
        return isinstance(right, MANY) and _is_in(left, right, of_row) == (name == "in")
    pair = aligned(left, right, of_row)
    return pair is not None and _OPERATE[name](*pair)


def _is_in(one: Any, many: Any, of_row: str) -> bool:
    pairs = (aligned(one, other, of_row) for other in many)
    return any(pair is not None and pair[0] == pair[1] for pair in pairs)


def _contains(left: Any, right: Any) -> bool:
    return isinstance(left, str) and right in left


_OPERATE: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
    "contains": _contains,
    "within": lambda left, right: _contains(right, left),
}


def aligned(left: Any, right: Any, of_row: str) -> tuple[Any, Any] | None:
    """Both values in a form that can be compared; None when they are of different kinds.

    Numbers are compared exactly, whatever their types. Text that stands where the resource has an id, a time or a
    duration is read as one; a field of the resource is never read as something else, as no SQL could do the same.
    """
    if type(left) is type(right) and type(left) in _PLAIN:
        return left, right
    if of_row != RIGHT:
        kind = kind_of(left)
        if (found := converted(right, kind)) is not None:
            return converted(left, kind), found
    if of_row != LEFT:
        kind = kind_of(right)
        if (found := converted(left, kind)) is not None:
            return found, converted(right, kind)
    return None


def kind_of(value: Any) -> str:
    """`text`, `id`, `number`, `bool`, `time` or `duration`; '' for everything else."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    for types, name in _KINDS:
        if isinstance(value, types):
            return name
    return ""


_KINDS: tuple[tuple[Any, str], ...] = (
    (str, "text"),
    (UUID, "id"),
    ((int, float, Decimal), "number"),
    (datetime, "time"),
    (timedelta, "duration"),
)


def converted(value: Any, kind: str) -> Any:
    """The value as one of the kind; None when it is none."""
    if isinstance(value, str) and kind in _READERS:
        try:
            return _READERS[kind](value)
        except (ValueError, OverflowError):
            return None
    if not kind or kind_of(value) != kind:
        return None
    # Of a float its shortest text is meant, as it was written: 0.1 is a tenth.
    return Decimal(repr(value)) if isinstance(value, float) else value


def _read_time(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("a time without zone")
    # Beyond the first and the last year in UTC, no database could take it.
    return found.astimezone(UTC)


def _read_duration(text: str) -> timedelta:
    if not text.endswith("s"):
        raise ValueError("not a duration")
    return timedelta(seconds=float(text[:-1]))


_READERS: Mapping[str, Callable[[str], Any]] = {"id": UUID, "time": _read_time, "duration": _read_duration}


def specialise(condition: Condition, resource: str, caller: Attributes) -> Condition:
    """What is left of the condition once everything about the caller is known: comparisons of the resource's fields
    with plain values and with one another, or `Always()` or `NEVER` (partial evaluation)."""
    match condition:
        case Compare():
            return _specialise_one(condition, resource, caller)
        case All(items):
            return all_of(specialise(item, resource, caller) for item in items)
        case AnyOf(items):
            return any_of(specialise(item, resource, caller) for item in items)
        case Not(item):
            return negated(specialise(item, resource, caller))
        case Always():
            return condition


def _specialise_one(one: Compare, resource: str, caller: Attributes) -> Condition:
    right_field = row_field(one.value.path, resource) if isinstance(one.value, Ref) else ""
    right = None if right_field else caller(one.value.path) if isinstance(one.value, Ref) else one.value
    if row_field(one.field, resource):
        if right_field:
            return one
        return NEVER if right is None else Compare(one.field, one.operator, right)
    left = caller(one.field)
    if not right_field:
        return Always() if holds(left, one.operator, right, EITHER) else NEVER
    return NEVER if left is None else _mirrored(one.value.path, one.operator, left)


def _mirrored(field: str, name: str, left: Any) -> Condition:
    """`left name field`, for a value of the caller, as comparisons of the field."""
    if isinstance(left, MANY):
        if name in {"eq", "contains"}:
            return Compare(field, "in", tuple(left))
        if name == "ne":
            return Compare(field, "nin", tuple(left))
        each = [_mirrored(field, name, one) for one in left]
        return all_of([Compare(field, "present", True), *each]) if name == "nin" else any_of(each)
    if name in {"in", "nin"}:
        return Compare(field, "contains" if name == "in" else "lacks", left)
    return Compare(field, MIRRORED.get(name, "within"), left)


def all_of(items: Any) -> Condition:
    """True when every item is, without what decides nothing."""
    left = [item for item in items if item != Always()]
    if NEVER in left:
        return NEVER
    return left[0] if len(left) == 1 else All(tuple(left)) if left else Always()


def any_of(items: Any) -> Condition:
    """True when some item is, without what decides nothing."""
    left = [item for item in items if item != NEVER]
    if Always() in left:
        return Always()
    return left[0] if len(left) == 1 else AnyOf(tuple(left))


def negated(item: Condition) -> Condition:
    """True when the item is not."""
    if item == NEVER:
        return Always()
    return NEVER if item == Always() else Not(item)
