"""What it costs to grade an answer to a question of each type."""

import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from benchmarks.report import Grading
from services.assessment.answering import given_to_grade, prepared
from services.assessment.bodies import new_body

NAME = "grading"
SECONDS_NEEDED = 10.0
CALLS, ROUNDS = 10_000, 5
POINTS = Decimal("2.5")
IDS = [str(UUID(int=number)) for number in range(6)]


def measure(echo: float) -> Grading:
    """Microseconds of processor time by the type of the question; the least of some rounds counts. `echo` tells how
    fast the machine was."""
    return Grading({name: min(_cost(*pair) for _ in range(ROUNDS)) for name, pair in pairs().items()}, echo)


def _cost(body: dict[str, Any], answer: list[str]) -> float:
    """Of questions that are graded again and again, as those of a quiz are."""
    version_id = uuid4()
    prepared(version_id, body, "question", POINTS)
    began = time.process_time()
    for _ in range(CALLS):
        prepared(version_id, body, "question", POINTS).grade(given_to_grade(body, answer))
    return (time.process_time() - began) / CALLS * 1e6


def pairs() -> dict[str, tuple[dict[str, Any], list[str]]]:
    """A question of each type, and an answer to it."""
    choices = [{"id": one, "text": one, "correct": n < 2, "feedback": "", "percent": ""} for n, one in enumerate(IDS)]
    parts = [{"id": one, "text": one} for one in IDS]
    single = new_body("multiple_choice", "?", choices=choices[1:5])
    blanks = [{"accepted": known("dòng sông", "sông"), "options": []}]
    short = new_body("short_answer", "?", accepted=known("dictionary", "a dictionary"), most_typos=2)
    numbers = [{"value": "3.14", "tolerance": "0.01", "percent": "", "feedback": ""}]
    matching = new_body("matching", "?", stems=parts, targets=parts, pairs=[[one, one] for one in IDS])
    return {
        "one choice": (single, IDS[1:2]),
        "several choices of 6": (new_body("multiple_choice", "?", choices=choices, multiple=True), IDS[:3]),
        "a blank": (new_body("fill_blank", "___", blanks=blanks), ["Dòng  sông"]),
        "a short answer": (short, ["Dictionary"]),
        "a short answer with a typo": (short, ["dictoinary"]),
        "a number": (new_body("numeric", "?", numbers=numbers), ["3,141"]),
        "6 stems": (matching, IDS[::-1]),
        "6 items in order": (new_body("ordering", "?", items=parts), IDS[::-1]),
    }


def known(*texts: str) -> Sequence[dict[str, str]]:
    return [{"text": text, "percent": "", "feedback": ""} for text in texts]
