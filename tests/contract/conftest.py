"""A migrated database without services, for the checks that only read it."""

import pytest

from tests.contract import databases
from tests.contract.databases import Scratch
from tests.postgres import Cluster


@pytest.fixture(scope="session")
async def migrated_database(cluster: Cluster) -> Scratch:
    """Every service at its newest revision; tests leave it as it is."""
    made = await databases.create(cluster, "contract_migrated")
    await made.upgrade()
    return made
