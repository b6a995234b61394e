"""Authorization: check one resource, filter a list in SQL, explain a decision, by the same policies, permissions and
built-in rules."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement

from kit.access.attributes import Attribute, attributes_of, caller_attributes
from kit.access.conditions import (
    NEVER,
    All,
    Always,
    AnyOf,
    Compare,
    Condition,
    ConditionError,
    Not,
    Ref,
    any_of,
    specialise,
)
from kit.access.policies import EXEMPT, Filter, Plan, Policy, PolicySet, Rule, looks_at_request
from kit.access.snapshots import Snapshot, SnapshotCache
from kit.call import current_call
from kit.errors import PermissionDenied, Unauthenticated
from kit.measures import Tally

__all__ = [
    "EXEMPT",
    "Access",
    "All",
    "Always",
    "AnyOf",
    "Attribute",
    "Compare",
    "Condition",
    "ConditionError",
    "Filter",
    "Not",
    "Plan",
    "Policy",
    "PolicySet",
    "Ref",
    "Rule",
    "Snapshot",
    "SnapshotCache",
    "attributes_of",
    "caller_attributes",
    "denied",
    "filtered",
    "may",
    "require",
    "require_any",
    "visible",
]


class Access:
    """The rules of one service. Decides for a user's snapshot; knows nothing of requests."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.tally = Tally()
        self._rules: dict[tuple[str, str], list[Rule]] = {}
        for rule in rules:
            for action in rule.actions:
                self._rules.setdefault((rule.resource, action), []).append(rule)

    def rules(self, resource: str, action: str) -> list[Rule]:
        """The built-in rules about the action on the resource."""
        return self._rules.get((resource, action), [])

    def could(self, snapshot: Snapshot, resource: str, action: str) -> bool:
        """Whether some resource might allow it: false only when no resource at all would."""
        for policy in snapshot.policies.matching(resource, action):
            if policy.allow or isinstance(policy.condition, Always):
                return policy.allow
        return snapshot.grants(resource, action) or (resource, action) in self._rules

    def plan(self, snapshot: Snapshot, resource: str, action: str, known: Mapping[str, Any] | None = None) -> Plan:
        """What decides about the user's action on rows of the resource. `known` adds attributes, such as
        `user.course_ids`; a plan that depends on neither them nor the request is made once for a snapshot."""
        key = (resource, action)
        if known is None and key in snapshot.plans:
            self.tally.hits += 1
            found: Plan = snapshot.plans[key]
            return found
        policies, rules = snapshot.policies.matching(resource, action), self.rules(resource, action)
        made = Plan(resource, action, _steps(policies, rules, snapshot, resource, action, known))
        conditions = [policy.condition for policy in policies] + [rule.condition for rule in rules]
        if known is None and not looks_at_request(conditions):
            self.tally.misses += 1
            snapshot.plans[key] = made
        return made

    def allows(
        self, snapshot: Snapshot, resource: str, action: str, entity: Any, known: Mapping[str, Any] | None = None
    ) -> bool:
        """Whether the user may do it to this entity."""
        return self.plan(snapshot, resource, action, known).allows(entity)

    def filter(
        self, snapshot: Snapshot, resource: str, action: str, model: Any, known: Mapping[str, Any] | None = None
    ) -> Filter:
        """The rows that `allows` allows, in SQL."""
        return self.plan(snapshot, resource, action, known).filter(model)


def _steps(
    policies: Iterable[Policy],
    rules: Iterable[Rule],
    snapshot: Snapshot,
    resource: str,
    action: str,
    known: Mapping[str, Any] | None,
) -> tuple[tuple[Condition, bool], ...]:
    caller = caller_attributes(snapshot, known)
    steps: list[tuple[Condition, bool]] = []
    for policy in policies:
        left = specialise(policy.condition, resource, caller)
        if left != NEVER:
            steps.append((left, policy.allow))
        if isinstance(left, Always):
            return tuple(steps)
    if snapshot.grants(resource, action):
        return (*steps, (Always(), True))
    base = any_of(specialise(rule.condition, resource, caller) for rule in rules)
    return tuple(steps) if base == NEVER else (*steps, (base, True))


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


def require_any(action: str, model: Any) -> None:
    """Refuses with PERMISSION_DENIED when there is no row of the model at all that the caller may do the action to: for
    what answers with more than the rows that are `visible`."""
    access, snapshot = _caller()
    if access.plan(snapshot, model.__resource__, action).never:
        raise denied(model.__resource__, action)


def filtered(action: str, model: Any, *, known: Mapping[str, Any] | None = None) -> Filter:
    """The rows of `model` on which the caller may do the action, for statements whose text is made once."""
    access, snapshot = _caller()
    return access.filter(snapshot, model.__resource__, action, model, known)


def visible(action: str, model: Any, *, known: Mapping[str, Any] | None = None) -> ColumnElement[bool]:
    """SQL that selects the rows of `model` on which the caller may do the action. Say the tenant besides."""
    return filtered(action, model, known=known).expression


def denied(resource: str, action: str) -> PermissionDenied:
    """The refusal for a missing permission."""
    return PermissionDenied(
        f"The permission {resource}:{action} is required.",
        metadata={"permission": f"{resource}:{action}", "resource": resource},
    )
