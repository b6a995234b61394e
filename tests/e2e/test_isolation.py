"""No call of one tenant's people tells anything of another's rows, not even that they exist.

Every RPC is called as its descriptor says, with the ids of real rows of another tenant and with ids of no row at all.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from kit.auth import ServiceCredential
from kit.ids import new_id
from kit.settings import SERVICES
from services.callers import ALLOWED
from tests.contract import api, requests
from tests.contract.answers import Answer, answer
from tests.contract.population import Population, Tenancy, implementer, populate
from tests.stack import Person, Stack

# Every other RPC has an id, or is a list.
WITHOUT_IDS = {
    "CreateSession": "public: names a tenant by its slug, and its password proves the rest",
    "RefreshSession": "public: a secret token names the session",
    "AcceptInvitation": "public: a secret token names the invitation",
    "DeleteSession": "of the caller's own session",
    "GetJwks": "public: the platform's keys",
    "GetMe": "of the caller",
    "ChangePassword": "of the caller",
    "GetMyTenant": "of the caller's tenant",
    "ImportUsers": "of the caller's tenant: its files name people by their addresses",
    "ImportPackage": "of the caller's tenant: packages name nothing by ids",
    "ImportQuestions": "of the caller's tenant: files name nothing by ids",
    **dict.fromkeys(("ImportVocabularies", "ImportVocabularyText"), "of the caller's tenant: rows name nothing by ids"),
    "ExportVocabularies": "of the caller's tenant",
    "GetCheckpoint": "of the caller's tenant: names a size of its log",
    "GetConsistencyProof": "as above",
    "GetVerifierKey": "of the caller's tenant",
    "WatchRevisions": "services only",
    "CreateLegalHold": "of the caller's tenant: its log as a whole",
    "Search": "of what the caller may list: looked for like a list",
    "GetReviewQueue": "of the caller",
    **dict.fromkeys(("GetTenantActivity", "GetTenantRetention"), "of the caller's tenant"),
    "GetHome": "of the caller",
    "ExportVocabularyProgress": "of the caller",
    "GetOutbox": "services only",
    "GetOutboxStandings": "of the platform, for its own staff",
    "RotateSigningKey": "of the platform, for its own staff",
}
# Of the platform, for its own staff.
OF_THE_PLATFORM = {"ListTenants", "ListParkedEvents"}
# What a call without an error may be: it makes or lists the caller's own; or is a question about access, whose answer
# is the same for what does not exist.
MAY_SUCCEED = (
    *("Create", "BatchCreate", "BatchGet", "List", "TestPolicy", "PreviewPolicy", "CheckAccess", "BatchCheckAccess"),
    *("ExportAuditLogs", "ExportStatements", "WatchAuditLogs"),
    # Words that there are not are left out.
    *("RecordVocabularyExposures", "ImportKnownVocabulary"),
    # Events of lessons and words that there are not are rejected, each by itself.
    "SyncClientEvents",
)
# What visitors have said themselves: their own tenant's audit log may tell them of it.
named: set[str] = set()
LISTS = [pytest.param(rpc, id=api.short(rpc)) for rpc in api.rpcs() if "page_token" in rpc.input_type.fields_by_name]
READS = [
    pytest.param(rpc, id=api.short(rpc))
    for rpc in api.rpcs()
    # Progress is a learner's own; a file is its link's.
    if rpc.name.startswith("Get") and requests.id_paths(rpc) and api.http(rpc)
    if rpc.name not in {"GetProgress", "GetAudioFile"}
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
async def population(stack: Stack) -> Population:
    return await populate(stack)


@dataclass
class Attempts:
    """The calls of one test, and what is wrong with their answers."""

    of_ours: set[str]
    count: int = 0
    findings: list[str] = field(default_factory=list)

    async def compare(
        self, person: Person, rpc: MethodDescriptor, foreign: dict[str, str], absent: dict[str, str]
    ) -> None:
        """The same request with other ids; whatever else it says may differ."""
        first, second = await self._ask(person, rpc, foreign), await self._ask(person, rpc, absent)
        if first.ok and not second.ok:
            # What could be made once can't be made twice: that has nothing to do with the ids.
            first = await self._ask(person, rpc, foreign)
        taken = {path for path, one in foreign.items() if one in self.of_ours}
        name = f"{api.short(rpc)} as {person.email} with {sorted(taken)} of {sorted(foreign)}"
        if not first.same_as(second):
            self.findings.append(f"{name}: foreign {shown(first)}, absent {shown(second)}")
        if leaked := first.holds(self.of_ours - named):
            self.findings.append(f"{name}: tells {leaked}")
        every = {path for path, one in foreign.items() if one}
        if first.ok and taken == every and not rpc.name.startswith(MAY_SUCCEED):
            self.findings.append(f"{name}: succeeds")

    async def _ask(self, person: Person, rpc: MethodDescriptor, ids: dict[str, str]) -> Answer:
        request = requests.make(rpc, sorted(ids), ids)
        self.count += 1
        named.update(requests.texts(request))
        return (await answer(person, rpc, request)).without(requests.texts(request))


def shown(one: Answer) -> str:
    return f"{one.code.name} {one.message!r} {one.details!r}"


def secrets(tenancy: Tenancy) -> set[str]:
    return {tenancy.canary, *(one for ids in tenancy.ids.values() for one in ids)}


def aimed(rpc: MethodDescriptor, ours: Tenancy, theirs: Tenancy) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Ids of each shape of request by path, foreign and absent: all of them, and each one among ids of the caller's
    own rows, where the call gets further. Fields without ids are there with an empty one."""
    for shape in requests.shapes(rpc):
        fields = requests.leaves(rpc)
        paths = [path for path in sorted(shape) if requests.is_id(fields[path])]
        rest = dict.fromkeys(shape - set(paths), "")
        foreign, own = (chosen(rpc, paths, tenancy) for tenancy in (ours, theirs))
        absent = {path: str(new_id()) for path in paths}
        yield rest | foreign, rest | absent
        for path in paths if len(paths) > 1 else ():
            yield rest | own | {path: foreign[path]}, rest | own | {path: absent[path]}


def chosen(rpc: MethodDescriptor, paths: list[str], tenancy: Tenancy) -> dict[str, str]:
    """An id of the tenant's for each path, another one for each of a kind as long as there are."""
    left = {kind: list(ids) for kind, ids in tenancy.ids.items()}
    kinds = {path: left[requests.kind_of(rpc, requests.leaves(rpc)[path])] for path in paths}
    return {path: ids.pop(0) if len(ids) > 1 else ids[0] for path, ids in kinds.items()}


class TestEveryRpcWithAnId:
    def test_is_every_rpc_that_is_not_excused(self) -> None:
        found = {rpc.name for rpc in api.rpcs() if not requests.id_paths(rpc) and "List" not in rpc.name}
        assert found == WITHOUT_IDS.keys()

    @pytest.mark.parametrize("service", [*SERVICES, "event", "subject"])
    @pytest.mark.parametrize("who", ["admin", "student"])
    async def test_answers_foreign_and_absent_ids_alike(
        self, service: str, who: str, population: Population
    ) -> None:
        ours, theirs = population.ours, population.theirs
        attempts = Attempts(secrets(ours))
        rpcs = [rpc for rpc in api.rpcs() if api.owner(rpc) == service and requests.id_paths(rpc)]
        for rpc in rpcs:
            before = attempts.count
            for foreign, absent in aimed(rpc, ours, theirs):
                await attempts.compare(getattr(theirs, who), rpc, foreign, absent)
            assert attempts.count > before, f"{api.short(rpc)} was not called"
        sys.stdout.write(f"{attempts.count} attempts on {len(rpcs)} RPCs of {service} as {who}\n")
        assert not attempts.findings, "\n" + "\n".join(attempts.findings)

    @pytest.mark.parametrize("rpc", READS)
    async def test_notices_who_can_see_the_rows(self, rpc: MethodDescriptor, population: Population) -> None:
        """Or the test above would prove nothing: their own administrator gets other answers for them."""
        attempts = Attempts(secrets(population.ours))
        for foreign, absent in aimed(rpc, population.ours, population.ours):
            await attempts.compare(population.ours.admin, rpc, foreign, absent)
        assert attempts.findings

    async def test_gives_services_that_ask_for_one_tenant_nothing_of_another(self, population: Population) -> None:
        ours, theirs = population.ours, population.theirs
        attempts = Attempts(secrets(ours))
        asked = [
            rpc
            for rpc in api.rpcs()
            # It would be the end of the visitors' own tenant.
            if api.is_internal(rpc) and "tenant_id" in rpc.input_type.fields_by_name and rpc.name != "PurgeTenant"
        ]
        for rpc in asked:
            for foreign, absent in aimed(rpc, ours, theirs):
                tenant = {"tenant_id": theirs.ids["tenant"][0]}
                await attempts.compare(service_calling(rpc, population), rpc, foreign | tenant, absent | tenant)
        assert len(asked) == 9
        assert not attempts.findings, "\n" + "\n".join(attempts.findings)


def service_calling(rpc: MethodDescriptor, population: Population) -> Person:
    """A service that may call the internal RPC, with its credential."""
    name = min(ALLOWED[rpc.containing_service.full_name])
    stack = population.school.stack
    credential = ServiceCredential(name, stack.environments[name]["SERVICE_CREDENTIAL"])
    return Person(stack, "", name, credential.token(implementer(rpc)))


@pytest.mark.parametrize("rpc", LISTS)
class TestEveryList:
    async def test_shows_its_own_tenant(self, rpc: MethodDescriptor, population: Population) -> None:
        """Or the other tests of this class would find nothing in whatever it shows."""
        # The newest entries of the logs tell of whatever test ran last; those of a course and of a word do not.
        ids = population.ours.ids
        about = {
            "ListAuditLogs": {"entity_id": ids["course"][0]},
            "ListVocabularyReviews": {"vocabulary_id": ids["vocabulary"][0]},
        }.get(rpc.name, {})
        shown = await answer(population.ours.admin, rpc, filled(rpc, population.ours, **about))
        assert shown.holds(secrets(population.ours)) or rpc.name in OF_THE_PLATFORM, shown

    async def test_shows_nobody_elses_rows(self, rpc: MethodDescriptor, population: Population) -> None:
        for who in ("admin", "teacher", "student"):
            for query in ({}, {"query": population.ours.canary}):
                shown = await answer(getattr(population.theirs, who), rpc, filled(rpc, population.theirs, **query))
                assert shown.holds(secrets(population.ours) - named) == [], who

    async def test_takes_no_page_token_of_another_tenant(self, rpc: MethodDescriptor, population: Population) -> None:
        token = await first_token(rpc, population.ours)
        if not token:
            # There are two of everything else.
            assert rpc.name in OF_THE_PLATFORM
            return
        for tenancy in (population.ours, population.theirs):
            request = filled(rpc, tenancy, page_token=token, page_size=1)
            refused = await answer(population.theirs.admin, rpc, request)
            assert refused.code.name in {"INVALID_ARGUMENT", "NOT_FOUND"}, refused
            assert refused.holds(secrets(population.ours) - named) == []
        mine = filled(rpc, population.ours, page_token=token, page_size=1)
        assert (await answer(population.ours.admin, rpc, mine)).ok


def filled(rpc: MethodDescriptor, tenancy: Tenancy, **others: Any) -> Any:
    """The list's request with what it cannot do without, and with other fields as far as it has them."""
    request: Any = requests.make(rpc, sorted(requests.minimal(rpc)), lambda kind: tenancy.ids[kind][0])
    for name, value in others.items():
        if name in request.DESCRIPTOR.fields_by_name:
            setattr(request, name, value)
    return request


async def first_token(rpc: MethodDescriptor, tenancy: Tenancy) -> str:
    page = await answer(tenancy.admin, rpc, filled(rpc, tenancy, page_size=1))
    return str(GetMessageClass(rpc.output_type).FromString(page.body or b"").next_page_token)
