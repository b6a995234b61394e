"""Packages: courses as archives."""

import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import IO, Any
from uuid import UUID

from google.api.httpbody_pb2 import HttpBody

from kit import audit
from kit.access import require_any
from kit.auth import current, renew
from kit.db import Database
from kit.errors import InvalidArgument, Unavailable
from kit.limiter import Limiter
from kit.streams import spoken
from services.content import copying, gathering, packaging, sounds
from services.content.copying import PACKAGE, Made, Wish
from services.content.files import Files
from services.content.gathering import Sound, Source, in_thread
from services.content.material import Faulty
from services.content.models import Course
from services.content.slices import Slice
from storyloom.content.v1 import packages_pb2
from storyloom.content.v1.package_files_pb2 import PackageRecording
from storyloom.content.v1.packages_pb2 import (
    ExportPackageRequest,
    ExportPackageResponse,
    ImportPackageRequest,
    ImportPackageResponse,
)

PIECE = 256 * 1024
# Each is a file of hundreds of megabytes on the disk, as long as whoever sends or takes it needs; half of them are left
# for other tenants.
SPOOLS_AT_ONCE, SPOOL_WAIT_SECONDS = 8, 5.0
ZIP = "application/zip"


class PackageService:
    SERVICE = packages_pb2.DESCRIPTOR.services_by_name["PackageService"]

    def __init__(self, db: Database, files: Files, turns: Limiter) -> None:
        self.db, self.files, self.turns = db, files, turns
        self.spools = Limiter(SPOOLS_AT_ONCE, SPOOL_WAIT_SECONDS, SPOOLS_AT_ONCE // 2)

    async def ExportPackage(
        self, request: ExportPackageRequest, context: Any
    ) -> AsyncIterator[ExportPackageResponse]:
        course_id = UUID(request.course_id)
        async with self._spool() as spool:
            async with self.turns.slot(current().tenant_id):
                source = await gathering.take(self.db, course_id, away=True)
                parts = await self._spooled(source, spool)
            async with self.db.write() as session:
                new = {"digest": source.digest, "stories": len(source.stories)}
                audit.write(session, "export", "course", course_id, new=new)
            for piece in _joined(packaging.pieces(source.content, parts)):
                yield ExportPackageResponse(file=HttpBody(content_type=ZIP, data=piece))
                # Whoever reads slowly may have lost the permission meanwhile.
                await renew()

    @asynccontextmanager
    async def _spool(self) -> AsyncIterator[IO[bytes]]:
        async with self.spools.slot(current().tenant_id):
            with tempfile.TemporaryFile() as file:
                yield file

    async def _spooled(self, source: Source, spool: IO[bytes]) -> dict[str, Slice]:
        """The files of recordings, which are wanted twice: for their checksums, and then for themselves."""
        parts = {}
        for name, sound in source.sounds.items():
            start = spool.seek(0, 2)
            async for piece in self.files.storage.read(sound.key):
                spool.write(piece)
            parts[name] = await in_thread(Slice.cut, spool, start, sound.size)
            if parts[name].sha256 != name:
                raise Unavailable("The file of a recording is damaged.")
        return parts

    async def ImportPackage(
        self, requests: AsyncIterator[ImportPackageRequest], context: Any
    ) -> ImportPackageResponse:
        require_any("create", Course)
        async with self._spool() as file:
            dry_run = await _receive(requests, file)
            await renew()
            async with self.turns.slot(current().tenant_id):
                source = await _unpack(file)
                made = await copying.make(self.db, source, Wish(kind=PACKAGE, author_id=current().subject))
                if not dry_run:
                    async with copying.kept(self.files, made, source.sounds), self.db.write() as session:
                        await copying.write(session, made)
        return _answer(made, dry_run=dry_run)


def _joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in messages of a good size."""
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        while len(waiting) >= PIECE:
            yield bytes(waiting[:PIECE])
            del waiting[:PIECE]
    if waiting:
        yield bytes(waiting)


async def _receive(requests: AsyncIterator[ImportPackageRequest], file: IO[bytes]) -> bool:
    """Writes the file as it comes; whether the import is to be tried only."""
    dry_run: bool | None = None
    size = 0
    async for request in spoken(requests):
        dry_run = request.dry_run if dry_run is None else dry_run
        size += len(request.file.data)
        if size > packaging.MOST_BYTES:
            raise InvalidArgument.fields([("file", f"has more than {packaging.MOST_BYTES >> 20} MiB")])
        file.write(request.file.data)
    return bool(dry_run)


async def _unpack(file: IO[bytes]) -> Source:
    try:
        unpacked = await in_thread(packaging.read, file)
    except Faulty as error:
        raise InvalidArgument.fields([("file", str(error))]) from None
    found: dict[str, Sound] = {}
    for one in unpacked.material.recordings:
        if one.file not in found:
            found[one.file] = await _listened_to(unpacked.sounds[one.file], one)
        elif found[one.file].mime_type != one.mime_type:
            raise InvalidArgument.fields([("file", f"the blob {one.file} has two formats")])
    return await in_thread(partial(gathering.source_of, unpacked.material, sounds=found))


async def _listened_to(part: Slice, said: PackageRecording) -> Sound:
    try:
        duration = await sounds.measure(part.open, said.mime_type)
    except InvalidArgument:
        raise InvalidArgument.fields([("file", f"the blob {said.file} is not {said.mime_type}")]) from None
    if any(timedelta(milliseconds=one.end) > duration for one in said.times):
        raise InvalidArgument.fields([("file", f"the times of the blob {said.file} are longer than it lasts")])
    return Sound(mime_type=said.mime_type, size=part.size, duration=duration, part=part)


def _answer(made: Made, *, dry_run: bool) -> ImportPackageResponse:
    return ImportPackageResponse(
        course_id="" if dry_run else str(made.course.id),
        title=made.course.title,
        digest=made.origin.digest,
        units=len(made.units),
        lessons=len(made.lessons),
        stories=len(made.stories),
        words_created=len(made.words),
        words_matched=len(made.matched),
    )
