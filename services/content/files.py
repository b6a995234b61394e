"""The files of recordings: written down before they are written, and removed when no recording has them any more."""

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert

from kit.call import current_call, enter
from kit.db import Database, WriteSession
from kit.errors import StoryloomError
from kit.ids import SYSTEM_TENANT, new_id
from kit.models import now
from services.content.models import stored_files
from services.content.queries import audios
from services.content.storage import Storage, Stored, key_of

log = logging.getLogger(__name__)

KIND = "audio"
# Longer than any upload: a file is looked for a recording's only when none can be about to get it.
LONGEST_UPLOAD = timedelta(hours=2)
# So long a removal that failed waits, and so long it takes until a file is found whose recording went in another way.
RETRY_AFTER, LOOK_AGAIN_AFTER = timedelta(minutes=10), timedelta(days=1)
SWEEP_SECONDS, SWEPT_AT_ONCE = 60.0, 100


class Files:
    """Keeps files in the storage, for recordings of all tenants."""

    def __init__(self, db: Database, storage: Storage) -> None:
        self.storage = storage
        self._db, self._let_go, self._sweeping = db, asyncio.Event(), asyncio.Lock()

    @asynccontextmanager
    async def kept(
        self, tenant_id: UUID, pieces: AsyncIterable[bytes], expected: Stored, mime_type: str
    ) -> AsyncIterator[str]:
        """Writes a file that the block gives to a recording; its key. Fails as `Storage.write` does. A file that no
        recording gets, because the block fails or within two hours, is removed."""
        key = key_of(tenant_id, KIND, new_id())
        await self._note(tenant_id, key, LONGEST_UPLOAD)
        try:
            await self.storage.write(key, pieces, limit=expected.size, expected=expected, mime_type=mime_type)
            yield key
        except Exception:
            # It may have got it nevertheless, when the answer to the commit was lost: whoever sweeps looks.
            await self._note(tenant_id, key, timedelta())
            self.sweep_soon()
            raise

    async def _note(self, tenant_id: UUID, key: str, due_in: timedelta) -> None:
        async def work() -> None:
            async with self._db.write(tenant_id) as session:
                await note(session, key, due_in)

        await apart(work())

    def sweep_soon(self) -> None:
        """For whoever has let a file go, and committed."""
        self._let_go.set()

    async def run(self) -> None:
        """Sweeps for ever."""
        while True:
            self._let_go.clear()
            while await self.sweep() == SWEPT_AT_ONCE:
                pass
            with suppress(TimeoutError):
                await asyncio.wait_for(self._let_go.wait(), SWEEP_SECONDS)

    async def sweep(self) -> int:
        """Removes the files that are due and that no recording has; how many were due. Processes share the work."""
        async with self._sweeping:
            due: dict[UUID, list[str]] = {}
            for row in await self._claim():
                due.setdefault(row.tenant_id, []).append(row.key)
            for tenant_id, keys in due.items():
                async with self._db.read(tenant_id) as session:
                    used = await audios.find_used(session, keys)
                await self._settle([key for key in keys if key in used], [key for key in keys if key not in used])
            return sum(map(len, due.values()))

    async def _claim(self) -> Sequence[Any]:
        """What is due, and not again for a while, whatever becomes of this process."""
        waiting = (
            select(stored_files.c.key)
            .where(stored_files.c.due_at <= now())
            .order_by(stored_files.c.due_at)
            .limit(SWEPT_AT_ONCE)
            .with_for_update(skip_locked=True)
        )
        claim = (
            update(stored_files)
            .where(stored_files.c.key.in_(waiting))
            .values(due_at=now() + RETRY_AFTER)
            .returning(stored_files.c.tenant_id, stored_files.c.key)
        )
        async with self._db.write(SYSTEM_TENANT) as session:
            return (await session.execute(claim)).all()

    async def _settle(self, used: Sequence[str], unused: Sequence[str]) -> None:
        gone: list[str] = []
        later = list(used)
        for key in unused:
            try:
                await self.storage.remove(key)
                (later if _may_be_sent_again(key) else gone).append(key)
            except StoryloomError:
                log.exception("a file could not be removed; it is tried again")
        async with self._db.write(SYSTEM_TENANT) as session:
            await session.execute(delete(stored_files).where(stored_files.c.key.in_(gone)))
            looked = update(stored_files).where(stored_files.c.key.in_(later))
            await session.execute(looked.values(due_at=now() + LOOK_AGAIN_AFTER))


def _may_be_sent_again(key: str) -> bool:
    """Whether somebody may have a link to it yet: one that has been used, or is of an upload that was given up, works
    until it ends. Names are UUIDv7, which begin with their time."""
    _, kind, *_, name = key.split("/")
    return kind != KIND and now().timestamp() - (UUID(name).int >> 80) / 1000 < LOOK_AGAIN_AFTER.total_seconds()


async def apart(work: Coroutine[Any, Any, None]) -> None:
    """Does the work in transactions that commit by themselves, whatever becomes of that of the call's key."""
    context, call = copy_context(), current_call()
    if call is not None:
        context.run(enter, replace(call, key=None, uncommitted=None))
    await asyncio.create_task(work, context=context)


async def note(session: WriteSession, key: str, due_in: timedelta = timedelta()) -> None:
    """Writes the file down in the session's tenant, or when it is due if it is there already: at once by default, when
    the transaction takes it from its recording."""
    statement = insert(stored_files).values(key=key, tenant_id=session.tenant_id, due_at=now() + due_in)
    await session.execute(
        statement.on_conflict_do_update(index_elements=["key"], set_={"due_at": statement.excluded.due_at})
    )
