"""Fixtures of the whole suite: one real PostgreSQL and one stack of real services for each worker."""

import os
from collections.abc import AsyncIterator

import pytest
from hypothesis import settings

from tests.postgres import Cluster, migrated, server
from tests.stack import School, Stack, found_school

# `make proof` searches long; every run prints what reproduces a failure.
settings.register_profile("proof", max_examples=20_000, deadline=None, print_blob=True)
settings.register_profile("default", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
async def cluster() -> AsyncIterator[Cluster]:
    """A migrated cluster of this worker's own."""
    async with server() as admin_url:
        yield await migrated(admin_url)


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
