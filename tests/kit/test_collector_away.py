"""A collector that is away or hangs: calls are as quick, memory is bounded, the log stays quiet, the end is near."""

import asyncio
import io
import logging
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import replace
from statistics import median
from typing import Any
from uuid import uuid4

import pytest

from kit.telemetry import CLOSE_SECONDS, OncePerHour, Telemetry
from tests.kit.toy import Toy, another
from tests.stack import free_port

EVERYTHING = ("all", "manage")
CALLS = 30
# What the SDK keeps of spans that it could not send.
QUEUE = 2048


@pytest.fixture(params=["dead", "hanging"])
def endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    """Of nobody; or of somebody who takes connections and says nothing."""
    if request.param == "dead":
        yield f"http://127.0.0.1:{free_port()}"
        return
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def telemetry(toy: Toy, endpoint: str) -> Telemetry:
    return Telemetry(replace(toy.settings, otel_exporter_otlp_endpoint=endpoint))


@pytest.fixture
async def away(toy: Toy, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Toy]:
    monkeypatch.setattr("kit.telemetry.CLOSE_SECONDS", 0.0)
    async with another(toy, otel_exporter_otlp_endpoint=endpoint) as running:
        yield running


def make_spans(telemetry: Telemetry, count: int) -> None:
    for _ in range(count):
        with telemetry.server_span("/toy/Call", {}):
            pass


def unsent(telemetry: Telemetry) -> int:
    (processor,) = telemetry._traces._active_span_processor._span_processors
    return len(processor._batch_processor._queue)  # type: ignore[attr-defined]


@pytest.mark.slow
async def test_calls_are_as_quick_as_without_any(toy: Toy, away: Toy) -> None:
    """In turns, so that a busy machine slows both alike."""
    token = toy.grant(uuid4(), EVERYTHING)
    taken: dict[str, list[float]] = {"without": [], "away": []}
    stubs = {"without": toy.stub(token), "away": away.stub(token)}
    make_spans(away.service.telemetry, QUEUE)
    for _ in range(CALLS):
        for name, stub in stubs.items():
            began = time.perf_counter()
            await stub.ListNotes(toy.pb.ListNotesRequest())
            taken[name].append(time.perf_counter() - began)
    assert median(taken["away"]) < 2 * median(taken["without"]) + 0.005
    assert unsent(away.service.telemetry) > 0


def test_no_more_is_kept_than_a_queue_holds(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kit.telemetry.CLOSE_SECONDS", 0.0)
    make_spans(telemetry, 3 * QUEUE)
    assert QUEUE / 2 < unsent(telemetry) <= QUEUE
    telemetry.close()


async def test_the_end_of_the_process_does_not_wait_for_it(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A test need not wait as long as a process does.
    monkeypatch.setattr("kit.telemetry.CLOSE_SECONDS", CLOSE_SECONDS / 10)
    make_spans(telemetry, QUEUE)
    began = time.monotonic()
    await asyncio.to_thread(telemetry.close)
    assert time.monotonic() - began < CLOSE_SECONDS


class TestLog:
    def test_tells_of_it_once_an_hour(self) -> None:
        """Each failed export is an error to the SDK: some ten lines a minute, for as long as the collector is away."""
        lines = self.logged("opentelemetry.exporter.otlp", "Failed to export %s", ("traces", "metrics", "traces"))
        assert lines == ["Failed to export traces"]

    def test_tells_of_everything_else_each_time(self) -> None:
        assert len(self.logged("kit.outbox", "delivery of %s failed", (1, 2))) == 2

    def logged(self, logger: str, message: str, values: tuple[Any, ...]) -> list[str]:
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.addFilter(OncePerHour("opentelemetry"))
        logging.getLogger(logger).addHandler(handler)
        try:
            for value in values:
                logging.getLogger(logger).error(message, value)
        finally:
            logging.getLogger(logger).removeHandler(handler)
        return stream.getvalue().splitlines()
