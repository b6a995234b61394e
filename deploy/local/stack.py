"""The order in which the stack starts and stops."""

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from kit.settings import SERVICES

from .control import Control
from .database import migrate
from .environment import Environments
from .errors import RunError
from .gateway import check_envoy, configuration, envoy, forget_handover, gateway_program
from .health import until_serving
from .postgres import Postgres, make_private
from .processes import Child, Command, Program, Say, run_step, together
from .restarting import Restarter
from .secrets import load_secrets
from .settings import Address, Settings
from .state import stop_left_over, write_state
from .traces import TraceReceiver, TraceStore

GRACE = 15.0
LOG_BYTES = 64 * 2**20
LOG_CHECK = 20.0


class Stack:
    """PostgreSQL, the trace store, five services and the gateway: started together, stopped together."""

    def __init__(self, settings: Settings, say: Say) -> None:
        self.settings, self._say = settings, say
        self.children: list[Child] = []
        self._receiver: TraceReceiver | None = None
        self._control: Control | None = None

    async def start(self) -> None:
        """Returns when the gateway answers and the demo school is there; `RunError` says what stands in the way."""
        settings = self.settings
        for name in stop_left_over(settings.state_file):
            self._say(f"Stopped {name}, which an earlier run had left behind")
        check_ports(settings)
        await check_envoy(envoy())
        secrets = load_secrets(settings.directory / "secrets.env")
        if settings.otlp_endpoint is None:
            self._receiver = TraceReceiver(settings.traces, TraceStore(settings.trace_file), settings.metrics)
            await self._receiver.start()
        postgres = None if settings.database_url else Postgres(settings, self._say)
        environments = Environments(settings, secrets, settings.database_url or settings.admin_url)
        await together(self._start_database(postgres, environments), self.write_gateway_configuration(environments, 0))
        try:
            programs = (program for name in SERVICES for program in self._services(name, environments))
            await together(*map(self._start, programs))
        except RunError:
            # Perhaps the database is not what the mark says (somebody changed a role by hand): the next run looks.
            settings.migrated_file.unlink(missing_ok=True)
            raise
        make_private(settings.admin_directory)
        await self._start(gateway_program(settings, environments, epoch=0))
        if settings.load_demo:
            load = self._python("deploy.demo", environment=environments.demo())
            await run_step("Loading the demo school", load, settings.logs / "demo.log", self._say)
        self._control = Control(settings.control_socket, Restarter(self, environments).restart)
        await self._control.start()

    async def stop(self) -> None:
        """Ends what was started, in the reverse order: no program loses one it still needs."""
        if self._control:
            await self._control.stop()
        for child in self.children:
            child.let_die()
        await self._stop("gateway")
        await self._stop(*SERVICES)
        if self._receiver:
            await self._receiver.stop()
        await self._stop("postgres")
        self.settings.state_file.unlink(missing_ok=True)
        with suppress(OSError):
            self.settings.socket_directory.rmdir()
        if any(child.program.name == "gateway" for child in self.children):
            # Envoy leaves its sockets behind; started, it had a directory that is our own.
            forget_handover(self.settings)
            shutil.rmtree(self.settings.admin_directory, ignore_errors=True)

    async def _stop(self, *kinds: str) -> None:
        await asyncio.gather(*(child.stop(GRACE) for child in self.children if child.program.kind in kinds))

    def hurry(self) -> None:
        """Ends all programs at once, while `stop` waits for them."""
        for child in self.children:
            child.kill()

    async def keep_logs_small(self) -> None:
        """A service under load for days would else fill the disk."""
        while True:
            await asyncio.sleep(LOG_CHECK)
            for log in self.settings.logs.glob("*.log"):
                if log.stat().st_size > LOG_BYTES:
                    await asyncio.to_thread(_cut, log)

    def child(self, program: Program) -> Child:
        """One that ends with the stack, and is not started yet."""
        child = Child(program, self._say, self.write_state)
        self.children.append(child)
        return child

    async def _start(self, program: Program) -> None:
        await self.child(program).start()

    def write_state(self) -> None:
        """Which of the programs run, for whoever asks."""
        pids = {child.program.name: child.pid for child in self.children if child.pid is not None}
        write_state(self.settings.state_file, self.settings.gateway_url, pids)

    async def _start_database(self, postgres: Postgres | None, environments: Environments) -> None:
        if postgres:
            await postgres.prepare()
            await self._start(postgres.program())
        await migrate(self.settings, environments, postgres.data / "PG_VERSION" if postgres else None)

    async def write_gateway_configuration(self, environments: Environments, epoch: int) -> None:
        folder = configuration(self.settings, epoch)
        environment = environments.gateway_configuration()
        make = self._python("gateway.envoy", "--out", str(folder), environment=environment)
        await run_step("Making the gateway's configuration", make, self.settings.logs / "gateway-configuration.log")

    def _services(self, name: str, environments: Environments) -> Iterator[Program]:
        """Its processes: `content`, and `content-2` where there are two."""
        for nth, address in enumerate(self.settings.services[name]):
            program = name if nth == 0 else f"{name}-{nth + 1}"
            yield Program(
                name=program,
                command=self._python(f"services.{name}", environment=environments.service(name, nth)),
                log=self.settings.logs / f"{program}.log",
                ready=partial(_serving, name, address),
            )

    def _python(self, module: str, *arguments: str, environment: Mapping[str, str]) -> Command:
        return Command([sys.executable, "-m", module, *arguments], environment, self.settings.root)


async def _serving(name: str, address: Address, _: int) -> None:
    await until_serving(name, address)


def check_ports(settings: Settings) -> None:
    """Says which port is taken before anything is started."""
    given = {f"{name.upper()}_ADDRESS": found for name, found in settings.services.items()}
    wanted = [(variable, address) for variable, found in given.items() for address in found]
    wanted.append(("GATEWAY_ADDRESS", settings.gateway))
    if isinstance(settings.gateway_admin, Address):
        wanted.append(("GATEWAY_ADMIN_ADDRESS", settings.gateway_admin))
    if settings.otlp_endpoint is None:
        wanted.append(("TRACE_ADDRESS", settings.traces))
    for nth, (variable, address) in enumerate(wanted):
        if address in [other for _, other in wanted[:nth]]:
            raise RunError(f"{address} is given twice: choose another with {variable}.")
        with socket.socket() as probe:
            # As the servers themselves do: what lingers of closed connections does not count as busy.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                raise RunError(
                    f"{address} can't be used ({os.strerror(error.errno or 0)}): stop the program that listens there, "
                    f"or choose another with {variable}={_suggestion(given.get(variable, (address,)))}."
                ) from error


def _suggestion(addresses: Sequence[Address]) -> str:
    """As many as there are: one alone would be a service with one process."""
    step = 100 * len(addresses)
    if max(one.port for one in addresses) + step >= 32768:
        step = -step
    return ",".join(f"{one.host}:{one.port + step}" for one in addresses)


def _cut(log: Path) -> None:
    """Keeps what was written as the one log before this; the writer appends, so it goes on at the new beginning."""
    shutil.copyfile(log, log.with_suffix(log.suffix + ".1"))
    os.truncate(log, 0)
