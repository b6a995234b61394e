"""The stream of revisions: news of changed rights, spread from the database to every follower in this process."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

from kit.db import Database
from storyloom.identity.v1.access_pb2 import RevisionChange

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
POLLS_PER_HEARTBEAT = 2
POLLS_PER_CLEANING = 240
MOST_PENDING = 10_000
HEARTBEAT = None
END = object()

HORIZON = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
# A revision's number is drawn before its transaction commits, so a lower number can appear after a higher one, and
# `revision > last` would lose it. The number of the transaction has no such gap: everything that PostgreSQL calls
# finished (below the snapshot's xmin) is visible, and everything else is at or above it. So each poll reads all that
# may have been unfinished at the poll before, and leaves out what it has seen. A long transaction, of whatever
# service, makes a poll read more again, but delays nothing.
NEWS = f"""
SELECT ({HORIZON}) AS horizon, r.revision, r.tenant_id, r.user_id, r.session_id, r.transaction_id
FROM (SELECT 1) AS one LEFT JOIN identity.access_revisions r ON r.transaction_id >= $1 AND r.revision <> ALL($2)
ORDER BY r.revision
"""  # noqa: S608  # composed of constants
# A follower that comes back gets a little more than it missed, for the same reason: hearing of a change twice does no
# harm, not hearing of it would.
MISSED = """
SELECT revision, tenant_id, user_id, session_id FROM identity.access_revisions
WHERE revision > $1 OR created_at > now() - interval '30 seconds' ORDER BY revision
"""
OLDEST = "SELECT min(revision) FROM identity.access_revisions"
CLEAN = "DELETE FROM identity.access_revisions WHERE created_at < now() - interval '15 minutes'"


class RevisionFeed:
    """Reads new revisions once for the whole process; followers hear of each, and of every half second of life."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._followers: set[asyncio.Queue[Any]] = set()
        self._horizon: int | None = None
        self._seen: dict[int, int] = {}
        self._closed = False
        self.latest = 0

    async def run(self) -> None:
        """Polls for ever. When it ends, so do the streams, which would otherwise hold up the server's drain."""
        polls = 0
        try:
            while True:
                polls += 1
                await self._poll_safely(polls)
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self._closed = True
            self._tell(END)

    async def _poll_safely(self, polls: int) -> None:
        try:
            await self._poll()
            if polls % POLLS_PER_CLEANING == 0:
                await self._fetch(CLEAN)
        except Exception:
            # No heartbeat either: it would promise that no change is being missed. Followers then take their stream
            # for dead and ask for every snapshot.
            log.exception("revisions cannot be read")
            return
        if polls % POLLS_PER_HEARTBEAT == 0:
            self._tell(HEARTBEAT)

    async def _poll(self) -> None:
        if self._horizon is None:
            self._horizon = (await self._fetch(HORIZON))[0][0]
        rows = await self._fetch(NEWS, self._horizon, list(self._seen))
        for row in rows:
            if row["revision"] is not None:
                self._seen[row["revision"]] = row["transaction_id"]
                self.latest = max(self.latest, row["revision"])
                self._tell(_change(row))
        self._horizon = rows[0]["horizon"]
        self._seen = {revision: number for revision, number in self._seen.items() if number >= self._horizon}

    def _tell(self, news: Any) -> None:
        for follower in tuple(self._followers):
            if follower.qsize() < MOST_PENDING:
                follower.put_nowait(news)
            else:
                # It has not read for long; once it does it finds the end, and comes back with an empty cache.
                self._followers.discard(follower)
                follower.put_nowait(END)

    async def follow(self, after: int = 0) -> AsyncIterator[RevisionChange | None]:
        """Changes from now on, before them those after the given revision; None is a heartbeat."""
        if self._closed:
            return
        news: asyncio.Queue[Any] = asyncio.Queue()
        self._followers.add(news)
        try:
            if after:
                for change in await self._missed(after):
                    yield change
            while (one := await news.get()) is not END:
                yield one
        finally:
            self._followers.discard(news)

    async def _missed(self, after: int) -> list[RevisionChange]:
        oldest = (await self._fetch(OLDEST))[0][0]
        changes = [_change(row) for row in await self._fetch(MISSED, after)]
        if oldest is None or oldest > after + 1:
            # Some may have been cleaned away: everything that the follower knows may be out of date.
            changes.insert(0, RevisionChange(revision=after))
        return changes

    async def _fetch(self, statement: str, *values: Any) -> list[Any]:
        async with self._db.engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None  # noqa: S101  # the engine is connected
            return list(await driver.fetch(statement, *values))


def _change(row: Any) -> RevisionChange:
    return RevisionChange(
        revision=row["revision"],
        tenant_id=str(row["tenant_id"] or ""),
        user_id=str(row["user_id"] or ""),
        revoked_session_id=str(row["session_id"] or ""),
    )
