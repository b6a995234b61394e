"""The toy service, on an empty cluster of its own: the kit's tests need no other service."""

from collections.abc import AsyncIterator

import pytest

from tests.kit.toy import Toy, serving_toy
from tests.pgbouncer import ASKED_FOR
from tests.postgres import empty_server


@pytest.fixture(scope="session")
async def toy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Toy]:
    """The service, serving until the session ends."""
    async with empty_server() as admin_url:
        folder = tmp_path_factory.mktemp("toy")
        async with serving_toy(admin_url, folder, connections=ASKED_FOR, pool_size=7) as running:
            yield running
