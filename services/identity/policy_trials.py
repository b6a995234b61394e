"""PolicyTrialService: what policies would do, tried on examples and on the resources that there are."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Value

from kit.access import EXEMPT, Attribute, Condition, denied, require
from kit.access.attributes import ANY_KIND, canonical, find_attribute, read_value
from kit.access.conditions import MANY, comparisons, evaluate
from kit.auth import current
from kit.call import current_call
from kit.db import Database
from kit.errors import InvalidArgument
from kit.limiter import Limiter
from kit.models import now
from services.identity import queries
from services.identity.access import policy_in_force
from services.identity.catalogue import ONLY_APPROVED, attributes, owner_of, resources
from services.identity.models import ResourcePolicy
from services.identity.resource_policies import check_policy, said
from storyloom.access.v1 import decisions_pb2
from storyloom.identity.v1 import policy_trials_pb2, resource_policies_pb2

USUAL_ACTIONS = ("read", "list", "update", "delete")
MOST_USERS = 100
USERS_AT_ONCE = 10
# Comparisons of one value with another in one call, which nobody else's call can interrupt.
MOST_TRIALS = 200_000
# A text takes as long to look through as so many of its characters have values.
CHARACTERS_PER_VALUE = 500
# Each keeps another service's connection busy for seconds.
PREVIEWS_AT_ONCE, LONGEST_WAIT_SECONDS = 1, 0.1


class PolicyTrialService:
    """`deciders` are the services' own DecisionServices, by the name of the service."""

    SERVICE = policy_trials_pb2.DESCRIPTOR.services_by_name["PolicyTrialService"]

    def __init__(self, db: Database, deciders: Mapping[str, Any]) -> None:
        self.db, self.deciders = db, deciders
        self.turns = Limiter(PREVIEWS_AT_ONCE, LONGEST_WAIT_SECONDS)

    async def TestPolicy(
        self, request: policy_trials_pb2.TestPolicyRequest, context: Any
    ) -> policy_trials_pb2.TestPolicyResponse:
        policy = ResourcePolicy(**said(request.policy))
        require("test", policy)
        condition = check_policy(policy, ("resource", "conditions"))
        examples = _read_examples(request.examples, policy.resource)
        _check_effort(condition, examples)
        results = (_tried(condition, policy.resource, one) for one in examples)
        return policy_trials_pb2.TestPolicyResponse(
            results=[
                policy_trials_pb2.PolicyExampleResult(name=example.name, holds=holds, comparisons=each)
                for example, (holds, each) in zip(request.examples, results, strict=True)
            ]
        )

    async def PreviewPolicy(
        self, request: policy_trials_pb2.PreviewPolicyRequest, context: Any
    ) -> policy_trials_pb2.PreviewPolicyResponse:
        stored = None
        async with self.db.read() as session:
            if request.policy.id:
                stored = await queries.get_policy_row(session, UUID(request.policy.id))
            policy, in_force = _foreseen(request.policy, stored)
            require("test", policy, resource="resource_policy")
            resource, actions = _looked_at(request, policy, stored)
            _require_sight(resource)
            ids = await queries.list_active_users(session, [UUID(one) for one in request.user_ids], MOST_USERS)
        if not ids:
            return policy_trials_pb2.PreviewPolicyResponse()
        asked = decisions_pb2.PreviewPolicyRequest(
            tenant_id=str(current().tenant_id), in_force=in_force, resource=resource, actions=actions
        )
        asked.policy.CopyFrom(policy_in_force(policy, current().tenant_id))
        async with self.turns.slot(current().tenant_id):
            differences, users = await _ask(self.deciders[owner_of(resource)], asked, ids)
        return policy_trials_pb2.PreviewPolicyResponse(differences=differences, users=users)


async def _ask(
    decider: Any, asked: decisions_pb2.PreviewPolicyRequest, ids: Sequence[UUID]
) -> tuple[list[decisions_pb2.AccessDifference], int]:
    """What the decider says of the users, or, where there are many resources, of as many of them as there is time for;
    and of how many that is."""
    clock, call = asyncio.get_running_loop().time, current_call()
    started, end = clock(), call.deadline if call and call.deadline else float("inf")
    found: list[decisions_pb2.AccessDifference] = []
    for asked_before in range(0, len(ids), USERS_AT_ONCE):
        for_each = (clock() - started) / max(1, asked_before)
        if clock() + 2 * USERS_AT_ONCE * for_each > end:
            return found, asked_before
        del asked.user_ids[:]
        asked.user_ids.extend(map(str, ids[asked_before : asked_before + USERS_AT_ONCE]))
        found.extend((await decider.PreviewPolicy(asked)).differences)
    return found, len(ids)


def _require_sight(resource: str) -> None:
    """Whoever learns which resources a condition picks out, of any that they write, learns what is in them."""
    snapshot = current().snapshot
    if snapshot is None or not snapshot.grants(resource, "read"):
        raise denied(resource, "read")


def _read_examples(
    examples: Sequence[policy_trials_pb2.PolicyExample], resource: str
) -> list[dict[str, Any]]:
    """The attributes of each, by the path that they have in conditions; INVALID_ARGUMENT names what cannot be."""
    fields, wrong, found = attributes(resource), [], []
    for index, example in enumerate(examples):
        values: dict[str, Any] = {"request.time": now()}
        for path, value in sorted(example.attributes.fields.items()):
            attribute = find_attribute(path, resource, fields)
            try:
                values[canonical(path, resource)] = _value(value, attribute)
            except ValueError as error:
                wrong.append((f'examples[{index}].attributes["{path}"]', str(error)))
        found.append(values)
    if wrong:
        raise InvalidArgument.fields(wrong)
    return found


def _value(sent: Value, attribute: Attribute | None) -> Any:
    """The value as it would be in a decision; None for a missing one. ValueError says what is wrong with another."""
    if attribute is None:
        raise ValueError("no attribute that a policy on this resource may use")
    try:
        value = MessageToDict(sent)
    except ValueError as error:
        raise ValueError("not a finite number") from error
    if value is None or attribute.kind == ANY_KIND:
        return value
    if not attribute.many:
        return read_value(value, attribute, attribute.kind)
    if not isinstance(value, list):
        raise ValueError("not a list")  # noqa: TRY004  # it is of the client's making
    return frozenset(read_value(one, attribute, attribute.kind) for one in value)


def _check_effort(condition: Condition, examples: Sequence[Mapping[str, Any]]) -> None:
    """Refuses what would keep everybody else waiting."""
    values = sum(_size(one.value) for one in comparisons(condition))
    if values * sum(max(map(_size, one.values())) for one in examples) > MOST_TRIALS:
        raise InvalidArgument.fields([("examples", "too many for conditions with so many values: send fewer at once")])


def _size(value: Any) -> int:
    if isinstance(value, MANY):
        return max(1, sum(map(_size, value)))
    return max(1, len(value) // CHARACTERS_PER_VALUE) if isinstance(value, str) else 1


def _tried(condition: Condition, resource: str, values: Mapping[str, Any]) -> tuple[bool, list[bool]]:
    """Whether the condition holds for the values, and each of its comparisons."""
    each = [evaluate(one, values.get, resource) for one in comparisons(condition)]
    return evaluate(condition, values.get, resource), each


def _foreseen(sent: resource_policies_pb2.ResourcePolicy, stored: Any) -> tuple[Any, bool]:
    """The policy in question, and whether the question is what would be if it were in force, or no longer were."""
    written = said(sent)
    if stored is not None and not written:
        return stored, stored.state == "draft"
    policy = ResourcePolicy(**written) if stored is None else ResourcePolicy(id=stored.id, **written)
    check_policy(policy, ("resource", "conditions", "effect"))
    return policy, True


def _looked_at(
    request: policy_trials_pb2.PreviewPolicyRequest, policy: Any, stored: Any
) -> tuple[str, Sequence[str]]:
    """The kind of resource and the actions to look at."""
    resource = request.resource or policy.resource
    if resource == "all":
        raise InvalidArgument.fields([("resource", "is required for a policy about all kinds")])
    if resource not in resources() or resource in {EXEMPT, *ONLY_APPROVED}:
        raise InvalidArgument.fields([("resource", "no kind of resource that policies are about")])
    known = resources()[resource].actions
    if wrong := [*_wrong_actions(request.actions, resource)]:
        raise InvalidArgument.fields(wrong)
    texts = [policy] if stored is None else [policy, stored]
    every = any(not one.actions or "manage" in one.actions for one in texts)
    about = USUAL_ACTIONS if every else sorted({action for one in texts for action in one.actions})
    actions = request.actions or [one for one in about if one in known]
    if not actions:
        raise InvalidArgument.fields([("actions", f"is required: the policy is about nothing that {resource} has")])
    return resource, actions


def _wrong_actions(actions: Sequence[str], resource: str) -> Iterator[tuple[str, str]]:
    for index, action in enumerate(actions):
        if action not in resources()[resource].actions:
            yield f"actions[{index}]", f"{resource}:{action} is not in the permission catalogue"
