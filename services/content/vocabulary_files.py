"""VocabularyFileService: vocabularies from CSV files, and as one."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from google.api.httpbody_pb2 import HttpBody

from kit.access import require_any
from kit.auth import current, renew
from kit.db import Database
from kit.enums import stored_name
from kit.errors import Aborted, InvalidArgument, from_exception
from kit.ids import NIL
from kit.limiter import Limiter
from kit.sheets import CsvRows, Problem, Table, UnreadableFile, record
from kit.streams import spoken
from services.content.enums import PART_OF_SPEECH
from services.content.importing import Entry, Terms, admit
from services.content.models import Vocabulary
from services.content.queries import courses, vocabularies
from services.content.wordlists import COLUMNS, REQUIRED, row_of, word_of
from storyloom.content.v1 import vocabulary_files_pb2
from storyloom.content.v1.vocabulary_files_pb2 import (
    ExportVocabulariesRequest,
    ExportVocabulariesResponse,
    ImportedVocabulary,
    ImportVocabulariesRequest,
    ImportVocabulariesResponse,
    VocabularyImportOptions,
    VocabularyImportSummary,
    VocabularyOutcome,
)

MOST_ROWS, MOST_ROWS_OF_TEXT = 200_000, 2_000
# One transaction each, which keeps its words from others for a fraction of a second.
ROWS_IN_BATCH = 250
# Far below what a gRPC client takes, though every word be as long as it may.
ROWS_EXPORTED_AT_ONCE = 100
# However many files there are, they leave the connections and the processor to others most of the time.
BATCHES_AT_ONCE, LONGEST_WAIT_SECONDS = 2, 30.0
CONFLICT_RETRIES = 3
CSV_TYPE = "text/csv; charset=utf-8; header=present"


class VocabularyFileService:
    SERVICE = vocabulary_files_pb2.DESCRIPTOR.services_by_name["VocabularyFileService"]

    def __init__(self, db: Database) -> None:
        self.db, self.turns = db, Limiter(BATCHES_AT_ONCE, LONGEST_WAIT_SECONDS)

    async def ImportVocabularies(
        self, requests: AsyncIterator[ImportVocabulariesRequest], context: Any
    ) -> AsyncIterator[ImportVocabulariesResponse]:
        requests = spoken(requests)
        work = await _Import.begin(self.db, await _options(requests), MOST_ROWS)
        async for entries in work.batches("data", _pieces(requests)):
            async with self.turns.slot(current().tenant_id):
                await renew()
                rows = await work.do(entries, retries=CONFLICT_RETRIES)
            yield ImportVocabulariesResponse(rows=rows, unknown_columns=work.unknown_columns(), bytes=work.bytes)
        yield ImportVocabulariesResponse(
            unknown_columns=work.unknown_columns(), bytes=work.bytes, summary=work.summary()
        )

    async def ImportVocabularyText(
        self, request: vocabulary_files_pb2.ImportVocabularyTextRequest, context: Any
    ) -> vocabulary_files_pb2.ImportVocabularyTextResponse:
        work = await _Import.begin(self.db, request.options, MOST_ROWS_OF_TEXT)
        rows: list[ImportedVocabulary] = []
        async for entries in work.batches("text", _whole(request.text)):
            # With an idempotency key all of it is one transaction, in which nothing can be tried again.
            rows += await work.do(entries, retries=0)
        return vocabulary_files_pb2.ImportVocabularyTextResponse(
            rows=rows, unknown_columns=work.unknown_columns(), summary=work.summary()
        )

    async def ExportVocabularies(
        self, request: ExportVocabulariesRequest, context: Any
    ) -> AsyncIterator[ExportVocabulariesResponse]:
        require_any("list", Vocabulary)
        part_of_speech = PART_OF_SPEECH.word[request.part_of_speech]
        data, after, more = record(COLUMNS), NIL, True
        while more:
            async with self.turns.slot(current().tenant_id):
                await renew()
                async with self.db.read() as session:
                    rows = await vocabularies.list_after(session, request, part_of_speech, after, ROWS_EXPORTED_AT_ONCE)
            data += b"".join(map(row_of, rows))
            yield ExportVocabulariesResponse(body=HttpBody(content_type=CSV_TYPE, data=data))
            more = len(rows) == ROWS_EXPORTED_AT_ONCE
            data, after = b"", rows[-1].id if more else after


class _Import:
    """One import: its file, what became of its rows, and what is still to be told."""

    def __init__(self, db: Database, terms: Terms, most_rows: int) -> None:
        self.db, self.terms, self.most_rows = db, terms, most_rows
        self.rows, self.table = CsvRows(), Table(COLUMNS, REQUIRED)
        self.outcomes, self.bytes, self.count = Counter[Any](), 0, 0

    @classmethod
    async def begin(cls, db: Database, options: VocabularyImportOptions, most_rows: int) -> "_Import":
        require_any("create", Vocabulary)
        async with db.read() as session:
            settings = await courses.get_settings(session)
        languages = options.language or settings.story_language, options.learning_language or settings.learning_language
        return cls(db, Terms(options, *languages), most_rows)

    async def batches(self, field: str, pieces: AsyncIterator[bytes]) -> AsyncIterator[list[Entry]]:
        """The rows. What stands before something that cannot be read comes before the refusal of that."""
        batch: list[Entry] = []
        try:
            async for entry in self._read(pieces):
                batch.append(entry)
                if len(batch) == ROWS_IN_BATCH:
                    yield batch
                    batch = []
        except (UnreadableFile, InvalidArgument) as error:
            if batch:
                yield batch
            if isinstance(error, InvalidArgument):
                raise
            raise InvalidArgument.fields([(field, str(error))]) from None
        if batch:
            yield batch

    async def _read(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[Entry]:
        async for piece in pieces:
            self.bytes += len(piece)
            for entry in self._entries(self.rows.feed(piece)):
                yield entry
        for entry in self._entries(self.rows.end()):
            yield entry
        if not self.table.columns:
            raise UnreadableFile("the file is empty")

    def _entries(self, rows: Iterator[tuple[int, list[str] | None]]) -> Iterator[Entry]:
        for line, row in rows:
            cells = self.table.cells(row)
            if cells is None:
                continue
            self.count += 1
            if self.count > self.most_rows:
                raise UnreadableFile(f"an import has at most {self.most_rows:,} rows")
            if isinstance(cells, Problem):
                yield Entry(line, None, (cells,))
                continue
            says, problems = word_of(cells)
            yield Entry(line, None if problems else says, problems)

    async def do(self, entries: Sequence[Entry], *, retries: int) -> list[ImportedVocabulary]:
        """Imports one batch, after whatever concurrent changes are in its way."""
        for left in reversed(range(retries + 1)):
            try:
                async with self.db.write() as session:
                    rows = await admit(session, self.terms, entries)
                break
            except Exception as error:
                self.terms.memory.forget()
                if not left or not isinstance(from_exception(error), Aborted):
                    raise
                await asyncio.sleep(0.1)
        self.terms.memory.keep()
        self.outcomes.update(row.outcome for row in rows)
        return rows

    def unknown_columns(self) -> list[str]:
        """Those that were not told yet."""
        found = [one.field for one in self.table.notices]
        self.table.notices.clear()
        return found

    def summary(self) -> VocabularyImportSummary:
        counts = {
            stored_name(VocabularyOutcome, outcome): count
            for outcome, count in self.outcomes.items()
        }
        return VocabularyImportSummary(rows=self.outcomes.total(), **counts)


async def _options(requests: AsyncIterator[ImportVocabulariesRequest]) -> VocabularyImportOptions:
    async for request in requests:
        if request.HasField("options"):
            return request.options
        break
    raise InvalidArgument.fields([("options", "must be in the first message")])


async def _pieces(requests: AsyncIterator[ImportVocabulariesRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if not request.HasField("data"):
            raise InvalidArgument.fields([("options", "must be in the first message only")])
        yield request.data


async def _whole(text: str) -> AsyncIterator[bytes]:
    yield text.encode()
