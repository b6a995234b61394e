"""Load drivers of our own: `python -m benchmarks.drivers rest|grpc ADDRESS PLAN CALLERS SECONDS once|again RATE`."""

import asyncio
import base64
import itertools
import json
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import grpc
import grpc.aio
import uvloop

# Sends one request; returns how many octets were received and, when it failed, why.
Send = Callable[[bytes], Awaitable[tuple[int, str]]]
TIMEOUT = 10.0
# One call in so many is traced, as at the gateway during a bench.
TRACED = 100


class Recorder:
    """Hands requests to callers until the time is over, and keeps what came back.

    With a `rate`, so many a second are due at even distances; latency counts from when a request was due.
    """

    def __init__(self, requests: Iterator[bytes], seconds: float, rate: float = 0.0) -> None:
        self._requests, self._seconds, self._rate = requests, seconds, rate
        self._due = itertools.count()
        self._latencies: list[float] = []
        self._failed, self._octets, self._first_error = 0, 0, ""

    async def record(self, callers: list[Send]) -> dict[str, object]:
        started = time.perf_counter()
        await asyncio.gather(*(self._call(send, started + self._seconds) for send in callers))
        ordered = sorted(self._latencies) or [0.0]
        return {
            "answered": len(self._latencies),
            "failed": self._failed,
            "seconds": time.perf_counter() - started,
            "p50": percentile(ordered, 50) * 1000,
            "p99": percentile(ordered, 99) * 1000,
            "octets": self._octets,
            "first_error": self._first_error,
        }

    async def _call(self, send: Send, end: float) -> None:
        for request in self._requests:
            begun = time.perf_counter()
            if self._rate:
                begun = end - self._seconds + next(self._due) / self._rate
                if begun > end:
                    return
                await asyncio.sleep(begun - time.perf_counter())
            octets, error = await send(request)
            now = time.perf_counter()
            self._latencies.append(now - begun)
            self._octets += octets
            if error:
                self._failed += 1
                self._first_error = self._first_error or error
            if now > end:
                return


def percentile(ordered: list[float], percent: int) -> float:
    """The smallest of the ordered values that so many percent of them do not exceed."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


async def rest_caller(address: str) -> Send:
    """One HTTP/1.1 connection that is kept open."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))

    async def send(line: bytes) -> tuple[int, str]:
        writer.write(rest_request(line, address))
        async with asyncio.timeout(TIMEOUT):
            head = await reader.readuntil(b"\r\n\r\n")
            body = await read_body(reader, head)
        status = head.split(None, 2)[1]
        return len(head) + len(body), "" if status == b"200" else f"{status.decode()} {body[:300].decode()}"

    return send


def rest_request(line: bytes, address: str) -> bytes:
    """The HTTP/1.1 request of a plan's line."""
    method, path, token, body = line.split(b"\t", 3)
    head = b"%s %s HTTP/1.1\r\nhost: %s\r\ncontent-type: application/json\r\n" % (method, path, address.encode())
    if token:
        head += b"authorization: Bearer %s\r\n" % token
    return head + b"content-length: %d\r\n\r\n%s" % (len(body), body)


async def read_body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """The body after such a head, of a known length or in chunks."""
    pairs = (line.partition(b":") for line in head.lower().split(b"\r\n")[1:])
    headers = {name: value.strip() for name, _, value in pairs}
    if headers.get(b"transfer-encoding") != b"chunked":
        return await reader.readexactly(int(headers.get(b"content-length", b"0")))
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return body


def grpc_caller(channel: grpc.aio.Channel) -> Send:
    """A caller on a connection that all share, as they do behind the gateway."""
    numbers = itertools.count()

    async def send(line: bytes) -> tuple[int, str]:
        _, path, token, body = line.split(b"\t", 3)
        flags = "01" if next(numbers) % TRACED == 0 else "00"
        metadata = [("traceparent", f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-{flags}")]
        if token:
            metadata.append(("authorization", f"Bearer {token.decode()}"))
        call = channel.unary_unary(path.decode())
        try:
            answer = await call(base64.b64decode(body), metadata=metadata, timeout=TIMEOUT)
        except grpc.aio.AioRpcError as error:
            return 0, f"{error.code().name} {error.details()}"
        return len(answer), ""

    return send


async def drive(kind: str, address: str, recorder: Recorder, callers: int) -> dict[str, object]:
    if kind == "rest":
        return await recorder.record([await rest_caller(address) for _ in range(callers)])
    async with grpc.aio.insecure_channel(address) as channel:
        return await recorder.record([grpc_caller(channel) for _ in range(callers)])


def main() -> None:
    kind, address, plan, callers, seconds, order, rate = sys.argv[1:]
    lines = Path(plan).read_bytes().splitlines()
    recorder = Recorder(iter(lines) if order == "once" else itertools.cycle(lines), float(seconds), float(rate))
    print(json.dumps(uvloop.run(drive(kind, address, recorder, int(callers)))))


if __name__ == "__main__":
    main()
