"""Fixtures of the whole suite: one real PostgreSQL and one stack of real services for each worker."""

import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
from hypothesis import settings

from tests.pgbouncer import ASKED_FOR, pgbouncer
from tests.postgres import Cluster, empty_server, migrated
from tests.running import Running, running_platform
from tests.stack import School, Stack, found_school

# `make proof` searches long; every run prints what reproduces a failure.
settings.register_profile("proof", max_examples=20_000, deadline=None, print_blob=True)
settings.register_profile("default", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        used = {"platform", "stack"}.intersection(getattr(item, "fixturenames", ()))
        if used:
            item.add_marker(pytest.mark.slow)
        if "platform" in used:
            item.add_marker(pytest.mark.xdist_group("platform"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the long run counted, and its seeds: pytest would keep to itself what tests that pass have printed."""
    if settings.get_current_profile_name() == "proof":
        for report in terminalreporter.stats.get("passed", ()):
            terminalreporter.write(report.capstdout)


@pytest.fixture(scope="session")
def platform() -> Iterator[Running]:
    """PostgreSQL, five services (learning twice) and Envoy as processes, with the demo school. Its tests share one
    worker."""
    with running_platform("learning") as running:
        yield running


@pytest.fixture(scope="session")
async def cluster() -> AsyncIterator[Cluster]:
    """A migrated cluster of this worker's own."""
    async with empty_server() as admin_url:
        found = await migrated(admin_url)
        if not ASKED_FOR:
            yield found
            return
        with pgbouncer(admin_url, found.passwords, connections=ASKED_FOR) as folder:
            yield replace(found, pooler=folder)


@pytest.fixture(scope="session")
async def stack(cluster: Cluster) -> AsyncIterator[Stack]:
    """All five services, serving."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        running = Stack(cluster)
        await running.start(monkeypatch)
        yield running
        await running.stop()


@pytest.fixture(scope="session")
async def school(stack: Stack) -> School:
    """A school with its people, and another one."""
    return await found_school(stack, "lotus", "bamboo")
