"""The toy service, on an empty cluster of its own: the kit's tests need no other service."""

from collections.abc import AsyncIterator

import pytest

from tests.kit.toy import Toy, start_toy
from tests.postgres import server


@pytest.fixture(scope="session")
async def toy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Toy]:
    """The service, serving until the session ends."""
    async with server() as admin_url:
        running = await start_toy(admin_url, tmp_path_factory.mktemp("toy"), pool_size=7)
        yield running
        await running.service.stop()
