"""Whatever headers a client makes up, it stays who its token says, in its own tenant, at its own address."""

import socket
import sys
import time
from uuid import UUID

import httpx
import pytest

from deploy.rest import Rest
from tests.contract import api, requests
from tests.contract.answers import answer
from tests.contract.population import Population, populate, rpc_named
from tests.e2e.spoofs import ADDRESS, Spoof, Victim, spoofs
from tests.e2e.test_hostile_tokens import read_answer
from tests.profile import PROOF
from tests.running import Running
from tests.stack import Person, Stack

FEWEST = 60
REFUSED = {400, 401, 403, 404, 405, 413, 417, 421, 426, 431}
# One list of each service, whose answer would show rows of another tenant.
LISTS = ("ListUsers", "ListCourses", "ListEnrollments", "ListQuizzes", "ListApprovals")
IDENTITY_HEADERS = ("x-tenant-id", "x-user-id")

pytestmark = pytest.mark.slow


class TestGateway:
    def test_keeps_everybody_who_they_are(self, platform: Running) -> None:
        theirs, caller = platform.sign_in("admin"), platform.sign_in("admin", "bamboo")
        pupil = platform.sign_in("sophie", "bamboo")
        foreign, own = theirs.get("/v1/tenant"), caller.get("/v1/tenant")
        users, courses = theirs.get("/v1/users")["users"], theirs.get("/v1/courses")["courses"]
        row = courses[0]["id"]
        victim = Victim(foreign["id"], theirs.user["id"], row, own["id"], caller.user["id"])
        canaries = [foreign["id"], foreign["slug"], foreign["name"], row, *(user["id"] for user in users)]
        # Whoever tests at the same platform may have made courses of any title.
        canaries += [max((course["title"] for course in courses), key=len)]
        paths = ["/v1/courses", "/v1/users", f"/v1/courses/{row}", "/v1/auditLogs?pageSize=1"]
        paths.append(f"/v1/users/{pupil.user['id']}")
        found, calls = [], 0
        all_spoofs = spoofs(victim)
        for number, spoof in enumerate(all_spoofs):
            for path in ("/v1/tenant", *(paths if PROOF else paths[number % len(paths) :][:1])):
                calls += 1
                # What the caller says itself tells nobody anything.
                said = [one for one in canaries if any(one in text for text in (path, *map("=".join, spoof.lines)))]
                status, body = ask(platform, path, spoof, caller.token)
                leaked = [one for one in canaries if one.encode() in body and one not in said]
                name = f"{spoof.name} at {path}: {status}"
                if status not in REFUSED | {200} or leaked:
                    found.append(f"{name} tells {leaked}: {body[-300:]!r}")
                elif status == 200 and path == "/v1/tenant" and own["id"].encode() not in body:
                    found.append(f"{name}: another tenant")
                elif status == 200 and (row in path or acts_elsewhere(spoof, victim)):
                    found.append(f"{name}: it worked")
        sys.stdout.write(f"{len(all_spoofs)} spellings of headers, {calls} calls to the gateway\n")
        assert len(all_spoofs) >= FEWEST
        assert not found, "\n" + "\n".join(found)
        assert caller.get(f"/v1/users/{pupil.user['id']}").get("deleteTime") is None
        assert addresses(caller) == {"127.0.0.1"}

    def test_knows_who_is_called_by_grpc(self, platform: Running) -> None:
        """The native way in has the same edge."""
        caller, theirs = platform.sign_in("sophie", "bamboo"), platform.sign_in("mai")
        frame = b"\0\0\0\0\0"
        headers = {"content-type": "application/grpc-web+proto", "authorization": f"Bearer {caller.token}"}
        url = f"{platform.url}/storyloom.identity.v1.UserService/GetMe"
        for name, value in (("x-user-id", theirs.user["id"]), ("x-tenant-id", str(UUID(int=0)))):
            got = httpx.post(url, content=frame, headers={**headers, name: value})
            assert caller.user["id"].encode() in got.content
            assert theirs.user["id"].encode() not in got.content
        acting = httpx.post(url, content=frame, headers={**headers, "x-act-in-tenant": str(UUID(int=7))})
        assert b"grpc-status:7" in acting.content or acting.headers.get("grpc-status") == "7"


def acts_elsewhere(spoof: Spoof, victim: Victim) -> bool:
    """Whether a service is told, in so many words, to act in another tenant."""
    wishes = [value.strip() for name, value in spoof.lines if name.lower() == "x-act-in-tenant"]
    return bool(wishes) and wishes[-1] in {victim.tenant_id, victim.tenant_id.upper(), str(UUID(int=0))}


def ask(platform: Running, path: str, spoof: Spoof, token: str) -> tuple[int, bytes]:
    """Byte for byte, for clients would refuse to send much of it."""
    gateway = platform.settings.gateway
    names = {name.lower() for name, _ in spoof.lines}
    lines = [f"GET {path} HTTP/1.1", f"authorization: Bearer {token}"]
    lines += [] if "host" in names else [f"host: {gateway}"]
    lines += [f"{name}: {value}" for name, value in spoof.lines]
    body = "0\r\n\r\n" if "transfer-encoding" in names else ""
    with socket.create_connection((gateway.host, gateway.port), timeout=15) as connection:
        connection.sendall(("\r\n".join([*lines, "", ""]) + body).encode())
        return read_answer(connection)


def addresses(caller: Rest) -> set[str]:
    """Where the audit log says that the caller's readings of it came from."""
    give_up = time.monotonic() + 15
    while True:
        entries = caller.get("/v1/auditLogs", pageSize=100)["auditLogs"]
        readings = {one["clientAddress"] for one in entries if one["rpc"].endswith("/ListAuditLogs")}
        if readings or time.monotonic() > give_up:
            return readings
        time.sleep(0.2)


class TestService:
    @pytest.fixture
    async def population(self, stack: Stack) -> Population:
        return await populate(stack)

    @pytest.mark.parametrize("name", LISTS)
    async def test_believes_the_token_alone(self, name: str, population: Population) -> None:
        ours, theirs = population.ours, population.theirs
        caller, rpc = theirs.admin, rpc_named(name)
        secrets = {ours.canary, *(one for ids in ours.ids.values() for one in ids)}
        row, boss = ours.ids["course"][0], ours.admin.user_id
        victim = Victim(ours.ids["tenant"][0], boss, row, theirs.ids["tenant"][0], caller.user_id)
        sent = [spoof for spoof in spoofs(victim) if spoof.metadata is not None]
        found = []
        for spoof in sent:
            person = Person(caller.stack, caller.user_id, caller.email, caller.token, extra=spoof.metadata or ())
            request = requests.make(rpc, sorted(requests.minimal(rpc)), lambda kind: theirs.ids[kind][0])
            got = await answer(person, rpc, request)
            said = {one for one in secrets if any(one in value for _, value in spoof.lines)}
            if leaked := got.holds(secrets - said):
                found.append(f"{spoof.name}: tells {leaked}")
            if got.code.name != (wanted := expected(spoof, victim)):
                found.append(f"{spoof.name}: {got.code.name} {got.message}, not {wanted}")
        sys.stdout.write(f"{len(sent)} spellings of headers to {api.owner(rpc)}\n")
        assert len(sent) >= FEWEST
        assert not found, "\n" + "\n".join(found)

    async def test_takes_nobodys_word_for_the_clients_address(self, population: Population) -> None:
        caller = population.theirs.admin
        rpc = rpc_named("ListAuditLogs")
        for header in ("x-envoy-external-address", "x-forwarded-for", "x-real-ip", "forwarded"):
            for secret in ("", "guess"):
                extra = ((header, ADDRESS), ("x-gateway-secret", secret))
                person = Person(caller.stack, caller.user_id, caller.email, caller.token, extra=extra)
                assert (await answer(person, rpc, b"")).ok
        await population.school.settle()
        assert (await answer(caller, rpc, b"")).holds([ADDRESS]) == []


def expected(spoof: Spoof, victim: Victim) -> str:
    """What a service says to names that it knows; of all others it takes no notice."""
    own = {"x-tenant-id": victim.own_tenant_id, "x-user-id": victim.own_user_id}
    if any(spoof.claimed(name) not in {None, own[name]} for name in IDENTITY_HEADERS):
        return "PERMISSION_DENIED"
    wish = spoof.claimed("x-act-in-tenant")
    if not wish or wish == victim.own_tenant_id:
        return "OK"
    try:
        return "OK" if str(UUID(wish.strip())) == victim.own_tenant_id else "PERMISSION_DENIED"
    except ValueError:
        return "INVALID_ARGUMENT"
