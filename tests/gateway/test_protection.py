"""What the gateway does when services fail or are slow: whom it asks instead, how often, and when it stops asking."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateway.descriptors import Api
from kit.settings import SERVICES
from tests.gateway.edge import NOT_SERVING, SERVING, Configuration, Edge, reason, running, until
from tests.profile import PROOF

# One Envoy serves them all.
pytestmark = pytest.mark.xdist_group("gateway-protection")
LIST = "/storyloom.content.v1.CourseService/ListCourses"
CREATE = "/storyloom.content.v1.CourseService/CreateCourse"
# What one service is sent at a time, by all clients together; and what that is for a short test.
MOST, FEW = 512, 24
fresh = count()


@pytest.fixture(scope="module")
async def edge(api: Api, written: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    """Each service has two processes."""
    async with running(api, written, tmp_path_factory.mktemp("protection"), upstreams=2) as found:
        yield found


@asynccontextmanager
async def clients(edge: Edge, number: int) -> AsyncIterator[list[grpc.aio.Channel]]:
    """Each has a connection of its own."""
    own = [("grpc.use_local_subchannel_pool", 1)]
    opened = [grpc.aio.insecure_channel(edge.address, options=own) for _ in range(number)]
    yield opened
    await asyncio.gather(*(one.close() for one in opened))


def call(edge: Edge, channel: grpc.aio.Channel, path: str = LIST) -> Awaitable[Any]:
    metadata = tuple(edge.issuer.bearer(f"user-{next(fresh)}", f"tenant-{next(fresh)}").items())
    made: Awaitable[Any] = channel.unary_unary(path)(b"", metadata=metadata, timeout=20)
    return made


async def outcome(made: Awaitable[Any]) -> str:
    try:
        await made
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return "OK"


def received(edge: Edge) -> int:
    return sum(len(one.calls) for one in edge.upstreams)


@asynccontextmanager
async def behaving(edge: Edge, how: Callable[[Any], Awaitable[None]]) -> AsyncIterator[None]:
    for one in edge.upstreams:
        one.behaviour = how
        one.calls.clear()
    try:
        yield
    finally:
        for one in edge.upstreams:
            one.behaviour = None


async def unavailable(context: Any) -> None:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")


async def reached(edge: Edge, cluster: str, healthy: int) -> None:
    async with asyncio.timeout(10):
        while await edge.stat(f"cluster.{cluster}.membership_healthy") != healthy:
            await asyncio.sleep(0.02)


class TestCircuitBreaker:
    async def test_refuses_what_is_more_than_a_service_can_bear(self, edge: Edge) -> None:
        """As many wait as may; whoever comes then is told at once, and those that waited are answered."""
        opened, most = asyncio.Event(), MOST
        if not PROOF:
            most = FEW
            await edge.override(circuit_breakers__content__default__max_requests=str(FEW))

        async def wait(context: Any) -> None:
            await opened.wait()

        async with behaving(edge, wait), clients(edge, 6) as channels:
            waiting = [asyncio.ensure_future(call(edge, channels[nth % 6])) for nth in range(most)]
            async with asyncio.timeout(20):
                while received(edge) < most:
                    await asyncio.sleep(0.05)
            answer = await edge.client.get("/v1/courses", headers=edge.issuer.bearer())
            native = await outcome(call(edge, channels[0]))
            others = await edge.client.get("/v1/me", headers={"authorization": ""})
            opened.set()
            await asyncio.gather(*waiting)
        await edge.override(circuit_breakers__content__default__max_requests="")
        assert (answer.status_code, reason(answer)) == (503, "DEPENDENCY_UNAVAILABLE")
        assert native == "UNAVAILABLE"
        assert others.status_code == 401
        assert (await edge.logged(answer))["flags"] == "UO"
        # By which the alert goes.
        assert await edge.stat("cluster.content.upstream_rq_active_overflow") == 2
        assert await edge.stat("cluster.content.circuit_breakers.default.rq_open") == 0


class TestRetries:
    @pytest.mark.parametrize(("path", "attempts"), [(LIST, 4), (CREATE, 1)])
    async def test_are_for_reads_alone_once_a_service_has_answered(
        self, edge: Edge, path: str, attempts: int
    ) -> None:
        async with behaving(edge, unavailable), clients(edge, 1) as (channel,):
            assert await outcome(call(edge, channel, path)) == "UNAVAILABLE"
            assert received(edge) == attempts
        if attempts > 1:
            # Not where it has just failed.
            assert all(one.calls for one in edge.upstreams)

    async def test_have_a_budget_that_a_storm_uses_up(self, edge: Edge) -> None:
        """120 reads that fail would be 480 attempts; a quarter of what is under way, or 50, may be repetitions."""
        async with behaving(edge, unavailable), clients(edge, 2) as channels:
            found = await asyncio.gather(*(outcome(call(edge, channels[nth % 2])) for nth in range(120)))
            assert set(found) == {"UNAVAILABLE"}
            assert 120 < received(edge) < 480
        assert await edge.stat("cluster.content.upstream_rq_retry_overflow") > 0


async def served(edge: Edge, number: int) -> tuple[int, ...]:
    """How many of the calls each process of learning had."""
    for one in edge.upstreams:
        one.calls.clear()
    for _ in range(number):
        assert (await edge.client.get("/v1/enrollments", headers=edge.issuer.bearer())).status_code == 200
    return tuple(len(one.calls) for one in edge.upstreams)


class TestHealth:
    @pytest.mark.slow
    async def test_decides_who_is_asked(self, edge: Edge) -> None:
        """The service itself says how it is, by gRPC's own protocol, and for each of its processes."""
        first, second = edge.upstreams
        await edge.override(health_check__max_interval="50")
        await second.health.set("storyloom.learning", NOT_SERVING)
        await reached(edge, "learning", 1)
        assert await served(edge, 6) == (6, 0)

        await first.health.set("storyloom.learning", NOT_SERVING)
        await reached(edge, "learning", 0)
        assert (await edge.client.get("/healthz")).status_code == 503
        answer = await edge.client.get("/v1/enrollments", headers=edge.issuer.bearer())
        assert (answer.status_code, reason(answer)) == (503, "DEPENDENCY_UNAVAILABLE")
        assert (await edge.client.get("/v1/me", headers=edge.issuer.bearer())).status_code == 200

        for one in edge.upstreams:
            await one.health.set("storyloom.learning", SERVING)
        await until(edge.client, 200)
        assert sum(await served(edge, 6)) == 6
        await reached(edge, "learning", 2)
        await edge.override(health_check__max_interval="")

    @pytest.mark.slow
    async def test_of_who_says_nothing_is_asked_twice(self, edge: Edge) -> None:
        """Being busy for a second is no outage; being silent for longer is."""
        await edge.override(health_check__max_interval="50")
        for one in edge.upstreams:
            one.health.free.clear()
        async with asyncio.timeout(10):
            while await edge.stat("cluster.learning.health_check.failure") < 2:
                await asyncio.sleep(0.02)
        edge.upstreams[0].health.free.set()
        await reached(edge, "learning", 1)
        assert await served(edge, 6) == (6, 0)
        edge.upstreams[1].health.free.set()
        for service in SERVICES:
            await reached(edge, service, 2)
        await edge.override(health_check__max_interval="")


def seldom_asked(configuration: Configuration) -> None:
    """So that nothing but failed calls tells how a service is."""
    for one in configuration["static_resources"]["clusters"]:
        for check in one.get("health_checks", []):
            check |= {"interval": "60s", "no_traffic_interval": "60s", "no_traffic_healthy_interval": "60s"}


class TestOutliers:
    async def test_are_left_out_before_anybody_asks_for_their_health(
        self, api: Api, written: Path, tmp_path: Path
    ) -> None:
        """One of two processes dies: no caller sees it, not even of writes."""
        async with running(api, written, tmp_path, change=seldom_asked, upstreams=2) as edge:
            await edge.upstreams[1].stop()
            for _ in range(12):
                created = await edge.client.post("/v1/courses", json={}, headers=edge.issuer.bearer())
                assert created.status_code == 200
            ejected = "outlier_detection.ejections_enforced_consecutive_local_origin_failure"
            assert await edge.stat(f"cluster.content.{ejected}") == 1
            assert await edge.stat("cluster.content.membership_healthy") == 1
            attempts = await edge.stat("cluster.content.upstream_rq_retry")
            for _ in range(6):
                assert (await edge.client.get("/v1/courses", headers=edge.issuer.bearer())).status_code == 200
            assert await edge.stat("cluster.content.upstream_rq_retry") == attempts


def no_memory(configuration: Configuration) -> None:
    heap, connections = configuration["overload_manager"]["resource_monitors"]
    heap["typed_config"]["max_heap_size_bytes"] = 1
    connections["typed_config"]["max_active_downstream_connections"] = 3


@pytest.fixture(scope="module")
async def overloaded(api: Api, written: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    """As if it had taken all of its memory."""
    folder = tmp_path_factory.mktemp("overloaded")
    async with running(api, written, folder, change=no_memory, ready=503) as found:
        yield found


class TestOverload:
    async def test_is_told_to_everybody_before_anything_is_done(self, overloaded: Edge) -> None:
        for path in ("/v1/me", "/healthz", "/docs"):
            answer = await overloaded.client.get(path, headers=overloaded.issuer.bearer())
            assert (answer.status_code, answer.json()["code"], reason(answer)) == (503, 14, "DEPENDENCY_UNAVAILABLE")
            # Which makes room: a connection that stays costs memory too.
            assert answer.headers["connection"] == "close"
        assert not overloaded.upstream.calls

    async def test_is_unavailable_for_grpc(self, overloaded: Edge) -> None:
        async with clients(overloaded, 1) as (channel,):
            assert await outcome(call(overloaded, channel)) == "UNAVAILABLE"

    async def test_does_not_blind_who_watches(self, overloaded: Edge) -> None:
        metrics = await overloaded.metrics.get("/stats/prometheus")
        assert (await overloaded.metrics.get("/ready")).status_code == 200
        assert "envoy_overload_envoy_overload_actions_stop_accepting_requests_active{} 1" in metrics.text

    async def test_of_connections_closes_those_that_are_too_many(self, overloaded: Edge) -> None:
        host, _, port = overloaded.address.rpartition(":")
        opened = [await asyncio.open_connection(host, int(port)) for _ in range(5)]
        closed = 0
        for reader, writer in opened:
            # One that was let in would wait for its request.
            with suppress(TimeoutError, ConnectionError):
                closed += await asyncio.wait_for(reader.read(1), 0.2) == b""
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        assert 1 <= closed <= 5


class TestMetrics:
    """For Prometheus and probes there is a port of its own, which can do nothing but tell."""

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/ready", 200),
            ("GET", "/stats/prometheus?usedonly", 200),
            ("POST", "/ready", 404),
            ("GET", "/stats", 404),
            ("GET", "/config_dump", 404),
            ("GET", "/ready/../config_dump", 404),
            ("GET", "/certs", 404),
            ("POST", "/healthcheck/fail", 404),
            ("POST", "/quitquitquit", 404),
            ("POST", "/runtime_modify?storyloom.ratelimit_enforced=0", 404),
        ],
    )
    async def test_are_all_that_is_there(self, edge: Edge, method: str, path: str, status: int) -> None:
        request = edge.metrics.build_request(method, "/")
        # As it is written here: the library would resolve the dots.
        request.url = request.url.copy_with(raw_path=path.encode())
        assert (await edge.metrics.send(request)).status_code == status
