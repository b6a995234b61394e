"""Authorization: check one resource, filter a list in SQL, by the same permissions and the same rules."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, false, or_, true

from kit.access.conditions import (
    All,
    Always,
    AnyOf,
    Compare,
    Condition,
    ConditionError,
    Not,
    Ref,
    compare,
    evaluate,
)
from kit.access.snapshots import Snapshot, SnapshotCache
from kit.access.sql import compile_condition
from kit.call import current_call
from kit.errors import PermissionDenied, Unauthenticated

__all__ = [
    "Access",
    "All",
    "Always",
    "AnyOf",
    "Compare",
    "Condition",
    "ConditionError",
    "Not",
    "Ref",
    "Rule",
    "Snapshot",
    "SnapshotCache",
    "compare",
    "require",
    "visible",
]


@dataclass(frozen=True, slots=True)
class Rule:
    """A built-in rule: whoever meets the condition may do the actions on the resource, whatever their roles."""

    name: str
    resource: str
    actions: frozenset[str]
    condition: Condition


class Access:
    """The rules of one service. Decides for a user's snapshot; knows nothing of requests."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._rules: dict[tuple[str, str], list[Rule]] = {}
        for rule in rules:
            for action in rule.actions:
                self._rules.setdefault((rule.resource, action), []).append(rule)

    def could(self, snapshot: Snapshot, resource: str, action: str) -> bool:
        """Whether some resource might allow it: false only when no resource at all would."""
        return snapshot.grants(resource, action) or (resource, action) in self._rules

    def allows(
        self, snapshot: Snapshot, resource: str, action: str, entity: Any, known: Mapping[str, Any] | None = None
    ) -> bool:
        """Whether the user may do it to this entity. `known` adds caller attributes, such as `user.course_ids`."""
        if snapshot.grants(resource, action):
            return True
        rules = self._rules.get((resource, action), ())
        lookup = _lookup(snapshot, known, resource, entity)
        return any(evaluate(rule.condition, lookup) for rule in rules)

    def filter(
        self, snapshot: Snapshot, resource: str, action: str, model: Any, known: Mapping[str, Any] | None = None
    ) -> ColumnElement[bool]:
        """SQL that is true exactly for the rows that `allows` allows."""
        if snapshot.grants(resource, action):
            return true()
        lookup = _lookup(snapshot, known, resource, None)
        rules = self._rules.get((resource, action), ())
        return or_(false(), *(compile_condition(rule.condition, resource, model, lookup) for rule in rules))


def _lookup(snapshot: Snapshot, known: Mapping[str, Any] | None, resource: str, entity: Any) -> Any:
    prefix = f"{resource}."

    def value(path: str) -> Any:
        if path.startswith(prefix):
            return getattr(entity, path.removeprefix(prefix), None)
        if known and path in known:
            return known[path]
        if path.startswith("user.attributes."):
            return snapshot.attributes.get(path.removeprefix("user.attributes."))
        return {
            "user.id": snapshot.user_id,
            "user.tenant_id": snapshot.tenant_id,
            "user.role": snapshot.roles,
            "user.level": snapshot.level or None,
        }.get(path)

    return value


def _caller() -> tuple[Access, Snapshot]:
    call = current_call()
    if call is None or call.principal is None or call.principal.snapshot is None:
        raise Unauthenticated("Only a signed-in user may do this.")
    return call.access, call.principal.snapshot


def may(action: str, entity: Any, *, resource: str = "", known: Mapping[str, Any] | None = None) -> bool:
    """Whether the caller may do the action to the entity."""
    access, snapshot = _caller()
    return access.allows(snapshot, resource or entity.__resource__, action, entity, known)


def require(action: str, entity: Any, *, resource: str = "", known: Mapping[str, Any] | None = None) -> None:
    """Refuses with PERMISSION_DENIED unless the caller may do the action to the entity.

    `entity` is a model instance, or any object with the attributes that the rules name when `resource` is given.
    """
    resource = resource or entity.__resource__
    if not may(action, entity, resource=resource, known=known):
        raise denied(resource, action)


def visible(action: str, model: Any, *, known: Mapping[str, Any] | None = None) -> ColumnElement[bool]:
    """SQL that selects the rows of `model` on which the caller may do the action. Say the tenant besides."""
    access, snapshot = _caller()
    return access.filter(snapshot, model.__resource__, action, model, known)


def denied(resource: str, action: str) -> PermissionDenied:
    """The refusal for a missing permission."""
    return PermissionDenied(
        f"The permission {resource}:{action} is required.",
        metadata={"permission": f"{resource}:{action}", "resource": resource},
    )
