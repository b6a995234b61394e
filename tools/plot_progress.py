"""Draws a learner's progress as a picture, of what the API tells of them: `python -m tools.plot_progress --help`."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from html import escape
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

PASSWORD = "STORYLOOM_PASSWORD"  # noqa: S105  # the name of the variable
WIDTH, HEIGHT, LEFT, RIGHT = 720, 420, 44, 16
# Of each panel: where it begins, and how high its largest value stands.
MINUTES, WORDS, AHEAD = (96, 110), (268, 12), (326, 54)
STATUSES = ("fresh", "learning", "reviewing", "mastered")
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #333 } .title { font-size: 16px; font-weight: 600 } .quiet { fill: #777 }
line { stroke: #bbb } .bar { fill: #2a78d6 } .due { fill: #b06a00 }
.fresh { fill: #c9c9c9 } .learning { fill: #e0a030 } .reviewing { fill: #56a0e0 } .mastered { fill: #2f9e62 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e6e6 } .quiet { fill: #9a9a9a } line { stroke: #555 } .bar { fill: #63a6f2 } .due { fill: #e0a030 }
  .fresh { fill: #6a6a6a }
}
"""


def draw(told: dict[str, Any]) -> str:
    """The picture of an answer of `GetLearnerAnalytics`: minutes a day, words by their status, words due on days."""
    start, end, today = (date.fromisoformat(told[name]) for name in ("startDay", "endDay", "today"))
    active = {day["day"]: seconds(day["activeDuration"]) / 60 for day in told.get("days", [])}
    due = {one["day"]: one["count"] for one in told.get("forecast", [])}
    streak, words = told.get("streak", {}), told.get("words", {})
    ahead = list(days(today, max([today, *map(date.fromisoformat, due)])))
    headline = f"{streak.get('currentDays', 0)} days in a row, {streak.get('longestDays', 0)} at most"
    parts = [
        text(LEFT, 28, f"{sum(active.values()):.0f} minutes from {start} to {end}", "title"),
        text(LEFT, 48, f"{headline} · days in {told.get('timeZone', 'UTC')}", "quiet"),
        text(LEFT, MINUTES[0] - 16, "Active minutes a day"),
        *bars(list(days(start, end)), active, MINUTES, "bar", "minutes"),
        *words_bar([(one, words.get(one, 0)) for one in STATUSES]),
        text(LEFT, AHEAD[0] - 4, "Words that fall due"),
        *bars(ahead, due, AHEAD, "due", "words"),
    ]
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    return "\n".join([opening, f"<title>Progress of a learner</title><style>{STYLE}</style>", *parts, "</svg>\n"])


def bars(range_: Sequence[date], values: dict[str, Any], panel: tuple[int, int], kind: str, unit: str) -> Iterator[str]:
    """A bar for each day that has a value, over a line, with the largest value and both ends of the days beside it."""
    top, height = panel
    largest, step, base = max([*values.values(), 1]), (WIDTH - LEFT - RIGHT) / len(range_), panel[0] + panel[1]
    yield f'<line x1="{LEFT}" y1="{base}" x2="{WIDTH - RIGHT}" y2="{base}"/>'
    yield text(LEFT - 6, top + 10, f"{largest:.0f}", "quiet", anchor="end")
    for place, day in enumerate(range_):
        if value := values.get(str(day), 0):
            tall, x = value / largest * height, LEFT + place * step
            label = f"<title>{day}: {value:.0f} {unit}</title>"
            yield box(x + step * 0.1, base - tall, min(step * 0.8, 24), tall, kind, label)
    yield text(LEFT, base + 16, str(range_[0]), "quiet")
    if len(range_) > 1:
        yield text(WIDTH - RIGHT, base + 16, str(range_[-1]), "quiet", anchor="end")


def words_bar(counts: Sequence[tuple[str, int]]) -> Iterator[str]:
    """One bar of all words, in as many parts as there are statuses, and what each part is."""
    total, x, top = max(sum(count for _, count in counts), 1), float(LEFT), WORDS[0]
    yield text(LEFT, top - 8, f"{sum(count for _, count in counts)} words met")
    for place, (status, count) in enumerate(counts):
        wide = count / total * (WIDTH - LEFT - RIGHT)
        yield box(x, top, wide, WORDS[1], status, f"<title>{status}: {count} words</title>")
        at, x = LEFT + place * 150, x + wide
        yield box(at, top + 20, 10, 10, status)
        yield text(at + 16, top + 29, f"{status if status != 'fresh' else 'new'} {count}")


def box(x: float, y: float, width: float, height: float, kind: str, inside: str = "") -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}">{inside}</rect>'


def text(x: float, y: float, said: str, kind: str = "", *, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'


def days(first: date, last: date) -> Iterator[date]:
    return (first + timedelta(days=number) for number in range((last - first).days + 1))


def seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


def ask(url: str, token: str = "", body: Any = None) -> dict[str, Any]:
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, data=data, headers=headers), timeout=30) as answer:  # noqa: S310  # the address is asked for
        found: dict[str, Any] = json.load(answer)
    return found


def fetch(gateway: str, tenant: str, email: str, password: str, **query: Any) -> dict[str, Any]:
    """What the API tells the learner of themselves."""
    session = ask(f"{gateway}/v1/sessions", body={"tenant": tenant, "email": email, "password": password})
    path = f"/v1/learnerAnalytics/{session['user']['id']}?{urlencode(query)}"
    return ask(gateway + path, session["accessToken"])


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m tools.plot_progress", description=__doc__)
    asked.add_argument("out", type=Path, help="file to write, such as docs/images/progress.svg")
    asked.add_argument("--url", default="http://127.0.0.1:8080", help="address of the gateway")
    asked.add_argument("--tenant", default="hoa-sen", help="slug of the learner's tenant")
    asked.add_argument("--user", default="mai@hoa-sen.example", help="e-mail address of the learner")
    chosen = asked.parse_args()
    if PASSWORD not in os.environ:
        sys.exit(f"Set {PASSWORD} to the learner's password.")
    try:
        told = fetch(chosen.url, chosen.tenant, chosen.user, os.environ[PASSWORD], forecastDays=30)
    except HTTPError as error:
        sys.exit(f"The API refuses: {error.code} {error.read().decode()}")
    except URLError as error:
        sys.exit(f"The API does not answer: {error.reason}")
    chosen.out.write_text(draw(told), encoding="utf-8")


if __name__ == "__main__":
    main()
