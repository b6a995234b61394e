"""Draws a trace that the local runner keeps, as bars over time: `python -m tools.plot_trace ID > trace.svg`."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from deploy.local.errors import RunError
from deploy.local.settings import read_settings
from deploy.local.spans import Span, parse_trace_id, read_trace
from deploy.local.tree import in_order
from kit.settings import SERVICES
from tools.svg import RIGHT, WIDTH, box, line, picture, text

# Where the bars begin, and the rows.
BARS, TOP, ROW = 330, 84, 20
LONGEST_NAME = 48
# For the duration beside a bar, or in it.
ROOM = 60
PROGRAMS = ("storyloom-gateway", *SERVICES)
COLOURS = ("#6b7280", "#b06a00", "#2a78d6", "#2f9e62", "#8b5cf6", "#c2410c")
STYLE = "\n".join(f".s{nth} {{ fill: {colour} }}" for nth, colour in enumerate(COLOURS)) + """
.small { font-size: 11px } .inside { fill: #fff } .error { stroke: #d00; stroke-width: 2 }
"""


def draw(spans: Sequence[Span]) -> str:
    """The picture of a trace, which has at least one span."""
    first, last = min(span.start for span in spans), max(span.end for span in spans)
    begun = datetime.fromtimestamp(first / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    services = [name for name in PROGRAMS if any(span.service == name for span in spans)]
    rows = list(in_order(spans))
    root = rows[0][1]
    height = TOP + ROW * len(rows) + 24
    parts = [
        text(16, 28, root.name.rpartition("/")[2] or root.name, "title"),
        text(16, 48, f"{_took(last - first)} · {len(rows)} spans of {len(services)} services · {begun} UTC", "quiet"),
        text(WIDTH - RIGHT, 48, f"trace {root.trace_id}", "quiet small", anchor="end"),
        *scale(first, last, height),
    ]
    for nth, (depth, span) in enumerate(rows):
        parts += row(TOP + nth * ROW, depth, span, first, last)
    return picture("A trace", height, STYLE, parts)


def scale(first: int, last: int, height: int) -> Iterator[str]:
    for quarter, anchor in enumerate(("start", "middle", "middle", "middle", "end")):
        x = BARS + (WIDTH - RIGHT - BARS) * quarter / 4
        yield line(x, TOP - 8, x, height - 20)
        yield text(x, TOP - 14, f"{(last - first) / 1e6 * quarter / 4:.1f} ms", "quiet small", anchor=anchor)


def row(y: int, depth: int, span: Span, first: int, last: int) -> Iterator[str]:
    """A span's name, indented below its parent's, and its bar with its duration."""
    full = WIDTH - RIGHT - BARS
    x, width = (BARS + full * (at - first) / max(1, last - first) for at in (span.start, first + span.end - span.start))
    width = max(1.5, width - BARS)
    name = span.name.rpartition(".")[2] if "/" in span.name else span.name
    said = f"{span.service.removeprefix('storyloom-')} · {name}"
    shown = said if len(said) <= LONGEST_NAME - 2 * depth else said[: LONGEST_NAME - 2 * depth - 1] + "…"
    kind = f"s{PROGRAMS.index(span.service) if span.service in PROGRAMS else 0}"
    took = _took(span.end - span.start)
    yield text(16 + 9 * depth, y + 13, shown, "small")
    yield box(x, y + 3, width, ROW - 7, kind + (" error" if span.error is not None else ""), f"<title>{took}</title>")
    if x + width + ROOM < WIDTH - RIGHT:
        yield text(x + width + 4, y + 13, took, "quiet small")
    elif width > ROOM:
        yield text(x + width - 6, y + 13, took, "inside small", anchor="end")
    else:
        yield text(x - 4, y + 13, took, "quiet small", anchor="end")


def _took(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e6:.2f} ms"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.plot_trace", description=__doc__)
    parser.add_argument("trace", help="32 hexadecimal digits, as every answer's x-trace-id has them")
    try:
        identifier = parse_trace_id(parser.parse_args().trace)
        spans = read_trace(read_settings(os.environ).trace_file, identifier)
        if not spans:
            raise RunError(f"No span of trace {identifier} is kept: `make trace` lists recent ones.")
    except RunError as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.write(draw(spans))
    return 0


if __name__ == "__main__":
    sys.exit(main())
