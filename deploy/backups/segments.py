"""Segments of the write-ahead log on their way into the archive, and out of it."""

import gzip
import io
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from deploy.backups.chain import PARTIAL, Chain
from deploy.backups.sealing import SUFFIX, open_sealed, seal
from deploy.backups.settings import BackupSettings
from deploy.local.errors import RunError

SPOOLED = re.compile(rf"([0-9A-F]{{24}})({PARTIAL})?")
# Every few seconds anew, for as long as a segment is not full: little compression, little time.
LEVEL = 4


def spooled(spool: Path) -> list[str]:
    """The segments that wait there, whole or not, oldest first."""
    found = (SPOOLED.fullmatch(path.name) for path in spool.iterdir()) if spool.is_dir() else ()
    return sorted(one[1] for one in found if one)


def archive_spool(chain: Chain, settings: BackupSettings, before: datetime, now: datetime) -> None:
    """Puts what has come into the archive. All that was committed before `now` has come, and what was committed before
    `before` is in what was archived earlier or in the first of these."""
    spool = settings.spool / chain.folder.name
    looking = True
    while looking:
        looking = False
        for path in sorted(spool.iterdir()):
            if found := SPOOLED.fullmatch(path.name):
                try:
                    came = path.read_bytes()
                except FileNotFoundError:
                    # It became whole, and lost its suffix, between the list and the look.
                    looking = True
                    break
                _archive(chain, settings, found[1], came, None if found[2] else before, now)
                if not found[2]:
                    path.unlink()


def open_segments(chain: Chain, segments: Iterable[str], settings: BackupSettings, folder: Path) -> None:
    """Writes the segments as the server had them into its folder of them."""
    known = chain.pieces()
    for segment in segments:
        found = chain.read(chain.number(segment), known)
        if found is None:
            raise RunError(f"The segment {segment} is missing in {chain.wal}.")
        piece, sealed = found
        opened = io.BytesIO(sealed)
        if piece.path.suffix == SUFFIX:
            opened = io.BytesIO()
            open_sealed(io.BytesIO(sealed), opened, settings.identity)
        try:
            data = gzip.decompress(opened.getvalue())
        except (OSError, EOFError, ValueError) as error:
            raise RunError(f"{piece.path} can't be decompressed: {error}.") from None
        # What a segment ends with was cut off, if it was nothing.
        (folder / segment).write_bytes(data.ljust(chain.segment_octets, b"\0"))


def _archive(
    chain: Chain, settings: BackupSettings, segment: str, came: bytes, before: datetime | None, now: datetime
) -> None:
    """A whole segment, when there is a time `before`, or what there is of one."""
    known = list(chain.files(segment))
    if before is None or all(one.partial for one in known):
        data, out = gzip.compress(came.rstrip(b"\0"), LEVEL), io.BytesIO()
        seal(io.BytesIO(data), out, settings.recipient)
        suffix = SUFFIX if settings.recipient else ""
        chain.put(segment, out.getvalue(), before or now, partial=before is None, suffix=suffix)
    for older in known:
        if older.partial:
            older.path.unlink(missing_ok=True)
