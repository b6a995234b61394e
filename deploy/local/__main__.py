"""`python -m deploy.local run|restart [WHAT]|trace [ID]|status|migration SERVICE NAME|job VERB SERVICE [NAME]`."""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from kit.settings import SERVICES

from .errors import RunError
from .gateway import answers
from .settings import Address, Settings, read_settings
from .state import State, only_runner, read_state

# How long `trace` waits for spans that may still be on their way.
PATIENCE = 4.0
# Two signals closer than this are one: make and timeout(1) pass theirs on to a process the sender also reached.
IMPATIENCE = 1.0


def say(line: str) -> None:
    # Whoever reads may have gone (`make run | head`): the stack goes on without a word.
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description="Storyloom on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="start everything and stay until Ctrl-C")
    trace = commands.add_parser("trace", help="print a trace as a tree, or list recent ones")
    trace.add_argument("id", nargs="?", default="")
    migration = commands.add_parser("migration", help="begin a migration of one service")
    migration.add_argument("service", choices=SERVICES)
    migration.add_argument("name")
    job = commands.add_parser("job", help="run a job of one service")
    job.add_argument("verb", choices=("run", "pause", "abort", "list"))
    job.add_argument("service", choices=SERVICES)
    job.add_argument("name", nargs="*")
    restart = commands.add_parser("restart", help="replace processes one after another, under load")
    restart.add_argument("what", nargs="?", default="all", choices=("all", "gateway", *SERVICES))
    commands.add_parser("status", help="say what runs; exit code 0 when the gateway is ready")
    arguments = parser.parse_args()
    try:
        settings = read_settings(os.environ)
        match arguments.command:
            case "run":
                return run(settings)
            case "trace":
                return show_trace(settings.trace_file, arguments.id)
            case "migration":
                from .database import begin_migration

                return begin_migration(settings, arguments.service, arguments.name)
            case "job":
                from .database import run_job

                return run_job(settings, arguments.verb, arguments.service, arguments.name)
            case "restart":
                return restart_running(settings, arguments.what)
            case _:
                return show_status(settings)
    except RunError as failure:
        with suppress(BrokenPipeError):
            print(f"storyloom: {failure}", file=sys.stderr, flush=True)
        return 1


def run(settings: Settings) -> int:
    make_directories(settings)
    with only_runner(settings.directory):
        return asyncio.run(run_until_told(settings))


def make_directories(settings: Settings) -> None:
    try:
        # Others may pass through: PostgreSQL, which does not run as root, has its data in here.
        settings.directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        settings.logs.mkdir(mode=0o700, exist_ok=True)
        if not os.access(settings.directory, os.W_OK):
            raise PermissionError
    except OSError:
        raise RunError(
            f"{settings.directory}, where `make run` keeps its files, can't be written: give it to your user."
        ) from None


async def run_until_told(settings: Settings) -> int:
    # gRPC's own handlers of fork() have nothing to save here and say so at every program started.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    # Imported after that, and because `status` and `trace` need none of it.
    from .stack import Stack

    stack = Stack(settings, say)
    told = asyncio.Event()
    first = 0.0
    loop = asyncio.get_running_loop()
    starting = asyncio.ensure_future(stack.start())

    def stop_or_hurry() -> None:
        nonlocal first
        if not told.is_set():
            first = loop.time()
        elif loop.time() - first > IMPATIENCE:
            stack.hurry()
        told.set()
        starting.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop_or_hurry)
    logs = asyncio.ensure_future(stack.keep_logs_small())
    try:
        await starting
        say(f"READY {settings.gateway_url}")
        await told.wait()
    except asyncio.CancelledError:
        if not told.is_set():
            raise
    finally:
        if told.is_set():
            say("Stopping")
        logs.cancel()
        await stack.stop()
    return 0


def show_trace(file: Path, text: str) -> int:
    from .spans import parse_trace_id, read_roots, read_trace
    from .tree import render_roots, render_trace

    if not text:
        return write(render_roots(read_roots(file, 20)))
    trace_id = parse_trace_id(text)
    deadline = time.monotonic() + PATIENCE
    while not (spans := read_trace(file, trace_id)):
        if time.monotonic() > deadline:
            raise RunError(f"No span of trace {trace_id} is kept: `make trace` lists recent ones.")
        time.sleep(0.5)
    return write(render_trace(spans))


def write(lines: Iterable[str]) -> int:
    for line in lines:
        say(line)
    return 0


def restart_running(settings: Settings, what: str) -> int:
    from .control import order

    running_state(settings)
    order(settings.control_socket, what, say)
    return 0


def running_state(settings: Settings) -> State:
    """What the runner of this checkout has written down."""
    state = read_state(settings.state_file)
    if state is None or state.runner.process() is None:
        raise RunError("Nothing runs from this checkout: `make run` starts it.")
    return state


def show_status(settings: Settings) -> int:
    state = running_state(settings)
    for name, running in state.programs.items():
        say(f"{name:<11} {'up' if running.process() else 'down':<5} process {running.pid}")
    if not ready(state):
        raise RunError(f"{state.gateway} does not answer (yet): see the logs in {settings.logs}.")
    say(f"READY {state.gateway}")
    return 0


def ready(state: State) -> bool:
    host, _, port = state.gateway.removeprefix("http://").rpartition(":")
    return asyncio.run(answers(Address(host, int(port)), "/healthz"))


if __name__ == "__main__":
    sys.exit(main())
