"""The condition language of policies and built-in rules: one tree, evaluated here and compiled to SQL beside it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

OPERATORS = ("eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "contains")


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
Attributes = Callable[[str], Any]


def compare(field: str, operator: str, value: Any) -> Compare:
    """A comparison; raises ConditionError for an operator that does not exist."""
    if operator not in OPERATORS:
        raise ConditionError(f"operator {operator!r} is none of {', '.join(OPERATORS)}")
    return Compare(field, operator, value)


def evaluate(condition: Condition, attributes: Attributes) -> bool:
    """Whether the condition holds for the attributes, given as a function from path to value (None: missing)."""
    match condition:
        case Compare():
            return _compare(condition, attributes)
        case All(items):
            return all(evaluate(item, attributes) for item in items)
        case AnyOf(items):
            return any(evaluate(item, attributes) for item in items)
        case Not(item):
            return not evaluate(item, attributes)
        case Always():
            return True


def _compare(condition: Compare, attributes: Attributes) -> bool:
    left = attributes(condition.field)
    right = attributes(condition.value.path) if isinstance(condition.value, Ref) else condition.value
    if left is None or right is None:
        return False
    if isinstance(left, frozenset | set | tuple | list):
        return _compare_many(left, condition.operator, right)
    return apply_operator(left, condition.operator, right)


def _compare_many(left: Any, operator: str, right: Any) -> bool:
    """A multi-valued attribute, such as `user.role`: true if any value matches, and for negations if all do."""
    if operator == "contains":
        return right in left
    matches = [apply_operator(one, operator, right) for one in left]
    return all(matches) if operator in {"ne", "nin"} else any(matches)


def apply_operator(left: Any, operator: str, right: Any) -> bool:
    """`left operator right` for two present values."""
    match operator:
        case "eq":
            return bool(left == right)
        case "ne":
            return bool(left != right)
        case "in":
            return left in right
        case "nin":
            return left not in right
        case "contains":
            return isinstance(left, str) and isinstance(right, str) and right in left
    try:
        return bool(_ORDER[operator](left, right))
    except TypeError:
        return False


_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "gt": lambda left, right: left > right,
    "gte": lambda left, right: left >= right,
    "lt": lambda left, right: left < right,
    "lte": lambda left, right: left <= right,
}
