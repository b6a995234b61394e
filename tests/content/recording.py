"""Recordings as tests make, send and hear them, over either storage."""

import hashlib
import io
import math
import struct
import wave
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from google.api.httpbody_pb2 import HttpBody

from storyloom.content.v1 import audio_files_pb2, audios_pb2, stories_pb2
from storyloom.content.v1.audio_files_pb2_grpc import AudioFileServiceStub
from storyloom.content.v1.audios_pb2 import Audio
from storyloom.content.v1.audios_pb2_grpc import AudioServiceStub
from storyloom.content.v1.stories_pb2_grpc import StoryServiceStub
from tests.stack import Person

FOLDER = Path(__file__).parent / "recordings"
MP3, M4A, OGG, WAV, FLAC = "audio/mpeg", "audio/mp4", "audio/ogg", "audio/wav", "audio/flac"
PIECE = 100_000


def tone(seconds: float, *, rate: int = 8000, pitch: float = 440) -> bytes:
    """A file of WAV."""
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        samples = (int(9000 * math.sin(2 * math.pi * pitch * n / rate)) for n in range(int(seconds * rate)))
        file.writeframes(b"".join(struct.pack("<h", one) for one in samples))
    return made.getvalue()


def silence(size: int, *, rate: int = 8000) -> bytes:
    """A file of WAV with so many bytes of sound."""
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(size))
    return made.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Narrator:
    """Somebody with the stubs of one content service."""

    person: Person
    audios: Any
    files: Any
    stories: Any

    @classmethod
    def of(cls, person: Person, service: str = "content") -> "Narrator":
        kinds = (AudioServiceStub, AudioFileServiceStub, StoryServiceStub)
        return cls(person, *(person.stub(kind, service) for kind in kinds))

    async def story(self, text: str = "Con mèo ngủ. Con chó sủa.") -> Any:
        sent = stories_pb2.Story(title="Truyện", text=text, language="vi", learning_language="en")
        return await self.stories.CreateStory(stories_pb2.CreateStoryRequest(story=sent))

    async def create(self, **values: Any) -> Any:
        sent = Audio(**{"title": "Đọc", **values})
        return await self.audios.CreateAudio(audios_pb2.CreateAudioRequest(audio=sent))

    async def get(self, audio_id: str) -> Any:
        return await self.audios.GetAudio(audios_pb2.GetAudioRequest(id=audio_id))

    async def list(self, **wanted: Any) -> list[str]:
        found = await self.audios.ListAudios(audios_pb2.ListAudiosRequest(**wanted))
        return [one.id for one in found.audios]

    async def act(self, verb: str, audio_id: str, **more: Any) -> Any:
        request = getattr(audios_pb2, f"{verb}AudioRequest")(id=audio_id, **more)
        return await getattr(self.audios, f"{verb}Audio")(request)

    async def begin(self, audio_id: str, data: bytes, mime_type: str = WAV, **said: Any) -> str:
        """A link for the file, announced as it is unless something else is said."""
        announced = {"size_bytes": len(data), "sha256": sha256(data), "mime_type": mime_type, **said}
        request = audio_files_pb2.CreateAudioUploadRequest(audio_id=audio_id, **announced)
        return str((await self.files.CreateAudioUpload(request)).url)

    async def complete(self, audio_id: str) -> Any:
        return await self.files.CompleteAudioUpload(audio_files_pb2.CompleteAudioUploadRequest(audio_id=audio_id))

    async def upload(self, audio_id: str, data: bytes, mime_type: str = WAV, **said: Any) -> Any:
        """Sends the file in one call."""
        first = {"audio_id": audio_id, "sha256": sha256(data), "size_bytes": len(data), **said}
        pieces = [data[at : at + PIECE] for at in range(0, len(data), PIECE)] or [b""]
        head = audio_files_pb2.UploadAudioRequest(**first, file=HttpBody(content_type=mime_type, data=pieces[0]))
        rest = (audio_files_pb2.UploadAudioRequest(file=HttpBody(data=piece)) for piece in pieces[1:])
        return await self.files.UploadAudio(iter([head, *rest]))

    async def download(self, audio_id: str) -> Any:
        return await self.files.GetAudioDownload(audio_files_pb2.GetAudioDownloadRequest(audio_id=audio_id))

    async def spoken(self, **values: Any) -> Any:
        """A published recording of a second."""
        made = await self.create(**values)
        await self.upload(made.id, tone(1))
        return await self.act("Publish", made.id)


class Web:
    """Whoever has nothing but links: by HTTP where they lead to a bucket, else as the gateway passes them on."""

    def __init__(self, anybody: Any) -> None:
        self.files = AudioFileServiceStub(anybody)

    async def put(self, link: str, data: bytes) -> int:
        """The status, or that which the gateway makes of it."""
        if urlsplit(link).netloc:
            async with httpx.AsyncClient() as client:
                return (await client.put(link, content=data)).status_code
        await self.files.PutAudioFile(self._pieces(link, data), timeout=10)
        return 200

    def _pieces(self, link: str, data: bytes) -> Iterable[Any]:
        audio_id, token = parts_of(link)
        yield audio_files_pb2.PutAudioFileRequest(audio_id=audio_id, token=token, file=HttpBody(data=data[:PIECE]))
        for at in range(PIECE, len(data), PIECE):
            yield audio_files_pb2.PutAudioFileRequest(file=HttpBody(data=data[at : at + PIECE]))

    async def get(self, link: str, *, part: str = "") -> tuple[bytes, dict[str, str]]:
        """The bytes and the headers."""
        headers = {"range": part} if part else {}
        if urlsplit(link).netloc:
            async with httpx.AsyncClient() as client:
                found = (await client.get(link, headers=headers)).raise_for_status()
                return found.content, dict(found.headers)
        audio_id, token = parts_of(link)
        request = audio_files_pb2.GetAudioFileRequest(audio_id=audio_id, token=token)
        call = self.files.GetAudioFile(request, metadata=tuple(headers.items()), timeout=10)
        bodies = [one async for one in self._checked(call)]
        headers = {str(name): str(value) for name, value in (await call.initial_metadata())}
        return b"".join(one.data for one in bodies), {**headers, "content-type": bodies[0].content_type}

    async def _checked(self, call: Any) -> AsyncIterator[Any]:
        async for body in call:
            yield body


def parts_of(link: str) -> tuple[str, str]:
    """The id and the token of the gateway's own link."""
    found = urlsplit(link)
    return found.path.split("/")[3], parse_qs(found.query)["token"][0]
