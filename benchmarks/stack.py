"""The stack under test: the one that runs, else one started for the bench; and its gateway made fit for measuring."""

import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import httpx

from deploy.local.settings import Settings, UnixAddress
from deploy.local.state import State, read_state

START_SECONDS = 120.0
STOP_SECONDS = 60.0
# Set while the bench runs, both in percent: limits would measure themselves, and a trace of every call costs more
# than production would ever pay.
QUIET = {
    "storyloom.ratelimit_enabled": "0",
    "tracing.random_sampling": "1",
}


class StackError(Exception):
    """The stack can't be measured; the message says why."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A running stack: what it is made of, and where it answers."""

    settings: Settings
    state: State

    @property
    def gateway(self) -> str:
        return self.state.gateway.removeprefix("http://")

    @property
    def programs(self) -> dict[str, int]:
        """Process ids of gateway, services and the embedded PostgreSQL, as far as they run here."""
        return {name: one.pid for name, one in self.state.programs.items() if one.process()}

    def address(self, service: str) -> str:
        return str(self.settings.services[service][0])


@contextmanager
def running_stack(settings: Settings) -> Iterator[Stack]:
    """The stack of this checkout, started when none runs, and then stopped at the end."""
    state = read_state(settings.state_file)
    if state and state.runner.process():
        yield Stack(settings, _until_ready(settings, None))
        return
    print("No stack is running: starting one, and stopping it after the bench.", flush=True)
    # In a session of its own: Ctrl-C is for the bench, which stops the runner itself.
    command = [sys.executable, "-m", "deploy.local", "run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as runner:
        try:
            _until_told_ready(runner)
            yield Stack(settings, _until_ready(settings, runner))
        finally:
            runner.terminate()
            runner.wait(timeout=STOP_SECONDS)


def _until_told_ready(runner: "subprocess.Popen[str]") -> None:
    assert runner.stdout is not None
    for line in runner.stdout:
        print(f"  {line}", end="", flush=True)
        if line.startswith("READY"):
            # It must not block on a full pipe later.
            threading.Thread(target=deque, args=(runner.stdout, 0), daemon=True).start()
            return
    raise StackError("the stack did not start: see the lines above.")


def _until_ready(settings: Settings, runner: "subprocess.Popen[str] | None") -> State:
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up and (runner is None or runner.poll() is None):
        state = read_state(settings.state_file)
        if state and "gateway" in state.programs and _answers(state.gateway):
            return state
        time.sleep(0.2)
    raise StackError(f"the gateway does not answer: see the logs in {settings.logs}.")


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=2).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


@contextmanager
def quiet_gateway(settings: Settings) -> Iterator[None]:
    """Rate limits off and 1 % of the requests traced, by Envoy's runtime; as it was before at the end."""
    with _admin(settings) as admin:
        before = _overridden(admin.get("/runtime", params={"format": "json"}).json())
        _modify(admin, QUIET)
        try:
            yield
        finally:
            # A gateway that has gone has forgotten the values too.
            with suppress(httpx.HTTPError):
                _modify(admin, {key: before.get(key, "") for key in QUIET})


def sample(settings: Settings, percent: int) -> None:
    """Has the gateway trace so many of a hundred requests from now on."""
    with _admin(settings) as admin:
        _modify(admin, {"tracing.random_sampling": str(percent)})


def _admin(settings: Settings) -> httpx.Client:
    if isinstance(settings.gateway_admin, UnixAddress):
        transport = httpx.HTTPTransport(uds=str(settings.gateway_admin.path))
        return httpx.Client(base_url="http://gateway", transport=transport, timeout=5)
    return httpx.Client(base_url=f"http://{settings.gateway_admin}", timeout=5)


def _overridden(runtime: Mapping[str, object]) -> dict[str, str]:
    """Values of the admin layer, which the bench writes to; an empty one takes the override away."""
    layers, entries = runtime["layers"], runtime["entries"]
    assert isinstance(layers, list)
    assert isinstance(entries, dict)
    place = layers.index("admin")
    return {key: entry["layer_values"][place] for key, entry in entries.items()}


def _modify(admin: httpx.Client, values: Mapping[str, str]) -> None:
    admin.post("/runtime_modify", params=dict(values)).raise_for_status()
