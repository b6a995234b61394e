"""Processor time and memory of the stack's programs, as /proc tells them."""

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
# Programs that start a process for each connection: theirs count with them.
WITH_CHILDREN = frozenset({"postgres"})
# Below this share of one processor the stack has nothing left to do for requests already answered.
IDLE = 0.06
PAUSE = 0.25


@dataclass(frozen=True, slots=True)
class Memory:
    """Megabytes: `rss` counts shared pages in full, `pss` divides them among those that share them."""

    rss: float
    pss: float


@dataclass(frozen=True, slots=True)
class Use:
    """Seconds of processor time of each program, and the share of all processors that others had meanwhile."""

    programs: Mapping[str, float]
    others: float


@dataclass(frozen=True, slots=True)
class Moment:
    """Clock and processor times at one moment; `own` is that of this program and of those it has waited for."""

    at: float
    programs: Mapping[str, float]
    own: float
    machine: float

    @classmethod
    def now(cls, programs: Mapping[str, int]) -> "Moment":
        return cls(time.monotonic(), processor_times(programs), sum(os.times()[:4]), machine_time())

    def since(self, before: "Moment", idle: Mapping[str, float]) -> Use:
        """What was used since then; what the programs use when idle, a share of a processor each, is left out."""
        elapsed = self.at - before.at
        used = {name: spent - before.programs[name] for name, spent in self.programs.items()}
        others = self.machine - before.machine - (self.own - before.own) - sum(used.values())
        share = max(0.0, others) / elapsed / (os.cpu_count() or 1)
        return Use({name: max(0.0, one - idle.get(name, 0.0) * elapsed) for name, one in used.items()}, share)


def used_seconds(stat: str) -> float:
    """User and system time in a text of /proc/<pid>/stat, with that of children that have ended."""
    # The program's name, in brackets, may hold spaces and brackets itself.
    fields = stat.rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def busy_seconds(stat: str) -> float:
    """What all processors together have worked, or were not given by the machine's host, in a text of /proc/stat."""
    user, nice, system, _idle, _waiting, hard, soft, stolen = map(int, stat.splitlines()[0].split()[1:9])
    return (user + nice + system + hard + soft + stolen) / TICKS


def megabytes(rollup: str) -> Memory:
    """Of a text of /proc/<pid>/smaps_rollup."""
    found = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in rollup.splitlines() if line.endswith(" kB")}
    return Memory(found["Rss"], found["Pss"])


def processor_times(programs: Mapping[str, int]) -> dict[str, float]:
    """Seconds that each program has used up to now; `programs` are process ids by name."""
    return {name: sum(map(_used, _processes(name, pid))) for name, pid in programs.items()}


def machine_time() -> float:
    """Seconds that the processors have been busy with anything up to now."""
    return busy_seconds((PROC / "stat").read_text())


def memory(programs: Mapping[str, int]) -> dict[str, Memory]:
    """What each program holds now, those of several processes as their sum."""
    return {name: _sum(map(_held, _processes(name, pid))) for name, pid in programs.items()}


def until_idle(programs: Mapping[str, int], patience: float) -> float:
    """Waits until the programs rest, so that what a load left behind counts with it; returns the seconds waited."""
    started = time.monotonic()
    before = sum(processor_times(programs).values())
    while True:
        time.sleep(PAUSE)
        now = sum(processor_times(programs).values())
        waited = time.monotonic() - started
        if now - before < IDLE * PAUSE or waited > patience:
            return waited
        before = now


def _processes(name: str, pid: int) -> list[int]:
    """The program itself first: a child that ends in between is then missed rather than counted twice."""
    if name not in WITH_CHILDREN:
        return [pid]
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children())]
    except psutil.NoSuchProcess:
        return [pid]


def _used(pid: int) -> float:
    text = _read(pid, "stat")
    return used_seconds(text) if text else 0.0


def _held(pid: int) -> Memory:
    text = _read(pid, "smaps_rollup")
    return megabytes(text) if text else Memory(0.0, 0.0)


def _read(pid: int, file: str) -> str:
    """Empty for a process that has ended."""
    try:
        return (PROC / str(pid) / file).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _sum(parts: Iterable[Memory]) -> Memory:
    held = list(parts)
    return Memory(sum(one.rss for one in held), sum(one.pss for one in held))
