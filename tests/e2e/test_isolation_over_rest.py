"""The random requests of test_isolation_at_length as JSON through the real gateway: 8,000 in `make proof`."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import grpc
import httpx
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from deploy.local.environment import PLATFORM_ADMIN
from deploy.local.secrets import read_secrets
from kit.migrations import in_database
from tests.contract import api, requests
from tests.contract.answers import Answer
from tests.contract.population import populate
from tests.e2e.test_isolation import READS, secrets
from tests.e2e.test_isolation_at_length import REACHED, Run, attack
from tests.profile import PROOF
from tests.running import Running
from tests.stack import PASSWORD, Person, Stack

ATTEMPTS = 8_000 if PROOF else 160
CODES = {code.value[0]: code for code in grpc.StatusCode}
# To those who may watch, it goes on for ever, and JSON clients have no first message to stop at; gRPC tries it often.
ENDLESS = {"WatchAuditLogs"}
MAPPED = [rpc for rpc in REACHED if api.http(rpc) and rpc.name not in ENDLESS]
# They tell of the call, differently each time.
CALLS_OWN = {"date", "x-request-id", "x-trace-id", "content-length"}


class Processes(Stack):
    """The platform's processes, as far as tests call them past the gateway: to make rows, and to see them arrive."""

    def __init__(self, platform: Running) -> None:
        self.environments = {name: {"LISTEN_ADDRESS": str(one[0])} for name, one in platform.settings.services.items()}
        self.cluster = cast(Any, SimpleNamespace(superuser_url=in_database(platform.settings.admin_url, "storyloom")))
        self.services = {}
        self._channels = {}
        self._secrets = read_secrets(platform.settings.directory / "secrets.env")

    async def sign_in(self, tenant: str, email: str, password: str = PASSWORD) -> Person:
        if tenant == "platform":
            email, password = PLATFORM_ADMIN, self._secrets["PLATFORM_ADMIN_PASSWORD"]
        return await super().sign_in(tenant, email, password)


@pytest.fixture(scope="module")
async def processes(platform: Running) -> AsyncIterator[Processes]:
    made = Processes(platform)
    yield made
    await made.stop()


@dataclass
class RestRun(Run):
    """Sends its requests as clients of the JSON API do."""

    client: httpx.AsyncClient = field(default_factory=httpx.AsyncClient)

    async def send(self, caller: Person, rpc: MethodDescriptor, request: Message) -> Answer:
        verb, path, body, query = transcoded(rpc, request)
        got = await self.client.request(verb, path, json=body, params=query, headers=dict(caller.metadata))
        heads = " ".join(value for name, value in got.headers.items() if name not in CALLS_OWN)
        said = requests.texts(request)
        if leaked := [one for one in self.secrets - said if one in heads]:
            self.findings.append(f"{api.short(rpc)}: the headers tell {leaked}")
        names = tuple(sorted(got.headers.keys() - CALLS_OWN))
        if got.status_code == 200:
            return Answer(grpc.StatusCode.OK, trailers=names, body=got.content)
        code = CODES[got.json()["code"]] if got.status_code < 500 else grpc.StatusCode.INTERNAL
        return Answer(code, f"HTTP {got.status_code}", got.content, names)


def transcoded(rpc: MethodDescriptor, request: Message) -> tuple[str, str, Any, list[tuple[str, str]]]:
    """Verb, path, JSON and query of the RPC's first binding, as google.api.http lays them down."""
    verb, template, body = api.http(rpc)[0]
    whole = json_format.MessageToDict(request)
    parts = template.replace("}", "{").split("{")
    path = "".join(take(whole, part) if index % 2 else part for index, part in enumerate(parts))
    sent = whole if body == "*" else whole.pop(json_name(rpc, body), {}) if body else None
    return verb.upper(), path, sent, [] if body == "*" else list(flat(whole))


def json_name(rpc: MethodDescriptor, name: str) -> str:
    return str(rpc.input_type.fields_by_name[name].json_name)


def take(whole: dict[str, Any], dotted: str) -> str:
    """Out of the message and into the path."""
    *above, last = (camel(name) for name in dotted.split("."))
    node = whole
    for name in above:
        node = node[name]
    return str(node.pop(last))


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)


def flat(whole: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(whole, dict):
        for name, value in whole.items():
            yield from flat(value, f"{path}.{name}" if path else name)
    elif isinstance(whole, list):
        for value in whole:
            yield from flat(value, path)
    else:
        yield path, str(whole).lower() if isinstance(whole, bool) else str(whole)


class TestOverRest:
    @pytest.mark.timeout(3000 if PROOF else 120)
    async def test_nothing_of_one_tenant_is_told_to_another(self, platform: Running, processes: Processes) -> None:
        async with httpx.AsyncClient(base_url=platform.url, timeout=20) as client:
            await attack(processes, RestRun(client=client), MAPPED, ATTEMPTS)

    async def test_notices_who_can_see_the_rows(self, platform: Running, processes: Processes) -> None:
        """Or the test above would prove nothing: the same requests in the rows' own tenant find them."""
        ours = (await populate(processes)).ours
        async with httpx.AsyncClient(base_url=platform.url, timeout=20) as client:
            run = RestRun(client=client)
            for rpc in (param.values[0] for param in READS):
                request = requests.make(rpc, sorted(requests.minimal(rpc)), lambda kind: ours.ids[kind][0])
                # Of the progress in a course, only learners have some of their own.
                person = ours.student if rpc.name == "GetCourseProgress" else ours.admin
                got = await run.send(person, rpc, request)
                assert got.ok, (api.short(rpc), got)
                assert got.holds(secrets(ours)), api.short(rpc)
