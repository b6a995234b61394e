"""Each role on every RPC of the running services: what neither its permissions nor a rule opens is refused."""

from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2, status_pb2

from kit.ids import new_id
from kit.options import requires
from services.identity.policies import TENANT_ROLES
from tests.contract import api, requests
from tests.contract.answers import FAULTS, Answer, answer
from tests.contract.population import Population, populate
from tests.contract.test_permissions import holds, rules_of
from tests.stack import Person, Stack

# It would end the session with which the next call is made.
NOT_CALLED = {"DeleteSession"}
MALFORMED = b"\xff\xff\xff"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
async def population(stack: Stack) -> Population:
    return await populate(stack)


def opened(role: str, rpc: MethodDescriptor) -> bool:
    """Whether the role's permissions or a built-in rule could allow the RPC."""
    pair = api.permission(rpc)
    assert pair is not None
    ruled = any(rule.resource == pair[0] and pair[1] in rule.actions for rule in rules_of(api.owner(rpc)))
    return ruled or holds(TENANT_ROLES[role].pairs, pair)


def guarded(role: str, *, allowed: bool) -> Iterator[MethodDescriptor]:
    return (rpc for rpc in api.rpcs() if api.permission(rpc) and opened(role, rpc) == allowed)


def reason(one: Answer) -> tuple[str, dict[str, str]]:
    info = error_details_pb2.ErrorInfo()
    for detail in status_pb2.Status.FromString(one.details).details:
        detail.Unpack(info)
    return info.reason, dict(info.metadata)


def request_of(rpc: MethodDescriptor, population: Population | None = None) -> requests.Message:
    """The smallest request, about rows of the caller's tenant or about none that exist."""
    paths = sorted(requests.minimal(rpc))
    return requests.make(rpc, paths, lambda kind: population.ours.ids[kind][0] if population else str(new_id()))


@pytest.mark.parametrize("role", ["teacher", "student", "auditor"])
class TestRoles:
    async def test_are_refused_what_nothing_opens_for_them(self, role: str, population: Population) -> None:
        person: Person = getattr(population.school, role)
        found = []
        for rpc in guarded(role, allowed=False):
            refused = await answer(person, rpc, request_of(rpc, population))
            resource, action = api.permission(rpc) or ("", "")
            wanted = "PERMISSION_REQUIRED", {"permission": f"{resource}:{action}", "resource": resource}
            if (refused.code, reason(refused)) != (grpc.StatusCode.PERMISSION_DENIED, wanted):
                found.append(f"{api.short(rpc)}: {refused}")
        assert not found, "\n" + "\n".join(found)

    async def test_learn_nothing_of_the_rules_for_what_they_may_not_send(
        self, role: str, population: Population
    ) -> None:
        person: Person = getattr(population.school, role)
        for rpc in guarded(role, allowed=False):
            refused = await answer(person, rpc, MALFORMED)
            assert refused.code is grpc.StatusCode.PERMISSION_DENIED, api.short(rpc)

    async def test_meet_no_fault_where_they_may_go(self, role: str, population: Population) -> None:
        person: Person = getattr(population.school, role)
        for rpc in guarded(role, allowed=True):
            reached = await answer(person, rpc, request_of(rpc))
            assert reached.code not in FAULTS | {grpc.StatusCode.UNAUTHENTICATED}, (api.short(rpc), reached)


class TestEverybody:
    async def test_needs_a_token_except_to_sign_in(self, population: Population) -> None:
        nobody = Person(population.school.stack, "", "", "")
        for rpc in api.rpcs():
            if not requires(rpc).public:
                refused = await answer(nobody, rpc, request_of(rpc))
                assert refused.code is grpc.StatusCode.UNAUTHENTICATED, api.short(rpc)

    async def test_gets_what_only_a_token_is_needed_for(self, population: Population) -> None:
        for rpc in api.rpcs():
            if requires(rpc).authenticated and rpc.name not in NOT_CALLED:
                reached = await answer(population.school.student, rpc, request_of(rpc))
                assert reached.ok or rpc.name == "ChangePassword", (api.short(rpc), reached)

    async def test_is_refused_what_services_call(self, population: Population) -> None:
        for rpc in api.rpcs():
            if api.is_internal(rpc):
                refused = await answer(population.school.admin, rpc, request_of(rpc))
                assert refused.code is grpc.StatusCode.UNAUTHENTICATED, api.short(rpc)

    async def test_of_the_administrators_reaches_every_rpc_of_a_tenant(self, population: Population) -> None:
        for rpc in api.rpcs():
            pair = api.permission(rpc)
            # Tenants belong to the platform, whoever is administrator of one.
            if pair and pair[0] != "tenant":
                reached = await answer(population.school.admin, rpc, request_of(rpc))
                assert reached.code is not grpc.StatusCode.PERMISSION_DENIED, (api.short(rpc), reached)
