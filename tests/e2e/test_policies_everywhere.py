"""Policies bind every RPC of every service: a handler that forgot to ask would answer somebody who may do nothing."""

import asyncio
import sys
from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor

from kit.access import EXEMPT
from kit.options import requires
from tests.contract import api, requests
from tests.contract.answers import Answer, answer
from tests.contract.population import Population, ask, populate
from tests.stack import Person, Stack, add_person

# What decides about them is who calls, not a permission.
STREAMED_REQUESTS = {"ImportUsers"}
# Of tenants the platform's staff decide: a tenant's policies do not bind them, and its users never get so far.
STAFF_ONLY = {"tenant"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
async def population(stack: Stack) -> Population:
    return await populate(stack)


@pytest.fixture(scope="module")
async def bound(population: Population) -> AsyncIterator[Person]:
    """An administrator, who holds every permission, and to whom one policy refuses everything."""
    ours = population.ours
    person = await add_person(ours.admin, ours.canary, "bound", "admin")
    # It looks at the user alone, and so is no policy that refuses everybody: only the handler's own question meets it.
    conditions = [{"field": "user.id", "operator": "eq", "value": person.user_id}]
    policy = {"name": "bound", "resource": "all", "effect": "POLICY_EFFECT_DENY", "conditions": conditions}
    made = await ask(ours.admin, "CreateResourcePolicy", policy=policy)
    await ask(ours.admin, "ActivateResourcePolicy", id=made.id)
    await asyncio.sleep(2)
    yield person
    await ask(ours.admin, "DeactivateResourcePolicy", id=made.id)


def asked_for(rpc: MethodDescriptor) -> bool:
    who = requires(rpc)
    return bool(who.resource) and who.resource not in {EXEMPT, *STAFF_ONLY} and rpc.name not in STREAMED_REQUESTS


BOUND = [pytest.param(rpc, id=api.short(rpc)) for rpc in api.rpcs() if asked_for(rpc)]


def is_refused(rpc: MethodDescriptor, found: Answer) -> bool:
    """Refused, or a list without anything."""
    if found.ok:
        lists = "page_token" in rpc.input_type.fields_by_name or rpc.name.startswith("BatchGet")
        return lists and not found.body
    return found.code is grpc.StatusCode.PERMISSION_DENIED and b"PERMISSION_REQUIRED" in found.details


class TestEveryRpcThatAsksForAPermission:
    @pytest.mark.parametrize("rpc", BOUND)
    async def test_obeys_a_policy_about_the_caller(
        self, rpc: MethodDescriptor, population: Population, bound: Person
    ) -> None:
        ids = population.ours.ids
        request = requests.make(rpc, sorted(requests.minimal(rpc)), lambda kind: ids[kind][0])
        found = await answer(bound, rpc, request)
        assert is_refused(rpc, found), f"{found.code.name} {found.message}"

    async def test_could_do_it_without_the_policy(self, population: Population) -> None:
        """Or being refused would prove nothing."""
        ids, opened = population.ours.ids, 0
        reads = [one.values[0] for one in BOUND if one.values[0].name.startswith(("Get", "List"))]
        for rpc in reads:
            request = requests.make(rpc, sorted(requests.minimal(rpc)), lambda kind: ids[kind][0])
            opened += (await answer(population.ours.admin, rpc, request)).ok
        sys.stdout.write(f"{len(BOUND)} RPCs bound; {opened} of {len(reads)} reads open without the policy\n")
        assert opened >= len(reads) - 2
