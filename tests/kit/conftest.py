"""The toy service, on an empty cluster of its own: the kit's tests need no other service."""

from collections.abc import AsyncIterator

import pytest

from deploy.backups.server import scratch_server
from tests.kit.toy import Toy, start_toy


@pytest.fixture(scope="session")
async def toy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Toy]:
    """The service, serving until the session ends."""
    async with scratch_server() as admin_url:
        running = await start_toy(admin_url, tmp_path_factory.mktemp("toy"), pool_size=7)
        yield running
        await running.service.stop()
