"""Decisions about a service's own resources for any user, asked for by identity: checked, explained, foreseen."""

import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value
from sqlalchemy import and_, func, not_, select
from sqlalchemy.dialects.postgresql import aggregate_order_by

from kit.access import Access, Always, Attribute, ConditionError, Policy, PolicySet, Snapshot, caller_attributes
from kit.access.attributes import attributes_of
from kit.access.conditions import MANY
from kit.access.documents import read
from kit.access.explaining import Case, Change, Considered, Explanation, explain
from kit.access.policies import Plan, Rule, row_attributes
from kit.access.snapshots import SnapshotCache
from kit.audit import as_json
from kit.db import Database, ReadSession
from kit.errors import InvalidArgument, NotFound, Unauthenticated
from kit.ids import SYSTEM_TENANT
from storyloom.access.v1 import decisions_pb2
from storyloom.access.v1.decisions_pb2 import PolicyInForce, ResourceCheck, RuleKind

log = logging.getLogger(__name__)

SHOWN = 5
# Whoever restores or purges something finds it among what is deleted.
OF_DELETED = frozenset({"undelete", "purge"})

Known = Callable[[ReadSession, UUID], Awaitable[Mapping[str, Any]]]
KnownOfRow = Callable[[ReadSession, UUID, Any], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A resource of the service. `known` gives what its rules know of a user besides the user's own attributes, and
    `of_row` what they know of one row besides its columns: the same that handlers give to `require`."""

    model: Any
    known: Known | None = None
    of_row: KnownOfRow | None = None

    @property
    def name(self) -> str:
        return str(self.model.__resource__)

    @property
    def fields(self) -> dict[str, Attribute]:
        return attributes_of(self.model.__message__)


def in_force(policies: Iterable[PolicyInForce], fields: Mapping[str, Mapping[str, Attribute]]) -> tuple[Policy, ...]:
    """The policies that are about resources of this service, whose attributes are `fields`."""
    mine = [one for one in policies if one.resource in {"all", *fields}]
    return tuple(made for one in mine if (made := _policy(one, fields.get(one.resource, {}))))


def _policy(one: PolicyInForce, fields: Mapping[str, Attribute]) -> Policy | None:
    try:
        condition = read(json.loads(one.conditions), one.resource, fields)
    except (ConditionError, ValueError):
        # Written for another release. What it would have allowed stays refused, and what it refuses does too.
        log.exception("a policy cannot be read", extra={"policy": one.id})
        if one.allow:
            return None
        condition = Always()
    return Policy(
        id=UUID(one.id),
        tenant_id=UUID(one.tenant_id),
        name=one.name,
        resource=one.resource,
        actions=frozenset(one.actions),
        condition=condition,
        allow=one.allow,
        priority=one.priority,
    )


class DecisionService:
    """Decides for the snapshots of `snapshots`, which the service sets when it starts.

    Identity calls its own in its own process, without a context.
    """

    SERVICE = decisions_pb2.DESCRIPTOR.services_by_name["DecisionService"]
    snapshots: SnapshotCache

    def __init__(self, db: Database, access: Access, resources: Iterable[Decided]) -> None:
        self._db, self._access = db, access
        self._resources = {one.name: one for one in resources}
        self.fields = {name: one.fields for name, one in self._resources.items()}

    async def CheckResources(
        self, request: decisions_pb2.CheckResourcesRequest, context: Any = None
    ) -> decisions_pb2.CheckResourcesResponse:
        tenant_id, checks = UUID(request.tenant_id), request.checks
        snapshot = await self._find_snapshot(tenant_id, UUID(request.user_id))
        if snapshot is None or not is_in_use(snapshot):
            return decisions_pb2.CheckResourcesResponse(decisions=[False] * len(checks))
        async with self._db.read(tenant_id) as session:
            names = {one.resource for one in checks if one.id}
            rows = {name: await self._rows(session, name, checks) for name in names}
            known = {name: await self._known(session, name, snapshot) for name in names}
            decisions = [await self._decide(session, snapshot, one, rows, known) for one in checks]
        return decisions_pb2.CheckResourcesResponse(decisions=decisions)

    async def ExplainDecision(
        self, request: decisions_pb2.ExplainDecisionRequest, context: Any = None
    ) -> decisions_pb2.Explanation:
        tenant_id, check = UUID(request.tenant_id), request.check
        snapshot = await self._find_snapshot(tenant_id, UUID(request.user_id))
        if snapshot is None:
            raise NotFound("user")
        async with self._db.read(tenant_id) as session:
            row = _found(await self._rows(session, check.resource, [check]), check)
            if row is None:
                raise NotFound(check.resource)
            known = await self._known_of(session, snapshot, check.resource, row)
        return explanation_to_proto(explain(self._case(snapshot, check, row, known)), check)

    async def PreviewPolicy(
        self, request: decisions_pb2.PreviewPolicyRequest, context: Any = None
    ) -> decisions_pb2.PreviewPolicyResponse:
        tenant_id, differences = UUID(request.tenant_id), []
        # Most users differ in nothing that decides: what was found for one holds for the next.
        found: list[tuple[Any, Any]] = []
        self._resource(request.resource)
        given = in_force([request.policy], self.fields) if request.in_force else ()
        for user_id in request.user_ids:
            snapshot = await self._find_snapshot(tenant_id, UUID(user_id))
            if snapshot is not None and is_in_use(snapshot):
                after = _with(snapshot, request.policy.id, given)
                differences += await self._differences(snapshot, after, request.resource, request.actions, found)
        return decisions_pb2.PreviewPolicyResponse(differences=differences)

    async def _differences(
        self, before: Snapshot, after: Snapshot, resource: str, actions: Iterable[str], seen: list[tuple[Any, Any]]
    ) -> list[decisions_pb2.AccessDifference]:
        found = []
        async with self._db.read(before.tenant_id) as session:
            known = await self._known(session, resource, before)
        for action in actions:
            old, new = (self._access.plan(one, resource, action, known or None) for one in (before, after))
            if old.steps == new.steps:
                continue
            asked = (action, old.steps, new.steps)
            row = next((answer for question, answer in seen if question == asked), None)
            if row is None:
                model = self._resource(resource).model
                async with self._db.read(before.tenant_id) as session:
                    row = (await session.execute(_difference(model, session.tenant_id, old, new))).one()
                seen.append((asked, row))
            if row.gained or row.lost:
                difference = decisions_pb2.AccessDifference(user_id=str(before.user_id), action=action)
                difference.gained, difference.lost = row.gained, row.lost
                difference.gained_ids.extend(map(str, (row.gained_ids or ())[:SHOWN]))
                difference.lost_ids.extend(map(str, (row.lost_ids or ())[:SHOWN]))
                found.append(difference)
        return found

    def _resource(self, name: str) -> Decided:
        if name not in self._resources:
            raise InvalidArgument.fields([("resource.type", "has no resources that can be asked about")])
        return self._resources[name]

    async def _find_snapshot(self, tenant_id: UUID, user_id: UUID) -> Snapshot | None:
        try:
            return await self.snapshots.get(tenant_id, user_id)
        except Unauthenticated:
            return None

    async def _rows(self, session: ReadSession, name: str, checks: Sequence[ResourceCheck]) -> dict[UUID, Any]:
        """The rows of this resource that are asked about, by id, those that are deleted too."""
        model = self._resource(name).model
        ids = {UUID(one.id) for one in checks if one.resource == name and one.id}
        columns = select(*model.__table__.columns).where(model.tenant_id == session.tenant_id, model.id.in_(ids))
        return {row.id: row for row in await session.execute(columns)}

    async def _known(self, session: ReadSession, name: str, snapshot: Snapshot) -> Mapping[str, Any]:
        known = self._resource(name).known
        return {} if known is None else await known(session, snapshot.user_id)

    async def _known_of(self, session: ReadSession, snapshot: Snapshot, name: str, row: Any) -> Mapping[str, Any]:
        of_row, known = self._resource(name).of_row, await self._known(session, name, snapshot)
        return known if of_row is None else {**known, **await of_row(session, snapshot.user_id, row)}

    async def _decide(
        self,
        session: ReadSession,
        snapshot: Snapshot,
        check: ResourceCheck,
        rows: Mapping[str, Mapping[UUID, Any]],
        known: Mapping[str, Mapping[str, Any]],
    ) -> bool:
        if not check.id:
            return self._access.could(snapshot, check.resource, check.action)
        row, facts = _found(rows[check.resource], check), known[check.resource]
        if row is None:
            return False
        if of_row := self._resource(check.resource).of_row:
            facts = {**facts, **await of_row(session, snapshot.user_id, row)}
        return self._access.allows(snapshot, check.resource, check.action, row, facts or None)

    def _case(self, snapshot: Snapshot, check: ResourceCheck, row: Any, known: Mapping[str, Any]) -> Case:
        return Case(
            resource=check.resource,
            action=check.action,
            policies=snapshot.policies.matching(check.resource, check.action),
            rules=self._access.rules(check.resource, check.action),
            permitted=snapshot.grants(check.resource, check.action),
            attributes=row_attributes(row, check.resource, caller_attributes(snapshot, known)),
            fields=self.fields[check.resource],
            active=is_in_use(snapshot),
        )


def is_in_use(snapshot: Snapshot) -> bool:
    """Whether the user may use the platform at all."""
    return snapshot.active and not snapshot.tenant_suspended


def _found(rows: Mapping[UUID, Any], check: ResourceCheck) -> Any:
    """The row that is asked about, as its handler would find it; None when it would not."""
    row = rows.get(UUID(check.id)) if check.id else None
    return row if getattr(row, "deleted_at", None) is None or check.action in OF_DELETED else None


def _with(snapshot: Snapshot, policy_id: str, given: Iterable[Policy]) -> Snapshot:
    """The snapshot with these in the place of the policy."""
    others = [one for one in snapshot.policies.policies if one.id != UUID(policy_id)]
    return replace(snapshot, policies=PolicySet([*others, *given]), plans={})


def _difference(model: Any, tenant_id: UUID, old: Plan, new: Plan) -> Any:
    """How many rows one plan allows and the other does not, and the newest of them."""
    before, after = old.filter(model, "before_").expression, new.filter(model, "after_").expression
    gains, losses = and_(after, not_(func.coalesce(before, False))), and_(before, not_(func.coalesce(after, False)))
    newest = func.array_agg(aggregate_order_by(model.id, model.id.desc()))
    statement = select(
        func.count().filter(gains).label("gained"),
        func.count().filter(losses).label("lost"),
        newest.filter(gains).label("gained_ids"),
        newest.filter(losses).label("lost_ids"),
    ).where(model.tenant_id == tenant_id)
    deleted_at = getattr(model, "deleted_at", None)
    return statement if deleted_at is None else statement.where(deleted_at.is_(None))


def explanation_to_proto(one: Explanation, check: ResourceCheck) -> decisions_pb2.Explanation:
    """The message of an explanation."""
    message = decisions_pb2.Explanation(
        decision=one.allowed,
        reason=_reason(one, f"{check.resource}:{check.action}"),
        permitted=one.permitted,
        considered=[_considered(item, decided=item.source == one.decided_by) for item in one.considered],
        changes=[_change(item) for item in one.changes],
        smallest=one.smallest,
    )
    for path, value in one.attributes.items():
        message.attributes[path].CopyFrom(_value(value))
    return message


def _reason(one: Explanation, permission: str) -> str:
    verb = "Allowed" if one.allowed else "Refused"
    match one.decided_by:
        case Policy(name=name):
            return f"{verb}: the policy “{name}” decides."
        case Rule(name=name):
            return f"{verb}: {name} (built in)."
    if not one.active:
        return f"{verb}: the user, or the tenant, is barred from the platform."
    if one.allowed:
        return f"{verb}: the user has the permission {permission}, and no policy says otherwise."
    return f"{verb}: the user has not the permission {permission}, and no policy or built-in rule allows it."


def _considered(one: Considered, *, decided: bool) -> decisions_pb2.ConsideredRule:
    source, holds = one.source, one.holds
    if isinstance(source, Rule):
        kind = RuleKind.RULE_KIND_BUILT_IN
        return decisions_pb2.ConsideredRule(kind=kind, name=source.name, allow=True, holds=holds, decided=decided)
    of_platform = source.tenant_id == SYSTEM_TENANT
    return decisions_pb2.ConsideredRule(
        kind=RuleKind.RULE_KIND_PLATFORM_POLICY if of_platform else RuleKind.RULE_KIND_POLICY,
        id=str(source.id),
        name=source.name,
        allow=source.allow,
        priority=source.priority,
        holds=holds,
        decided=decided,
    )


def _change(one: Change) -> decisions_pb2.AccessChange:
    value = False if one.kind == "policy" else one.value
    kind: Any = f"ACCESS_CHANGE_KIND_{one.kind.upper()}"
    return decisions_pb2.AccessChange(kind=kind, subject=one.subject, value=_value(value))


def _value(value: Any) -> Value:
    """Of anything that an attribute can be; times and ids are text."""
    plain = sorted(value, key=str) if isinstance(value, MANY) else value
    made: Value = ParseDict(json.loads(as_json({"value": plain}))["value"], Value())
    return made
