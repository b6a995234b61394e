"""Forged, damaged and misplaced credentials open nothing: neither at the gateway nor straight at a service."""

import re
import socket
import sys
from collections.abc import Iterator, Sequence
from itertools import cycle
from uuid import uuid4

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor

from deploy.local.secrets import read_secrets
from deploy.rest import Rest
from kit.migrations import in_database
from kit.options import requires
from kit.settings import SERVICES
from storyloom.identity.v1 import sessions_pb2
from storyloom.identity.v1.sessions_pb2_grpc import SessionServiceStub
from tests.contract import api
from tests.e2e import hostile
from tests.e2e.forge import Forge, Form, service_forge, user_forge
from tests.profile import PROOF
from tests.running import Running
from tests.stack import School, Stack

FEWEST = 100
REFUSED = {400, 401, 431}
# Only identity itself could sign such a token; Envoy has no header to put the claim in, and closes the stream.
UNSENDABLE = {(f'{name} "the right one\\u0000"', 503) for name in ("sub", "tid")}
DOES_NOT_SERVE = {"UNIMPLEMENTED", "UNAUTHENTICATED", "PERMISSION_DENIED"}

pytestmark = pytest.mark.slow


def guarded(service: str, *, internal: bool) -> list[MethodDescriptor]:
    """The service's RPCs that ask for a token: for a user's, or for a service's."""
    shared = {api.owner(rpc) for rpc in api.rpcs()} - set(SERVICES)
    rpcs = [rpc for rpc in api.rpcs() if api.owner(rpc) in {service, *shared} and not rpc.client_streaming]
    return [rpc for rpc in rpcs if not requires(rpc).public and api.is_internal(rpc) == internal]


@pytest.fixture(scope="module")
async def forge(school: School) -> Forge:
    """Of the teacher's tokens, for somebody who has only just signed in."""
    stack = school.stack
    mine = await stack.sign_in(school.slug, school.teacher.email)
    other = await stack.sign_in("bamboo", school.outsider_teacher.email)
    key = stack.environments["identity"]["KEY_ENCRYPTION_KEY"]
    return await user_forge(stack.cluster.superuser_url, key, mine.token, other.token)


@pytest.fixture(scope="module")
async def others(school: School, forge: Forge) -> list[Form]:
    """What is no forged access token and opens nothing all the same."""
    stack = school.stack
    over = await stack.sign_in(school.slug, school.student.email)
    await over.stub(SessionServiceStub, "identity").DeleteSession(sessions_pb2.DeleteSessionRequest())
    credentials = [service_token(stack, "content", audience) for audience in (*SERVICES, "storyloom")]
    found = hostile.besides(forge, school.admin.user_id, over.refresh_token, over.token, credentials)
    return list(found)


@pytest.fixture(scope="module")
async def gateway_forms(platform: Running) -> list[Form]:
    database = in_database(platform.settings.admin_url, "storyloom")
    secrets = read_secrets(platform.settings.directory / "secrets.env")
    nobody, school = Rest(platform.url), "hoa-sen"
    mine = {"tenant": school, "email": f"minh@{school}.example", "password": platform.password}
    session, over = (nobody.post("/v1/sessions", mine) for _ in range(2))
    Rest(platform.url, over["accessToken"]).post("/v1/sessions:signOut")
    other = platform.sign_in("sophie", "bamboo")
    key = secrets["KEY_ENCRYPTION_KEY"]
    forge = await user_forge(database, key, session["accessToken"], other.token)
    status, body = ask(platform, "GET", "/v1/me", Form("", (("authorization", f"Bearer {forge.token()}"),)))
    assert status == 200, f"the forge is no good: {body!r}"
    credentials = [
        service_forge("content", secrets["SERVICE_CREDENTIAL_CONTENT"], audience).token()
        for audience in (*SERVICES, "storyloom")
    ]
    besides = hostile.besides(
        forge, session["user"]["id"], session["refreshToken"], over["accessToken"], credentials
    )
    return [*hostile.forms(forge), *besides, *doubled(forge, other.token)]


class TestService:
    @pytest.mark.parametrize("service", SERVICES)
    async def test_refuses_every_form_of_a_users_token(
        self, service: str, school: School, forge: Forge, others: list[Form]
    ) -> None:
        rpcs = guarded(service, internal=False)
        forms = [form for form in (*hostile.forms(forge), *others) if form.metadata]
        good = ("authorization", f"Bearer {forge.token()}")
        assert await code_of(school.stack, service, rpcs[0], [good]) != "UNAUTHENTICATED", "the forge is no good"
        await self.refuses(school.stack, service, rpcs, forms)

    @pytest.mark.parametrize("service", SERVICES)
    async def test_refuses_every_form_of_a_services_token(self, service: str, school: School, forge: Forge) -> None:
        stack, rpcs = school.stack, guarded(service, internal=True)
        for caller in sorted(set(SERVICES) - {service}):
            made = service_forge(caller, stack.environments[caller]["SERVICE_CREDENTIAL"], service)
            good = ("authorization", f"Bearer {made.token()}")
            if open_to := [rpc for rpc in rpcs if await code_of(stack, service, rpc, [good]) not in DOES_NOT_SERVE]:
                break
        forms = [form for form in hostile.forms(made) if form.metadata]
        forms.append(Form("a user's token", (("authorization", f"Bearer {forge.token()}"),)))
        assert open_to, "the forge is no good"
        await self.refuses(stack, service, open_to, forms)

    async def refuses(
        self, stack: Stack, service: str, rpcs: Sequence[MethodDescriptor], forms: Sequence[Form]
    ) -> None:
        asked = [(rpc, form) for form in forms for rpc in (rpcs if PROOF else rpcs[:1])]
        found = []
        for rpc, form in asked:
            code = await code_of(stack, service, rpc, form.lines)
            if code != "UNAUTHENTICATED":
                found.append(f"{form.name} at {api.short(rpc)}: {code}")
        sys.stdout.write(f"{len(forms)} forms of tokens, {len(asked)} calls to {service}, {len(found)} taken\n")
        assert len(forms) >= FEWEST
        assert not found, "\n" + "\n".join(found)


def service_token(stack: Stack, caller: str, audience: str) -> str:
    return service_forge(caller, stack.environments[caller]["SERVICE_CREDENTIAL"], audience).token()


async def code_of(stack: Stack, service: str, rpc: MethodDescriptor, lines: Sequence[tuple[str, str]]) -> str:
    """The code of the answer, or `echoed …` when it repeats the token."""
    form = Form("", tuple(lines))
    channel, path = stack.channel(service), api.path_of(rpc)
    call = (channel.unary_stream if rpc.server_streaming else channel.unary_unary)(path)(
        b"", metadata=form.lines, timeout=10
    )
    try:
        await (call.read() if rpc.server_streaming else call)
    except grpc.aio.AioRpcError as error:
        trailers = b"".join(
            value if isinstance(value, bytes) else value.encode() for _, value in error.trailing_metadata() or ()
        )
        if echoed := form.echoed((error.details() or "").encode() + trailers):
            return f"echoed {echoed}"
        return error.code().name
    finally:
        call.cancel()
    return "OK"


class TestGateway:
    def test_refuses_every_form_on_every_route(self, platform: Running, gateway_forms: list[Form]) -> None:
        forms, found, routes = gateway_forms, [], list(targets())
        asked = [(form, *route) for form in forms for route in routes] if PROOF else list(each_once(forms, routes))
        for form, verb, path in asked:
            status, body = ask(platform, verb, path, form)
            if status not in REFUSED and (form.name, status) not in UNSENDABLE:
                found.append(f"{form.name} at {verb} {path}: {status} {body[-200:]!r}")
            if echoed := form.echoed(body):
                found.append(f"{form.name} at {verb} {path}: tells {echoed}")
        sys.stdout.write(f"{len(forms)} forms of tokens, {len(asked)} calls to {len(routes)} routes of the gateway\n")
        assert len(forms) >= FEWEST
        assert not found, "\n" + "\n".join(found)


def doubled(forge: Forge, other: str) -> Iterator[Form]:
    """Credentials of two people at once: whichever is meant, the gateway and the service must not differ on it."""
    mine = forge.token()
    for name, first, last in (("mine first", mine, other), ("mine last", other, mine)):
        lines = (("authorization", f"Bearer {first}"), ("authorization", f"Bearer {last}"))
        yield Form(f"credentials of two people, {name}", lines)
        yield Form(f"two people in one line, {name}", (("authorization", f"Bearer {first}, Bearer {last}"),))
    wrong = ("authorization", f"Bearer {forge.token(sign=hostile.FOREIGN.sign)}")
    yield Form("wrong credentials, then the right ones", (wrong, ("authorization", f"Bearer {mine}")))


def targets() -> Iterator[tuple[str, str]]:
    """Every route that needs a token, with made-up ids."""
    for rpc in api.rpcs():
        if not requires(rpc).public:
            for verb, template, _ in api.http(rpc):
                parts = (str(uuid4()) if index % 2 else part for index, part in enumerate(split(template)))
                yield verb.upper(), "".join(parts)


def split(template: str) -> list[str]:
    """Fixed text and names of fields, by turns."""
    return template.replace("}", "{").split("{")


def each_once(forms: Sequence[Form], routes: Sequence[tuple[str, str]]) -> Iterator[tuple[Form, str, str]]:
    for form, route in zip(forms, cycle(routes), strict=False):
        yield form, "GET", "/v1/me"
        yield form, *route


def ask(platform: Running, verb: str, path: str, form: Form) -> tuple[int, bytes]:
    """Over a connection of its own, byte for byte: clients would refuse to send much of it. Status and whole answer."""
    gateway = platform.settings.gateway
    query = f"?{form.query}" if form.query else ""
    lines = [f"{verb} {path}{query} HTTP/1.1", f"host: {gateway}", "connection: close", "content-length: 0"]
    lines += [f"{name}: {value}" for name, value in form.lines]
    with socket.create_connection((gateway.host, gateway.port), timeout=15) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return read_answer(connection)


def read_answer(connection: socket.socket) -> tuple[int, bytes]:
    """Not until the end of the connection, which the gateway keeps open for a second."""
    answer, length = b"", 1 << 30
    while len(answer) < length and (got := connection.recv(65536)):
        answer += got
        head, blank, _ = answer.partition(b"\r\n\r\n")
        if blank and length == 1 << 30:
            announced = re.search(rb"\r\ncontent-length: (\d+)", head)
            chunked = b"\r\ntransfer-encoding: chunked" in head
            length = length if chunked else len(head) + 4 + int(announced[1] if announced else 0)
        if length == 1 << 30 and answer.endswith(b"0\r\n\r\n"):
            break
    return int(answer.split(b" ", 2)[1]), answer
