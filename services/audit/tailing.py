"""The log as it grows: one look at the trees for all who watch, and each new entry read once for all of its tenant."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from kit.auth import current, renew
from kit.call import current_call
from kit.db import Database, ReadSession
from kit.errors import NotFound, ResourceExhausted
from services.audit.queries import streams
from services.audit.recording import Seals
from services.audit.showing import shown
from storyloom.audit.v1.audit_logs_pb2 import AuditLog, AuditLogHeartbeat, WatchAuditLogsRequest, WatchAuditLogsResponse

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
# How often the rights of whoever watches are looked at when nothing happens.
RENEW_SECONDS = 0.5
HEARTBEAT_SECONDS = 3.0
MOST_OF_A_TENANT = 10
RETRY_AFTER = timedelta(seconds=5)
# Those who are up to date take an entry within moments; who comes later reads it again. So no process remembers what
# an entry says of somebody who is erased meanwhile.
REMEMBERED_SECONDS = 1.0
# Whoever catches up leaves most connections to others.
READERS = 2
FILTERS = ("entity_type", "entity_id", "user_id", "action")


@dataclass(frozen=True, slots=True)
class _Place:
    """One place of a tree. `row` has what rules look at; without an entry, retention has dropped it."""

    index: int
    id: UUID
    row: Any
    entry: AuditLog | None


@dataclass(slots=True)
class _Log:
    """One tenant's, while somebody watches it. `size` is that of its tree, None until it is known."""

    tails: int = 0
    size: int | None = None
    recent: deque[tuple[float, _Place]] = field(default_factory=deque)
    grown: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, size: int, places: Sequence[_Place]) -> None:
        self.size = size
        self.recent.extend((time.monotonic(), place) for place in places)
        self.wake()

    def wake(self) -> None:
        self.grown.set()
        self.grown = asyncio.Event()

    def forget_old(self) -> None:
        while self.recent and time.monotonic() - self.recent[0][0] > REMEMBERED_SECONDS:
            self.recent.popleft()

    def since(self, index: int) -> list[_Place]:
        """What is remembered from this place on; nothing when that place itself is not."""
        self.forget_old()
        found = [place for _, place in self.recent if place.index >= index]
        return found if found and found[0].index == index else []


class Tails:
    """The streams of this process. `run` them in the background: when that ends, so do they."""

    def __init__(self, db: Database, seals: Seals) -> None:
        self._db, self._seals = db, seals
        self._logs: dict[UUID, _Log] = {}
        self._turns = asyncio.Semaphore(READERS)
        self._looked_at = 0.0
        self.closed = False

    @contextmanager
    def joined(self, tenant_id: UUID) -> Iterator["Tail"]:
        """A place among those of the tenant who watch; RESOURCE_EXHAUSTED when all are taken."""
        watched = self._logs.setdefault(tenant_id, _Log())
        if watched.tails >= MOST_OF_A_TENANT:
            raise ResourceExhausted("The tenant watches its log as often as it may.", retry_after=RETRY_AFTER)
        watched.tails += 1
        try:
            yield Tail(self, watched)
        finally:
            watched.tails -= 1
            if not watched.tails:
                del self._logs[tenant_id]

    @property
    def is_alive(self) -> bool:
        """Whether new entries have been looked for just now: a heartbeat promises that none is missed."""
        return time.monotonic() - self._looked_at < HEARTBEAT_SECONDS

    async def run(self) -> None:
        """Looks for new entries for ever."""
        self.closed = False
        try:
            while True:
                try:
                    await self._look()
                    self._looked_at = time.monotonic()
                except Exception:
                    log.exception("the log cannot be watched")
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self.closed = True
            for watched in self._logs.values():
                watched.wake()

    async def _look(self) -> None:
        if not self._logs:
            return
        async with self._db.engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            sizes = await streams.list_sizes(driver, [*self._logs])
        for tenant_id, watched in tuple(self._logs.items()):
            watched.forget_old()
            size = sizes.get(tenant_id, 0)
            if watched.size is None or size < watched.size:
                watched.size = size
            if size > watched.size:
                places = await self.read(tenant_id, watched.size, size)
                watched.add(places[-1].index + 1 if places else size, places)

    async def read(self, tenant_id: UUID, start: int, end: int) -> list[_Place]:
        """The first of these places of the tenant's tree, as many as may be in memory at once."""
        async with self._turns, self._db.read(tenant_id) as session:
            rows = await streams.list_places(session, start, end)
            entries = iter(await shown(self._seals, session, (row for row in rows if row.leaf is not None)))
        return [_Place(row.leaf_index, row.id, row, next(entries) if row.leaf is not None else None) for row in rows]


class Tail:
    """One stream: what follows a place of the tenant's tree, read by itself until it is up to date."""

    def __init__(self, tails: Tails, watched: _Log) -> None:
        self._tails, self._log = tails, watched
        self._next, self._last_id = 0, ""

    async def start(self, session: ReadSession, after_id: str) -> None:
        """Begins after this entry, or with what is new from now on; NOT_FOUND when there is no such entry."""
        if self._log.size is None:
            self._log.size = await streams.get_size(session)
        self._next = self._log.size
        if after_id:
            place = await streams.find_index(session, UUID(after_id))
            if place is None:
                raise NotFound("audit_log")
            # One that is in no tree yet comes after all that are.
            self._next = self._next if place.leaf_index is None else place.leaf_index + 1
        self._last_id = str(await streams.find_id_at(session, self._next - 1) or "")

    async def follow(self, request: WatchAuditLogsRequest) -> AsyncGenerator[WatchAuditLogsResponse, None]:
        """Entries that the request asks for and the caller may see, and heartbeats."""
        beat_at = 0.0
        while not self._tails.closed:
            await renew()
            if time.monotonic() >= beat_at and self._tails.is_alive:
                yield self._heartbeat()
                beat_at = time.monotonic() + HEARTBEAT_SECONDS
            for place in await self._read():
                self._next, self._last_id = place.index + 1, str(place.id)
                if place.entry is not None and _matches(request, place.row):
                    # However slowly the client reads: what it gets, it may still have.
                    await renew()
                    if _may_see(place.row):
                        yield WatchAuditLogsResponse(audit_log=place.entry)
                        beat_at = time.monotonic() + HEARTBEAT_SECONDS

    async def _read(self) -> Sequence[_Place]:
        size = self._log.size or 0
        if self._next >= size:
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEW_SECONDS):
                    await self._log.grown.wait()
        if self._next >= (self._log.size or 0):
            return ()
        return self._log.since(self._next) or await self._tails.read(
            current().tenant_id, self._next, self._log.size or 0
        )

    def _heartbeat(self) -> WatchAuditLogsResponse:
        return WatchAuditLogsResponse(heartbeat=AuditLogHeartbeat(last_id=self._last_id))


def _matches(request: WatchAuditLogsRequest, row: Any) -> bool:
    return all(str(getattr(row, name) or "") == wanted for name in FILTERS if (wanted := getattr(request, name)))


def _may_see(row: Any) -> bool:
    call = current_call()
    assert call is not None  # noqa: S101  # streams are RPCs
    snapshot = current().snapshot
    return snapshot is not None and call.access.allows(snapshot, "audit_log", "watch", row)
