"""What the rows of a CSV file of words say, and the rows of such a file."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kit.sheets import Problem, plain, record
from services.content.enums import PART_OF_SPEECH
from services.content.levels import spelled

COLUMNS = (
    *("term", "translation", "part_of_speech", "sense", "level", "explanation", "forms"),
    *("language", "learning_language"),
)
REQUIRED = ("term", "part_of_speech")
SIGN = re.compile(r"\\(.)|([|=])", re.DOTALL)
DIGITS = re.compile(r"[0-9]{1,9}")
Forms = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Word:
    """What a row says of a word. Empty, or None, is what it does not say."""

    term: str
    translation: str
    part_of_speech: str
    sense: int | None
    level: str
    explanation: str
    forms: Forms
    language: str
    learning_language: str


def word_of(cells: Mapping[str, str]) -> tuple[Word, list[Problem]]:
    """Of a row's cells, and what is wrong with them as far as they cannot be read."""
    cells = {name: plain(cell) for name, cell in cells.items()}
    problems = [Problem(column, "is required") for column in REQUIRED if column not in cells]
    if cells.get("part_of_speech", "").lower() not in PART_OF_SPEECH.number:
        problems.append(Problem("part_of_speech", f"is none of {', '.join(filter(None, PART_OF_SPEECH.number))}"))
    number = cells.get("sense", "")
    if number and not DIGITS.fullmatch(number):
        problems.append(Problem("sense", "is no number"))
    word = Word(
        term=cells.get("term", ""),
        translation=cells.get("translation", ""),
        part_of_speech=cells.get("part_of_speech", "").lower(),
        sense=int(number) if DIGITS.fullmatch(number) else None,
        level=spelled(cells.get("level", "")),
        explanation=cells.get("explanation", ""),
        forms=read_forms(cells.get("forms", "")),
        language=cells.get("language", ""),
        learning_language=cells.get("learning_language", ""),
    )
    return word, problems


def read_forms(text: str) -> Forms:
    """Forms and their translations, written `dogs=chiens|doggie`; `\\` makes the sign after it a letter."""
    parts, at = [""], 0
    for found in SIGN.finditer(text):
        parts[-1] += text[at : found.start()] + (found[1] or "")
        if found[2]:
            parts += [found[2], ""]
        at = found.end()
    parts[-1] += text[at:]
    return tuple((form, translation) for form, translation in _pairs(parts) if form or translation)


def _pairs(parts: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Of texts with signs between them; only the first `=` of a form parts it."""
    form, translation, seen = parts[0].strip(), "", False
    for sign, part in zip(parts[1::2], parts[2::2], strict=True):
        if sign == "|":
            yield form, translation.strip()
            form, translation, seen = part.strip(), "", False
        elif seen:
            translation += sign + part
        else:
            translation, seen = part, True
    yield form, translation.strip()


def write_forms(forms: Iterable[Sequence[str]]) -> str:
    """The text that `read_forms` reads as these forms."""
    return "|".join("=".join(map(_escaped, (form, *filter(None, (more,))))) for form, more in forms)


def _escaped(text: str) -> str:
    return re.sub(r"([\\|=])", r"\\\1", text)


def row_of(row: Any) -> bytes:
    """One record of all columns."""
    cells = {name: getattr(row, name) for name in COLUMNS}
    return record(map(str, (cells | {"forms": write_forms(row.forms)}).values()))
