"""Programs the runner starts: in their own process group, logged to a file, restarted when they die, stopped by id."""

import asyncio
import os
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .errors import RunError, last_line

Say = Callable[[str], None]

FIRST_DELAY = 0.2
LONGEST_DELAY = 10.0
# A program that ran this long has recovered: its next death is answered at once again.
SETTLED = 30.0


@dataclass(frozen=True, slots=True)
class User:
    """The OS user a program runs as, when that is not the runner's own."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Command:
    """What is started, where and as whom."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    directory: Path
    user: User | None = None

    async def start(self, out: int) -> Process:
        """Starts it in a session of its own, so that Ctrl-C in the terminal reaches the runner alone."""
        user = self.user
        try:
            return await asyncio.create_subprocess_exec(
                *self.arguments,
                env=dict(self.environment),
                cwd=self.directory,
                stdin=DEVNULL,
                stdout=out,
                stderr=STDOUT,
                start_new_session=True,
                user=user.uid if user else None,
                group=user.gid if user else None,
                extra_groups=[] if user else None,
            )
        except OSError as error:
            raise RunError(f"{self.arguments[0]} can't be started: {error.strerror}.") from error


@dataclass(frozen=True, slots=True)
class Program:
    """A command that stays, how to see that it is ready (given its process id), and how to end it. `anew` starts it
    after a death, where that takes another command."""

    name: str
    command: Command
    log: Path
    ready: Callable[[int], Awaitable[None]]
    stop_signal: signal.Signals = signal.SIGTERM
    kill_signal: signal.Signals = signal.SIGKILL
    anew: Command | None = None

    @property
    def kind(self) -> str:
        """The name that the processes of one service share."""
        return self.name.partition("-")[0]


def open_log(log: Path) -> int:
    return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def rotate_log(log: Path) -> None:
    """Keeps the last run's log beside the new one, and none before it."""
    with suppress(FileNotFoundError):
        log.replace(log.with_suffix(log.suffix + ".1"))


class Child:
    """One program, kept running until `stop`."""

    def __init__(self, program: Program, say: Say, changed: Callable[[], None] = lambda: None) -> None:
        self.program, self._say, self._changed = program, say, changed
        self._process: Process | None = None
        self._started = 0.0
        self._watch: asyncio.Task[None] | None = None
        self.deaths = 0

    @property
    def pid(self) -> int | None:
        """None when it does not run at this moment."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self, timeout: float = 60.0) -> None:
        """Starts it, waits until it is ready, and from then on restarts it when it dies."""
        rotate_log(self.program.log)
        process = await self._spawn(self.program.command)
        ready = asyncio.ensure_future(self.program.ready(process.pid))
        died = asyncio.ensure_future(process.wait())
        try:
            await asyncio.wait({ready, died}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                raise self._not_ready(process, timeout)
            await ready
        finally:
            ready.cancel()
            died.cancel()
        self.keep()

    def keep(self) -> None:
        """From now on it is started again when it ends."""
        self._watch = asyncio.create_task(self._restart_for_ever())

    async def replace(self, grace: float) -> None:
        """Ends it as `stop` does and starts it again; what does not become ready is tried again in the background."""
        await self.stop(grace)
        try:
            await self.start()
        except RunError:
            self.keep()
            raise

    async def until_ended(self, patience: float) -> None:
        """Waits for a program that ends by itself, and ends it when it does not."""
        process = self._process
        with suppress(TimeoutError):
            if process is not None:
                await asyncio.wait_for(process.wait(), patience)
        await self.stop(0.0)

    def let_die(self) -> None:
        """From now on its end is no reason to start it again."""
        if self._watch:
            self._watch.cancel()

    async def stop(self, grace: float) -> None:
        """Asks it to end, and ends it after `grace` seconds."""
        self.let_die()
        if self._watch:
            with suppress(asyncio.CancelledError):
                await self._watch
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._send(self.program.stop_signal)
        for patience, harder in ((grace, self.program.kill_signal), (3.0, signal.SIGKILL)):
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), patience)
            self._send(harder)
        await process.wait()

    def kill(self) -> None:
        """For a user who does not want to wait for the grace."""
        self._send(self.program.kill_signal)

    def _send(self, number: signal.Signals) -> None:
        if self.pid is None:
            return
        with suppress(ProcessLookupError):
            if number is signal.SIGKILL:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)

    async def _spawn(self, command: Command) -> Process:
        log = open_log(self.program.log)
        try:
            process = await command.start(log)
        finally:
            os.close(log)
        self._process, self._started = process, time.monotonic()
        self._changed()
        return process

    def _not_ready(self, process: Process, timeout: float) -> RunError:
        what = "is not ready" if process.returncode is None else f"stopped at its start ({_ending(process.returncode)})"
        after = f" after {timeout:g} s" if process.returncode is None else ""
        said = last_line(self.program.log)
        return RunError(f"{self.program.name} {what}{after}; see {self.program.log}" + (f": {said}" if said else "."))

    async def _restart_for_ever(self) -> None:
        delay = FIRST_DELAY
        while self._process is not None:
            code = await self._process.wait()
            self.deaths += 1
            delay = FIRST_DELAY if time.monotonic() - self._started > SETTLED else delay
            self._say(
                f"{self.program.name} ended ({_ending(code)}): starting it again in {delay:g} s; see {self.program.log}"
            )
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY)
            try:
                await self._spawn(self.program.anew or self.program.command)
            except RunError as failure:
                self._say(str(failure))


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


async def run_step(name: str, command: Command, log: Path, show: Say | None = None) -> None:
    """Runs a command to its end; its output goes to `log` and, a line at a time, to `show`."""
    rotate_log(log)
    process = await command.start(PIPE)
    try:
        assert process.stdout is not None
        with os.fdopen(open_log(log), "wb", buffering=0) as out:
            async for line in process.stdout:
                out.write(line)
                if show:
                    show(line.decode(errors="replace").rstrip())
        code = await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if code != 0:
        raise RunError(f"{name} failed ({_ending(code)}); see {log}: {last_line(log)}")


async def together(*steps: Awaitable[None]) -> None:
    """Runs steps at the same time; the first failure cancels the others, waits for them, and is raised."""
    tasks = [asyncio.ensure_future(step) for step in steps]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
