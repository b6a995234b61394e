"""The whole platform as processes, started as `make run` does, on ports and in a directory of its own."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from deploy.local.control import order
from deploy.local.secrets import read_secrets
from deploy.local.settings import Settings, read_settings
from deploy.local.state import read_state
from deploy.probe import serving
from deploy.rest import Rest
from kit.settings import PORTS
from tests.stack import free_port

START_SECONDS = 120.0
# How long a replaced gateway goes on with what it has begun.
GATEWAY_DRAIN = 4
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "GRPC_ENABLE_FORK_SUPPORT")


@dataclass(frozen=True, slots=True)
class Running:
    """A running platform with the demo school in it."""

    settings: Settings
    password: str

    @property
    def url(self) -> str:
        return self.settings.gateway_url

    def sign_in(self, name: str, tenant: str = "hoa-sen") -> Rest:
        """One of the demo school's people by the name before the @."""
        return Rest(self.url).sign_in(tenant, f"{name}@{tenant}.example", self.password)

    def pid(self, name: str) -> int:
        """The process of a service, `gateway` or `postgres`, as the runner's state file tells."""
        state = read_state(self.settings.state_file)
        assert state is not None
        return state.programs[name].pid

    def kill(self, name: str) -> None:
        """What a crash is like: no signal handler runs."""
        os.kill(self.pid(name), signal.SIGKILL)

    def restart(self, what: str) -> list[str]:
        """Replaces a service's processes, the gateway or all; what the runner says of it."""
        said: list[str] = []
        order(self.settings.control_socket, what, said.append)
        return said

    def healthy(self) -> bool:
        """Whether each process says so itself, and the gateway of all. What the gateway says may be a second old: it
        alone would call a platform healthy whose process was killed just now."""
        listening = [(name, str(one)) for name, addresses in self.settings.services.items() for one in addresses]
        if not all(serving(name, {"LISTEN_ADDRESS": one}, seconds=2) for name, one in listening):
            return False
        try:
            return httpx.get(f"{self.url}/healthz", timeout=2).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    async def until_healthy(self, timeout: float = 30.0) -> None:
        async with asyncio.timeout(timeout):
            while not await asyncio.to_thread(self.healthy):
                await asyncio.sleep(0.05)


async def until(find: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What there is to find, once it is there."""
    async with asyncio.timeout(seconds):
        while not (found := find()):
            await asyncio.sleep(0.05)
    return found


@contextmanager
def running_platform(*doubled: str) -> Iterator[Running]:
    """Starts it with the demo school and stops it; these services have two processes."""
    with tempfile.TemporaryDirectory(prefix="sl-e2e-") as folder:
        # Nothing of what other tests have set for services in this process: the runner would take it for its user's.
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ} | {
            "RUN_DIRECTORY": folder,
            "GATEWAY_ADDRESS": f"127.0.0.1:{free_port()}",
            "TRACE_ADDRESS": f"127.0.0.1:{free_port()}",
            "GATEWAY_DRAIN": str(GATEWAY_DRAIN),
            # Whoever follows the log need not wait.
            "AUDIT_CHECKPOINT_SECONDS": "1",
            **{f"{name.upper()}_ADDRESS": _addresses(2 if name in doubled else 1) for name in PORTS},
        }
        log = Path(folder, "runner.log").open("w+")  # noqa: SIM115  # it stays open for the runner
        command = [sys.executable, "-W", "ignore", "-m", "deploy.local", "run"]
        runner = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait(runner, Path(log.name))
            settings = read_settings(environment)
            yield Running(settings, read_secrets(settings.directory / "secrets.env")["DEMO_PASSWORD"])
        finally:
            runner.terminate()
            runner.wait(timeout=30)
            log.close()


def _addresses(number: int) -> str:
    return ",".join(f"127.0.0.1:{free_port()}" for _ in range(number))


def _wait(runner: "subprocess.Popen[bytes]", log: Path) -> None:
    give_up = time.monotonic() + START_SECONDS
    while "READY" not in log.read_text():
        if runner.poll() is not None or time.monotonic() > give_up:
            raise AssertionError(f"the platform did not start:\n{log.read_text()}")
        time.sleep(0.1)
