"""The files of recordings, which rows name: read from one storage, written into another."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO
from uuid import UUID

import asyncpg

from deploy.local.errors import RunError
from deploy.tenants.archive import FILES, PIECE
from deploy.tenants.installation import Installation
from kit.errors import NotFound, StoryloomError
from services.content.storage import KEY, Storage, Stored

RECORDINGS = """
SELECT DISTINCT ON (storage_key) storage_key, size_bytes, sha256, mime_type FROM content.audios
WHERE tenant_id = $1 AND storage_key IS NOT NULL ORDER BY storage_key, id
"""
# As the content service notes a file before it writes one: what no row names when it is due, its sweep removes.
NOTE = """
INSERT INTO content.stored_files (key, tenant_id, due_at) VALUES ($1, $2, now() + interval '2 hours')
ON CONFLICT (key) DO UPDATE SET due_at = excluded.due_at
"""
DUE = "UPDATE content.stored_files SET due_at = now() WHERE key = ANY ($1::text[])"


@dataclass(frozen=True, slots=True)
class Recording:
    """A file, as the rows that name it say it is."""

    storage_key: str
    size_bytes: int
    sha256: str
    mime_type: str

    @property
    def member(self) -> str:
        """Its place in the archive, where all is one tenant's."""
        return f"{FILES}{self.storage_key.partition('/')[2]}"


Take = Callable[[Recording, IO[bytes]], Awaitable[None]]


async def recordings_of(database: asyncpg.Connection, tenant_id: UUID) -> list[Recording]:
    """The files that the tenant's rows name, each once, in one order."""
    return [Recording(**row) for row in await database.fetch(RECORDINGS, tenant_id)]


async def fetch(storage: Storage, one: Recording, out: IO[bytes]) -> None:
    """Reads a file. A file never changes once it is written, so it is that of the rows, whenever they were read."""
    try:
        async for piece in storage.read(one.storage_key):
            out.write(piece)
    except NotFound:
        raise RunError(f"The recording {one.storage_key} is gone: it was replaced meanwhile. Try again.") from None
    except StoryloomError as error:
        raise RunError(error.message) from None


@asynccontextmanager
async def arriving_files(here: Installation, tenant_id: UUID) -> AsyncIterator[Take]:
    """Writes files for rows that are not committed yet. When the block fails, the content service removes them, unless
    other rows have them."""
    notes = await asyncpg.connect(here.owner_url)
    noted: list[str] = []

    async def take(one: Recording, data: IO[bytes]) -> None:
        if not KEY.fullmatch(one.storage_key) or not one.storage_key.startswith(f"{tenant_id}/"):
            raise RunError("A recording is kept under a name that this storage does not have.")
        await notes.execute(NOTE, one.storage_key, tenant_id)
        noted.append(one.storage_key)
        expected = Stored(one.size_bytes, one.sha256)
        try:
            await here.storage.write(
                one.storage_key, _pieces(data), limit=one.size_bytes, expected=expected, mime_type=one.mime_type
            )
        except StoryloomError as error:
            raise RunError(f"The recording {one.storage_key} is refused: {error.message}") from None

    try:
        yield take
    except BaseException:
        await notes.execute(DUE, noted)
        raise
    finally:
        await notes.close()


async def _pieces(data: IO[bytes]) -> AsyncIterator[bytes]:
    while piece := data.read(PIECE):
        yield piece
