"""The server that backups are of: the one that runs, or the local one, started for as long as it takes."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from deploy.local.postgres import Postgres
from deploy.local.processes import Child
from deploy.local.settings import Settings, read_settings
from deploy.local.state import only_runner, read_state

GRACE = 10.0


@asynccontextmanager
async def running_server(settings: Settings) -> AsyncIterator[str]:
    """The administrator's URL of the server that DATABASE_URL names, that `make run` has started, or that is started
    here and stopped again."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    state = read_state(settings.state_file)
    if state is not None and state.runner.process() is not None:
        yield settings.admin_url
        return
    settings.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    with only_runner(settings.directory):
        async with _started(settings) as admin_url:
            yield admin_url


@asynccontextmanager
async def scratch_server() -> AsyncIterator[str]:
    """The administrator's URL of an empty server, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="sl-", ignore_cleanup_errors=True) as folder:
        settings = read_settings({}, root=Path(folder))
        settings.logs.mkdir(parents=True)
        async with _started(settings) as admin_url:
            yield admin_url


@asynccontextmanager
async def _started(settings: Settings) -> AsyncIterator[str]:
    postgres = Postgres(settings, say=lambda _: None)
    await postgres.prepare()
    child = Child(postgres.program(), say=lambda _: None)
    await child.start()
    try:
        yield postgres.admin_url
    finally:
        await child.stop(GRACE)
        shutil.rmtree(postgres.sockets, ignore_errors=True)
