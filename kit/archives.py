"""ZIP archives that may be hostile: what is wrong with one, before anything of it is in memory.

Each answer says what is wrong as the end of a sentence, and is empty when nothing is."""

import struct
import zipfile
from typing import IO

LINK, KIND = 0o120000, 0o170000
ENCRYPTED = 1
# The header before an entry, and that in the list at the end (APPNOTE 4.3.7, 4.3.12).
LOCAL, CENTRAL = struct.Struct("<4s5H3L2H"), struct.Struct("<4s6H3L5H2L")
# The end of central directory record and the record by which 64-bit archives announce theirs (APPNOTE 4.3.15, 4.3.16).
END, END_64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sLQL")


def wrong_end(file: IO[bytes], *, most_bytes: int, most_entries: int, longest_header: int) -> str:
    """About the end of the file, to be asked before a library reads the list of entries, however many there are.
    `longest_header` is that of an entry in the list, in bytes."""
    size = file.seek(0, 2)
    if size > most_bytes:
        return f"has more than {most_bytes >> 20} MiB"
    file.seek(max(0, size - END.size - END_64.size))
    tail = file.read()
    if len(tail) < END.size or tail[-END.size :][:4] != b"PK\x05\x06":
        return "does not end as a ZIP archive without a comment does: it was cut off, or is none"
    if tail[: -END.size][:4] == b"PK\x06\x07":
        return "is a 64-bit ZIP archive"
    _, _, _, here, entries, length, start, _ = END.unpack(tail[-END.size :])
    if entries > most_entries:
        return f"has more than {most_entries:,} entries"
    if here != entries or start + length + END.size != size or length > entries * longest_header:
        return "has a list of entries that is not where, or not as long, as it says"
    return ""


def entries_of(file: IO[bytes]) -> list[zipfile.ZipInfo] | None:
    """What the archive lists, or nothing when it contradicts itself."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OverflowError, UnicodeDecodeError, RuntimeError):
        return None


def wrong_name(name: str) -> str:
    """About the name of an entry."""
    if "\\" in name:
        return "has a backslash in its name"
    if name.startswith("/") or name[1:2] == ":":
        return "has an absolute name"
    return "leads out of the archive" if ".." in name.split("/") else ""


def wrong_kind(info: zipfile.ZipInfo) -> str:
    """About what an entry is, whatever its name."""
    if (info.external_attr >> 16) & KIND == LINK:
        return "is a link"
    return "is encrypted" if info.flag_bits & ENCRYPTED else ""
