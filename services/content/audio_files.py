"""The files of recordings: sent, verified and served."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

from google.api.httpbody_pb2 import HttpBody

from kit import audit
from kit.auth import current
from kit.call import current_call
from kit.db import Database, WriteSession
from kit.errors import DeadlineExceeded, InvalidArgument, NotFound, wrong_state
from kit.ids import new_id
from kit.limiter import Limiter
from kit.models import now
from kit.streams import spoken
from kit.turns import in_turn
from services.content import rules, sounds
from services.content.audios import answer, get_heard, lock_to_update
from services.content.files import Files, apart, note
from services.content.links import Grant, Links
from services.content.models import Audio, AudioUpload
from services.content.queries import audios
from services.content.storage import Stored, key_of
from storyloom.content.v1 import audio_files_pb2
from storyloom.content.v1.audios_pb2 import Audio as AudioMessage

# Streams have no slots of the service's own: each that writes holds some ten megabytes, each that reads one at most.
# They last as long as whoever sends or hears takes: half of them are left for other tenants.
WRITING_AT_ONCE, READING_AT_ONCE, LONGEST_WAIT_SECONDS = 4, 128, 5.0
# Who sends more slowly than this gives way.
SLOWEST_BYTES_PER_SECOND, FIRST_SECONDS = 20_000, 30
# The bytes that were sent to a link outlive it by this, so that the upload can be completed.
COMPLETED_WITHIN = timedelta(minutes=30)
# Whatever a browser makes of the bytes, it is not a page.
AS_A_FILE = (
    ("content-disposition", "attachment"),
    ("content-security-policy", "default-src 'none'; sandbox"),
    ("cache-control", "private, max-age=300"),
    ("accept-ranges", "bytes"),
)


class AudioFileService:
    SERVICE = audio_files_pb2.DESCRIPTOR.services_by_name["AudioFileService"]

    def __init__(self, db: Database, files: Files, links: Links, largest: int) -> None:
        self.db, self._files, self._links, self._largest = db, files, links, largest
        self._writing = Limiter(WRITING_AT_ONCE, LONGEST_WAIT_SECONDS, WRITING_AT_ONCE // 2)
        self._reading = Limiter(READING_AT_ONCE, LONGEST_WAIT_SECONDS, READING_AT_ONCE // 2)

    async def CreateAudioUpload(
        self, request: audio_files_pb2.CreateAudioUploadRequest, context: Any
    ) -> audio_files_pb2.AudioUpload:
        rules.check_size(request.size_bytes, self._largest)
        async with self.db.write() as session:
            audio = await lock_to_update(session, UUID(request.audio_id))
            rules.check_replaceable(audio.status)
            upload = _announced(session, request, now() + self._files.storage.lifetime)
            await _end_upload(session, audio.id)
            session.add(upload)
            await session.flush()
            await note(session, upload.storage_key, self._files.storage.lifetime + COMPLETED_WITHIN)
            new = {"mime_type": upload.mime_type, "size_bytes": upload.size_bytes, "sha256": upload.sha256}
            audit.write(session, "begin_upload", "audio", audio.id, new=new)
        grant = Grant(upload.storage_key, upload.size_bytes, upload.mime_type)
        url, ends = await self._links.make("PUT", audio.id, grant)
        message = audio_files_pb2.AudioUpload(url=url)
        message.expire_time.FromDatetime(ends)
        return message

    async def CompleteAudioUpload(
        self, request: audio_files_pb2.CompleteAudioUploadRequest, context: Any
    ) -> AudioMessage:
        async with self.db.read() as session:
            row = await get_heard(session, UUID(request.audio_id), "update")
            upload = await audios.find_upload(session, row.id)
        if upload is None or not await self._was_sent(upload):
            # A call that is repeated with its key is answered as it was, and here it looks whether this one is.
            async with self.db.write():
                raise wrong_state("No upload was begun, or nothing sent to its link.", row.status)
        return await self._take(row.id, upload, self._files.storage.read(upload.storage_key))

    async def _was_sent(self, upload: Any) -> bool:
        try:
            return await self._files.storage.size(upload.storage_key) >= 0
        except NotFound:
            return False

    async def UploadAudio(self, request: AsyncIterator[Any], context: Any) -> AudioMessage:
        first, pieces = await _begun(request)
        if not first.audio_id:
            raise InvalidArgument.fields([("audio_id", "is required in the first message")])
        async with self.db.read() as session:
            row = await get_heard(session, UUID(first.audio_id), "update")
        upload = _checked_first(first)
        rules.check_size(upload.size_bytes, self._largest)
        rules.check_replaceable(row.status)
        async with _fast_enough(upload.size_bytes):
            return await self._take(row.id, upload, pieces)

    async def _take(self, audio_id: UUID, upload: Any, pieces: AsyncIterable[bytes]) -> AudioMessage:
        """Makes the pieces the recording's file, if they are what was announced."""
        tenant_id, expected = current().tenant_id, Stored(upload.size_bytes, upload.sha256)
        kept = self._files.kept(tenant_id, pieces, expected, upload.mime_type)
        try:
            async with in_turn(self._writing, str(tenant_id)), kept as key:
                duration = await sounds.measure(lambda: self._files.storage.open(key), upload.mime_type)
                async with self.db.write() as session:
                    audio = await _lock_for(session, audio_id, upload)
                    await _replace_file(session, audio, upload, key, duration)
                    message = await answer(session, audio)
        except InvalidArgument as error:
            await apart(self._reject(audio_id, upload, error.message))
            raise
        self._files.sweep_soon()
        return message

    async def _reject(self, audio_id: UUID, upload: Any, why: str) -> None:
        """Remembers why the file was not taken."""
        async with self.db.write() as session:
            audio = await _lock_for(session, audio_id, upload)
            await _end_upload(session, audio.id)
            audio.error, audio.updated_at = why, now()
            audit.record(session, "reject_upload", audio)
        self._files.sweep_soon()

    async def GetAudioDownload(
        self, request: audio_files_pb2.GetAudioDownloadRequest, context: Any
    ) -> audio_files_pb2.AudioDownload:
        async with self.db.read() as session:
            row = await get_heard(session, UUID(request.audio_id))
        if row.storage_key is None:
            raise wrong_state("The recording has no file yet.", row.status)
        url, ends = await self._links.make("GET", row.id, Grant(row.storage_key, row.size_bytes, row.mime_type))
        message = audio_files_pb2.AudioDownload(
            url=url, mime_type=row.mime_type, size_bytes=row.size_bytes, sha256=row.sha256
        )
        message.expire_time.FromDatetime(ends)
        return message

    async def PutAudioFile(
        self, request: AsyncIterator[Any], context: Any
    ) -> audio_files_pb2.PutAudioFileResponse:
        first, pieces = await _begun(request)
        grant = self._links.opened("PUT", first.audio_id, first.token)
        async with self._writing.slot(grant.tenant), _fast_enough(grant.size):
            stored = await self._files.storage.write(grant.key, pieces, limit=grant.size)
        return audio_files_pb2.PutAudioFileResponse(size_bytes=stored.size)

    async def GetAudioFile(
        self, request: audio_files_pb2.GetAudioFileRequest, context: Any
    ) -> AsyncIterator[HttpBody]:
        grant = self._links.opened("GET", request.audio_id, request.token)
        size = await self._files.storage.size(grant.key)
        part = rules.byte_range(_asked_range(), size)
        start, end = part or (0, size)
        said = (("content-range", f"bytes {start}-{end - 1}/{size}"),) if part else ()
        await context.send_initial_metadata((*AS_A_FILE, *said))
        async with self._reading.slot(grant.tenant):
            async for piece in self._files.storage.read(grant.key, start, end):
                yield HttpBody(content_type=grant.mime_type, data=piece)


def _announced(session: WriteSession, request: Any, expires_at: Any) -> AudioUpload:
    upload_id, audio_id = new_id(), UUID(request.audio_id)
    return AudioUpload(
        id=upload_id,
        audio_id=audio_id,
        mime_type=request.mime_type,
        size_bytes=request.size_bytes,
        sha256=request.sha256,
        storage_key=key_of(session.tenant_id, "upload", audio_id, upload_id),
        expires_at=expires_at,
    )


def _checked_first(first: Any) -> AudioUpload:
    """What the first message of a stream announces."""
    kind = first.file.content_type.partition(";")[0].strip().lower()
    missing = [name for name in ("sha256", "size_bytes") if not getattr(first, name)]
    wrong = [(name, "is required in the first message") for name in missing]
    if kind not in sounds.FORMATS:
        wrong.append(("file.content_type", f"is none of {', '.join(sounds.FORMATS)}"))
    if wrong:
        raise InvalidArgument.fields(wrong)
    return AudioUpload(
        audio_id=UUID(first.audio_id), mime_type=kind, size_bytes=first.size_bytes, sha256=first.sha256, storage_key=""
    )


async def _begun(requests: AsyncIterator[Any]) -> tuple[Any, AsyncIterator[bytes]]:
    """The first message of the stream, and the pieces of all of them."""
    requests = spoken(requests)
    try:
        first = await anext(requests)
    except StopAsyncIteration:
        raise InvalidArgument.fields([("file", "was not sent")]) from None

    async def pieces() -> AsyncIterator[bytes]:
        yield first.file.data
        async for message in requests:
            yield message.file.data

    return first, pieces()


@asynccontextmanager
async def _fast_enough(size: int) -> AsyncIterator[None]:
    """Streams have no deadline of their own: whoever sends drop by drop must not hold what others wait for."""
    try:
        async with asyncio.timeout(FIRST_SECONDS + size / SLOWEST_BYTES_PER_SECOND):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded("The file came too slowly; try again.") from error


async def _lock_for(session: WriteSession, audio_id: UUID, upload: Any) -> Audio:
    """The recording, if the upload may still end in it."""
    audio = await lock_to_update(session, audio_id)
    rules.check_replaceable(audio.status)
    if upload.storage_key:
        found = await audios.find_upload(session, audio_id)
        if found is None or found.id != upload.id:
            raise wrong_state("The upload has ended already.", audio.status)
    return audio


async def _end_upload(session: WriteSession, audio_id: UUID) -> None:
    """Forgets the upload that was begun, if any, and lets go what was sent."""
    if sent := await audios.delete_upload(session, audio_id):
        await note(session, sent)


async def _replace_file(session: WriteSession, audio: Audio, upload: Any, key: str, duration: timedelta) -> None:
    await _end_upload(session, audio.id)
    await audios.replace_times(session, audio.id, audio.version_id, ())
    if audio.storage_key:
        await note(session, audio.storage_key)
    audio.storage_key, audio.mime_type, audio.duration = key, upload.mime_type, duration
    audio.size_bytes, audio.sha256, audio.error, audio.status = upload.size_bytes, upload.sha256, "", "processed"
    audio.updated_at = now()
    audit.record(session, "upload", audio)


def _asked_range() -> str:
    call = current_call()
    return str(call.metadata.get("range", "")) if call else ""
