"""Draws a learner's progress as a picture, of what the API tells of them: `python -m tools.plot_progress --help`."""

import argparse
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from deploy.rest import Rest
from tools.asking import parser, run
from tools.svg import LEFT, RIGHT, WIDTH, box, line, picture, text

HEIGHT = 420
# Of each panel: where it begins, and how high its largest value stands.
MINUTES, WORDS, AHEAD = (96, 110), (268, 12), (326, 54)
STATUSES = ("fresh", "learning", "reviewing", "mastered")
STYLE = """
.due { fill: #b06a00 } .fresh { fill: #c9c9c9 } .learning { fill: #e0a030 } .reviewing { fill: #56a0e0 }
.mastered { fill: #2f9e62 }
@media (prefers-color-scheme: dark) { .due { fill: #e0a030 } .fresh { fill: #6a6a6a } }
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
    return picture("Progress of a learner", HEIGHT, STYLE, parts)


def bars(range_: Sequence[date], values: dict[str, Any], panel: tuple[int, int], kind: str, unit: str) -> Iterator[str]:
    """A bar for each day that has a value, over a line, with the largest value and both ends of the days beside it."""
    top, height = panel
    largest, step, base = max([*values.values(), 1]), (WIDTH - LEFT - RIGHT) / len(range_), panel[0] + panel[1]
    yield line(LEFT, base, WIDTH - RIGHT, base)
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


def days(first: date, last: date) -> Iterator[date]:
    return (first + timedelta(days=number) for number in range((last - first).days + 1))


def seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


def draw_for(learner: Rest, chosen: argparse.Namespace) -> None:
    told = learner.get(f"/v1/learnerAnalytics/{learner.user['id']}", forecastDays=30)
    chosen.out.write_text(draw(told), encoding="utf-8")


def main() -> None:
    asked = parser("tools.plot_progress", __doc__, user="mai@hoa-sen.example")
    asked.add_argument("out", type=Path, help="file to write, such as docs/images/progress.svg")
    run(draw_for, asked.parse_args())


if __name__ == "__main__":
    main()
