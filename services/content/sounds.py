"""What a file of audio is: whether it has the format that it claims, and how long it lasts."""

import asyncio
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any, BinaryIO

from kit.errors import InvalidArgument

LONGEST = timedelta(hours=24)
# The library looks at headers and steps over the rest. Files that make it read on and on are none.
MOST_BYTES, MOST_READS, LONGEST_READ = 64 << 20, 100_000, 8 << 20
AT_ONCE = 2
_turns = asyncio.Semaphore(AT_ONCE)


class _Bounded:
    """A file that refuses to be read without end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._bytes, self._reads = file, 0, 0

    def read(self, size: int = -1) -> bytes:
        self._reads += 1
        if not 0 <= size <= LONGEST_READ:
            size = LONGEST_READ
        piece = self._file.read(size)
        self._bytes += len(piece)
        if self._bytes > MOST_BYTES or self._reads > MOST_READS:
            raise ValueError("too much to read")
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _is_mpeg(head: bytes) -> bool:
    # A frame of layer I, II or III; the reserved layer is that of AAC.
    return head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06 != 0)


def _is_ogg(head: bytes) -> bool:
    # What is inside begins the first page; pictures that move are called ogg too.
    return head[:4] == b"OggS" and any(mark in head for mark in (b"OpusHead", b"\x01vorbis", b"\x7fFLAC", b"Speex   "))


# How the first bytes of each format look, and by which ending the library knows it.
FORMATS: dict[str, tuple[Callable[[bytes], bool], str]] = {
    "audio/mpeg": (_is_mpeg, ".mp3"),
    "audio/mp4": (lambda head: head[4:8] == b"ftyp", ".m4a"),
    "audio/ogg": (_is_ogg, ".ogg"),
    "audio/wav": (lambda head: head[:4] == b"RIFF" and head[8:12] == b"WAVE", ".wav"),
    "audio/flac": (lambda head: head[:4] == b"fLaC", ".flac"),
}


async def measure(opened: Callable[[], BinaryIO], mime_type: str) -> timedelta:
    """How long the file lasts, in milliseconds; INVALID_ARGUMENT when it is not audio of this format. In a thread."""
    async with _turns:
        return await asyncio.to_thread(_measured, opened, mime_type)


def _measured(opened: Callable[[], BinaryIO], mime_type: str) -> timedelta:
    matches, ending = FORMATS[mime_type]
    with opened() as file:
        if not matches(file.read(64)):
            raise _refusal(mime_type)
        found: Any = _read(file, ending, mime_type)
    seconds = found.duration
    if not found.samplerate or not seconds or not math.isfinite(seconds) or not 0 < seconds <= LONGEST.total_seconds():
        raise _refusal(mime_type)
    return max(timedelta(milliseconds=1), timedelta(milliseconds=round(seconds * 1000)))


def _read(file: BinaryIO, ending: str, mime_type: str) -> Any:
    from tinytag import TinyTag, TinyTagException

    bounded: Any = _Bounded(file)
    try:
        return TinyTag.get(f"file{ending}", file_obj=bounded, tags=False, check_magic_bytes=False)
    except (TinyTagException, MemoryError, RecursionError) as error:
        raise _refusal(mime_type) from error


def _refusal(mime_type: str) -> InvalidArgument:
    return InvalidArgument.fields([("file", f"is not {mime_type} that can be played")])
