"""Where bytes are kept: a folder, or a bucket that speaks S3. Keys begin with the tenant."""

import hashlib
import re
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlsplit
from uuid import UUID

from kit.errors import InvalidArgument, NotFound, Unavailable
from kit.settings import Settings, SettingsError, is_loopback

# How much is read at once, and written: S3 takes no smaller parts.
PIECE = 1 << 18
PART = 5 << 20
PARTS_AT_ONCE = 2
KEY = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(/[a-z0-9][a-z0-9_-]*)+")


@dataclass(frozen=True, slots=True)
class Stored:
    """What was written: its size in bytes and the SHA-256 of them, 64 hexadecimal digits."""

    size: int
    sha256: str


class Mismatch(InvalidArgument):
    """The bytes are not those that were announced; nothing was written."""


def key_of(tenant_id: UUID, kind: str, *names: UUID) -> str:
    """The key of something of the tenant's, such as `<tenant>/audio/<id>`."""
    return "/".join((str(tenant_id), kind, *map(str, names)))


class Storage:
    """The object storage that the settings name. What is kept in it is opened at its first use.

    Fails with Unavailable when it cannot be reached, and with NotFound for a key that is not there.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.signs = bool(settings.storage_bucket)
        if not 10 <= settings.storage_link_seconds <= 3600:
            raise SettingsError("STORAGE_LINK_SECONDS is not between 10 and 3600")
        endpoint = urlsplit(settings.storage_endpoint)
        near = endpoint.scheme == "http" and is_loopback(endpoint.netloc)
        if settings.storage_endpoint and endpoint.scheme != "https" and not near:
            raise SettingsError("STORAGE_ENDPOINT is neither https:// nor a server of this machine")

    @property
    def lifetime(self) -> timedelta:
        """How long a link works."""
        return timedelta(seconds=self._settings.storage_link_seconds)

    async def write(
        self,
        key: str,
        pieces: AsyncIterable[bytes],
        *,
        limit: int,
        expected: Stored | None = None,
        mime_type: str = "application/octet-stream",
    ) -> Stored:
        """Writes the pieces, and replaces what was there, once all have come.

        Mismatch, and nothing is written, for more than `limit` bytes and for others than were `expected`. Holds some
        ten megabytes at most.
        """
        obs, check = _obstore(), _Check(limit, expected)
        # A folder keeps no attributes; what is served from there gets them from whoever serves it.
        attributes = {"Content-Type": mime_type, "Content-Disposition": "attachment"} if self.signs else None
        with _translated(check):
            await obs.put_async(
                self._store,
                _checked(key),
                check.through(pieces),
                attributes=attributes,
                chunk_size=PART,
                max_concurrency=PARTS_AT_ONCE,
            )
        return check.stored

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` to `end`, which is left out, in pieces of about 256 kilobytes."""
        obs = _obstore()
        options: Any = {"range": {"offset": start} if end is None else (start, end)} if start or end else None
        with _translated():
            found = await obs.get_async(self._store, _checked(key), options=options)
            async for piece in found.stream(min_chunk_size=PIECE):
                yield bytes(piece)

    async def size(self, key: str) -> int:
        """How many bytes are there."""
        with _translated():
            return int((await _obstore().head_async(self._store, _checked(key)))["size"])

    async def remove(self, key: str) -> None:
        """Removes what is there; nothing happens when nothing is."""
        try:
            with _translated():
                await _obstore().delete_async(self._store, _checked(key))
        except NotFound:
            pass

    async def sign(self, method: Literal["GET", "PUT"], key: str) -> str:
        """A URL by which anybody may get or put these bytes for a while. Only of a bucket: see `signs`."""
        with _translated():
            return str(await _obstore().sign_async(self._store, method, _checked(key), self.lifetime))

    def open(self, key: str) -> BufferedReader:
        """A file to read and seek in, for threads: each piece that is asked for is fetched when it is."""
        with _translated():
            return BufferedReader(_Reader(_obstore().open_reader(self._store, _checked(key))), buffer_size=1 << 16)

    @cached_property
    def _store(self) -> Any:
        from obstore.store import LocalStore, S3Store

        one = self._settings
        if not one.storage_bucket:
            folder = Path(one.storage_directory)
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            return LocalStore(folder.absolute(), automatic_cleanup=True)
        given = {
            "endpoint": one.storage_endpoint,
            "access_key_id": one.storage_access_key_id,
            "secret_access_key": one.storage_secret_access_key,
        }
        return S3Store(
            one.storage_bucket,
            region=one.storage_region,
            client_options={"allow_http": one.storage_endpoint.startswith("http://"), "connect_timeout": "3s"},
            retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=10)},
            **cast("Any", {name: value for name, value in given.items() if value}),
        )


class _Check:
    """Counts and hashes what passes through, and stops it when it is not what it should be."""

    def __init__(self, limit: int, expected: Stored | None) -> None:
        self._limit, self._expected = limit, expected
        self._size, self._digest = 0, hashlib.sha256()
        self.failure: Exception | None = None

    @property
    def stored(self) -> Stored:
        return Stored(self._size, self._digest.hexdigest())

    async def through(self, pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        try:
            async for piece in pieces:
                self._size += len(piece)
                if self._size > min(self._limit, self._expected.size if self._expected else self._limit):
                    raise _mismatch("is longer than announced, or than is allowed")
                self._digest.update(piece)
                if piece:
                    yield piece
            self._compare()
        except Exception as error:
            # The storage wraps what stops a write; whoever writes is to know why.
            self.failure = error
            raise

    def _compare(self) -> None:
        if not self._size:
            raise _mismatch("is empty")
        if self._expected and self._size != self._expected.size:
            raise _mismatch("is shorter than announced")
        if self._expected and self._digest.hexdigest() != self._expected.sha256:
            raise _mismatch("has another SHA-256 than announced")


def _mismatch(what: str) -> Mismatch:
    # Mismatch.fields makes one of its own class.
    return cast("Mismatch", Mismatch.fields([("file", what)]))


class _Reader(RawIOBase):
    """What the storage reads of, as Python's own files are read."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._source.seek(offset, whence))

    def tell(self) -> int:
        return int(self._source.tell())

    def readinto(self, buffer: Any) -> int:
        piece = bytes(self._source.read(len(buffer)))
        buffer[: len(piece)] = piece
        return len(piece)


def _checked(key: str) -> str:
    if not KEY.fullmatch(key):
        raise ValueError("not a key of the storage")
    return key


def _obstore() -> Any:
    # Some five megabytes, which only who has to do with files pays.
    import obstore

    return obstore


@contextmanager
def _translated(check: _Check | None = None) -> Iterator[None]:
    """Says what the storage says in the platform's words; an error of the files system or of HTTP tells its paths."""
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, OSError) as error:
        if check and check.failure:
            raise check.failure from error
        if isinstance(error, FileNotFoundError):
            raise NotFound("file") from error
        raise Unavailable("The storage of files cannot be reached; try again.") from error
