"""Archives of files of questions: read within bounds, whatever they say of themselves, and written so that their bytes
follow from what is in them."""

import io
import zipfile
from collections.abc import Iterator, Mapping
from zlib import error as DeflateError  # noqa: N812

from kit import archives
from services.assessment.exchange.drafts import Limits, Unreadable

MOST_ENTRIES = 5_000
LONGEST_NAME = 255
# Of an entry in the list: its name, and what packers add to it.
LONGEST_HEADER = archives.CENTRAL.size + LONGEST_NAME + 100
# Beyond what is spelled out, this is no text any more.
SMALL, MOST_RATIO = 64_000, 200
# How much larger than the archive may be what is read from it.
MOST_INFLATED = 4
METHODS = frozenset([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])


class Archive:
    """The files of an archive by their names. `Unreadable` is raised for one that is hostile, whatever is asked for."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        file = io.BytesIO(data)
        wrong = archives.wrong_end(
            file, most_bytes=limits.bytes, most_entries=MOST_ENTRIES, longest_header=LONGEST_HEADER
        )
        if wrong:
            raise Unreadable(f"the file {wrong}")
        if (infos := archives.entries_of(file)) is None:
            raise Unreadable("the file is a ZIP archive that contradicts itself")
        self.infos = dict(_checked(infos))
        self.limits, self.left = limits, limits.bytes * MOST_INFLATED
        self.file = zipfile.ZipFile(file)

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def read(self, name: str) -> bytes:
        """The content of a file, which counts towards the limit of all."""
        info = self.infos[name]
        most = min(self.left, self.limits.bytes)
        if info.file_size > most:
            raise Unreadable(f"{name}: it is too long, or too much is in the archive")
        try:
            with self.file.open(info) as entry:
                data = entry.read(info.file_size + 1)
        except (zipfile.BadZipFile, NotImplementedError, EOFError, DeflateError, RuntimeError, OSError):
            raise Unreadable(f"{name}: it is damaged") from None
        if len(data) != info.file_size:
            raise Unreadable(f"{name}: it is not as long as the archive says")
        self.left -= len(data)
        return data


def _checked(infos: list[zipfile.ZipInfo]) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    seen: set[str] = set()
    end = 0
    for info in sorted(infos, key=lambda one: one.header_offset):
        name = info.orig_filename
        if wrong := _wrong(info, name):
            raise Unreadable(f"{name[:100]!r} {wrong}")
        if name.casefold() in seen:
            raise Unreadable(f"{name[:100]!r} is there twice")
        if info.header_offset < end:
            raise Unreadable(f"{name[:100]!r} overlaps another file of the archive")
        seen.add(name.casefold())
        end = info.header_offset + archives.LOCAL.size + len(name.encode()) + info.compress_size
        if not name.endswith("/"):
            yield name, info


def _wrong(info: zipfile.ZipInfo, name: str) -> str:
    if wrong := archives.wrong_name(name) or archives.wrong_kind(info):
        return wrong
    if len(name) > LONGEST_NAME or not name.isprintable() or name != info.filename:
        return "is no name for a file"
    if info.compress_type not in METHODS:
        return "is compressed in a way that few can read"
    if info.file_size > SMALL and info.file_size > MOST_RATIO * max(info.compress_size, 1):
        return "is compressed more than any text can be"
    return ""


def packed(files: Mapping[str, bytes]) -> bytes:
    """An archive of these files, in the order of their names. Nothing is compressed: what that gives would depend on
    the version of a library."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, 0o100644 << 16
            archive.writestr(info, files[name])
    return target.getvalue()
