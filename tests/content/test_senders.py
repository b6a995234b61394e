"""Those who send files slowly, or again: what others have of the service and of its disk."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from google.api.httpbody_pb2 import HttpBody

from kit.errors import NotFound
from services.content.audio_files import WRITING_AT_ONCE, AudioFileService
from services.content.packages import SPOOLS_AT_ONCE
from storyloom.content.v1.audio_files_pb2 import UploadAudioRequest
from storyloom.content.v1.audios_pb2 import AudioStatus
from storyloom.content.v1.packages_pb2 import ImportPackageRequest
from storyloom.content.v1.packages_pb2_grpc import PackageServiceStub
from tests.content.archives import good, packed
from tests.content.conftest import Author
from tests.content.copies import bring
from tests.content.recording import WAV, Narrator, Web, tone
from tests.stack import School, refused


async def test_of_recordings_leave_others_room(school: School) -> None:
    mine, theirs, gate = Narrator.of(school.teacher), Narrator.of(school.outsider_teacher), asyncio.Event()

    async def dripping(audio_id: str) -> AsyncIterator[UploadAudioRequest]:
        file = HttpBody(content_type=WAV, data=b"R")
        yield UploadAudioRequest(audio_id=audio_id, sha256="0" * 64, size_bytes=9999, file=file)
        await gate.wait()

    story = await mine.story()
    slow = [mine.files.UploadAudio(dripping((await mine.create(story_id=story.id)).id)) for _ in range(WRITING_AT_ONCE)]
    held = [asyncio.ensure_future(one) for one in slow]
    audio = await theirs.create(story_id=(await theirs.story()).id)
    await asyncio.sleep(0.5)
    try:
        assert (await theirs.upload(audio.id, tone(1))).status == AudioStatus.AUDIO_STATUS_PROCESSED
    finally:
        gate.set()
        await asyncio.gather(*held, return_exceptions=True)


async def test_of_packages_leave_room_on_the_disk(teacher: Author, outsider: Author) -> None:
    gate, data = asyncio.Event(), packed(good())

    async def slow() -> AsyncIterator[ImportPackageRequest]:
        yield ImportPackageRequest(file=HttpBody(data=data[:9]))
        await gate.wait()

    stub: Any = teacher.person.stub(PackageServiceStub, "content")
    held = [asyncio.ensure_future(stub.ImportPackage(slow())) for _ in range(SPOOLS_AT_ONCE // 2)]
    await asyncio.sleep(0.5)
    try:
        async with refused("OVERLOADED"):
            await bring(teacher, data, dry_run=True)
        assert (await bring(outsider, data, dry_run=True)).stories == 3
    finally:
        gate.set()
        await asyncio.gather(*held, return_exceptions=True)


async def test_to_a_link_that_was_used_leave_nothing_behind(
    school: School, tables: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    narrator, web, data = Narrator.of(school.teacher), Web(school.stack.channel("content")), tone(1)
    (servicer,) = (one for one in school.stack.services["content"]._servicers if isinstance(one, AudioFileService))
    audio = await narrator.create(story_id=(await narrator.story()).id)
    link = await narrator.begin(audio.id, data)
    key = await tables.fetchval("SELECT storage_key FROM content.audio_uploads WHERE audio_id = $1", UUID(audio.id))
    await web.put(link, data)
    await narrator.complete(audio.id)
    while await servicer._files.sweep():
        pass
    assert await web.put(link, data) == 200
    await tables.execute("UPDATE content.stored_files SET due_at = now() WHERE key = $1", key)
    while await servicer._files.sweep():
        pass
    with pytest.raises(NotFound):
        await servicer._files.storage.size(key)
