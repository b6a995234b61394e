"""`python -m benchmarks`: measures what the stack's requests cost and tells whether that meets the targets."""

import argparse
import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import httpx

from benchmarks import data, grading, imports, policies, question_files, report, sign_ins, weaving
from benchmarks.cpu import Moment, Use, memory, processor_times, until_idle
from benchmarks.echo import PATH
from benchmarks.load import ADVICE, Load, LoadError, Plan, Request, rest_driver, send
from benchmarks.scenarios import CALLERS, SCENARIOS, Scenario, ScenarioError, Setting
from benchmarks.stack import Stack, StackError, quiet_gateway, running_stack
from deploy.local.errors import RunError
from deploy.local.settings import Settings, read_settings
from deploy.rest import RestError

ECHO_SECONDS = 2.0
WARM_UP_SECONDS = 1.0
IDLE_SECONDS = 3.0
# Time for what a load leaves to do behind it, such as delivering its events.
AFTERWARDS_SECONDS = 15.0
LONGEST = 480
# What a scenario takes besides its own time.
MARGIN_SECONDS = 15.0


NAMES = [*(one.name for one in SCENARIOS), policies.NAME, sign_ins.NAME, weaving.NAME, grading.NAME, imports.NAME]
NAMES.append(question_files.NAME)


class BenchError(Exception):
    """The bench ends here; the message says why."""


def main() -> int:
    arguments = parse()
    for number in (signal.SIGALRM, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, give_up)
    signal.alarm(LONGEST)
    try:
        settings = read_settings(os.environ)
        earlier = report.load(arguments.compare) if arguments.compare else None
        found = measure(settings, arguments.only or NAMES, arguments.seconds)
    except (BenchError, StackError, LoadError, ScenarioError, RunError, RestError, OSError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except httpx.HTTPError as error:
        print(f"bench: the stack stopped answering: {error}", file=sys.stderr)
        return 1
    file = arguments.json or settings.directory / "bench.json"
    report.save(found, file)
    parts = [report.heading(found), report.latencies(found), report.costs(found), report.memories(found)]
    parts += more(found)
    if earlier:
        parts.append(report.comparison(found, earlier))
    print("\n" + "\n\n".join("\n".join(lines) for lines in parts) + f"\n\nWritten to {file}")
    return 1 if found.failed else 0


def more(found: report.Report) -> list[list[str]]:
    """What was measured by other means than load."""
    shown: list[tuple[Callable[[Any], list[str]], Any]] = [
        (report.policies, found.policies),
        (report.sign_ins, found.sign_ins),
        (report.weaving, found.weaving),
        (report.grading, found.grading),
        (report.imports, found.imports),
        (report.question_files, found.question_files),
    ]
    return [show(one) for show, one in shown if one]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures the running stack, or one started for it. Exit code 1 when a request fails.",
    )
    parser.add_argument("--seconds", type=seconds, default=8, help="time for each scenario, 1 to 15, default 8")
    parser.add_argument("--only", action="append", choices=NAMES, metavar="NAME", help=f"one of {', '.join(NAMES)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where results go, default .run/bench.json")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="results of an earlier run to compare with")
    return parser.parse_args()


def seconds(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 15:
        raise argparse.ArgumentTypeError("a whole number between 1 and 15")
    return int(text)


def give_up(number: int, frame: FrameType | None) -> None:
    """Everything that was changed or started is put back on the way out."""
    signal.alarm(0)
    raise BenchError(f"stopped after {LONGEST} s." if number == signal.SIGALRM else "stopped.")


def measure(settings: Settings, names: list[str], span: int) -> report.Report:
    found = report.Report(machine(), rest_driver(), span)
    if found.driver != "wrk":
        print(ADVICE, flush=True)
    with running_stack(settings) as stack, quiet_gateway(settings):
        print(f"Measuring {stack.state.gateway}", flush=True)
        try:
            setting = Setting(stack, data.prepare(stack.state.gateway, settings), span, found.driver)
            fill(found, setting, names)
        finally:
            # Putting everything back may take what it takes.
            signal.alarm(0)
    return found


def fill(found: report.Report, setting: Setting, names: list[str]) -> None:
    """Runs the scenarios with an echo before and after each: a busy neighbour slows both alike."""
    found.idle = idle_use(setting.stack.programs)
    before = echo_cost()
    for scenario in SCENARIOS:
        if scenario.name in names and enough_time(scenario.name, setting.seconds + MARGIN_SECONDS):
            print(f"  {scenario.name}", flush=True)
            load, used = run(scenario, setting, found.idle)
            after = echo_cost()
            found.scenarios.append(measured(scenario, load, used, (before + after) / 2))
            before = after
    if policies.NAME in names and enough_time(policies.NAME, policies.seconds_needed(setting)):
        print(f"  {policies.NAME}", flush=True)
        found.policies = policies.measure(setting, before)
    if sign_ins.NAME in names and enough_time(sign_ins.NAME, sign_ins.seconds_needed(setting)):
        print(f"  {sign_ins.NAME}", flush=True)
        found.sign_ins = sign_ins.measure(setting)
    if weaving.NAME in names and enough_time(weaving.NAME, weaving.SECONDS_NEEDED):
        print(f"  {weaving.NAME}", flush=True)
        found.weaving = weaving.measure(before)
    if grading.NAME in names and enough_time(grading.NAME, grading.SECONDS_NEEDED):
        print(f"  {grading.NAME}", flush=True)
        found.grading = grading.measure(before)
    if imports.NAME in names and enough_time(imports.NAME, imports.SECONDS_NEEDED):
        print(f"  {imports.NAME}", flush=True)
        found.imports = imports.measure(setting, before)
    if question_files.NAME in names and enough_time(question_files.NAME, question_files.SECONDS_NEEDED):
        print(f"  {question_files.NAME}", flush=True)
        found.question_files = question_files.measure(setting, before)
    remember_memory(found, setting.stack)


def enough_time(name: str, needed: float) -> bool:
    """Better to tell of the scenarios before than of none, when the alarm would interrupt this one."""
    if signal.getitimer(signal.ITIMER_REAL)[0] > needed:
        return True
    print(f"  {name}: left out, the bench ends after {LONGEST} s", flush=True)
    return False


def idle_use(programs: dict[str, int]) -> dict[str, float]:
    """The share of a processor that each program uses when nobody asks for anything."""
    until_idle(programs, AFTERWARDS_SECONDS)
    before = processor_times(programs)
    time.sleep(IDLE_SECONDS)
    after = processor_times(programs)
    return {name: (after[name] - before[name]) / IDLE_SECONDS for name in programs}


def run(scenario: Scenario, setting: Setting, idle: dict[str, float]) -> tuple[Load, Use]:
    """One scenario: its load, and what was used up to the end of all that it set in motion."""
    plan = scenario.plan(setting)
    if not plan.requests:
        raise ScenarioError(f"{scenario.name} has nothing to send.")
    if not plan.once:
        send(plan, scenario.callers, WARM_UP_SECONDS, setting.driver)
    programs = setting.stack.programs
    until_idle(programs, AFTERWARDS_SECONDS)
    before = Moment.now(programs)
    load = send(plan, scenario.callers, setting.seconds, setting.driver)
    until_idle(programs, AFTERWARDS_SECONDS)
    after = Moment.now(programs)
    if setting.stack.programs != programs:
        raise BenchError(f"a program of the stack ended during {scenario.name}: see the logs.")
    return load, after.since(before, idle)


def measured(scenario: Scenario, load: Load, used: Use, echo: float) -> report.Measured:
    each = 1 / max(1, load.answered)
    return report.Measured(
        name=scenario.name,
        rate=load.rate,
        p50=load.p50,
        p99=load.p99,
        answered=load.answered,
        failed=load.failed,
        octets=load.octets * each,
        cpu={name: spent * each * 1e6 for name, spent in used.programs.items()},
        echo=echo,
        others=used.others,
        target=scenario.target,
        first_error=load.first_error,
    )


def echo_cost() -> float:
    """Microseconds of the server's processor time for one echo, on this machine at this moment."""
    with echo_server() as (pid, port):
        plan = Plan([Request("GRPC", PATH, body=b"x" * 100)], f"127.0.0.1:{port}")
        send(plan, CALLERS, WARM_UP_SECONDS / 2, "own")
        before = processor_times({"echo": pid})
        load = send(plan, CALLERS, ECHO_SECONDS, "own")
        used = processor_times({"echo": pid})["echo"] - before["echo"]
    return used / max(1, load.answered) * 1e6


@contextlib.contextmanager
def echo_server() -> Iterator[tuple[int, int]]:
    command = [sys.executable, "-m", "benchmarks.echo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.pid, int(server.stdout.readline())
        finally:
            server.terminate()


def remember_memory(found: report.Report, stack: Stack) -> None:
    held = memory({**stack.programs, "runner": stack.state.runner.pid})
    found.memory = {name: one.rss for name, one in held.items()}
    found.stack_memory = sum(one.pss for one in held.values())


def machine() -> str:
    return f"{os.cpu_count()} processors, {platform.system()} {platform.release()}, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main())
