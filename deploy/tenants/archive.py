"""The file itself: a compressed tar whose members come in one order, signed, and encrypted with age if that is wanted.

Whoever reads one takes it for hostile: no name in it is a path, and nothing of it is used before its signature is."""

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from deploy.backups.sealing import open_sealed, seal
from deploy.local.errors import RunError
from deploy.tenants.origin import check_origin, signature
from kit.signing import Keyring

BLOCK = tarfile.BLOCKSIZE
PIECE = 1 << 18
COMPRESSION = 6
# What recordings are under, after all rows.
FILES = "files/"
SEALED = b"age-encryption.org/"
# The list of digests, as `sha256sum --check` takes it, comes last but for the line that signs it.
SUMS = "SHA256SUMS"
SIGNATURE, LONGEST_SIGNATURE = "SHA256SUMS.sig", 256
# Rows are text that compresses well, but not so well.
MOST_TIMES, MOST_BESIDES = 100, 64 << 20
TOO_MUCH = "it holds a hundred times more than it is long"
DAMAGED = "The archive is damaged, or is none: {}."


class Writer:
    """Writes members one after the other, with the time that they are of."""

    def __init__(self, out: IO[bytes], time: float) -> None:
        self._out = gzip.GzipFile(filename="", mode="wb", compresslevel=COMPRESSION, fileobj=out, mtime=0)
        self._time, self._sums = int(time), ""

    def add(self, name: str, data: IO[bytes]) -> None:
        """Adds what is in the file, from its beginning."""
        octets = data.seek(0, io.SEEK_END)
        data.seek(0)
        digest = sha256()
        self._out.write(self._header(name, octets))
        while piece := data.read(PIECE):
            digest.update(piece)
            self._out.write(piece)
        self._out.write(b"\0" * (-octets % BLOCK))
        self._sums += f"{digest.hexdigest()}  {name}\n"

    def close(self, keys: Keyring) -> None:
        """Ends the archive, which is whole from then on."""
        sums = self._sums.encode()
        self.add(SUMS, io.BytesIO(sums))
        self.add(SIGNATURE, io.BytesIO(signature(keys, sha256(sums).hexdigest()).encode()))
        self._out.write(b"\0" * 2 * BLOCK)
        self._out.close()

    def _header(self, name: str, octets: int) -> bytes:
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = octets, self._time, 0o600
        return info.tobuf(tarfile.GNU_FORMAT)


class Member(io.RawIOBase):
    """What one member holds. Its digest is that of what was read of it so far."""

    def __init__(self, take: Callable[[int], bytes], name: str, octets: int) -> None:
        self.name, self.octets, self._left, self._take = name, octets, octets, take
        self._digest = sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._take(min(len(buffer), self._left))
        self._left -= len(piece)
        self._digest.update(piece)
        buffer[: len(piece)] = piece
        return len(piece)

    def finish(self) -> str:
        """Reads what is left; the digest of all of it."""
        while self.read(PIECE):
            pass
        self._take(-self.octets % BLOCK)
        return self._digest.hexdigest()


class Reader:
    """Reads members one after the other: all for their signature, or each under the name that it must have, until they
    are what was signed. `key` is the public key of whoever signed it."""

    def __init__(self, data: IO[bytes], most: int, signed: str = "", key: str = "", rows: str = "") -> None:
        self._data = gzip.GzipFile(fileobj=data)
        self._left, self._sums, self._signed, self.key, self.rows = most, sha256(), signed, key, rows

    def signature(self) -> tuple[str, bytes]:
        """The digest of the list of digests, which are those of all that came before, and the line that signs it."""
        while (found := self._next()) is not None and found.name != SUMS:
            if found.name.startswith(FILES):
                self.rows = self.rows or self._sums.hexdigest()
            self._finish(found)
        digest = self._sums.hexdigest()
        self.rows = self.rows or digest
        if found is None or found.finish() != digest:
            raise RunError(DAMAGED.format("its digests are not those of what is in it"))
        last = self._next()
        if last is None or last.name != SIGNATURE:
            raise RunError(f"The archive is not signed: {SIGNATURE} should come after {SUMS}, and tell who made it.")
        line = last.read(LONGEST_SIGNATURE)
        last.finish()
        if self._next() is not None or self._take(BLOCK) != bytes(BLOCK) or self._take(1, exactly=False):
            raise RunError(DAMAGED.format("there is more behind its end"))
        return digest, line

    @contextmanager
    def member(self, name: str) -> Iterator[IO[bytes]]:
        """The member that comes next, which must be the one of this name."""
        found = self._next()
        if found is None or found.name != name:
            raise RunError(DAMAGED.format(f"{name} should come, and {found and found.name!r} does"))
        with io.BufferedReader(found, PIECE) as data:
            yield data
            self._finish(found)

    def before_files(self) -> None:
        """That the rows are those that were signed: they have the digests of the recordings, which no transaction takes
        back once they are written over others."""
        if self._sums.hexdigest() != self.rows:
            raise RunError(DAMAGED.format("its rows are others than it names, or were changed meanwhile"))

    def end(self) -> None:
        """That all members that were signed were read, as they were signed."""
        if self._sums.hexdigest() != self._signed:
            raise RunError(DAMAGED.format("there is more in it than its rows name, or it was changed meanwhile"))

    def _next(self) -> Member | None:
        """The next member; None where the archive ends."""
        if (block := self._take(BLOCK)) == bytes(BLOCK):
            return None
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError):
            raise RunError(DAMAGED.format("where a member should be is something else")) from None
        # Neither links nor long names nor anything else that tar knows: the writer has no use for them.
        if info.type != tarfile.REGTYPE:
            raise RunError(DAMAGED.format(f"{info.name!r} is no file"))
        if not 0 <= info.size <= self._left:
            raise RunError(DAMAGED.format(TOO_MUCH))
        return Member(self._take, info.name, info.size)

    def _finish(self, found: Member) -> None:
        self._sums.update(f"{found.finish()}  {found.name}\n".encode())

    def _take(self, octets: int, *, exactly: bool = True) -> bytes:
        if octets > self._left:
            raise RunError(DAMAGED.format(TOO_MUCH))
        try:
            found = self._data.read(octets)
            while exactly and len(found) < octets:
                if not (more := self._data.read(octets - len(found))):
                    raise EOFError
                found += more
        except (OSError, EOFError, zlib.error):
            raise RunError(DAMAGED.format("it ends too early, or was changed")) from None
        self._left -= len(found)
        return found


@contextmanager
def written(path: Path, recipient: str) -> Iterator[IO[bytes]]:
    """A file that only its owner reads, encrypted to the recipient if there is one; there when all went well."""
    scratch = path.with_name(path.name + ".partial")
    if path.exists():
        raise RunError(f"{path} is there already.")
    try:
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise RunError(f"{scratch} can't be written: {error.strerror}.") from None
    try:
        with os.fdopen(descriptor, "wb") as out:
            with _piped(lambda plain: seal(plain, out, recipient), feeds=True) if recipient else _as_it_is(out) as sink:
                yield sink
            out.flush()
            os.fsync(out.fileno())
        # Never over another: that may be the only one of its tenant.
        os.link(scratch, path)
    except FileExistsError:
        raise RunError(f"{path} is there already.") from None
    finally:
        scratch.unlink()


@contextmanager
def opened(path: Path, identity: Path | None, keys: Keyring) -> Iterator[Reader]:
    """What is in the file, decrypted with the age identity if it is encrypted. It was read to its end by then: nothing
    of it is used unless an installation signed it whose key is known."""
    with _read(path, identity) as reader:
        signed, line = reader.signature()
    key = check_origin(keys, signed, line)
    with _read(path, identity, signed, key, reader.rows) as reader:
        yield reader


@contextmanager
def _read(path: Path, identity: Path | None, *signed: str) -> Iterator[Reader]:
    try:
        data = path.open("rb")
    except OSError as error:
        raise RunError(f"{path} can't be read: {error.strerror}.") from None
    with data:
        most = os.fstat(data.fileno()).st_size * MOST_TIMES + MOST_BESIDES
        sealed = data.read(len(SEALED)) == SEALED
        data.seek(0)
        if sealed and identity is None:
            raise RunError("The archive is encrypted: name the file of the age identity with --identity.")
        with _piped(lambda out: open_sealed(data, out, identity)) if sealed else _as_it_is(data) as plain:
            yield Reader(plain, most, *signed)


@contextmanager
def _as_it_is(data: IO[bytes]) -> Iterator[IO[bytes]]:
    yield data


@contextmanager
def _piped(work: Callable[[IO[bytes]], None], *, feeds: bool = False) -> Iterator[IO[bytes]]:
    """What a thread writes, or with `feeds` reads, while the block reads or writes: plain text never is a file."""
    reading, writing = (os.fdopen(end, mode) for end, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
    theirs, ours = (reading, writing) if feeds else (writing, reading)

    def run() -> None:
        with suppress(BrokenPipeError), theirs:
            work(theirs)

    with ThreadPoolExecutor(1) as threads:
        working = threads.submit(run)
        try:
            # Whatever the block says when the other end is gone, the thread knows better why.
            with suppress(BrokenPipeError), ours:
                yield ours
        except BaseException:
            if isinstance(error := working.exception(), RunError):
                raise error from None
            raise
        working.result()
