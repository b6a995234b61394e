"""`python -m benchmarks.tracing`: what it costs to trace none, one of a hundred and all of the requests of a running
stack, or of one started for it. They take turns, as a busy machine slows them alike."""

import argparse
import os
import sys
from statistics import median

import httpx

from benchmarks import data
from benchmarks.cpu import processor_times, until_idle
from benchmarks.load import LoadError, Plan, rest_driver, send
from benchmarks.report import table, verdict
from benchmarks.scenarios import CALLERS, Setting, list_stories, read_story
from benchmarks.stack import StackError, quiet_gateway, running_stack, sample
from deploy.local.errors import RunError
from deploy.local.settings import Settings, read_settings
from deploy.rest import RestError

PERCENTS = (0, 1, 100)
# One of a hundred is what production traces; all of them is for comparison.
LIMIT, LIMITED = 1.05, 1
SCENARIOS = {"list_stories": list_stories, "read_story": read_story}
WARM_UP_SECONDS, PATIENCE = 1.0, 2.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="how often each has its turn, default 7")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn, default 3")
    arguments = parser.parse_args()
    try:
        settings = read_settings(os.environ)
        found = measure(settings, arguments.rounds, arguments.seconds)
    except (StackError, LoadError, RunError, RestError, OSError, ValueError, httpx.HTTPError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print("\n".join(table(rows(found))))
    return 0


def measure(settings: Settings, rounds: int, seconds: float) -> dict[str, list[dict[int, float]]]:
    """Microseconds of processor time of a request, over all programs: of each round, by the share that is traced."""
    found: dict[str, list[dict[int, float]]] = {name: [] for name in SCENARIOS}
    with running_stack(settings) as stack, quiet_gateway(settings):
        setting = Setting(stack, data.prepare(stack.state.gateway, settings), round(seconds), rest_driver())
        plans = {name: make(setting) for name, make in SCENARIOS.items()}
        for plan in plans.values():
            send(plan, CALLERS, WARM_UP_SECONDS, setting.driver)
        for nth in range(rounds):
            for name, plan in plans.items():
                found[name].append({})
                # Whoever comes first finds the machine otherwise than whoever comes last.
                for percent in (*PERCENTS[nth % 3 :], *PERCENTS[: nth % 3]):
                    sample(settings, percent)
                    found[name][-1][percent] = cost(setting, plan, seconds)
    return found


def cost(setting: Setting, plan: Plan, seconds: float) -> float:
    programs = setting.stack.programs
    until_idle(programs, PATIENCE)
    before = processor_times(programs)
    load = send(plan, CALLERS, seconds, setting.driver)
    until_idle(programs, PATIENCE)
    after = processor_times(programs)
    return sum(after[name] - before[name] for name in programs) / max(1, load.answered) * 1e6


def rows(found: dict[str, list[dict[int, float]]]) -> list[tuple[str, ...]]:
    """A ratio is the median of those of the rounds, so that what slows a whole round cancels out; how far they lie
    apart tells what it is worth."""
    shown: list[tuple[str, ...]] = [
        ("CPU µs of a request", "traced", "found", "÷ untraced", "rounds", "limit", "verdict")
    ]
    for name, rounds in found.items():
        for percent in PERCENTS:
            ratios = [one[percent] / one[0] for one in rounds]
            row = [name, f"{percent} %", f"{median(one[percent] for one in rounds):.0f}"]
            if percent:
                row += [f"{median(ratios):.3f}", f"{min(ratios):.2f} to {max(ratios):.2f}"]
            if percent == LIMITED:
                row += [f"{LIMIT:.2f}", verdict(median(ratios), LIMIT)]
            shown.append((*row, *[""] * (len(shown[0]) - len(row))))
    return shown


if __name__ == "__main__":
    sys.exit(main())
