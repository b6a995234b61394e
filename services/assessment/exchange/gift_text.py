"""How GIFT spells texts: escapes, the formats that they may be in, weights."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from services.assessment.exchange.markup import looks_marked, plain

ESCAPED = {one: one for one in "~=#{}:\\"} | {"n": "\n"}
ESCAPES = {ord(one): f"\\{one}" for one in "~=#{}:\\"} | {ord("\n"): "\\n", ord("\r"): ""}
FORMAT = re.compile(r"\[(moodle|html|plain|markdown)\]")
# A weight, as Moodle takes it: in percent, before an answer.
WEIGHT = re.compile(r"%\s*(-?[0-9]{1,3}(?:\.[0-9]{0,20})?)\s*%")
BLANK = "___"


class Text(NamedTuple):
    """A text as it is in the file: its format, what it says in that format, and where it begins."""

    format: str
    raw: str
    at: int


def unescaped(text: str) -> str:
    """The text without the escapes that GIFT has; other backslashes are themselves."""
    if "\\" not in text:
        return text
    parts: list[str] = []
    at = 0
    while (found := text.find("\\", at)) >= 0:
        parts.append(text[at:found])
        following = text[found + 1 : found + 2]
        parts.append(ESCAPED.get(following, "\\" + following))
        at = found + 2
    parts.append(text[at:])
    return "".join(parts)


def escaped(text: str) -> str:
    """The text with every sign escaped that would mean something."""
    return text.translate(ESCAPES)


def find(text: str, signs: str, start: int = 0, end: int | None = None) -> Iterator[int]:
    """Where these signs are, those that are escaped left out."""
    stop = len(text) if end is None else end
    for found in re.compile(r"\\.|[" + re.escape(signs) + "]", re.DOTALL).finditer(text, start, stop):
        if found[0][0] != "\\":
            yield found.start()


def text_of(source: str, start: int, end: int, default: str = "moodle") -> Text:
    """The text between these places, its format split off."""
    while start < end and source[start].isspace():
        start += 1
    if found := FORMAT.match(source, start, end):
        return Text(found[1], unescaped(source[found.end() : end]).strip(), start)
    return Text(default, unescaped(source[start:end]).strip(), start)


def reduced(text_format: str, raw: str) -> tuple[str, tuple[str, ...]]:
    """What a text says without its marks, and what is lost by that."""
    if text_format == "html" or (text_format == "moodle" and looks_marked(raw)):
        return plain(raw, breaks=text_format == "moodle")
    return raw, ("markdown",) if text_format == "markdown" else ()


def spelled(text: str, base: str, kept: tuple[str, str] | None = None) -> tuple[str, str]:
    """A text as it is written where `base` is the format of what says none; and its format. `kept` is the original,
    which is written if it still says that."""
    if kept and reduced(*kept)[0] == text:
        written_format, raw = kept
    else:
        written_format, raw = ("plain" if looks_marked(text) else "moodle"), text
    prefix = f"[{written_format}]" if written_format != base or FORMAT.match(raw) else ""
    return prefix + escaped(raw), written_format
