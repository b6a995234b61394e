"""Loads, sent for real to an echo server and to a small HTTP server in this process."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from benchmarks import drivers, echo, load
from benchmarks.__main__ import echo_server
from benchmarks.load import Plan, Request

pytestmark = pytest.mark.slow


@dataclass
class Web:
    """Answers with the request's body; 500 for the path /broken, in chunks for /chunked."""

    address: str = ""
    requests: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readline():
            self.requests.append(head.rstrip())
            length = 0
            while (line := await reader.readline()) != b"\r\n":
                name, _, value = line.strip().lower().partition(b": ")
                length = int(value) if name == b"content-length" else length
            writer.write(self.answer(head.split()[1], await reader.readexactly(length)))
        writer.close()

    def answer(self, path: bytes, body: bytes) -> bytes:
        if path == b"/chunked":
            return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n2\r\nxx\r\n0\r\n\r\n"
        status = b"500 Internal Server Error" if path == b"/broken" else b"200 OK"
        return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    found = Web()
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    found.address = f"{host}:{port}"
    async with server:
        yield found


class TestRest:
    @pytest.mark.parametrize("driver", sorted({"own", load.rest_driver()}))
    async def test_sends_a_plan_once_in_its_order(self, web: Web, driver: str):
        plan = Plan([Request("PATCH", f"/{nth}", "token", b'{"x": 1}') for nth in range(30)], web.address, once=True)
        found = await asyncio.to_thread(load.send, plan, 1, 1, driver)
        assert (found.answered, found.failed) == (30, 0)
        assert web.requests == [b"PATCH /%d HTTP/1.1" % nth for nth in range(30)]

    @pytest.mark.parametrize("driver", sorted({"own", load.rest_driver()}))
    async def test_counts_failures_and_quotes_the_first(self, web: Web, driver: str):
        requests = [Request("GET", "/good"), Request("POST", "/broken", body="đau".encode()), Request("GET", "/good")]
        found = await asyncio.to_thread(load.send, Plan(requests, web.address, once=True), 2, 1, driver)
        assert (found.answered, found.failed, found.first_error) == (3, 1, "500 đau")

    async def test_begins_again_until_the_time_is_over(self, web: Web):
        plan = Plan([Request("GET", "/chunked"), Request("GET", "/plain")], web.address)
        found = await asyncio.to_thread(load.send, plan, 2, 0.3, "own")
        assert found.answered > 20
        assert found.answered == len(web.requests)
        assert 0.3 <= found.seconds < 1
        assert 0 < found.p50 <= found.p99


class TestGrpc:
    async def test_counts_echoes(self):
        def measure() -> load.Load:
            with echo_server() as (_, port):
                return load.send(
                    Plan([Request("GRPC", echo.PATH, body=b"\x00\xff")], f"127.0.0.1:{port}"), 4, 0.3, "wrk"
                )

        found = await asyncio.to_thread(measure)
        assert found.answered > 20
        assert (found.failed, found.octets) == (0, 2 * found.answered)

    async def test_tells_the_error_of_a_call(self):
        def measure() -> load.Load:
            with echo_server() as (_, port):
                return load.send(
                    Plan([Request("GRPC", "/no.Such/Method")], f"127.0.0.1:{port}", once=True), 1, 1, "own"
                )

        found = await asyncio.to_thread(measure)
        assert (found.answered, found.failed) == (1, 1)
        assert found.first_error.startswith("UNIMPLEMENTED")


    async def test_keeps_a_rate(self):
        def measure() -> load.Load:
            with echo_server() as (_, port):
                plan = Plan([Request("GRPC", echo.PATH, body=b"x")], f"127.0.0.1:{port}")
                return load.send(plan, 8, 1.0, "own", 50.0)

        found = await asyncio.to_thread(measure)
        assert (found.answered, found.failed) == (51, 0)


class TestPercentile:
    @pytest.mark.parametrize(("percent", "value"), [(50, 2.0), (51, 3.0), (99, 4.0), (1, 1.0)])
    def test_is_the_smallest_value_that_so_many_do_not_exceed(self, percent: int, value: float):
        assert drivers.percentile([1.0, 2.0, 3.0, 4.0], percent) == value


def test_a_driver_that_fails_is_quoted():
    with pytest.raises(load.LoadError, match="refused"):
        load.send(Plan([Request("GET", "/")], "127.0.0.1:9"), 1, 0.1, "own")
