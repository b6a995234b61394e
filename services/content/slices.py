"""Parts of files: what lies in a package, or is gathered for one, without being in memory."""

import hashlib
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from io import BufferedReader, BytesIO, RawIOBase
from typing import IO, Any

PIECE = 256 * 1024


@dataclass(frozen=True, slots=True)
class Slice:
    """`size` bytes of a file from `start` on, with their checksums. Not to be read by two at once."""

    file: IO[bytes]
    start: int
    size: int
    crc: int
    sha256: str

    @classmethod
    def cut(cls, file: IO[bytes], start: int, size: int) -> "Slice":
        """The part of the file; reads it once."""
        crc, digest = 0, hashlib.sha256()
        for piece in _pieces(file, start, size):
            crc = zlib.crc32(piece, crc)
            digest.update(piece)
        return cls(file, start, size, crc, digest.hexdigest())

    @classmethod
    def of(cls, data: bytes) -> "Slice":
        """The bytes as a part of a file."""
        return cls.cut(BytesIO(data), 0, len(data))

    def pieces(self) -> Iterator[bytes]:
        """The bytes, in order."""
        return _pieces(self.file, self.start, self.size)

    async def sent(self) -> AsyncIterator[bytes]:
        """The same, for whoever takes them one by one."""
        for piece in self.pieces():
            yield piece

    def open(self) -> BufferedReader:
        """A file that is this part."""
        return BufferedReader(_Window(self))


def _pieces(file: IO[bytes], start: int, size: int) -> Iterator[bytes]:
    end = start + size
    while start < end:
        file.seek(start)
        piece = file.read(min(PIECE, end - start))
        if not piece:
            return
        start += len(piece)
        yield piece


class _Window(RawIOBase):
    def __init__(self, part: Slice) -> None:
        self._part, self._at = part, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, self._part.size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        part = self._part
        part.file.seek(part.start + self._at)
        data = part.file.read(max(0, min(len(buffer), part.size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
