"""Services as processes of their own over a database of their own, to be killed, frozen and started again at will."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import grpc

from kit.settings import SERVICES
from tests.postgres import Cluster, empty_server, migrated
from tests.stack import School, Stack, found_school

INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH", "GRPC_ENABLE_FORK_SUPPORT")
# What a client tries again, under the same idempotency key.
TRY_AGAIN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
QUICK_RECONNECT = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)


class Processes(Stack):
    """The services of a cluster, each a process that starts again as soon as it dies, unless it is to stay down."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        super().__init__(cluster)
        self._folder = folder
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self.kills = 0

    async def run(self, name: str) -> None:
        """Starts it, returns when it takes calls, and from then on starts it whenever it dies."""
        self._watches[name] = asyncio.create_task(self._keep(name))
        await self.until_up(name)

    async def _keep(self, name: str) -> None:
        environment = {key: os.environ[key] for key in INHERITED if key in os.environ} | self.environments[name]
        with (self._folder / f"{name}.log").open("ab") as log:
            while True:
                command = (sys.executable, "-W", "ignore", "-m", f"services.{name}")
                made = await asyncio.create_subprocess_exec(*command, env=environment, stdout=log, stderr=log)
                self._running[name] = made
                await made.wait()

    async def until_up(self, name: str) -> None:
        host, _, port = self.environments[name]["LISTEN_ADDRESS"].rpartition(":")
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection(host, int(port))
                writer.close()
                return
            await asyncio.sleep(0.03)

    def send(self, name: str, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, KeyError):
            self._running[name].send_signal(number)

    def kill(self, name: str) -> None:
        """What a crash is like: no signal handler runs."""
        self.kills += 1
        self.send(name, signal.SIGKILL)

    async def take_down(self, name: str) -> None:
        """Kills it for good, until it is run again."""
        self._watches.pop(name).cancel()
        self.kill(name)
        await self._running.pop(name).wait()

    def channel(self, service: str) -> grpc.aio.Channel:
        if service not in self._channels:
            address = self.environments[service]["LISTEN_ADDRESS"]
            self._channels[service] = grpc.aio.insecure_channel(address, options=QUICK_RECONNECT)
        return self._channels[service]

    async def end(self) -> None:
        for name in tuple(self._watches):
            await self.take_down(name)
        await self.stop()

    async def rows(self, statement: str, *values: Any) -> list[Any]:
        """What the database holds, seen by its superuser."""
        connection = await asyncpg.connect(self.cluster.superuser_url)
        try:
            return list(await connection.fetch(statement, *values))
        finally:
            await connection.close()

    async def until_delivered(self, timeout: float) -> None:
        """Waits until the services that run have got all that is for them, what is parked included."""
        waiting = " UNION ALL ".join(f"SELECT consumer FROM {name}.outbox" for name in SERVICES)
        statement = f"SELECT count(*) FROM ({waiting}) AS waiting WHERE consumer = ANY($1)"
        async with asyncio.timeout(timeout):
            while (await self.rows(statement, list(self._running)))[0][0]:
                await asyncio.sleep(0.1)


@asynccontextmanager
async def processes(folder: Path, *names: str) -> AsyncIterator[tuple[Processes, School]]:
    """These services, with a school whose people sign in for real."""
    async with empty_server() as admin_url:
        running = Processes(await migrated(admin_url), folder)
        try:
            async with asyncio.timeout(60):
                await asyncio.gather(*(running.run(name) for name in names))
                school = await found_school(running, "lotus", "bamboo")
                await running.until_delivered(30)
            yield running, school
        finally:
            await running.end()


async def acknowledged(call: Any, request: Any) -> Any:
    """The answer of a call that is made, under one key, until there is one: a lost answer does not make it two."""
    metadata = (("idempotency-key", str(uuid4())),)
    while True:
        try:
            return await call(request, metadata=metadata, timeout=5)
        except grpc.aio.AioRpcError as error:
            if error.code() not in TRY_AGAIN:
                raise
        await asyncio.sleep(0.05)
