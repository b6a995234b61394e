"""CSV files: read while they arrive, in memory that does not grow with them; written so that no cell is a formula."""

import codecs
import csv
import io
import re
from array import array
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from secrets import token_bytes

LONGEST_ROW = 32_768
# Nothing comes of them, so nothing else would ever stop who sends no other rows.
MOST_BLANK_ROWS = 10_000
# A row that is not whole yet is read again with what comes next; so it is not tried with every few bytes.
READ_AT_ONCE = 16_384
LINE_END = re.compile(r"\r\n|\r|\n")
# Texts that begin so are formulas to spreadsheets, also in the full-width forms of East Asian ones. An apostrophe
# before them makes them texts again.
FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


class UnreadableFile(Exception):
    """Nothing after this point of a file can be read; the message is a sentence without its period."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a row: the column (empty: all of it), and a sentence without subject and period."""

    field: str
    sentence: str


class _Incomplete(Exception):
    """The row needs text that has not arrived yet."""


class CsvRows:
    """The rows of a CSV file (RFC 4180) that comes as pieces of UTF-8, cut anywhere, perhaps with a BOM.

    Rows come with the line they begin at, without those that are blank; the cells of one that is no CSV are None.
    """

    def __init__(self, read_at_once: int = READ_AT_ONCE) -> None:
        self._read_at_once = read_at_once
        self._text = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")(), translate=False)
        self._unread = bytearray()
        self._rest = ""
        self._lines: deque[str] = deque()
        self._taken: list[str] = []
        self._length, self._line, self._blank, self._ended = 0, 1, 0, False
        self._reader = csv.reader(self, strict=True)

    def feed(self, data: bytes) -> Iterator[tuple[int, list[str] | None]]:
        """The rows that are whole with these bytes."""
        self._unread += data
        if len(self._unread) >= self._read_at_once:
            yield from self._read()

    def end(self) -> Iterator[tuple[int, list[str] | None]]:
        """The rows that are left when the file ends."""
        self._ended = True
        yield from self._read()

    def _read(self) -> Iterator[tuple[int, list[str] | None]]:
        self._split(self._decoded())
        while True:
            try:
                cells: list[str] | None = next(self._reader)
            except (_Incomplete, StopIteration):
                self._lines.extendleft(reversed(self._taken))
                self._forget()
                return
            except csv.Error:
                if self._ended and not self._lines and "".join(self._taken).count('"') % 2:
                    raise UnreadableFile(f"the row that begins in line {self._line} has a quote without end") from None
                cells = None
            begun, self._line = self._line, self._line + len(self._taken)
            self._forget()
            if cells is None or any(cells):
                yield begun, cells
                continue
            self._blank += 1
            if self._blank > MOST_BLANK_ROWS:
                raise UnreadableFile(f"more than {MOST_BLANK_ROWS:,} rows are blank")

    def _decoded(self) -> str:
        data = bytes(self._unread)
        self._unread.clear()
        try:
            return self._text.decode(data, self._ended)
        except UnicodeDecodeError as error:
            lines = len(self._lines) + error.object[: error.start].count(b"\n")
            raise UnreadableFile(f"line {self._line + lines} is not UTF-8 text") from None

    def _split(self, text: str) -> None:
        text = self._rest + text
        begin = 0
        for end in LINE_END.finditer(text):
            self._lines.append(text[begin : end.end()])
            begin = end.end()
        self._rest = text[begin:]
        if self._ended and self._rest:
            self._lines.append(self._rest)
            self._rest = ""
        if len(self._rest) > LONGEST_ROW:
            raise UnreadableFile(self._too_long(self._line + len(self._lines)))

    def __iter__(self) -> "CsvRows":
        return self

    def __next__(self) -> str:
        """The next line, for the reader."""
        if not self._lines:
            raise StopIteration if self._ended else _Incomplete
        line = self._lines.popleft()
        self._taken.append(line)
        self._length += len(line)
        if self._length > LONGEST_ROW:
            raise UnreadableFile(self._too_long(self._line))
        return line

    def _forget(self) -> None:
        self._taken, self._length = [], 0

    @staticmethod
    def _too_long(line: int) -> str:
        return f"the row that begins in line {line} has more than {LONGEST_ROW:,} characters; is a quote left open?"


class Table:
    """Rows by the names of their columns, which the first row gives, whatever the case of their letters.

    `notices` collects what is to be said of columns, once for each.
    """

    def __init__(self, known: tuple[str, ...], required: tuple[str, ...], *, prefix: str = "") -> None:
        self._known = {name.lower(): name for name in known}
        self._required, self._prefix = required, prefix
        self._columns: list[str] | None = None
        self.notices: list[Problem] = []

    def cells(self, row: list[str] | None) -> dict[str, str] | Problem | None:
        """The cells that say something, without the space around them; None for the header."""
        if row is None:
            if self._columns is None:
                raise UnreadableFile("the first row is not CSV")
            return Problem("", "is not CSV: something follows a closing quote")
        if self._columns is None:
            self._columns = self._header([cell.strip() for cell in row])
            return None
        if len(row) != len(self._columns):
            return Problem("", f"has {len(row)} cells instead of {len(self._columns)}")
        if any("\0" in cell for cell in row):
            return Problem("", "has a NUL character")
        named = ((name, cell.strip()) for name, cell in zip(self._columns, row, strict=True))
        return {name: cell for name, cell in named if name and cell}

    def _header(self, row: list[str]) -> list[str]:
        columns = [self._column(cell) for cell in row]
        missing = [name for name in self._required if name not in columns]
        if missing:
            raise UnreadableFile(f"the first row does not name the column {missing[0]}")
        twice = [name for name, count in Counter(columns).items() if name and count > 1]
        if twice:
            raise UnreadableFile(f"the first row names the column {twice[0]} twice")
        return columns

    def _column(self, cell: str) -> str:
        name = cell.lower()
        if name in self._known:
            return self._known[name]
        if self._prefix and name.startswith(self._prefix):
            return name
        self.notices.append(Problem(cell[:100], "The column is not known and not used."))
        return ""

    @property
    def columns(self) -> list[str]:
        return self._columns or []


def record(cells: Iterable[str]) -> bytes:
    """One record (RFC 4180) in which no cell is a formula; `plain` gives the cells back."""
    text = io.StringIO()
    csv.writer(text).writerow([f"'{cell}" if FORMULA.match(cell) else cell for cell in cells])
    return text.getvalue().encode()


def plain(cell: str) -> str:
    """The cell without the apostrophe that keeps it from being a formula."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


class Fingerprints:
    """Texts, each with a value of `width` bytes: in some 9 bytes and its value each, whatever their length.

    64 bits of a keyed hash stand for a text. Of 200,000 texts two are taken for one with a probability of 1 in 10⁹, and
    nobody can choose them so.
    """

    def __init__(self, width: int = 0) -> None:
        self._key, self._width = token_bytes(16), width
        self._numbers = [array("Q") for _ in range(256)]
        self._values = [bytearray() for _ in range(256)]

    def add(self, text: str, value: bytes = b"") -> None:
        """Adds the text if it is not there."""
        number, bucket, at = self._find(text)
        if self._numbers[bucket][at : at + 1] != array("Q", [number]):
            self._numbers[bucket].insert(at, number)
            self._values[bucket][at * self._width : at * self._width] = value

    def get(self, text: str) -> bytes | None:
        """The text's value, None if it is not there."""
        number, bucket, at = self._find(text)
        if self._numbers[bucket][at : at + 1] != array("Q", [number]):
            return None
        return bytes(self._values[bucket][at * self._width : (at + 1) * self._width])

    def _find(self, text: str) -> tuple[int, int, int]:
        number = int.from_bytes(blake2b(text.encode(), digest_size=8, key=self._key).digest(), "big")
        return number, number & 255, bisect_left(self._numbers[number & 255], number)


class Memory:
    """What the rows of an import have said so far, each word under its kind. A row's words are kept with its batch.

    An import that writes nothing has no other way to know, and one that writes asks here as well: so both say the same.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Fingerprints] = {}
        self._fresh: dict[tuple[str, str], bytes] = {}

    def note(self, kind: str, text: str, value: bytes = b"") -> None:
        """Of one kind all values have the same length."""
        self._fresh.setdefault((kind, text), value)

    def knows(self, kind: str, text: str) -> bool:
        """Whether a row said so."""
        return self.value(kind, text) is not None

    def value(self, kind: str, text: str) -> bytes | None:
        """What it was noted with; None when no row said so."""
        kept = self._kept.get(kind)
        found = kept.get(text) if kept else None
        return self._fresh.get((kind, text)) if found is None else found

    def keep(self) -> None:
        """The batch is done."""
        for (kind, text), value in self._fresh.items():
            if kind not in self._kept:
                self._kept[kind] = Fingerprints(len(value))
            self._kept[kind].add(text, value)
        self._fresh.clear()

    def forget(self) -> None:
        """The batch is undone."""
        self._fresh.clear()
