"""Compiles conditions to SQL: a row is in the filter exactly when the condition evaluates to true for it."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Boolean,
    DateTime,
    Interval,
    Numeric,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    case,
    cast,
    collate,
    false,
    func,
    not_,
    null,
    or_,
    true,
)
from sqlalchemy import all_ as all_of_array

from kit.access.attributes import COLUMNS
from kit.access.conditions import MANY, All, Always, AnyOf, Compare, Condition, Not, Ref, converted, row_field

TYPES: dict[str, Any] = {
    "text": Text(),
    "id": Uuid(),
    "number": Numeric(),
    "bool": Boolean(),
    "time": DateTime(timezone=True),
    "duration": Interval(),
}
_PYTHON = {str: "text", UUID: "id", bool: "bool", datetime: "time", timedelta: "duration"}
_ORDER = {"gt": "__gt__", "gte": "__ge__", "lt": "__lt__", "lte": "__le__"}


@dataclass(frozen=True, slots=True)
class Side:
    """A column: its SQL in the form in which it is compared, the kind of its values, whether it holds several."""

    sql: Any
    kind: str
    many: bool


@dataclass(slots=True)
class Compiler:
    """Compiles conditions on one model. Values become parameters named after `prefix`, in `values`, so that the text
    is the same whoever calls; `folded` counts the comparisons before which each one stood that no value can meet."""

    resource: str
    model: Any
    prefix: str
    values: dict[str, Any] = field(default_factory=dict)
    folded: list[int] = field(default_factory=list)

    def first_match(self, steps: Any) -> Any:
        """SQL of (condition, allow) pairs of which the first that holds decides; false when none does."""
        compiled = [(self.compile(condition, positive=True), allow) for condition, allow in steps]
        if len(compiled) == 1 and compiled[0][1]:
            return compiled[0][0]
        branches = [(condition, true() if allow else false()) for condition, allow in compiled]
        return case(*branches, else_=false()) if branches else false()

    def compile(self, condition: Condition, *, positive: bool) -> Any:
        """SQL of what `specialise` left. Where it counts as true or false only, NULL may stand for false; below a
        `Not` it may not."""
        match condition:
            case Compare():
                found = self._compare(condition)
                return found if positive else func.coalesce(found, false())
            case All(items):
                return and_(true(), *(self.compile(item, positive=positive) for item in items))
            case AnyOf(items):
                return or_(false(), *(self.compile(item, positive=positive) for item in items))
            case Not(item):
                return not_(self.compile(item, positive=False))
            case Always():
                return true()

    def _side(self, path: str) -> Side:
        name = row_field(path, self.resource)
        column = getattr(self.model, COLUMNS.get(name, name), None)
        # A field the model has not is always missing.
        return Side(null(), "", many=False) if column is None else side_of(column)

    def _compare(self, one: Compare) -> Any:
        left = self._side(one.field)
        if isinstance(one.value, Ref):
            return _of_columns(left, one.operator, self._side(one.value.path))
        if one.operator == "present":
            return left.sql.is_not(None)
        if one.operator in {"in", "nin"}:
            return self._membership(left, one.operator, one.value)
        value = converted(one.value, left.kind)
        if value is None:
            self.folded.append(len(self.values))
            return left.sql.is_not(None) if one.operator == "lacks" and left.kind else false()
        return operate(left, one.operator, Side(self._bind(value, TYPES[left.kind]), left.kind, many=False))

    def _membership(self, left: Side, name: str, value: Any) -> Any:
        if not isinstance(value, MANY) or not left.kind:
            return false()
        found = [one for one in (converted(one, left.kind) for one in value) if one is not None]
        array = Side(self._bind(sorted(found), ARRAY(TYPES[left.kind])), left.kind, many=True)
        return operate(left, name, array)

    def _bind(self, value: Any, kind: Any) -> Any:
        name = f"{self.prefix}{len(self.values)}"
        self.values[name] = value
        return bindparam(name, value, kind)


def side_of(column: Any) -> Side:
    """A column as conditions compare it: numbers as `numeric`."""
    many = isinstance(column.type, ARRAY)
    item = column.type.item_type if many else column.type
    kind = _PYTHON.get(item.python_type, "number")
    if kind != "number":
        return Side(column, kind, many)
    return Side(cast(column, ARRAY(Numeric) if many else Numeric), kind, many)


def _of_columns(left: Side, name: str, right: Side) -> Any:
    return operate(left, name, right) if left.kind and left.kind == right.kind else false()


def operate(left: Side, name: str, right: Side) -> Any:
    """`left name right` in SQL; NULL when either is."""
    one, other = left.sql, right.sql
    if name in _ORDER:
        # By code points, as Python orders text: the database's own collation may not.
        one = collate(one, "C") if left.kind == "text" else one
        return getattr(one, _ORDER[name])(other)
    match name:
        case "eq":
            return one == other
        case "ne":
            return one != other
        case "in":
            return one == any_(other)
        case "nin":
            # No value is unequal to all of none, but a missing one is not known to be anything.
            return and_(one.is_not(None), one != all_of_array(other))
        case "lacks":
            return other != all_of_array(one)
        case "within":
            return func.strpos(other, one) > 0 if left.kind == "text" else false()
    if left.many:
        return other == any_(one)
    # LIKE would take one of the two for a pattern.
    return func.strpos(one, other) > 0 if left.kind == "text" else false()
