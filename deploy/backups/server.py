"""The server that backups are of: the one that runs, or the local one, started for as long as it takes."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from deploy.local.environment import database_url
from deploy.local.postgres import Postgres
from deploy.local.processes import Child
from deploy.local.secrets import load_secrets, role_passwords
from deploy.local.settings import Settings, read_settings

GRACE = 10.0


@asynccontextmanager
async def running_server(settings: Settings) -> AsyncIterator[str]:
    """The administrator's URL of the server that DATABASE_URL names, that `make run` has started, or that is started
    here and stopped again."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    # Imported here: where a server's URL is given there is no runner, and no psutil to ask for one.
    from deploy.local.state import only_runner, read_state

    state = read_state(settings.state_file)
    if state is not None and state.runner.process() is not None:
        yield settings.admin_url
        return
    settings.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    with only_runner(settings.directory):
        async with local_server(settings) as admin_url:
            yield admin_url


def passwords_of(settings: Settings) -> dict[str, str]:
    """The password of each role on that server."""
    return role_passwords(load_secrets(settings.directory / "secrets.env"))


def role_url(settings: Settings, chosen: str | None, role: str) -> str:
    """The URL that was chosen, else that of the role on that server."""
    return chosen or database_url(settings.database_url or settings.admin_url, role, passwords_of(settings)[role])


@contextmanager
def scratch_settings() -> Iterator[Settings]:
    """The settings of a server whose folder is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="sl-", ignore_cleanup_errors=True) as folder:
        settings = read_settings({}, root=Path(folder))
        settings.logs.mkdir(parents=True)
        yield settings


@asynccontextmanager
async def scratch_server() -> AsyncIterator[str]:
    """The administrator's URL of an empty server, which is gone afterwards."""
    with scratch_settings() as settings:
        async with local_server(settings) as admin_url:
            yield admin_url


@asynccontextmanager
async def local_server(
    settings: Settings, options: Mapping[str, str] = MappingProxyType({}), patience: float = 60.0
) -> AsyncIterator[str]:
    """The administrator's URL of the server over the settings' data, with more options than it has."""
    postgres = Postgres(settings, say=lambda _: None)
    await postgres.prepare()
    program = postgres.program()
    more = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    command = replace(program.command, arguments=[*program.command.arguments, *more])
    child = Child(replace(program, command=command), say=lambda _: None)
    try:
        await child.start(patience)
        yield postgres.admin_url
    finally:
        await child.stop(GRACE)
        shutil.rmtree(postgres.sockets, ignore_errors=True)
