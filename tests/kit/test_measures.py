"""What is told of pool, limiters, caches and work, as a reader of metrics gets it from a running service."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from opentelemetry.metrics import Meter
from sqlalchemy.exc import TimeoutError as NoConnection

from kit.errors import ResourceExhausted
from kit.limiter import WAITERS_PER_SLOT, Limiter
from kit.measures import Tally, measure_caches, measure_limiters
from kit.settings import SettingsError
from kit.telemetry import Telemetry
from tests.kit.toy import Toy, another
from tests.metrics import Reader, reading
from tests.stack import refused

EVERYTHING = ("all", "manage")


@pytest.fixture
async def told(toy: Toy) -> AsyncIterator[tuple[Toy, Reader]]:
    async with another(toy, pool_size=2, queue_timeout=0.1) as running:
        with reading(running.service.telemetry) as reader:
            yield running, reader


@pytest.fixture
def quiet(toy: Toy) -> Iterator[tuple[Meter, Reader]]:
    made = Telemetry(toy.settings)
    with reading(made) as reader:
        yield made.meter, reader
    made.close()


class TestPool:
    async def test_connections_are_told_by_state(self, told: tuple[Toy, Reader]) -> None:
        toy, reader = told
        assert reader.value("db.client.connection.max") == 2
        async with toy.db.read(uuid4()):
            used, idle = (reader.value("db.client.connection.count", state=state) for state in ("used", "idle"))
        assert used >= 1
        assert used + idle <= 2

    async def test_who_waits_for_a_connection_is_counted_and_timed(
        self, told: tuple[Toy, Reader]
    ) -> None:
        toy, reader = told

        async def read() -> None:
            async with toy.db.read(uuid4()):
                await asyncio.sleep(0.2)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(4):
                tasks.create_task(read())
            await asyncio.sleep(0.1)
            assert reader.value("db.client.connection.pending_requests") >= 2
        assert reader.value("db.client.connection.pending_requests") == 0
        assert reader.value("db.client.connection.wait_time") >= 2

    async def test_who_gets_none_is_counted(self, told: tuple[Toy, Reader], monkeypatch: pytest.MonkeyPatch) -> None:
        toy, reader = told
        monkeypatch.setattr(toy.db.pool, "_timeout", 0.05)
        async with asyncio.timeout(5), toy.db.read(uuid4()), toy.db.read(uuid4()):
            with pytest.raises(NoConnection):
                async with toy.db.read(uuid4()):
                    pass
        assert reader.value("db.client.connection.timeouts") >= 1


class TestLimiters:
    async def test_turns_are_told_by_the_limiter_s_name_alone(self, told: tuple[Toy, Reader]) -> None:
        _, reader = told
        points = reader.points("storyloom.limiter.slots")
        assert {tuple(one.attributes) for one in points} == {("limiter",)}
        assert {one.attributes["limiter"] for one in points} == {"users", "services"}

    async def test_who_holds_waits_and_is_refused_is_counted(self, quiet: tuple[Meter, Reader]) -> None:
        limiter, (meter, reader) = Limiter(2, 0.1), quiet
        measure_limiters(meter, {"one": limiter})
        async with limiter.slot("a"), limiter.slot("b"):
            late = [asyncio.create_task(self.wait(limiter)) for _ in range(3)]
            await asyncio.sleep(0.01)
            assert reader.value("storyloom.limiter.held", limiter="one") == 2
            assert reader.value("storyloom.limiter.waiting", limiter="one") == 3
            await asyncio.gather(*late)
        assert reader.value("storyloom.limiter.held", limiter="one") == 0
        assert reader.value("storyloom.limiter.waiting", limiter="one") == 0
        assert reader.value("storyloom.limiter.refused", limiter="one") == 3
        assert reader.value("storyloom.limiter.wait", limiter="one") == 3

    async def test_who_is_refused_at_once_is_counted_as_well(self, quiet: tuple[Meter, Reader]) -> None:
        limiter, (meter, reader) = Limiter(1, 5), quiet
        measure_limiters(meter, {"one": limiter})
        async with limiter.slot("a"):
            full = [asyncio.create_task(self.wait(limiter)) for _ in range(WAITERS_PER_SLOT + 1)]
            await asyncio.sleep(0.01)
            assert reader.value("storyloom.limiter.waiting", limiter="one") == WAITERS_PER_SLOT
            assert reader.value("storyloom.limiter.refused", limiter="one") == 1
        await asyncio.gather(*full)

    async def wait(self, limiter: Limiter) -> None:
        with suppress(ResourceExhausted):
            async with limiter.slot("a"):
                pass


class TestCaches:
    async def test_of_every_call_tell_how_often_they_know(self, told: tuple[Toy, Reader]) -> None:
        toy, reader = told
        token = toy.grant(uuid4(), EVERYTHING)

        def counted(cache: str, outcome: str) -> int:
            return reader.value("storyloom.cache.requests", cache=cache, outcome=outcome)

        calls = 0
        # Snapshots are known from when the stream of changes lives.
        while not (counted("snapshots", "hit") and counted("plans", "hit")):
            await toy.stub(token).ListNotes(toy.pb.ListNotesRequest())
            calls += 1
            assert calls < 500
        assert (counted("tokens", "miss"), counted("tokens", "hit")) == (1, calls - 1)
        assert counted("snapshots", "miss") + counted("snapshots", "hit") == calls
        assert {one.attributes["cache"] for one in reader.points("storyloom.cache.requests")} == {
            "credentials", "plans", "policies", "snapshots", "statements", "tokens"
        }  # fmt: skip

    async def test_a_forged_token_is_none_that_is_known(self, told: tuple[Toy, Reader]) -> None:
        toy, reader = told
        for _ in range(2):
            async with refused("INVALID_TOKEN"):
                await toy.stub("no.such.token").ListNotes(toy.pb.ListNotesRequest())
        assert reader.value("storyloom.cache.requests", cache="tokens", outcome="miss") == 2
        assert reader.value("storyloom.cache.requests", cache="tokens", outcome="hit") == 0

    async def test_are_read_when_they_are_asked_for(self, quiet: tuple[Meter, Reader]) -> None:
        tally, (meter, reader) = Tally(), quiet
        measure_caches(meter, {"a": tally})
        tally.hits += 7
        assert reader.value("storyloom.cache.requests", cache="a", outcome="hit") == 7


@pytest.fixture
def heard(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Telemetry]]:
    """Makes telemetry that is sent somewhere, where nobody is."""
    monkeypatch.setattr("kit.telemetry.CLOSE_SECONDS", 0.0)
    made: list[Telemetry] = []

    def make(**settings: Any) -> Telemetry:
        made.append(Telemetry(replace(toy.settings, otel_exporter_otlp_endpoint="http://127.0.0.1:9", **settings)))
        return made[-1]

    yield make
    for one in made:
        one.close()


class TestWork:
    def test_that_ends_well_is_timed_by_its_name(self, heard: Callable[..., Telemetry]) -> None:
        telemetry = heard()
        with reading(telemetry) as reader:
            with telemetry.timed("weave"):
                pass
            with suppress(ValueError), telemetry.timed("weave"):
                raise ValueError
            assert reader.value("storyloom.work.duration", work="weave") == 1


class TestSampling:
    @pytest.mark.parametrize(("percent", "recorded"), [(100, 400), (0, 0)])
    def test_of_calls_without_a_decision_is_a_setting(
        self, heard: Callable[..., Telemetry], percent: float, recorded: int
    ) -> None:
        made = heard(trace_sample_percent=percent)
        assert self.recorded(made, {}) == recorded
        # Whoever decided before is followed.
        assert self.recorded(made, {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}) == 400
        assert self.recorded(made, {"traceparent": f"00-{'1' * 32}-{'2' * 16}-00"}) == 0

    def test_of_some_is_near_what_was_asked_for(self, heard: Callable[..., Telemetry]) -> None:
        assert 50 < self.recorded(heard(trace_sample_percent=25), {}) < 150

    @pytest.mark.parametrize("percent", [-1, 100.5])
    def test_of_more_than_all_is_refused(self, toy: Toy, percent: float) -> None:
        with pytest.raises(SettingsError, match="TRACE_SAMPLE_PERCENT"):
            replace(toy.settings, trace_sample_percent=percent)

    def recorded(self, telemetry: Telemetry, metadata: dict[str, str]) -> int:
        found = 0
        for _ in range(400):
            with telemetry.server_span("/toy/Call", metadata) as span:
                found += span.is_recording()
        return found
