"""Packages as files: a course as one archive whose bytes follow from its content, and back from an archive that may
be hostile."""

import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, NamedTuple, TypeVar

from google.protobuf.json_format import Parse, ParseError
from google.protobuf.message import Message

from kit import archives
from kit.archives import CENTRAL, END, LOCAL
from kit.errors import InvalidArgument
from kit.validation import validator
from services.content.material import MOST, Faulty, Files, Material, check, encode, excess, files, sha256
from services.content.slices import Slice
from storyloom.content.v1.package_files_pb2 import (
    PackageBlob,
    PackageCourse,
    PackageManifest,
    PackageStory,
    PackageVocabulary,
)

FORMAT, VERSION = "storyloom.course", 1
MANIFEST = "manifest.json"
BLOB = re.compile(r"blobs/[0-9a-f]{64}")
# Sound, and what goes with the text of the largest course.
MOST_BYTES = MOST["bytes of sound"] + (64 << 20)
LONGEST_TEXT, MOST_TEXT = 16 << 20, 48 << 20
MOST_ENTRIES = 2001
# More than the longest text of an export has. In memory an empty one is a hundred times as long as its three bytes.
MOST_VALUES = 1_500_000
STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
# What entries say of themselves: stored, on 1 January 1980, a plain file of a system with modes; needs version 2.0.
METHOD, TIME, DATE, MODE, MADE_BY, NEEDED = 0, 0, (1 << 5) | 1, 0o100644 << 16, (3 << 8) | 20, 20
LONGEST_CENTRAL_HEADER = CENTRAL.size + len("blobs/") + 64

KINDS: tuple[type[Message], ...] = (PackageManifest, PackageCourse, PackageStory, PackageVocabulary)
VALIDATORS: Mapping[Any, Callable[[Message], None]] = {kind: validator(kind) for kind in KINDS}
Kind = TypeVar("Kind", bound=Message)


class Unpacked(NamedTuple):
    """What a package says, the digest by which its content is known, and the files of recordings by their SHA-256."""

    material: Material
    digest: str
    sounds: Mapping[str, Slice]


def manifest(content: Files) -> bytes:
    """The file that names all others; its SHA-256 is the digest of the content."""
    sizes = {name: len(text) for name, text in content.blobs.items()} | dict(content.sounds)
    return encode(
        PackageManifest(
            format=FORMAT,
            version=VERSION,
            course=content.course,
            vocabulary=content.vocabulary,
            blobs=[PackageBlob(sha256=name, size=sizes[name]) for name in sorted(sizes)],
        )
    )


def pieces(content: Files, sounds: Mapping[str, Slice]) -> Iterator[bytes]:
    """The package, in pieces of a megabyte at most; `sounds` are the files of recordings.

    Nothing is compressed: what that gives would depend on the version of a library.
    """
    parts: list[tuple[str, Slice]] = [(MANIFEST, Slice.of(manifest(content)))]
    known = {name: Slice.of(text) for name, text in content.blobs.items()} | dict(sounds)
    parts += [(f"blobs/{name}", known[name]) for name in sorted(known)]
    central, offset = [], 0
    for name, part in parts:
        spelled = name.encode()
        facts = (METHOD, TIME, DATE, part.crc, part.size, part.size, len(spelled), 0)
        header = LOCAL.pack(b"PK\x03\x04", NEEDED, 0, *facts) + spelled
        central.append(CENTRAL.pack(b"PK\x01\x02", MADE_BY, NEEDED, 0, *facts, 0, 0, 0, MODE, offset) + spelled)
        offset += len(header) + part.size
        yield header
        yield from part.pieces()
    listed = b"".join(central)
    yield listed + END.pack(b"PK\x05\x06", 0, 0, len(parts), len(parts), len(listed), offset, 0)


def read(file: IO[bytes]) -> Unpacked:
    """What is in a package. `Faulty` says what is wrong with anything that `pieces` has not made.

    Takes memory in proportion to the text that a course may have, whatever the file says of itself.
    """
    wrong = archives.wrong_end(
        file, most_bytes=MOST_BYTES, most_entries=MOST_ENTRIES, longest_header=LONGEST_CENTRAL_HEADER
    )
    if wrong:
        raise Faulty("the file", wrong)
    if (infos := archives.entries_of(file)) is None:
        raise Faulty("the file", "is a ZIP archive that contradicts itself")
    unpacked = _unpack({name: Slice.cut(file, start, size) for name, start, size in _checked_entries(infos)})
    _check_same(unpacked, file)
    return unpacked


def _checked_entries(infos: list[zipfile.ZipInfo]) -> Iterator[tuple[str, int, int]]:
    """Name, first byte and size of each entry."""
    seen: set[str] = set()
    end = 0
    for info in infos:
        name = info.orig_filename
        where = f"the entry {name[:100]!r}"
        if wrong := _wrong_name(name) or _wrong_kind(info):
            raise Faulty(where, wrong)
        if name in seen:
            raise Faulty(where, "is there twice")
        if info.header_offset != end:
            raise Faulty(where, "overlaps another, or does not begin where the one before it ends")
        seen.add(name)
        start = end + LOCAL.size + len(name)
        end = start + info.file_size
        yield name, start, info.file_size


def _wrong_name(name: str) -> str:
    if name == MANIFEST or BLOB.fullmatch(name):
        return ""
    if wrong := archives.wrong_name(name):
        return wrong
    return "is a folder" if name.endswith("/") else "is no file of a package"


def _wrong_kind(info: zipfile.ZipInfo) -> str:
    if wrong := archives.wrong_kind(info):
        return wrong
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        return "is compressed"
    return f"has more than {MOST_BYTES >> 20} MiB" if info.file_size > MOST_BYTES else ""


def _unpack(entries: dict[str, Slice]) -> Unpacked:
    if MANIFEST not in entries:
        raise Faulty(MANIFEST, "is missing")
    spelled = _text(entries.pop(MANIFEST), MANIFEST)
    said = _decode(PackageManifest, MANIFEST, spelled)
    blobs = _checked_blobs(said, {name.removeprefix("blobs/"): part for name, part in entries.items()})
    course = _blob(PackageCourse, blobs, said.course, "the course")
    vocabulary = _blob(PackageVocabulary, blobs, said.vocabulary, "the vocabulary")
    names = [list(lesson.stories) for unit in course.units for lesson in unit.lessons]
    if sum(map(len, names)) > MOST["stories"]:
        raise Faulty("the course", f"has more than {MOST['stories']} stories")
    stories = {name for of_lesson in names for name in of_lesson}
    if sum(blobs[name].size for name in stories & blobs.keys()) > MOST_TEXT:
        raise Faulty("the course", f"has stories of more than {MOST_TEXT >> 20} MiB")
    known: dict[str, PackageStory] = {}
    for name in stories:
        known[name] = _blob(PackageStory, blobs, name, "a story")
        if too_much := excess({"woven words": sum(len(story.annotations) for story in known.values())}):
            raise Faulty("the course", too_much)
    recordings = [one for story in known.values() for one in story.recordings]
    recordings += [one for word in vocabulary.words for one in word.recordings]
    sounds = {one.file: _known(blobs, one.file, "a recording") for one in recordings}
    if unused := blobs.keys() - stories - sounds.keys() - {said.course, said.vocabulary}:
        raise Faulty(f"the blob {min(unused)}", "is used by nothing")
    material = Material(
        course=course,
        stories=[[known[name] for name in of_lesson] for of_lesson in names],
        words=vocabulary.words,
        sounds={name: part.size for name, part in sounds.items()},
    )
    check(material)
    return Unpacked(material, sha256(spelled), sounds)


def _checked_blobs(said: PackageManifest, blobs: Mapping[str, Slice]) -> Mapping[str, Slice]:
    """The blobs, each of which is what its name says, and all of which the manifest names."""
    named = {one.sha256: one.size for one in said.blobs}
    if missing := named.keys() - blobs.keys():
        raise Faulty(f"the blob {min(missing)}", "is missing")
    if extra := blobs.keys() - named.keys():
        raise Faulty(f"the blob {min(extra)}", "is not in the manifest")
    for name, part in blobs.items():
        if part.sha256 != name:
            raise Faulty(f"the blob {name}", "has another hash than its name says")
        if part.size != named[name]:
            raise Faulty(f"the blob {name}", "has another size than the manifest says")
    return blobs


def _known(blobs: Mapping[str, Slice], name: str, what: str) -> Slice:
    if name not in blobs:
        raise Faulty(what, f"is the blob {name}, which is not in the manifest")
    return blobs[name]


def _text(part: Slice, where: str) -> bytes:
    if part.size > LONGEST_TEXT:
        raise Faulty(where, f"has more than {LONGEST_TEXT >> 20} MiB")
    return b"".join(part.pieces())


def _blob(kind: type[Kind], blobs: Mapping[str, Slice], name: str, what: str) -> Kind:
    where = f"{what} in the blob {name}"
    return _decode(kind, where, _text(_known(blobs, name, what), where))


def _decode(kind: type[Kind], where: str, data: bytes) -> Kind:
    """The message that the file spells, in the one way in which it may."""
    bare = STRING.sub(b"", data)
    if sum(map(bare.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise Faulty(where, f"has more than {MOST_VALUES:,} values")
    message = kind()
    try:
        Parse(data.decode(), message)
        VALIDATORS[kind](message)
    except UnicodeDecodeError:
        raise Faulty(where, "is not UTF-8") from None
    except ParseError as error:
        if isinstance(error.__context__, RecursionError):
            raise Faulty(where, "is nested too deeply") from None
        raise Faulty(where, f"is not JSON of this kind: {str(error)[:200]}") from None
    except InvalidArgument as error:
        raise Faulty(where, f"has a field out of its range: {error.message}") from None
    if encode(message) != data:
        raise Faulty(where, "is not spelled as an export spells it")
    return message


def _check_same(unpacked: Unpacked, file: IO[bytes]) -> None:
    """The last word on everything that an archive can hide: it must be what an export of the same would be."""
    done = 0
    for piece in pieces(files(unpacked.material), unpacked.sounds):
        file.seek(done)
        if file.read(len(piece)) != piece:
            raise Faulty("the file", "is not, byte for byte, what an export writes")
        done += len(piece)
    if done != file.seek(0, 2):
        raise Faulty("the file", "is not, byte for byte, what an export writes")
