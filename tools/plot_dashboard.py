"""Draws one of the dashboards without Grafana, of what a Prometheus answers to its queries:
`python -m tools.plot_dashboard capacity > capacity.svg`."""

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx

from deploy.telemetry.dashboards import dashboards
from tools.svg import WIDTH, box, line, picture, text

COLUMN, HEIGHT, TOP, LEFT, PLOT = WIDTH / 2, 178, 70, 52, 84
# Series of a panel: those with the largest values.
MOST, POINTS = 5, 90
LONGEST_LEGEND = 46
# From here on seconds are not told in thousandths.
LONG = 10
COLOURS = ("#2a78d6", "#d97706", "#2f9e62", "#c2410c", "#8b5cf6")
UNITS = {"s": (1000, " ms"), "ms": (1, " ms"), "percentunit": (100, " %"), "bytes": (1e-6, " MB"), "reqps": (1, "/s")}
UNITS |= {"ops": (1, "/s")}
STYLE = "\n".join(
    f".l{nth} {{ stroke: {colour}; fill: none; stroke-width: 1.5 }} .f{nth} {{ fill: {colour} }}"
    for nth, colour in enumerate(COLOURS)
) + "\n.small { font-size: 10px } .head { font-size: 12px; font-weight: 600 }"  # fmt: skip

Points = list[tuple[float, float]]
Series = tuple[str, Points]


def ask(prometheus: str, query: str, start: float, end: float) -> list[Series]:
    """The series of a panel's query, largest first; what is no number is left out."""
    values: dict[str, str | float] = {"query": query, "start": start, "end": end, "step": (end - start) / POINTS}
    answer = httpx.get(f"{prometheus}/api/v1/query_range", params=values, timeout=30)
    answer.raise_for_status()
    found = []
    for one in answer.json()["data"]["result"]:
        points = [(float(at), float(value)) for at, value in one["values"] if value not in {"NaN", "+Inf", "-Inf"}]
        if points:
            found.append((named(one["metric"]), points))
    return sorted(found, key=lambda one: max(value for _, value in one[1]), reverse=True)


def named(labels: Mapping[str, str]) -> str:
    """Of an RPC what it is called by, after its package and service."""
    order = sorted(labels.items(), key=lambda one: (one[0] != "job", one[0]))
    said = " · ".join(value.rpartition("/")[2] for name, value in order if name != "__name__")
    return said if len(said) <= LONGEST_LEGEND else said[: LONGEST_LEGEND - 1] + "…"


def panel(nth: int, title: str, unit: str, series: Sequence[Series], start: float, end: float) -> Iterator[str]:
    x, y = nth % 2 * COLUMN, TOP + nth // 2 * HEIGHT
    shown = series[:MOST]
    largest = max((value for _, points in shown for _, value in points), default=0.0) or 1.0
    times, suffix = (1, " s") if unit == "s" and largest > LONG else UNITS.get(unit, (1, ""))
    base, right = y + 18 + PLOT, x + COLUMN - 14
    yield text(x + LEFT, y + 8, title, "head")
    yield line(x + LEFT, base, right, base)
    yield line(x + LEFT, y + 18, right, y + 18)
    if shown:
        yield text(x + LEFT - 5, y + 22, f"{_number(largest * times)}{suffix}", "quiet small", anchor="end")
    yield text(x + LEFT - 5, base + 3, "0", "quiet small", anchor="end")
    for place, (name, points) in enumerate(shown):
        for part in unbroken(points, 1.5 * (end - start) / POINTS):
            where = " ".join(
                f"{right - (end - at) / (end - start) * (right - x - LEFT):.1f},{base - value / largest * PLOT:.1f}"
                for at, value in part
            )
            yield f'<polyline class="l{place}" points="{where}"/>'
        yield box(x + LEFT, base + 8 + place * 11, 8, 8, f"f{place}")
        yield text(x + LEFT + 12, base + 15 + place * 11, name or "all", "small")
    if not shown:
        yield text(x + LEFT, base - PLOT / 2, "nothing to tell", "quiet small")
    elif len(series) > MOST:
        yield text(right, base + 15, f"the largest {MOST} of {len(series)}", "quiet small", anchor="end")


def unbroken(points: Points, step: float) -> Iterator[Points]:
    """The parts of a series between which nothing was told."""
    begun = 0
    for nth in range(1, len(points) + 1):
        if nth == len(points) or points[nth][0] - points[nth - 1][0] > step:
            yield points[begun:nth]
            begun = nth


def draw(dashboard: Mapping[str, Any], prometheus: str, minutes: int, end: float) -> str:
    start = end - minutes * 60
    parts = [
        text(16, 28, str(dashboard["title"]), "title"),
        text(16, 48, f"{_time(start)} to {_time(end)} UTC, as Prometheus tells it", "quiet"),
    ]
    for nth, one in enumerate(dashboard["panels"]):
        query = one["targets"][0]["expr"].replace("$service", ".*").replace("$rpc", ".*")
        unit = one["fieldConfig"]["defaults"]["unit"]
        parts += panel(nth, one["title"], unit, ask(prometheus, query, start, end), start, end)
    rows = (len(dashboard["panels"]) + 1) // 2
    return picture(str(dashboard["title"]), TOP + rows * HEIGHT, STYLE, parts)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")


def main() -> int:
    made = {name.removesuffix(".json"): one for name, one in dashboards().items()}
    parser = argparse.ArgumentParser(prog="python -m tools.plot_dashboard", description=__doc__)
    parser.add_argument("name", choices=made, help="of the dashboard")
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="its URL, default %(default)s")
    parser.add_argument("--minutes", type=int, default=60, help="how far back, default %(default)s")
    arguments = parser.parse_args()
    try:
        drawn = draw(made[arguments.name], arguments.prometheus, arguments.minutes, time.time())
    except httpx.HTTPError as error:
        print(f"{arguments.prometheus} does not answer: {error}", file=sys.stderr)
        return 1
    sys.stdout.write(drawn)
    return 0


if __name__ == "__main__":
    sys.exit(main())
