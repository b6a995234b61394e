"""Policies in the order in which they are asked, and the decision that they, permissions and built-in rules make."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement

from kit.access.attributes import COLUMNS
from kit.access.conditions import (
    LEFT,
    All,
    Always,
    AnyOf,
    Attributes,
    Compare,
    Condition,
    Not,
    Ref,
    holds,
    paths,
    row_field,
)
from kit.access.sql import Compiler
from kit.ids import SYSTEM_TENANT

# Policies say nothing about policies: whoever may write them can always take back what they wrote.
EXEMPT = "resource_policy"
OF_REQUEST = "request."


@dataclass(frozen=True, slots=True)
class Rule:
    """A built-in rule: whoever meets the condition may do the actions on the resource, whatever their roles."""

    name: str
    resource: str
    actions: frozenset[str]
    condition: Condition


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A stored policy in force: where its condition holds it allows, or refuses, the actions on the resource.

    No actions, or `manage`, stands for all; resource `all` for all but policies. `tenant_id` is whose it is: those of
    the system tenant bind every tenant.
    """

    id: UUID
    tenant_id: UUID
    name: str
    resource: str
    actions: frozenset[str]
    condition: Condition
    allow: bool
    priority: int

    def covers(self, resource: str, action: str) -> bool:
        return (
            resource != EXEMPT
            and self.resource in {resource, "all"}
            and (not self.actions or "manage" in self.actions or action in self.actions)
        )

    @property
    def order(self) -> tuple[Any, ...]:
        """The platform's before a tenant's own, then the highest priority first, then deny before allow."""
        return (self.tenant_id != SYSTEM_TENANT, -self.priority, self.allow, self.id)


class PolicySet:
    """All policies in force for the users of one tenant."""

    def __init__(self, policies: Iterable[Policy] = ()) -> None:
        self.policies = sorted(policies, key=lambda one: one.order)
        self._matching: dict[tuple[str, str], tuple[Policy, ...]] = {}

    def matching(self, resource: str, action: str) -> tuple[Policy, ...]:
        """Those about the action on the resource, in the order in which they are asked."""
        key = (resource, action)
        if key not in self._matching:
            self._matching[key] = tuple(one for one in self.policies if one.covers(resource, action))
        return self._matching[key]


NO_POLICIES = PolicySet()


@dataclass(frozen=True)
class Plan:
    """What decides about one caller's action on the rows of a resource: the first step whose condition holds, and
    no if none does. Everything about the caller is worked in already."""

    resource: str
    action: str
    steps: tuple[tuple[Condition, bool], ...]

    @cached_property
    def _tests(self) -> tuple[tuple[Callable[[Any], bool], bool], ...]:
        return tuple((predicate(condition, self.resource), allow) for condition, allow in self.steps)

    def allows(self, entity: Any) -> bool:
        """Whether the caller may do it to this entity."""
        for test, allow in self._tests:
            if test(entity):
                return allow
        return False

    @property
    def never(self) -> bool:
        """Whether there is no row at all that it allows."""
        return not any(allow for _, allow in self.steps)

    @cached_property
    def _compiled(self) -> dict[Any, "Filter"]:
        return {}

    def filter(self, model: Any, prefix: str = "") -> "Filter":
        """The rows of the model that it allows. `prefix` tells the parameters of two filters in one statement apart."""
        if (model, prefix) not in self._compiled:
            compiler = Compiler(self.resource, model, f"{prefix}{self.resource}_{self.action}_")
            expression = compiler.first_match(self.steps)
            self._compiled[model, prefix] = Filter(expression, (shape(self.steps), *compiler.folded), compiler.values)
        return self._compiled[model, prefix]


@dataclass(frozen=True, slots=True)
class Filter:
    """SQL that is true exactly for the rows that are allowed. Filters of one shape differ in their values only."""

    expression: ColumnElement[bool]
    shape: Any
    values: Mapping[str, Any]


def shape(steps: Iterable[tuple[Condition, bool]]) -> tuple[Any, ...]:
    """What decides about the text of the steps' SQL: everything but the values."""
    return tuple((_shape(condition), allow) for condition, allow in steps)


def _shape(condition: Condition) -> Any:
    match condition:
        case Compare(left, name, Ref(path)):
            return (left, name, path)
        case Compare(left, name, value):
            return (left, name, type(value))
        case All(items) | AnyOf(items):
            return (type(condition), *map(_shape, items))
        case Not(item):
            return (Not, _shape(item))
        case Always():
            return Always


Test = Callable[[Any], bool]


def predicate(condition: Condition, resource: str) -> Test:
    """A function from an entity to whether the condition, as `specialise` left it, holds for it."""
    match condition:
        case Compare():
            return _comparison(condition, resource)
        case All(items):
            return reduce(_both, [predicate(item, resource) for item in items])
        case AnyOf(items):
            return reduce(_either, [predicate(item, resource) for item in items])
        case Not(item):
            test = predicate(item, resource)
            return lambda entity: not test(entity)
        case Always():
            return lambda entity: True


def _both(first: Test, second: Test) -> Test:
    return lambda entity: first(entity) and second(entity)


def _either(first: Test, second: Test) -> Test:
    return lambda entity: first(entity) or second(entity)


def _comparison(one: Compare, resource: str) -> Test:
    name, operator, value = _column(one.field, resource), one.operator, one.value
    if isinstance(value, Ref):
        other = _column(value.path, resource)
        return lambda entity: holds(getattr(entity, name, None), operator, getattr(entity, other, None), LEFT)
    # Nearly all that is ever compared are ids and texts of a few values: these need no look at what kind they are of.
    wanted = {"eq": (value,), "in": value}.get(operator, ())
    kinds = {type(item) for item in wanted}
    if len(kinds) != 1 or not kinds <= {str, UUID}:
        return lambda entity: holds(getattr(entity, name, None), operator, value, LEFT)
    (kind,), values = kinds, frozenset(wanted)

    def is_one_of(entity: Any) -> bool:
        found = getattr(entity, name, None)
        return found in values if type(found) is kind else holds(found, operator, value, LEFT)

    return is_one_of


def _column(path: str, resource: str) -> str:
    field = row_field(path, resource)
    return COLUMNS.get(field, field)


def row_attributes(entity: Any, resource: str, caller: Attributes) -> Attributes:
    """Every attribute of a decision about the entity."""

    def value(path: str) -> Any:
        return getattr(entity, _column(path, resource), None) if row_field(path, resource) else caller(path)

    return value


def looks_at_request(conditions: Iterable[Condition]) -> bool:
    """Whether some condition depends on the request, such as on when it is made."""
    return any(path.startswith(OF_REQUEST) for condition in conditions for path in paths(condition))
