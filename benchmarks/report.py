"""What the bench found: verdicts, tables, the JSON file and the comparison with an earlier one."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# Targets are microseconds of processor time on a machine where one echo costs this many.
REFERENCE_ECHO = 250.0
# A sign-in may cost so many times what Argon2 does, and make other calls so many times as slow.
# Microseconds of a check and of recognising a caller; a page with policies may cost so many times one without.
CHECK_LIMIT, CALLER_LIMIT, PAGE_LIMIT = 30.0, 10.0, 1.25
# Seconds for 10,000 words.
IMPORT_LIMIT = 10.0
# Seconds, of the same machine as above.
QUESTION_FILE_LIMIT = 5.0
SIGN_IN_LIMIT, SLOWER_LIMIT = 1.20, 1.15
# Milliseconds of a weave of 2,000 words; each longer text may cost so many times its length more than the one before.
WEAVE_LIMIT, LINEAR_LIMIT = 15.0, 1.2
# Microseconds of grading an answer to a question that is a single part.
GRADING_LIMIT = 5.0
SIMPLE = {"one choice", "a blank", "a short answer", "a number"}
SERVICE_LIMIT, GATEWAY_LIMIT, STACK_LIMIT = 110.0, 90.0, 1024.0
COLUMNS = ("gateway", "identity", "content", "learning", "assessment", "audit", "postgres")


@dataclass(frozen=True, slots=True)
class Measured:
    """One scenario: what the callers saw, and microseconds of processor time per request by program.

    `echo` is what one echo cost in the moments before and after: how fast the machine was then. `others` is the share
    of the processors that programs besides stack and bench took, which makes everything cost more than it would alone.
    """

    name: str
    rate: float
    p50: float
    p99: float
    answered: int
    failed: int
    octets: float
    cpu: Mapping[str, float]
    echo: float
    others: float
    target: float | None = None
    first_error: str = ""

    @property
    def total(self) -> float:
        return sum(self.cpu.values())

    @property
    def limit(self) -> float | None:
        """The target as it is for a machine of this speed."""
        return None if self.target is None else self.target * self.echo / REFERENCE_ECHO

    @property
    def total_at_reference(self) -> float:
        return self.total * REFERENCE_ECHO / self.echo


@dataclass(frozen=True, slots=True)
class SignIns:
    """Microseconds of processor time: of verifying a password alone, and of the identity service for each sign-in.
    Percentiles are milliseconds of other calls, without sign-ins and with them."""

    rate: float
    failed: int
    first_error: str
    argon2: float
    identity: float
    p99_of_stories: tuple[float, float]
    p99_of_accounts: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Policies:
    """Microseconds of processor time: of one check with fifty policies, of recognising a caller who is known, and of a
    page of stories without policies and with fifty. `echo` tells how fast the machine was."""

    check: float
    known_caller: float
    page: tuple[float, float]
    echo: float


@dataclass(frozen=True, slots=True)
class Weaving:
    """Milliseconds of processor time of a weave, by the words of its text. `echo` tells how fast the machine was."""

    found: Mapping[int, float]
    echo: float


@dataclass(frozen=True, slots=True)
class Grading:
    """Microseconds of processor time of grading, by what is answered. `echo` tells how fast the machine was."""

    found: Mapping[str, float]
    echo: float


@dataclass(frozen=True, slots=True)
class Imports:
    """Seconds for a file of so many words: all of them new, and all of them there. `echo` tells how fast the machine
    was."""

    words: int
    new: float
    unchanged: float
    echo: float


@dataclass(frozen=True, slots=True)
class QuestionFiles:
    """Seconds for a file of so many questions, by its format: all of them new, all of them there, and the export."""

    questions: int
    found: Mapping[str, Sequence[float]]
    echo: float


@dataclass(slots=True)
class Report:
    """One run. `idle` is the share of a processor used without load, and taken off; memory is in megabytes."""

    machine: str
    driver: str
    seconds: float
    scenarios: list[Measured] = field(default_factory=list)
    idle: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    stack_memory: float = 0.0
    sign_ins: SignIns | None = None
    policies: Policies | None = None
    weaving: Weaving | None = None
    grading: Grading | None = None
    imports: Imports | None = None
    question_files: QuestionFiles | None = None

    @property
    def failed(self) -> int:
        return sum(one.failed for one in self.scenarios) + (self.sign_ins.failed if self.sign_ins else 0)

    def to_json(self) -> dict[str, Any]:
        found = asdict(self)
        for one, measured in zip(found["scenarios"], self.scenarios, strict=True):
            one["total"], one["total_at_reference"] = measured.total, measured.total_at_reference
        return found


def verdict(value: float, limit: float) -> str:
    """`met by 12 %`: how much of the limit is left; `missed by 12 %`: how much beyond it the value is."""
    percent = abs(value - limit) / limit * 100
    return f"{'met' if value <= limit else 'missed'} by {percent:.0f} %"


def table(rows: Iterable[Iterable[str]]) -> list[str]:
    """Columns as wide as their longest cell, the first to the left, the others to the right."""
    cells = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) if nth == 0 else cell.rjust(width) for nth, (cell, width) in enumerate(zipped))
        for zipped in (zip(row, widths, strict=True) for row in cells)
    ]


def heading(report: Report) -> list[str]:
    return [
        f"{report.machine}; REST requests sent by {report.driver}, {report.seconds:g} s for each scenario",
        f"targets are those of a machine where one echo costs {REFERENCE_ECHO:.0f} µs, times what it cost here",
    ]


def latencies(report: Report) -> list[str]:
    """Rate, latency and errors as the callers saw them."""
    head = ("scenario", "requests/s", "p50 ms", "p99 ms", "requests", "errors", "KB each")
    return table([head, *map(_latency, report.scenarios)]) + [
        f"  {one.name}: first error: {one.first_error}" for one in report.scenarios if one.first_error
    ]


def _latency(one: Measured) -> tuple[str, ...]:
    times = (f"{one.rate:.0f}", f"{one.p50:.1f}", f"{one.p99:.1f}")
    return one.name, *times, str(one.answered), str(one.failed), f"{one.octets / 1000:.1f}"


def costs(report: Report) -> list[str]:
    """Microseconds of processor time per request, and whether the target of this machine is met."""
    head = ("CPU µs per request", *COLUMNS, "total", "others", "echo", "target", "verdict")
    idle = f"without what they use when idle, together {sum(report.idle.values()) * 1000:.0f} ms a second"
    return [*table([head, *map(_cost, report.scenarios)]), idle]


def _cost(one: Measured) -> tuple[str, ...]:
    parts = [f"{one.cpu[name]:.0f}" if name in one.cpu else "–" for name in COLUMNS]
    judged = ("–", "–") if one.limit is None else (f"{one.limit:.0f}", verdict(one.total, one.limit))
    return one.name, *parts, f"{one.total:.0f}", f"{one.others:.0%}", f"{one.echo:.0f}", *judged


def sign_ins(one: SignIns) -> list[str]:
    """What a sign-in costs beside Argon2, and what sign-ins cost other calls."""
    rows: list[tuple[str, ...]] = [
        (f"{one.rate:.0f} sign-ins a second", "without", "with", "ratio", "limit", "verdict")
    ]
    rows.append(_against("CPU µs: Argon2 alone, sign-in", one.argon2, one.identity, SIGN_IN_LIMIT, 0))
    rows.append(_against("p99 ms: reading a story", *one.p99_of_stories, SLOWER_LIMIT, 1))
    rows.append(_against("p99 ms: reading one's account", *one.p99_of_accounts, SLOWER_LIMIT, 1))
    return table(rows) + ([f"  {one.failed} errors, the first: {one.first_error}"] if one.failed else [])


def policies(one: Policies) -> list[str]:
    """What policies cost."""
    slow = one.echo / REFERENCE_ECHO
    rows: list[tuple[str, ...]] = [("fifty policies, CPU µs", "found", "limit", "verdict")]
    for name, found, limit in (("one check", one.check, CHECK_LIMIT), ("known caller", one.known_caller, CALLER_LIMIT)):
        rows.append((name, f"{found:.1f}", f"{limit * slow:.1f}", verdict(found, limit * slow)))
    without, beside = one.page
    limit = without * PAGE_LIMIT
    name = f"page of 20 stories (without: {without:.0f})"
    rows.append((name, f"{beside:.0f}", f"{limit:.0f}", verdict(beside, limit)))
    return table(rows)


def imports(one: Imports) -> list[str]:
    """How long imports of vocabulary take."""
    limit = IMPORT_LIMIT * one.echo / REFERENCE_ECHO
    return table([
        (f"import of {one.words:,} words", "s", "words/s", "limit s", "verdict"),
        *(
            (name, f"{seconds:.1f}", f"{one.words / seconds:,.0f}", f"{limit:.1f}", verdict(seconds, limit))
            for name, seconds in (("all new", one.new), ("unchanged", one.unchanged))
        ),
    ])


def question_files(one: QuestionFiles) -> list[str]:
    """How long files of questions take."""
    limit = QUESTION_FILE_LIMIT * one.echo / REFERENCE_ECHO
    rows = [(f"file of {one.questions:,} questions", "s", "questions/s", "limit s", "verdict")]
    for name, figures in one.found.items():
        for what, seconds in zip(("all new", "unchanged", "export"), figures, strict=True):
            rate = f"{one.questions / seconds:,.0f}"
            rows.append((f"{name}: {what}", f"{seconds:.1f}", rate, f"{limit:.1f}", verdict(seconds, limit)))
    return table(rows)


def weaving(one: Weaving) -> list[str]:
    """What a weave costs, and whether its cost grows faster than the text."""
    rows: list[tuple[str, ...]] = [("weave with 5,000 words, CPU ms", "found", "limit", "verdict")]
    limit, before = WEAVE_LIMIT * one.echo / REFERENCE_ECHO, 0
    for words, found in one.found.items():
        if before:
            limit = one.found[before] * words / before * LINEAR_LIMIT
        rows.append((f"{words:,} words", f"{found:.1f}", f"{limit:.1f}", verdict(found, limit)))
        before = words
    return table(rows)


def grading(one: Grading) -> list[str]:
    """What grading costs. Only questions that are a single part have a limit."""
    rows: list[tuple[str, ...]] = [("grading, CPU µs", "found", "limit", "verdict")]
    for name, found in one.found.items():
        limit = GRADING_LIMIT * one.echo / REFERENCE_ECHO if name in SIMPLE else None
        told = (f"{limit:.1f}", verdict(found, limit)) if limit else ("", "")
        rows.append((name, f"{found:.1f}", *told))
    return table(rows)


def _against(name: str, without: float, beside: float, limit: float, digits: int) -> tuple[str, ...]:
    ratio = beside / without if without else 0.0
    parts = (f"{without:.{digits}f}", f"{beside:.{digits}f}", f"{ratio:.2f}", f"{limit:.2f}")
    return name, *parts, verdict(ratio, limit)


def memories(report: Report) -> list[str]:
    """Resident memory of gateway and services, and of all together with shared pages counted once."""
    rows = [("memory MB", "RSS", "limit", "verdict")]
    for name in COLUMNS:
        if name in report.memory and name != "postgres":
            limit = GATEWAY_LIMIT if name == "gateway" else SERVICE_LIMIT
            rows.append((name, f"{report.memory[name]:.0f}", f"{limit:.0f}", verdict(report.memory[name], limit)))
    held = report.stack_memory
    rows.append(("whole stack (PSS)", f"{held:.0f}", f"{STACK_LIMIT:.0f}", verdict(held, STACK_LIMIT)))
    return table(rows)


def comparison(report: Report, earlier: Mapping[str, Any]) -> list[str]:
    """Now divided by then; processor time as on the reference machine, so that both may be of different ones."""
    then = {one["name"]: one for one in earlier["scenarios"]}
    rows: list[tuple[str, ...]] = [("now ÷ then", "requests/s", "p50", "p99", "CPU (scaled)")]
    for one in report.scenarios:
        if one.name in then:
            old = then[one.name]
            pairs = ((one.rate, old["rate"]), (one.p50, old["p50"]), (one.p99, old["p99"]))
            scaled = _ratio(one.total_at_reference, old["total_at_reference"])
            rows.append((one.name, *(_ratio(*pair) for pair in pairs), scaled))
    return table(rows)


def _ratio(now: float, then: float) -> str:
    return f"{now / then:.2f}" if then else "–"


def save(report: Report, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report.to_json(), indent=1) + "\n")


def load(file: Path) -> dict[str, Any]:
    """An earlier run's file; `ValueError` when it is none."""
    found = json.loads(file.read_text())
    if not isinstance(found, dict) or "scenarios" not in found:
        raise ValueError(f"{file} holds no results of a bench")
    return found
