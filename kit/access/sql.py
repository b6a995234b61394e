"""Compiles conditions to SQL: a row is in the filter exactly when the condition evaluates to true for it."""

from typing import Any

from sqlalchemy import ColumnElement, Null, String, and_, false, func, literal, not_, null, or_, true

from kit.access.conditions import (
    All,
    Always,
    AnyOf,
    Attributes,
    Compare,
    Condition,
    Not,
    Ref,
    evaluate,
)


def compile_condition(condition: Condition, resource: str, model: Any, attributes: Attributes) -> ColumnElement[bool]:
    """SQL of a condition on `model`. Paths `<resource>.<field>` are its columns; every other path is a value of the
    caller, taken from `attributes` now. The result is never NULL."""
    match condition:
        case Compare():
            return _compare(condition, resource, model, attributes)
        case All(items):
            return and_(true(), *(compile_condition(item, resource, model, attributes) for item in items))
        case AnyOf(items):
            return or_(false(), *(compile_condition(item, resource, model, attributes) for item in items))
        case Not(item):
            return not_(compile_condition(item, resource, model, attributes))
        case Always():
            return true()


def _column(path: str, resource: str, model: Any) -> Any:
    """The column a path names; None for a path of the caller. A field the model has not is always missing: NULL."""
    name = path.removeprefix(f"{resource}.")
    return getattr(model, name, null()) if name != path else None


def _compare(condition: Compare, resource: str, model: Any, attributes: Attributes) -> ColumnElement[bool]:
    left = _column(condition.field, resource, model)
    ref = condition.value.path if isinstance(condition.value, Ref) else ""
    right = _column(ref, resource, model) if ref else None
    if left is None and right is None:
        return true() if evaluate(condition, attributes) else false()
    if left is None:
        left = attributes(condition.field)
    if right is None:
        right = attributes(ref) if ref else condition.value
    if left is None or right is None or isinstance(left, Null) or isinstance(right, Null):
        return false()
    if isinstance(left, frozenset | set | tuple | list):
        return func.coalesce(_operate_many(left, condition.operator, right), false())
    return func.coalesce(_operate(left, condition.operator, right), false())


def _operate_many(left: Any, operator: str, right: Any) -> Any:
    """Several values of the caller against a column, as `conditions` evaluates them."""
    if operator == "contains":
        return right.in_(list(left))
    matches = [_operate(literal(one), operator, right) for one in left]
    return and_(true(), *matches) if operator in {"ne", "nin"} else or_(false(), *matches)


def _operate(left: Any, operator: str, right: Any) -> Any:  # one case per operator
    match operator:
        case "eq":
            return left == right
        case "ne":
            return left != right
        case "in":
            return left.in_(list(right))
        case "nin":
            return left.not_in(list(right))
        case "gt":
            return left > right
        case "gte":
            return left >= right
        case "lt":
            return left < right
        case "lte":
            return left <= right
        case _:
            # Either side may be the column; LIKE would take the other one for a pattern.
            return func.strpos(left, right) > 0 if _is_text(left) and _is_text(right) else false()


def _is_text(side: Any) -> bool:
    return isinstance(side, str) or isinstance(getattr(side, "type", None), String)
