"""UserImportService: the users of a tenant from files."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from kit import audit
from kit.access import denied
from kit.access.snapshots import Source
from kit.auth import current
from kit.call import current_call
from kit.db import Database
from kit.enums import stored_name
from kit.errors import (
    Aborted,
    AlreadyExists,
    InvalidArgument,
    PermissionDenied,
    Unauthenticated,
    from_exception,
)
from kit.ids import new_id
from kit.limiter import Limiter
from kit.models import now
from kit.sheets import UnreadableFile
from kit.streams import spoken
from services.identity.admission import Terms, admit, check_default_roles
from services.identity.rosters import Entry, Files
from storyloom.identity.v1 import user_imports_pb2
from storyloom.identity.v1.user_imports_pb2 import ImportUsersRequest, ImportUsersResponse, RowOutcome
from storyloom.type.v1.errors_pb2 import ErrorReason

ROWS_IN_BATCH = 100
# However many imports there are, they leave the connections and the processor to others most of the time.
BATCHES_AT_ONCE, LONGEST_WAIT_SECONDS = 2, 30.0
CONFLICT_RETRIES = 3


class UserImportService:
    SERVICE = user_imports_pb2.DESCRIPTOR.services_by_name["UserImportService"]

    def __init__(self, db: Database, snapshots: Source) -> None:
        self.db, self.snapshots = db, snapshots
        self.turns = Limiter(BATCHES_AT_ONCE, LONGEST_WAIT_SECONDS)

    async def ImportUsers(
        self, requests: AsyncIterator[ImportUsersRequest], context: Any
    ) -> AsyncIterator[ImportUsersResponse]:
        requests = spoken(requests)
        work = _Import(self, await _options(requests))
        try:
            await work.check_default_roles()
            async for entries in work.read(requests):
                yield await work.do(entries)
            yield work.end()
        finally:
            await work.record()


class _Import:
    """One import: its files, what became of their rows, and what is still to be told."""

    def __init__(self, service: UserImportService, options: user_imports_pb2.ImportUsersOptions) -> None:
        self.service, self.options, self.terms = service, options, Terms(options)
        self.files = Files(
            oneroster=options.format == user_imports_pb2.IMPORT_FORMAT_ONEROSTER_1_2,
            family_name_first=options.family_name_first,
            today=now().date(),
        )
        self.id, self.outcomes, self.ended = new_id(), Counter[Any](), False

    async def check_default_roles(self) -> None:
        async with self.service.db.write() as session:
            await check_default_roles(session, self.options.default_roles)

    async def read(self, requests: AsyncIterator[ImportUsersRequest]) -> AsyncIterator[list[Entry]]:
        """The rows in batches, each of one file. What stands before something that cannot be read is imported."""
        batch: list[Entry] = []
        try:
            async for entry in self._entries(requests):
                if batch and (len(batch) == ROWS_IN_BATCH or entry.file != batch[0].file):
                    yield batch
                    batch = []
                batch.append(entry)
        except InvalidArgument:
            if batch:
                yield batch
            raise
        if batch:
            yield batch

    async def _entries(self, requests: AsyncIterator[ImportUsersRequest]) -> AsyncIterator[Entry]:
        try:
            async for request in requests:
                if not request.HasField("chunk"):
                    raise InvalidArgument.fields([("options", "must be in the first message only")])
                for entry in self.files.feed(request.chunk.file_name, request.chunk.data):
                    yield entry
            for entry in self.files.end():
                yield entry
        except UnreadableFile as error:
            raise InvalidArgument.fields([("chunk.data", str(error))]) from None

    async def do(self, entries: Sequence[Entry]) -> ImportUsersResponse:
        """Imports one batch, after whatever concurrent changes are in its way."""
        async with self.service.turns.slot(current().tenant_id):
            await self._check_caller()
            for tries_left in reversed(range(CONFLICT_RETRIES + 1)):
                try:
                    rows = await self._admit(entries)
                    break
                except Exception as error:
                    self.terms.forget()
                    if not tries_left or not isinstance(from_exception(error), Aborted | AlreadyExists):
                        raise
                    await asyncio.sleep(0.1)
        self.outcomes.update(row.outcome for row in rows)
        return self._response(rows)

    async def _admit(self, entries: Sequence[Entry]) -> list[user_imports_pb2.ImportedRow]:
        rows: list[user_imports_pb2.ImportedRow] = []
        try:
            async with self.service.db.write() as session:
                rows = await admit(session, self.terms, entries)
                if self.options.dry_run:
                    raise _Undone
        except _Undone:
            pass
        self.terms.keep()
        return rows

    async def _check_caller(self) -> None:
        """An import may last longer than the rights of whoever began it: they are looked at again for each batch."""
        call, who = current_call(), current()
        snapshot = await self.service.snapshots(who.home_tenant_id, who.subject)
        if not snapshot.active or who.session_id in snapshot.revoked_sessions:
            raise Unauthenticated("The session has ended; sign in again.")
        if snapshot.tenant_suspended:
            raise PermissionDenied("The tenant is suspended.", reason=ErrorReason.TENANT_SUSPENDED)
        if call is None or not call.access.could(snapshot, "user", "import"):
            raise denied("user", "import")
        call.principal = replace(who, snapshot=snapshot)

    def end(self) -> ImportUsersResponse:
        response = self._response([])
        response.summary.CopyFrom(self._summary())
        if not self.options.dry_run:
            response.summary.import_id = str(self.id)
        self.ended = True
        return response

    def _response(self, rows: Sequence[user_imports_pb2.ImportedRow]) -> ImportUsersResponse:
        notices = [
            user_imports_pb2.ImportNotice(file_name=name, field=notice.field, message=notice.sentence)
            for name, notice in self.files.notices
        ]
        self.files.notices.clear()
        progress = user_imports_pb2.ImportProgress(rows=self.outcomes.total(), bytes=self.files.bytes)
        return ImportUsersResponse(rows=rows, notices=notices, progress=progress)

    def _summary(self) -> user_imports_pb2.ImportSummary:
        summary = user_imports_pb2.ImportSummary(rows=self.outcomes.total())
        for outcome, count in self.outcomes.items():
            setattr(summary, stored_name(RowOutcome, outcome), count)
        return summary

    async def record(self) -> None:
        """Writes down that there was an import, also when it ended early."""
        if self.options.dry_run or not self.outcomes:
            return
        summary = self._summary()
        counts = {field.name: getattr(summary, field.name) for field in summary.DESCRIPTOR.fields[:-1]}
        said = {"format": user_imports_pb2.ImportFormat.Name(self.options.format), "complete": self.ended, **counts}
        async with self.service.db.write() as session:
            audit.write(session, "import", "user_import", self.id, new=said)


class _Undone(Exception):
    """Undoes the transaction of a dry run."""


async def _options(requests: AsyncIterator[ImportUsersRequest]) -> user_imports_pb2.ImportUsersOptions:
    async for request in requests:
        if request.HasField("options"):
            return request.options
        break
    raise InvalidArgument.fields([("options", "must be in the first message")])
