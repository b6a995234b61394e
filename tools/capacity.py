"""How much a school needs, from what one learner's acts cost here: `python -m tools.capacity --learners 100000`."""

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.settings import SERVICES

MEASURED = Path(__file__).parents[1] / "benchmarks" / "growth.json"
YEAR = 365
# What goes by itself, and after how many days; the queues are empty but for moments.
KEPT_DAYS = {"inbox": 30, "idempotency_keys": 1, "sessions": 30, "refresh_tokens": 30, "outbox": 0, "tree_queue": 0}
POOL = 8
# A table of more rows than that is vacuumed, indexed and restored in hours: time to split it.
LARGE_ROWS, LARGE_GB = 500_000_000, 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What learners do. On an active day they sit down so many times, on a phone that syncs after each sitting."""

    learners: int
    active_days: float = 150
    sittings: float = 2
    stories: float = 2
    homes: float = 4
    lists: float = 2
    sign_ins: float = 0.2
    quizzes_a_week: float = 3
    new_words: float = 1_500
    # Of a day's requests in its busiest hour, and of the learners on the busiest day.
    busiest_hour: float = 0.2
    busiest_day: float = 0.7

    @property
    def daily(self) -> dict[str, float]:
        """Acts of a learner on an active day."""
        quizzes = self.quizzes_a_week / 7 * YEAR / self.active_days
        return {
            "sign-in": self.sign_ins,
            "home": self.homes,
            "list-stories": self.lists,
            "read-story": self.stories,
            "sync": self.sittings,
            "start-quiz": quizzes,
            "submit-quiz": quizzes,
        }

    @property
    def yearly(self) -> dict[str, float]:
        """Acts of a learner in a year; twenty words are met at a time."""
        acts = {name: count * self.active_days for name, count in self.daily.items()}
        return acts | {"meet-words": self.new_words / 20, "join": 1.0}


@dataclass(frozen=True, slots=True)
class Capacity:
    """What they need: `requests` and `cores` in the busiest second, rows and bytes by table for a learner and year."""

    requests: float
    cores: dict[str, float]
    rows: dict[str, float]
    octets: dict[str, float]

    def processes(self, service: str, load: float) -> int:
        """A process uses one core; two of them at least, so that one may go."""
        return max(2, math.ceil(self.cores.get(service, 0.0) / load))


def count(use: Use, measured: Mapping[str, Any]) -> Capacity:
    """Sums over the acts."""
    actions: Mapping[str, Any] = measured["actions"]
    peak = use.learners * use.busiest_day * use.busiest_hour / 3600
    cores: Counter[str] = Counter()
    for name, times in use.daily.items():
        for program, spent in actions[name]["cpu"].items():
            cores[program] += times * peak * spent / 1e6
    rows: Counter[str] = Counter()
    for name, times in use.yearly.items():
        for table, grown in actions[name]["rows"].items():
            rows[table] += times * grown * KEPT_DAYS.get(table.partition(".")[2], YEAR) / YEAR
    octets = {table: number * measured["bytes"][table] for table, number in rows.items()}
    return Capacity(sum(use.daily.values()) * peak, dict(cores), dict(rows), octets)


def told(use: Use, found: Capacity, load: float) -> Iterator[str]:
    """The answer as lines."""
    total = sum(found.cores.values())
    yield f"{use.learners:,} learners, {found.requests:,.1f} requests/s in the busiest hour"
    yield ""
    yield f"{'':12}{'cores':>8}{'processes':>11}"
    for program in ("gateway", *SERVICES, "postgres"):
        needed = f"{found.processes(program, load):,}" if program != "postgres" else ""
        yield f"{program:12}{found.cores.get(program, 0.0):8.2f}{needed:>11}".rstrip()
    processes = sum(found.processes(service, load) for service in SERVICES)
    yield f"{'all':12}{total:8.2f}   {found.requests / total:,.0f} requests/s per core"
    yield f"{processes * POOL:,} connections of {processes} service processes, {load:.0%} of a core busy in each"
    yield ""
    rows, octets = sum(found.rows.values()), sum(found.octets.values())
    yield f"a learner and year: {rows:,.0f} rows, {octets / 1e6:,.2f} MB; all of them: {_gb(use, octets)}"
    yield ""
    yield f"{'table':38}{'rows':>8}{'bytes/row':>11}{'rows/year':>16}{'a year':>12}"
    for table in sorted(found.rows, key=lambda one: -found.octets[one]):
        if found.octets[table] < octets / 200:
            continue
        number = found.rows[table] * use.learners
        large = "  split" if number > LARGE_ROWS or found.octets[table] * use.learners > LARGE_GB * 1e9 else ""
        each = found.octets[table] / found.rows[table]
        size = _gb(use, found.octets[table])
        yield f"{table:38}{found.rows[table]:8,.0f}{each:11,.0f}{number:16,.0f}{size:>12}{large}"


def _gb(use: Use, octets: float) -> str:
    return f"{octets * use.learners / 1e9:,.1f} GB"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m tools.capacity", description=__doc__)
    for name, kind in Use.__annotations__.items():
        default = None if name == "learners" else getattr(Use(learners=0), name)
        option = f"--{name.replace('_', '-')}"
        made.add_argument(option, type=kind, required=default is None, default=default, help=f"default {default}")
    made.add_argument("--load", type=float, default=0.6, help="share of its core that a process may be busy")
    made.add_argument("--measured", type=Path, default=MEASURED, help="what benchmarks.growth has written")
    return made


def main() -> None:
    asked = parser().parse_args()
    use = Use(**{name: getattr(asked, name) for name in Use.__annotations__})
    found = count(use, json.loads(asked.measured.read_text()))
    print("\n".join(told(use, found, asked.load)))


if __name__ == "__main__":
    main()
