"""How much one may ask for: a tenant, a user, an address that signs in, each known by what nobody can forge."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path

import httpx
import pytest

from gateway.descriptors import Api
from tests.gateway.edge import Configuration, Edge, http_filter, reason, running, slow_refill
from tests.profile import PROOF

# One Envoy serves them all.
pytestmark = pytest.mark.xdist_group("gateway-limits")
PER_TENANT, PER_USER, PER_ADDRESS = 6, 4, 3
LIMITS = {
    "RATE_LIMIT_PER_TENANT": str(PER_TENANT),
    "RATE_LIMIT_PER_USER": str(PER_USER),
    "SIGN_IN_LIMIT_PER_ADDRESS": str(PER_ADDRESS),
}
SIGN_IN = {"tenant": "hoa-sen", "email": "a@hoa-sen.example", "password": "x"}
fresh = count()


@pytest.fixture(scope="module")
async def edge(api: Api, written: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    """Clients come to it themselves."""
    async with running(api, written, tmp_path_factory.mktemp("limits"), change=slow_refill, settings=LIMITS) as found:
        yield found


@pytest.fixture(scope="module")
async def proxied(api: Api, written: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    """Clients come by a proxy that appends to x-forwarded-for whom it serves."""
    folder = tmp_path_factory.mktemp("proxied")
    async with running(api, written, folder, change=slow_refill, settings=LIMITS | {"TRUSTED_PROXIES": "1"}) as found:
        yield found


@pytest.fixture
def tenant() -> str:
    return f"tenant-{next(fresh)}"


async def ask(edge: Edge, user: str, tenant: str) -> httpx.Response:
    return await edge.client.get("/v1/me", headers=edge.issuer.bearer(user, tenant))


async def sign_in(edge: Edge, *forwarded: str) -> int:
    headers = [("x-forwarded-for", address) for address in forwarded]
    return (await edge.client.post("/v1/sessions", json=SIGN_IN, headers=headers)).status_code


class TestUser:
    async def test_is_told_how_much_is_left_and_when_to_come_back(self, edge: Edge, tenant: str) -> None:
        answers = [await ask(edge, "an", tenant) for _ in range(PER_USER + 1)]
        assert [one.status_code for one in answers] == [200] * PER_USER + [429]
        limits = [(one.headers["x-ratelimit-limit"], one.headers["x-ratelimit-remaining"]) for one in answers]
        assert limits == [(str(PER_USER), str(left)) for left in (3, 2, 1, 0, 0)]
        refused = answers[-1]
        assert reason(refused) == "TOO_MANY_ATTEMPTS"
        assert 0 < int(refused.headers["retry-after"]) <= 600
        assert 0 < int(refused.headers["x-ratelimit-reset"]) <= 600

    async def test_takes_nothing_from_another_of_the_tenant(self, edge: Edge, tenant: str) -> None:
        for _ in range(PER_USER + 1):
            last = await ask(edge, "an", tenant)
        assert last.status_code == 429
        assert (await ask(edge, "binh", tenant)).status_code == 200

    async def test_never_reaches_a_service_beyond_the_limit(self, edge: Edge, tenant: str) -> None:
        before = len(edge.upstream.calls)
        await asyncio.gather(*(ask(edge, "an", tenant) for _ in range(3 * PER_USER)))
        assert len(edge.upstream.calls) - before == PER_USER

    async def test_is_who_the_token_says_and_no_header(self, edge: Edge, tenant: str) -> None:
        headers = edge.issuer.bearer("an", tenant)
        forged = [headers | {"x-user-id": f"u{nth}", "x-tenant-id": f"t{nth}"} for nth in range(PER_USER + 1)]
        answers = [await edge.client.get("/v1/me", headers=one) for one in forged]
        assert answers[-1].status_code == 429


class TestTenant:
    async def test_has_a_limit_for_all_its_users(self, edge: Edge, tenant: str) -> None:
        answers = [await ask(edge, f"user-{nth}", tenant) for nth in range(PER_TENANT + 1)]
        assert [one.status_code for one in answers] == [200] * PER_TENANT + [429]
        assert answers[-1].headers["x-ratelimit-limit"] == str(PER_TENANT)

    async def test_takes_nothing_from_another(self, edge: Edge, tenant: str) -> None:
        for nth in range(PER_TENANT + 1):
            await ask(edge, f"user-{nth}", tenant)
        assert (await ask(edge, "user-0", f"{tenant}-b")).status_code == 200


class TestAddress:
    async def test_may_sign_in_so_often_whatever_it_says_of_itself(self, edge: Edge) -> None:
        """By JSON and gRPC, with ever another x-forwarded-for, it is one address."""
        found = [await sign_in(edge, f"203.0.113.{nth}") for nth in range(PER_ADDRESS)]
        path = "/storyloom.identity.v1.SessionService/CreateSession"
        grpc = {"content-type": "application/grpc", "x-envoy-external-address": "198.51.100.9"}
        native = await edge.client.post(path, content=bytes(5), headers=grpc)
        assert found == [200] * PER_ADDRESS
        assert native.headers["grpc-status"] == "8"
        assert await sign_in(edge) == 429
        # Who has a token already is none the worse.
        assert (await ask(edge, "an", "elsewhere")).status_code == 200
        told = {sent["x-envoy-external-address"] for _, sent in edge.upstream.calls}
        assert told == {"127.0.0.1"}

    async def test_is_what_the_proxy_says_last(self, proxied: Edge) -> None:
        found = [await sign_in(proxied, f"203.0.113.{nth}, 198.51.100.1") for nth in range(PER_ADDRESS + 1)]
        assert found == [200] * PER_ADDRESS + [429]
        assert await sign_in(proxied, "198.51.100.2") == 200
        assert proxied.upstream.calls[-1][1]["x-envoy-external-address"] == "198.51.100.2"
        # As two lines, which are one list.
        assert await sign_in(proxied, "198.51.100.3", "198.51.100.1") == 429

    async def test_of_ipv6_is_a_whole_network(self, proxied: Edge) -> None:
        found = [await sign_in(proxied, f"2001:db8:1:2::{nth}") for nth in range(PER_ADDRESS + 1)]
        assert found == [200] * PER_ADDRESS + [429]
        assert await sign_in(proxied, "2001:db8:1:3::1") == 200


def remembers(number: int) -> Callable[[Configuration], None]:
    def change(configuration: Configuration) -> None:
        slow_refill(configuration)
        http_filter(configuration, "local_ratelimit")["max_dynamic_descriptors"] = number

    return change


class TestManyIdentities:
    @pytest.mark.slow
    async def test_each_have_their_own_bucket(self, api: Api, written: Path, tmp_path: Path) -> None:
        """Each is let in once and refused once; then the first one is still refused. 5,200 of them in the long run."""
        number = 5200 if PROOF else 200
        everything = {"RATE_LIMIT_PER_USER": "1", "RATE_LIMIT_PER_TENANT": "1000000"}
        async with running(api, written, tmp_path, change=slow_refill, settings=everything) as edge:
            users = [f"user-{nth}" for nth in range(number)]
            assert await statuses(edge, users) == {200: number, 429: number}
            assert (await ask(edge, users[0], "t")).status_code == 429
            assert (await ask(edge, "somebody else", "t")).status_code == 200

    async def test_are_forgotten_only_in_favour_of_as_many_newer_ones(
        self, api: Api, written: Path, tmp_path: Path
    ) -> None:
        """Of the 10,000 buckets that there are here twenty."""
        one = {"RATE_LIMIT_PER_USER": "1"}
        async with running(api, written, tmp_path, change=remembers(20), settings=one) as edge:
            first = await statuses(edge, [f"user-{nth}" for nth in range(20)])
            assert first == {200: 20, 429: 20}
            assert (await ask(edge, "user-1", "t")).status_code == 429
            await statuses(edge, [f"other-{nth}" for nth in range(20)])
            assert (await ask(edge, "user-1", "t")).status_code == 200


async def statuses(edge: Edge, users: list[str]) -> dict[int, int]:
    """How often each status was answered, when each of the users asks twice."""
    lanes = min(16, len(users))
    found = await asyncio.gather(*(_lane(edge, users[nth::lanes]) for nth in range(lanes)))
    return dict(sum(found, Counter()))


async def _lane(edge: Edge, users: list[str]) -> "Counter[int]":
    """By one connection that does not wait for answers, as a client library would cost more than the gateway."""
    host, _, port = edge.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    found: Counter[int] = Counter()
    for user in users:
        asked = f"GET /v1/me HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {edge.issuer.token(user)}\r\n\r\n"
        writer.write(2 * asked.encode())
        for _ in range(2):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
            length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length: "))
            await reader.readexactly(int(length[16:]))
            found[int(head[9:12])] += 1
    writer.close()
    await writer.wait_closed()
    return found
