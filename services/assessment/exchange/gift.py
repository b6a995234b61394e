"""GIFT, the text format for questions that Moodle and many others read: in and out."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

from services.assessment.exchange.categories import levels
from services.assessment.exchange.documents import decoded
from services.assessment.exchange.drafts import LIMITS, Draft, Imported, Limits, Unreadable, Written
from services.assessment.exchange.gift_reading import Block, Line, Misspelled, read_question
from services.assessment.exchange.gift_text import unescaped
from services.assessment.exchange.gift_writing import Unspeakable, written
from services.assessment.exchange.report import Place, Report

MEDIA_TYPE = "text/plain; charset=utf-8"
CATEGORY = "$CATEGORY:"


def recognises(data: bytes) -> bool:
    """Whether it is text with a brace in it, which is all that GIFT files have in common."""
    with suppress(Unreadable):
        text = decoded(data[: 64 << 10].decode("utf-8", "ignore").encode())
        return "{" in text and not text.lstrip().startswith(("<", "{", "[", "PK"))
    return False


def read(data: bytes, limits: Limits = LIMITS) -> Imported:
    """The questions of a file. What stands in one that is misspelled is refused, and the next is read."""
    text = decoded(data).replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        raise Unreadable("it has a NUL character")
    made, tags = Imported(), tuple[str, ...]()
    for lines in _blocks(text):
        rest = lines
        while (at := next((n for n, line in enumerate(rest) if line.text.lstrip().startswith(CATEGORY)), -1)) >= 0:
            _add(made, rest[:at], tags, limits)
            tags = _category(rest[at], made.report)
            rest = rest[at + 1 :]
        _add(made, rest, tags, limits)
    return made


def _blocks(text: str) -> Iterator[list[Line]]:
    """Runs of lines that are not blank."""
    block: list[Line] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            block.append(Line(number, line))
        elif block:
            yield block
            block = []
    if block:
        yield block


def _add(made: Imported, lines: list[Line], tags: tuple[str, ...], limits: Limits) -> None:
    if not lines:
        return
    block = Block.of(lines)
    if not block.text.strip():
        for line in lines:
            made.report.refused("comment", Place(line.number), "it belongs to no question")
        return
    if len(made.drafts) == limits.questions:
        raise Unreadable(f"line {lines[0].number}: it has more than {limits.questions:,} questions")
    try:
        made.drafts.append(read_question(block, tags, limits))
    except Misspelled as error:
        at = Place(block.line(error.at))
        made.report.refused("question", at, str(error))
        for line in lines:
            if line.number != at.line:
                made.report.refused("question", Place(line.number), "it is part of a question that is refused")


def _category(line: Line, report: Report) -> tuple[str, ...]:
    return levels(unescaped(line.text.strip()[len(CATEGORY) :]), report, Place(line.number))


def write(drafts: Sequence[Draft], title: str = "") -> Written:
    """A file of the questions that GIFT can say."""
    report, parts = Report(), list[str]()
    for number, draft in enumerate(drafts, 1):
        try:
            parts.append(written(draft, report, Place(number)))
        except Unspeakable as error:
            report.refused("question", Place(number), str(error))
    return Written("\n\n".join([*parts, ""]).encode(), report)
