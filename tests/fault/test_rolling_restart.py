"""Processes are replaced under load, one after another: no request fails, no write is lost or made twice."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from deploy.local.state import read_state
from deploy.rest import Rest, RestError
from kit.settings import SERVICES
from tests.fault.load import CLIENTS, READS, Load
from tests.profile import PROOF
from tests.running import GATEWAY_DRAIN, Running, running_platform


def processes(platform: Running) -> dict[str, int]:
    state = read_state(platform.settings.state_file)
    assert state is not None
    return {name: one.pid for name, one in state.programs.items()}


def all_of(who: Rest, path: str, kind: str, **query: str) -> Iterator[dict[str, str]]:
    token = ""
    while True:
        page = who.get(path, pageSize=100, **query, **({"pageToken": token} if token else {}))
        yield from page[kind]
        token = page.get("nextPageToken", "")
        if not token:
            return


def wrong(expected: list[str], found: list[str]) -> dict[str, int]:
    """Those that are not there exactly once, and how often they are."""
    counted = Counter(found)
    return {one: counted[one] for one in expected if counted[one] != 1}


async def check(load: Load) -> None:
    """No request failed; the ledger is what there is."""
    assert load.failures == []
    titles = await asyncio.to_thread(lambda: [one["title"] for one in all_of(load.teacher, "/v1/courses", "courses")])
    assert wrong(list(load.courses), titles) == {}
    enrolled = await asyncio.to_thread(
        lambda: [one["courseId"] for one in all_of(load.student, "/v1/enrollments", "enrollments")]
    )
    assert wrong(load.enrolments, enrolled) == {}


def told(load: Load, restarts: int, seconds: float) -> str:
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(load.requests.items()))
    return (
        f"{restarts} processes replaced in {seconds:.0f} s under {sum(load.requests.values())} requests ({kinds}): "
        f"{len(load.failures)} failed; p50 {load.quantile(0.5):.0f} ms, p99 {load.quantile(0.99):.0f} ms, "
        f"longest {load.quantile(1):.0f} ms"
    )


class TestRollingRestart:
    async def test_of_a_service_and_of_the_gateway_fails_no_request(self, platform: Running) -> None:
        before, load = processes(platform), await asyncio.to_thread(Load, platform)
        async with load.running():
            # The old gateway ends while the service's processes are replaced.
            for what in ("gateway", "learning"):
                await asyncio.to_thread(platform.restart, what)
        await check(load)
        after = processes(platform)
        changed = {name for name in before if before[name] != after[name]}
        assert changed == {"gateway", "learning", "learning-2"}


@pytest.fixture(scope="module")
def doubled() -> Iterator[Running]:
    """Two processes of every service."""
    with running_platform(*SERVICES) as running:
        yield running


@pytest.mark.slow
@pytest.mark.xdist_group("doubled")
@pytest.mark.timeout(900)
@pytest.mark.skipif(not PROOF, reason="takes minutes: `make proof`")
class TestTwoOfEach:
    async def test_restart_of_everything_fails_no_request(self, doubled: Running) -> None:
        before, load, began = processes(doubled), await asyncio.to_thread(Load, doubled), time.monotonic()
        async with load.running():
            said = await asyncio.to_thread(doubled.restart, "all")
            await asyncio.sleep(GATEWAY_DRAIN + 2)
            took = time.monotonic() - began
        tell(*said, told(load, 2 * len(SERVICES) + 1, took), *load.failures[:20])
        await check(load)
        after = processes(doubled)
        assert {name for name in before if before[name] == after[name]} == {"postgres"}

    @pytest.mark.parametrize("victim", SERVICES)
    async def test_a_death_costs_no_more_than_what_was_under_way(self, doubled: Running, victim: str) -> None:
        load = await asyncio.to_thread(Load, doubled)
        async with load.running():
            await asyncio.sleep(1)
            doubled.kill(victim)
            await asyncio.sleep(4)
        tell(f"kill -9 of {victim}: {told(load, 1, 5)}", *load.failures)
        # One for each of the clients at most: who asks again, asks the other.
        assert len(load.failures) <= CLIENTS
        load.failures.clear()
        await check(load)

    async def test_a_session_s_end_is_known_to_both(self, doubled: Running) -> None:
        teacher = await asyncio.to_thread(doubled.sign_in, "lan")
        for path in READS:
            await asyncio.to_thread(teacher.get, path)
        await asyncio.to_thread(teacher.post, "/v1/sessions:signOut")
        await asyncio.sleep(2)
        for path in READS * 4:
            with pytest.raises(RestError) as refused:
                await asyncio.to_thread(teacher.get, path)
            assert refused.value.status == httpx.codes.UNAUTHORIZED


def tell(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
