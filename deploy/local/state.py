"""What runs from this checkout: the runner's lock, and the ids of its programs for whoever asks or cleans up."""

import json
import os
import signal
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from .locking import alone


@dataclass(frozen=True, slots=True)
class Running:
    """A process, told from a later one of the same id by when it was created (seconds since 1970)."""

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> "Running | None":
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return None

    def process(self) -> psutil.Process | None:
        """None when it has ended."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if same else None


@dataclass(frozen=True, slots=True)
class State:
    """What the runner has written down."""

    runner: Running
    gateway: str
    programs: Mapping[str, Running]


def only_runner(directory: Path) -> AbstractContextManager[None]:
    """Holds the checkout's lock."""
    state = read_state(directory / "state.json")
    who = f" (process {state.runner.pid})" if state else ""
    return alone(
        directory, f"Storyloom already runs from this checkout{who}: use it, or end it there with Ctrl-C first."
    )


def write_state(file: Path, gateway: str, pids: Mapping[str, int]) -> None:
    runner = Running.of(os.getpid())
    programs = {name: asdict(found) for name, pid in pids.items() if (found := Running.of(pid))}
    state = {"runner": asdict(runner) if runner else None, "gateway": gateway, "programs": programs}
    scratch = file.with_suffix(".new")
    scratch.write_text(json.dumps(state, indent=1) + "\n")
    scratch.replace(file)


def read_state(file: Path) -> State | None:
    """None when nothing was ever written down, or nothing readable."""
    try:
        found: dict[str, Any] = json.loads(file.read_text())
        programs = {name: Running(**one) for name, one in found["programs"].items()}
        return State(Running(**found["runner"]), found["gateway"], programs)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def stop_left_over(file: Path) -> list[str]:
    """Ends what a runner that was killed could not end itself, and nothing else; returns the names."""
    state = read_state(file)
    if state is None or state.runner.process():
        return []
    left = {name: process for name, one in state.programs.items() if (process := one.process())}
    for name, process in left.items():
        # The fast shutdown of PostgreSQL, which on SIGTERM would wait for its clients.
        process.send_signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)
    _, deaf = psutil.wait_procs(list(left.values()), timeout=10)
    for process in deaf:
        process.kill()
    psutil.wait_procs(deaf, timeout=3)
    return sorted(left)
