"""Why a decision is what it is, and the fewest changes that would turn it round."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from itertools import combinations, product
from typing import Any
from uuid import UUID

from kit.access.attributes import ANY_KIND, Attribute, find_attribute
from kit.access.conditions import (
    MANY,
    Attributes,
    Ref,
    comparisons,
    converted,
    evaluate,
    kind_of,
    paths,
    row_field,
)
from kit.access.policies import Policy, Rule

# Decisions tried in search of the fewest changes; beyond, the change found may not be the smallest.
MOST_TRIALS = 4_000
# Values compared with one another in that search: nothing else runs in the process meanwhile.
MOST_EFFORT = 300_000
MOST_CHANGES = 3
# Any value that no policy names serves where "something else" is wanted.
OTHER_ID = UUID("00000000-0000-4000-8000-000000000001")


@dataclass(frozen=True, slots=True)
class Considered:
    """A policy or built-in rule that is about the action, and whether its condition holds."""

    source: Policy | Rule
    holds: bool


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that would be otherwise: an attribute's value, the permission of the user, or a policy in force."""

    kind: str
    subject: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision with its reasons. `decided_by` is the policy or rule that decided; None when the permission did, or
    its lack. `attributes` are the values of every attribute looked at; `changes` together turn the decision round, and
    no fewer would if `smallest`."""

    allowed: bool
    permitted: bool
    decided_by: Policy | Rule | None
    considered: tuple[Considered, ...]
    attributes: Mapping[str, Any]
    changes: tuple[Change, ...]
    smallest: bool
    active: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Everything that a decision depends on. `fields` are what the resource's attributes may be."""

    resource: str
    action: str
    policies: Sequence[Policy]
    rules: Sequence[Rule]
    permitted: bool
    attributes: Attributes
    fields: Mapping[str, Attribute]
    active: bool = True

    @property
    def sources(self) -> tuple[Policy | Rule, ...]:
        return (*self.policies, *self.rules)

    @property
    def permission(self) -> str:
        return f"{self.resource}:{self.action}"

    def decide(self) -> tuple[bool, Policy | Rule | None]:
        """The decision, and the policy or rule that made it."""
        if not self.active:
            return False, None
        for policy in self.policies:
            if evaluate(policy.condition, self.attributes, self.resource):
                return policy.allow, policy
        if self.permitted:
            return True, None
        for rule in self.rules:
            if evaluate(rule.condition, self.attributes, self.resource):
                return True, rule
        return False, None

    def after(self, changes: Iterable[Change]) -> "Case":
        """The case as it would be with the changes."""
        given, case = {}, self
        for one in changes:
            match one.kind:
                case "attribute":
                    given[one.subject] = one.value
                case "permission":
                    case = replace(case, permitted=bool(one.value))
                case "policy":
                    left = [policy for policy in case.policies if str(policy.id) != one.subject]
                    case = replace(case, policies=left)
                case "user":
                    case = replace(case, active=bool(one.value))
        old = self.attributes
        return replace(case, attributes=lambda path: given[path] if path in given else old(path))


def explain(case: Case) -> Explanation:
    """The decision on the case with its reasons, and what would turn it round."""
    allowed, decided_by = case.decide()
    sources = case.sources
    considered = tuple(Considered(one, evaluate(one.condition, case.attributes, case.resource)) for one in sources)
    looked_at = sorted(frozenset[str]().union(*(paths(one.condition) for one in sources)))
    changes, smallest = _fewest_changes(case, allowed, decided_by)
    values = {path: case.attributes(path) for path in looked_at}
    return Explanation(allowed, case.permitted, decided_by, considered, values, changes, smallest, case.active)


def _fewest_changes(case: Case, allowed: bool, decided_by: Any) -> tuple[tuple[Change, ...], bool]:
    values, all_values = _attributes(case)
    levers = list(_levers(case, values, by_policy=isinstance(decided_by, Policy)))
    left = min(MOST_TRIALS, MOST_EFFORT // _effort(case))
    for count in range(1, MOST_CHANGES + 1):
        for chosen in combinations(levers, count):
            for changes in product(*chosen):
                left -= 1
                if left < 0:
                    return _surely(case, allowed), False
                if _turns(case, changes, allowed=allowed):
                    return changes, all_values
    return _surely(case, allowed), False


def _effort(case: Case) -> int:
    """How many values one decision compares at most."""
    each = (one.value for source in case.sources for one in comparisons(source.condition))
    return 1 + sum(len(value) if isinstance(value, MANY) else 1 for value in each)


def _turns(case: Case, changes: Iterable[Change], *, allowed: bool) -> bool:
    """Whether the changes turn the decision round, whatever the roles that are given and taken bring with them."""
    roles = [one.value for one in changes if one.subject == "user.role"]
    after, now = case.after(changes), frozenset(case.attributes("user.role") or ())
    cases = [after]
    if any(now - value for value in roles):
        cases.append(replace(after, permitted=False))
    if any(value - now for value in roles):
        cases.append(replace(after, permitted=True))
    return all(one.decide()[0] != allowed for one in cases)


def _surely(case: Case, allowed: bool) -> tuple[Change, ...]:
    """Changes that always turn the decision round, if not the fewest: bar the user; or let them in, give the permission
    and take every policy away that refuses."""
    if allowed:
        return (Change("user", "active", value=False),)
    changes = [] if case.active else [Change("user", "active", value=True)]
    if not case.permitted:
        changes.append(Change("permission", case.permission, value=True))
    for policy in case.policies:
        if evaluate(policy.condition, case.attributes, case.resource):
            if policy.allow:
                break
            changes.append(Change("policy", str(policy.id)))
    return tuple(changes)


def _levers(case: Case, found: Mapping[str, Iterable[Any]], *, by_policy: bool) -> Iterator[list[Change]]:
    """What could be otherwise, what is most easily changed first; each with its values, of which attributes have those
    found."""
    if not case.active:
        yield [Change("user", "active", value=True)]
    permission = [Change("permission", case.permission, value=not case.permitted)]
    attributes = sorted(found.items(), key=lambda item: _ease(item[0], case.resource))
    changes = [[Change("attribute", path, value) for value in values] for path, values in attributes if values]
    yield from [*changes, permission] if by_policy else [permission, *changes]
    for policy in case.policies:
        yield [Change("policy", str(policy.id))]


def _ease(path: str, resource: str) -> tuple[int, str]:
    """Attributes of the resource before those of the caller, and who somebody is last of all."""
    if path.endswith("id"):
        return 3, path
    if path == "request.time":
        return 2, path
    return (0 if row_field(path, resource) else 1), path


def _attributes(case: Case) -> tuple[dict[str, dict[Any, None]], bool]:
    """For each attribute that a condition looks at the values that could make a difference: each side of every
    comparison with it; and whether these are all of them. More than can be tried are not looked for. An attribute that
    is written differently in two conditions counts as two."""
    found: dict[str, dict[Any, None]] = {}
    for source in case.sources:
        for one in comparisons(source.condition):
            right = case.attributes(one.value.path) if isinstance(one.value, Ref) else one.value
            _collect(found, case, one.field, _sides(case.attributes(one.field), right))
            if isinstance(one.value, Ref):
                left = case.attributes(one.field)
                _collect(found, case, one.value.path, _sides(right, left))
            if sum(map(len, found.values())) > MOST_TRIALS:
                return found, False
    return found, True


def _collect(found: dict[str, dict[Any, None]], case: Case, path: str, values: Iterable[Any]) -> None:
    attribute = find_attribute(path, case.resource, case.fields)
    # What only the service knows of the caller nobody can change from here.
    if attribute is None:
        return
    now, known = case.attributes(path), found.setdefault(path, {})
    for value in (*values, *attribute.values):
        fitting = _fitting(value, attribute, path)
        if fitting is not None and fitting != now:
            known[fitting] = None


def _fitting(value: Any, attribute: Attribute, path: str) -> Any:
    """The value as one that the attribute could have; None when it could not."""
    if attribute.many:
        if not isinstance(value, frozenset):
            return None
        found = {converted(one, attribute.kind) for one in value} - {None}
        return frozenset(found)
    kind = kind_of(value) if attribute.kind == ANY_KIND else attribute.kind
    # An empty level is an unknown one, which no comparison takes for a text.
    if (attribute.values and value not in attribute.values) or (path == "user.level" and value == ""):
        return None
    return converted(value, kind) if kind else None


def _sides(now: Any, other: Any) -> Iterator[Any]:
    """Values of an attribute on either side of its comparison with the other side's value or values. An attribute
    that has several values can take the first two of each, any other the rest."""
    held = frozenset(now) if isinstance(now, MANY) else frozenset()
    for value in other if isinstance(other, MANY) else () if other is None else (other,):
        yield held | {value}
        yield held - {value}
        yield value
        yield from _around(value)


def _around(value: Any) -> Iterator[Any]:
    """A value just above, one below and one that is quite different, of the same kind."""
    match kind_of(value):
        case "text":
            yield f"{value}~"
            yield value[:-1]
            yield ""
        case "number":
            exact = converted(value, "number")
            yield exact + 1 if isinstance(exact, int) else Decimal(exact) + 1
            yield exact - 1 if isinstance(exact, int) else Decimal(exact) - 1
        case "bool":
            yield not value
        case "id":
            yield OTHER_ID
        case "time" | "duration":
            # Nothing is later than the last moment there is.
            for seconds in (1, -1):
                with suppress(OverflowError):
                    yield value + timedelta(seconds=seconds)
