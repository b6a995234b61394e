"""Continuous archives: base backups of a server, and every change since, by segments of its write-ahead log (WAL).

A chain is what one replication slot has brought without a gap; after a restore, or a lost slot, a new one begins."""

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deploy.backups.archive import LONGEST, NAMED, Archive, Backup
from deploy.backups.parts import content, different, written
from deploy.backups.sealing import SUFFIX
from deploy.backups.settings import BackupSettings
from deploy.local.errors import RunError
from kit.signing import Keyring

FOLDER, MANIFEST, FORMAT = "continuous", "chain.json", 1
TIME = "%Y%m%dT%H%M%S%fZ"
PARTIAL = ".partial"
SEGMENT = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})")
PIECE = re.compile(
    rf"(?P<said>(?P<segment>[0-9A-F]{{24}})(?P<partial>{PARTIAL})?\.(?P<time>\d{{8}}T\d{{12}}Z)\.(?P<sha256>[0-9a-f]{{64}}))"
    rf"(\.(?P<signature>[\w-]{{86}}))?\.gz({SUFFIX})?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A segment in the archive. What was committed before `time` is in it, or in those before it. A partial one is what
    there was of the segment by then."""

    path: Path
    segment: str
    partial: bool
    time: datetime
    sha256: str

    def read(self) -> bytes:
        """What is in the file; `RunError` when it is not as it was written."""
        try:
            data = content(self.path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise RunError(f"{self.path} can't be read: {error.strerror}.") from None
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise RunError(f"{different(self.path)}.")
        return data


@dataclass(frozen=True, slots=True)
class Chain:
    """A folder with base backups and segments. `system` and `timeline` tell which server's log it is.
    With `keys` each piece has a signature in its name, of what the name and the chain say, and one without is none."""

    folder: Path
    keys: Keyring
    system: str
    timeline: int
    segment_octets: int

    @property
    def slot(self) -> str:
        return f"storyloom_{self.folder.name.lower()}"

    @property
    def bases(self) -> Archive:
        return Archive(self.folder / "base", self.keys, self._purpose("base"))

    @property
    def wal(self) -> Path:
        return self.folder / "wal"

    def number(self, segment: str) -> int:
        """Segments are numbered without a gap; their names are not."""
        found = SEGMENT.fullmatch(segment)
        if found is None:
            raise RunError(f"{segment} is not the name of a WAL segment.")
        return int(found[2], 16) * (2**32 // self.segment_octets) + int(found[3], 16)

    def segment(self, number: int) -> str:
        high, low = divmod(number, 2**32 // self.segment_octets)
        return f"{self.timeline:08X}{high:08X}{low:08X}"

    def segment_at(self, lsn: str) -> str:
        high, _, low = lsn.partition("/")
        return self.segment(((int(high, 16) << 32) + int(low, 16)) // self.segment_octets)

    def put(self, segment: str, data: bytes, time: datetime, *, partial: bool, suffix: str = "") -> None:
        """Adds a piece."""
        said = f"{segment}{PARTIAL if partial else ''}.{time.astimezone(UTC):{TIME}}.{hashlib.sha256(data).hexdigest()}"
        signature = ""
        if self.keys.public:
            octets = self.keys.sign(self._purpose("log"), said.encode())
            signature = f".{base64.urlsafe_b64encode(octets).rstrip(b'=').decode()}"
        written(self.wal / f"{said}{signature}.gz{suffix}", data)

    def files(self, segment: str = "") -> Iterator[Piece]:
        """All pieces, those of a segment if one is named: a segment has several while it becomes whole."""
        for path in sorted(self.wal.glob(f"{segment}*.gz*")):
            found = PIECE.fullmatch(path.name)
            if found and self._trusted(found["said"], found["signature"] or ""):
                time = datetime.strptime(found["time"], TIME).replace(tzinfo=UTC)
                yield Piece(path, found["segment"], bool(found["partial"]), time, found["sha256"])

    def pieces(self) -> dict[int, Piece]:
        """The newest of each segment, by number; a whole one before what there was of it once."""
        found: dict[int, Piece] = {}
        for piece in self.files():
            if int(piece.segment[:8], 16) == self.timeline:
                number = self.number(piece.segment)
                known = found.get(number)
                if known is None or (not piece.partial, piece.time) > (not known.partial, known.time):
                    found[number] = piece
        return found

    def read(self, number: int, known: dict[int, Piece]) -> tuple[Piece, bytes] | None:
        """A segment that is among the known, as it lies there; None when it is not. A part of one is replaced while the
        log is archived, by a larger one: then what is known is looked up anew."""
        while (piece := known.get(number)) is not None:
            with suppress(FileNotFoundError):
                return piece, piece.read()
            known.clear()
            known.update(self.pieces())
        return None

    def last_whole(self) -> int | None:
        """The number of the newest whole segment."""
        return max((number for number, piece in self.pieces().items() if not piece.partial), default=None)

    def reach(self) -> datetime | None:
        """The time until which there is everything that was committed, if nothing is missing or damaged."""
        return max((piece.time for piece in self.files()), default=None)

    def prune(self, now: datetime, keep: timedelta) -> Iterator[str]:
        """Removes what no moment of the time that is kept needs, and nothing while a newer base is not whole."""
        sound = [one for one in self.bases.all() if not self.bases.faults(one)]
        old = [one for one in sound if now - one.finish_time > keep]
        if not old:
            return
        # The newest of the old ones is where the oldest moment that is kept starts from.
        first = old[-1]
        for base in self.bases.all():
            if base.finish_time < first.finish_time:
                self.bases.remove(base)
                yield f"{base.name}: base removed, {first.name} is old enough"
        needed, gone = self.number(first.wal), 0
        for path in self.wal.glob("*.gz*"):
            # Whoever signed it.
            if (found := PIECE.fullmatch(path.name)) and self.number(found["segment"]) < needed:
                path.unlink()
                gone += 1
        if gone:
            yield f"{gone} segments before {first.wal} removed"

    def _purpose(self, what: str) -> str:
        facts = f"{self.folder.name} {self.system} {self.timeline} {self.segment_octets}"
        return f"storyloom {what} v1 {facts}"

    def _trusted(self, said: str, signature: str) -> bool:
        if not self.keys.public:
            return True
        octets = base64.urlsafe_b64decode(f"{signature}==") if signature else b""
        return self.keys.signed(self._purpose("log"), said.encode(), octets)


@dataclass(frozen=True, slots=True)
class Plan:
    """How to come to a moment: a base, the segments to be read after it, and until when the archive goes on."""

    chain: Chain
    base: Backup
    pieces: tuple[Piece, ...]
    at: datetime
    reach: datetime


def chains(backups: BackupSettings) -> list[Chain]:
    """The chains in the folder of backups, oldest first."""
    folders = sorted((backups.directory / FOLDER).glob("*")) if backups.directory.is_dir() else []
    return [found for folder in folders if (found := _read(folder, backups.keys)) is not None]


def begin(backups: BackupSettings, at: datetime, system: str, timeline: int, segment_octets: int) -> Chain:
    """A new chain, with nothing in it; its slot is to be made."""
    folder = backups.directory / FOLDER / f"{at:%Y%m%dT%H%M%SZ}"
    chain = Chain(folder, backups.keys, system, timeline, segment_octets)
    try:
        chain.wal.mkdir(mode=0o700, parents=True)
        chain.bases.directory.mkdir(mode=0o700)
    except OSError as error:
        raise RunError(f"{backups.directory} can't hold backups ({error.strerror}): set BACKUP_DIRECTORY.") from None
    facts = {"format": FORMAT, "system": system, "timeline": timeline, "segment_octets": segment_octets}
    written(chain.folder / MANIFEST, json.dumps(facts, indent=1).encode())
    return chain


def remove_superseded(backups: BackupSettings, now: datetime) -> Iterator[str]:
    """Removes chains that end before the time that is kept, once a later one has a whole base; says which."""
    known = chains(backups)
    newest = next((one for one in reversed(known) if any(not one.bases.faults(base) for base in one.bases.all())), None)
    for chain in known[: known.index(newest)] if newest else ():
        if now - (chain.reach() or chain_begun(chain)) > backups.keep:
            (chain.folder / MANIFEST).unlink()
            shutil.rmtree(chain.folder)
            yield f"{chain.folder.name}: removed with its segments, they end before what is kept"


def chain_begun(chain: Chain) -> datetime:
    return datetime.strptime(chain.folder.name, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def plan(backups: BackupSettings, at: datetime | None, say: Callable[[str], None]) -> Plan:
    """How to come to the moment, or as far as the archive goes. `RunError` says what is missing, by its name: what can
    be brought back is never less than was asked for."""
    known = chains(backups)
    for chain in reversed(known):
        for base in reversed(chain.bases.all()):
            if at is not None and base.finish_time > at:
                continue
            if faults := chain.bases.faults(base):
                say(f"The base {base.name} is damaged, the one before it is taken: {'; '.join(faults)}")
                continue
            return _follow(chain, base, at, _next_beginning(known, chain))
    first = min((base.finish_time for chain in known for base in chain.bases.all()), default=None)
    earliest = f"the earliest moment is {moment(first)}" if first else "`make wal` makes one"
    raise RunError(f"No whole base backup in {backups.directory / FOLDER} is from before that: {earliest}.")


def moment(time: datetime) -> str:
    """As messages say it, and as `--at` takes it."""
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def parse_moment(text: str) -> datetime:
    """A time with its zone, as in ISO 8601."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise RunError(f"{text} is not a moment: write it with its zone, for example 2026-11-22T21:00:00Z.")
    return found.astimezone(UTC)


def _follow(chain: Chain, base: Backup, at: datetime | None, resumed: datetime | None) -> Plan:
    taken: list[Piece] = []
    pieces = chain.pieces()
    reach, number = base.finish_time, chain.number(base.wal)
    while True:
        try:
            found = chain.read(number, pieces)
        except (RunError, OSError) as error:
            raise RunError(f"{error} What was committed until {moment(reach)} can be brought back.") from None
        if found is None:
            break
        piece, _ = found
        taken.append(piece)
        reach = max(reach, piece.time)
        if piece.partial or (at is not None and reach >= at):
            break
        number += 1
    if at is not None and reach >= at:
        return Plan(chain, base, tuple(taken), at, _reach(pieces, number, reach))
    if any(one > number for one in pieces):
        raise RunError(
            f"The segment {chain.segment(number)} is missing in {chain.wal}. "
            f"What was committed until {moment(reach)} can be brought back."
        )
    if at is None:
        return Plan(chain, base, tuple(taken), reach, reach)
    later = f" It goes on at {moment(resumed)}." if resumed else ""
    raise RunError(f"The archive ends at {moment(reach)}, before what was asked for.{later}")


def _reach(pieces: Mapping[int, Piece], number: int, reach: datetime) -> datetime:
    """Until when the archive goes on without a gap; that the files are whole is looked at when they are needed."""
    while (piece := pieces.get(number)) is not None and not piece.partial:
        reach, number = max(reach, piece.time), number + 1
    return max(reach, piece.time) if piece else reach


def _next_beginning(known: list[Chain], chain: Chain) -> datetime | None:
    later = known[known.index(chain) + 1 :]
    return min((base.finish_time for one in later for base in one.bases.all()), default=None)


def _read(folder: Path, keys: Keyring) -> Chain | None:
    try:
        said = json.loads(content(folder / MANIFEST, LONGEST))
        if said["format"] != FORMAT or not NAMED.fullmatch(folder.name):
            return None
        facts = str(int(said["system"])), int(said["timeline"]), int(said["segment_octets"])
        found = Chain(folder, keys, *facts)
        # ValueError for a name that is no time.
        chain_begun(found)
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return found
