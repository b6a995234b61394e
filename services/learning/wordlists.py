"""Lists of words as files: progress as CSV and as text for Anki, and CSV of words that a learner knows already."""

import csv
import io
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from kit.enums import stored_name
from kit.sheets import CsvRows, Problem, Table, UnreadableFile, plain, record
from storyloom.content.v1.vocabularies_pb2 import PartOfSpeech

MOST_ROWS, MOST_NAMED, LONGEST_NAME = 500, 200, 100
IDENTITY, NAMES = "vocabulary_id", ("term", "translation")
COLUMNS = (
    *("vocabulary_id", "term", "translation", "part_of_speech", "level", "status", "due_time", "last_review_time"),
    *("review_count", "lapse_count", "stability_days", "difficulty", "exposure_count"),
)
# Anki takes the first as the note's identity: importing the file again changes the notes instead of doubling them.
ANKI_HEADER = (
    "#separator:tab\n#html:false\n#columns:Guid\tFront\tBack\tExplanation\tTags\n#guid column:1\n#tags column:5\n"
)


@dataclass(frozen=True, slots=True)
class Named:
    """A row that says which word: by its id, or by a `name` that is its term or translation. Neither: it cannot be
    read. `row` is the line that it begins at."""

    row: int
    id: UUID | None = None
    name: str = ""


def read_known(data: bytes) -> list[Named]:
    """The rows of a CSV file with a column `vocabulary_id`, `term` or `translation`; of each the first that says
    something. Raises `UnreadableFile`, also when there are too many rows."""
    rows, table = CsvRows(), Table((IDENTITY, *NAMES), ())
    found: list[Named] = []
    for line, cells in (*rows.feed(data), *rows.end()):
        read = table.cells(cells)
        if read is None:
            if not any(table.columns):
                raise UnreadableFile("the first row names no column vocabulary_id, term or translation")
            continue
        found.append(_named(line, read))
        if len(found) > MOST_ROWS:
            raise UnreadableFile(f"more than {MOST_ROWS} rows")
    if sum(bool(one.name) for one in found) > MOST_NAMED:
        raise UnreadableFile(f"more than {MOST_NAMED} rows have no vocabulary_id")
    return found


def _named(line: int, cells: dict[str, str] | Problem) -> Named:
    if isinstance(cells, Problem):
        return Named(line)
    if said := cells.get(IDENTITY):
        try:
            return Named(line, id=UUID(said))
        except ValueError:
            return Named(line)
    name = plain(next((cells[column] for column in NAMES if column in cells), ""))
    return Named(line, name=name) if len(name) <= LONGEST_NAME else Named(line)


def same(name: str) -> str:
    """What two spellings of one word have in common: letters whatever their case or their encoding."""
    return unicodedata.normalize("NFC", name).casefold().strip()


def csv_header() -> bytes:
    """The line of names."""
    return record(COLUMNS)


def csv_lines(rows: Iterable[Any], words: dict[UUID, Any]) -> bytes:
    """A record for each row of progress; without its texts where `words` lacks the word."""
    return b"".join(record(_cells(row, words.get(row.vocabulary_id))) for row in rows)


def _cells(row: Any, word: Any) -> Iterator[str]:
    yield str(row.vocabulary_id)
    yield from (word.term, word.translation, _part_of_speech(word), word.level) if word else ("", "", "", "")
    yield row.status
    yield from (time.isoformat() if time else "" for time in (row.due_time, row.last_review_time))
    yield from (str(row.review_count), str(row.lapse_count))
    yield from ("" if value is None else repr(value) for value in (row.stability_days, row.difficulty))
    yield str(row.exposure_count)


def _part_of_speech(word: Any) -> str:
    return stored_name(PartOfSpeech, word.part_of_speech)


def anki_lines(rows: Iterable[Any], words: dict[UUID, Any]) -> bytes:
    """A note for each word that there is: the translation in front, the term behind, tagged with its status."""
    text = io.StringIO()
    notes = csv.writer(text, delimiter="\t", lineterminator="\n")
    for row in rows:
        if word := words.get(row.vocabulary_id):
            notes.writerow(_note(row, word))
    return text.getvalue().encode()


def _note(row: Any, word: Any) -> Sequence[str]:
    front, back, explanation = (_line(said) for said in (word.translation, word.term, word.explanation))
    # A line that begins so is a comment to Anki; the identity comes first, so that none does.
    return f"storyloom-{row.vocabulary_id}", front, back, explanation, f"storyloom::{row.status}"


def _line(said: str) -> str:
    return " ".join(said.split())
