"""Draws the analysis of a quiz as a picture, of what the API tells of it: `python -m tools.plot_analysis --help`."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from deploy.rest import Rest
from tools.asking import parser, run
from tools.svg import LEFT, RIGHT, WIDTH, box, line, picture, text

HEIGHT = 520
# Where the histogram stands and how high it is; the same of the field of questions.
SCORES, FIELD = (100, 120), (290, 180)
# A question that says so little of the rest of the quiz is worth a second look: Ebel and Frisbie, Essentials of
# Educational Measurement (1991), chapter 13.
WEAK = 0.2
STYLE = """
.weakest { stroke: #c4483a; stroke-dasharray: 4 4 } .good { fill: #2a78d6 } .weak { fill: #c4483a }
@media (prefers-color-scheme: dark) {
  .good { fill: #63a6f2 } .weak { fill: #ee7b6c } .weakest { stroke: #ee7b6c }
}
"""


def draw(told: dict[str, Any], title: str) -> str:
    """The picture of an answer of `GetAnalysis`: how scores are spread, and how easy and telling each question is."""
    figures = [
        f"mean {shown(told, 'mean')} %",
        f"median {shown(told, 'median')} %",
        f"standard deviation {shown(told, 'standardDeviation')}",
        f"reliability {shown(told, 'reliability', 2)}",
        f"error of measurement {shown(told, 'standardError')}",
    ]
    parts = [
        text(LEFT, 28, f"{title}: {told.get('attemptCount', 0)} attempts", "title"),
        text(LEFT, 48, " · ".join(figures), "quiet"),
        text(LEFT, SCORES[0] - 16, "Attempts by their score in percent"),
        *histogram([int(one) for one in told.get("distribution", [])]),
        text(LEFT, FIELD[0] - 16, "Questions by facility (across) and discrimination (up)"),
        *field(told.get("items", [])),
    ]
    return picture("Analysis of a quiz", HEIGHT, STYLE, parts)


def histogram(counts: Sequence[int]) -> Iterator[str]:
    """A bar for each tenth of the scale."""
    top, height = SCORES
    base, step, largest = top + height, (WIDTH - LEFT - RIGHT) / max(len(counts), 1), max([*counts, 1])
    yield line(LEFT, base, WIDTH - RIGHT, base)
    yield text(LEFT - 6, top + 10, str(largest), "quiet", anchor="end")
    for place, count in enumerate(counts):
        x, tall = LEFT + place * step, count / largest * height
        label = f"<title>{place * 10} to {place * 10 + 10} %: {count} attempts</title>"
        yield box(x + 2, base - tall, step - 4, tall, "bar", label)
        yield text(x, base + 16, str(place * 10), "quiet", anchor="middle")
    yield text(WIDTH - RIGHT, base + 16, "100", "quiet", anchor="end")


def field(items: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A point for each question of which both figures are defined, with its number in the quiz."""
    top, height = FIELD
    wide = WIDTH - LEFT - RIGHT

    def place(facility: float, discrimination: float) -> tuple[float, float]:
        return LEFT + facility * wide, top + height * (1 - discrimination) / 2

    for value in (-1, 0, 1):
        _, y = place(0, value)
        yield line(LEFT, y, WIDTH - RIGHT, y)
        yield text(LEFT - 6, y + 4, str(value), "quiet", anchor="end")
    yield line(LEFT, place(0, WEAK)[1], WIDTH - RIGHT, place(0, WEAK)[1], "weakest")
    for share in (0, 0.5, 1):
        yield text(place(share, -1)[0], top + height + 16, f"{share:g}", "quiet", anchor="middle")
    for number, item in enumerate(items, start=1):
        if item.get("facility") and item.get("discrimination"):
            facility, discrimination = float(item["facility"]), float(item["discrimination"])
            x, y = place(facility, discrimination)
            label = f"<title>Question {number}: {facility:.2f}, {discrimination:.2f}</title>"
            kind = "good" if discrimination >= WEAK else "weak"
            yield f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5">{label}</circle>'
            yield text(x + 8, y + 4, str(number))


def shown(told: dict[str, Any], name: str, places: int = 1) -> str:
    found = told.get(name)
    return f"{float(found):.{places}f}" if found else "–"


def draw_for(teacher: Rest, chosen: argparse.Namespace) -> None:
    path = f"/v1/quizzes/{chosen.quiz}"
    told = teacher.get(f"{path}/analysis", attempts=f"ANALYZED_ATTEMPTS_{'ALL' if chosen.all else 'FIRST'}")
    chosen.out.write_text(draw(told, teacher.get(path)["title"]), encoding="utf-8")


def main() -> None:
    asked = parser("tools.plot_analysis", __doc__, user="lan@hoa-sen.example")
    asked.add_argument("quiz", help="id of the quiz")
    asked.add_argument("out", type=Path, help="file to write, such as docs/images/analysis.svg")
    asked.add_argument("--all", action="store_true", help="of all attempts, not only each learner's first")
    run(draw_for, asked.parse_args())


if __name__ == "__main__":
    main()
