"""Prints a trace as a tree, and the list of recent traces."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from .spans import Span

# What tells a reader most, of the conventions for HTTP, RPC, databases and messages; `x.` stands for all that begin so.
SHOWN = (
    "http.method", "http.request.method", "http.status_code", "http.response.status_code",
    "grpc.status_code", "rpc.grpc.status_code", "rpc.response.status_code", "response_flags", "server.service",
    "db.statement", "db.statement.name", "db.query.summary", "db.query.name", "db.operation.name", "db.operation",
    "db.response.returned_rows", "tenant", "tenant_id", "tenant.id", "principal", "user.id",
    "storyloom.", "event.", "messaging.", "error.type", "exception.type",
)  # fmt: skip
LONGEST_VALUE = 72


def render_trace(spans: Sequence[Span]) -> Iterator[str]:
    """Lines of the tree; spans whose parent is not kept stand at its left edge. `spans` must not be empty."""
    first = min(span.start for span in spans)
    last = max(span.end for span in spans)
    services = len({span.service for span in spans})
    yield (
        f"trace {spans[0].trace_id}   {_time(first)}   {_milliseconds(first, last)} ms   "
        f"{len(spans)} spans of {services} service{'' if services == 1 else 's'}"
    )
    yield f"{'offset':>10} {'duration':>10}"
    for depth, span in in_order(spans):
        mark = "" if span.error is None else f"  ERROR{span.error and ': ' + _clean(span.error)}"
        shown = ((key, value) for key, value in span.attributes.items() if value and _is_shown(key))
        facts = "".join(f"  {key}={_clean(value)}" for key, value in shown)
        what = f"{'  ' * depth}{_clean(span.service)}  {_clean(span.name)}{mark}{facts}"
        yield f"{_milliseconds(first, span.start):>10} {_milliseconds(span.start, span.end):>10}  {what}"


def render_roots(roots: Sequence[Span]) -> Iterator[str]:
    """One line for each trace, newest first."""
    yield f"{'started (UTC)':<24}{'ms':>9}  {'trace':<32}  what"
    for span in roots:
        mark = "" if span.error is None else "  ERROR"
        took = _milliseconds(span.start, span.end)
        yield f"{_time(span.start):<24}{took:>9}  {span.trace_id}  {_clean(span.service)}  {_clean(span.name)}{mark}"


def in_order(spans: Sequence[Span]) -> Iterator[tuple[int, Span]]:
    """Parents before their children, siblings by start, with the depth of each."""
    known = {span.span_id for span in spans}
    children: dict[str, list[Span]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        parent = span.parent_id if span.parent_id in known and span.parent_id != span.span_id else ""
        children[parent].append(span)
    # A stack, not recursion: a trace may be deeper than Python's own stack.
    waiting = [(0, span) for span in reversed(children[""])]
    while waiting:
        depth, span = waiting.pop()
        yield depth, span
        waiting += [(depth + 1, child) for child in reversed(children.pop(span.span_id, []))]


def _is_shown(key: str) -> bool:
    return any(key == shown or (shown.endswith(".") and key.startswith(shown)) for shown in SHOWN)


def _milliseconds(start: int, end: int) -> str:
    return f"{(end - start) / 1e6:.2f}"


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _clean(text: str) -> str:
    """On one line, without what a terminal would obey: parts of it come from clients."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line if len(line) <= LONGEST_VALUE else line[: LONGEST_VALUE - 1] + "…"
