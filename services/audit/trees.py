"""Grows each tenant's tree by the entries that wait for it, and signs and publishes what it has become."""

import asyncio
import logging
from collections.abc import Sequence
from time import monotonic
from uuid import UUID

from kit.db import Database, ReadSession, WriteSession
from kit.settings import SettingsError
from services.audit import merkle
from services.audit.publishing import Publisher
from services.audit.queries import checkpoints, trees
from services.audit.queries.trees import Queued
from services.audit.signing import Head, Signer

log = logging.getLogger(__name__)

# How often is looked for new entries. Those of a moment go in together: one transaction for many.
PERIOD_SECONDS = 0.5
# The most entries that one transaction appends, and that one checkpoint adds to the one before.
BATCH = 1000
# More than are ever missing in the file, unless it is a new one.
PUBLISHED_AT_ONCE = 1000
LONGEST_SECONDS = LONGEST_REST_SECONDS = 60.0


class Rewritten(Exception):
    """The tree is not what was signed; the message says why."""


class Trees:
    """The trees of all tenants. Any number of processes: each tree is grown by one of them at a time.

    A checkpoint comes `seconds` after the first entry that it adds, or with the thousandth. None is signed that
    contradicts an earlier one: who rewrites the database does not get the new history signed.
    """

    def __init__(self, db: Database, signer: Signer, publisher: Publisher, *, seconds: float) -> None:
        if not 0 <= seconds <= LONGEST_SECONDS:
            raise SettingsError(f"AUDIT_CHECKPOINT_SECONDS is {seconds:g}, not between 0 and {LONGEST_SECONDS:g}")
        self._db, self._signer, self._publisher, self._seconds = db, signer, publisher, seconds
        # What this process signed last: it knows that even when the database no longer does.
        self._signed: dict[UUID, Head] = {}
        # Whose trees are not signed any more. They grow all the same.
        self._rewritten: set[UUID] = set()
        # How often in a row trees did not grow, and when they are tried again: one that is damaged stays so.
        self._failed: dict[UUID, tuple[int, float]] = {}

    async def run(self) -> None:
        """Grows and signs, for ever."""
        while True:
            await self.step()
            await asyncio.sleep(PERIOD_SECONDS)

    async def step(self) -> None:
        """Does all that waits now; tenants with much of it take turns."""
        async with self._db.engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            waiting = await trees.list_waiting(driver, self._seconds)
        waiting = [tenant_id for tenant_id in waiting if not self._rests(tenant_id)]
        while waiting:
            waiting = [tenant_id for tenant_id in waiting if await self._grow_safely(tenant_id)]

    async def _grow_safely(self, tenant_id: UUID) -> bool:
        try:
            more = await self.grow(tenant_id)
        except Rewritten as error:
            self._rewritten.add(tenant_id)
            log.critical(
                "the audit log was changed behind the service: nothing more of it is signed",
                extra={"tenant_id": str(tenant_id), "error": str(error)},
            )
        except Exception:
            # One tenant's tree must not keep the others from growing, nor fill the log.
            log.exception("a tree does not grow", extra={"tenant_id": str(tenant_id)})
            times = self._failed.get(tenant_id, (0, 0.0))[0] + 1
            self._failed[tenant_id] = times, monotonic() + min(LONGEST_REST_SECONDS, PERIOD_SECONDS * 2**times)
        else:
            self._failed.pop(tenant_id, None)
            return more
        return False

    def _rests(self, tenant_id: UUID) -> bool:
        """Whether the tree failed to grow a short while ago."""
        return self._failed.get(tenant_id, (0, 0.0))[1] > monotonic()

    async def grow(self, tenant_id: UUID) -> bool:
        """Appends the tenant's next entries, and signs if a checkpoint is due: all of it or nothing. Says whether there
        may be more to append. Raises Rewritten instead of signing what contradicts an earlier checkpoint."""
        rewritten = tenant_id in self._rewritten
        async with self._db.write(tenant_id) as session:
            tree = await trees.lock_tree(session, self._seconds)
            if tree is None:
                return False
            room = BATCH if rewritten else max(0, tree.signed_size + BATCH - tree.size)
            queued = await trees.list_queued(session, room)
            size = await _append(session, tree.size, queued)
            due = size > tree.signed_size and (tree.due or size >= tree.signed_size + BATCH)
            head = await self._sign(session, size) if due and not rewritten else None
        if head is not None:
            self._signed[tenant_id] = head
            await self._publish(tenant_id)
        return len(queued) == room

    async def _sign(self, session: WriteSession, size: int) -> Head:
        earlier = await self._earlier(session)
        # Each is contradicted by a tree that is smaller, or that has another root at its size.
        if ahead := [one.size for one in earlier if one.size > size]:
            raise Rewritten(f"it has {size} entries, and {max(ahead)} were signed")
        covers = [merkle.cover(0, one) for one in (size, *(head.size for head in earlier))]
        try:
            hashes = await trees.list_hashes(session, {node for cover in covers for node in cover})
        except KeyError as error:
            raise Rewritten(f"the hash of the subtree {error} is gone") from None
        for head in earlier:
            if merkle.root(head.size, hashes) != head.root:
                raise Rewritten(f"its first {head.size} entries are not those that were signed")
        head = Head(session.tenant_id, size, merkle.root(size, hashes))
        if size not in {one.size for one in earlier}:
            await checkpoints.insert_checkpoint(
                session, tree_size=size, root_hash=head.root, signed_text=self._signer.sign(head)
            )
        await trees.set_signed(session, size)
        return head

    async def _earlier(self, session: ReadSession) -> list[Head]:
        """The last checkpoint, as the database, the directory and this process know it."""
        latest = await checkpoints.find_checkpoint(session)
        published = await asyncio.to_thread(self._publisher.latest, session.tenant_id)
        texts = [text for text in (latest.signed_text if latest else "", published) if text]
        try:
            found = {self._signer.opened(text) for text in texts}
        except ValueError as error:
            raise Rewritten(f"its last checkpoint is {error}") from None
        if session.tenant_id in self._signed:
            found.add(self._signed[session.tenant_id])
        if any(head.tenant_id != session.tenant_id for head in found):
            raise Rewritten("its last checkpoint is another tenant's")
        return list(found)

    async def _publish(self, tenant_id: UUID) -> None:
        """Adds to the tenant's file what it lacks: also what a crash kept from it earlier."""
        last = await asyncio.to_thread(self._publisher.latest, tenant_id)
        size = self._signer.opened(last).size if last else 0
        async with self._db.read(tenant_id) as session:
            texts = await checkpoints.list_newer_texts(session, size, PUBLISHED_AT_ONCE)
        await asyncio.to_thread(self._publisher.add, tenant_id, texts)


async def _append(session: WriteSession, size: int, queued: Sequence[Queued]) -> int:
    """Puts what is queued at the end of a tree of this size; returns the new one."""
    if not queued:
        return size
    leaves = [one for one in queued if one.hash is not None]
    for lost in {one.id for one in queued} - {one.id for one in leaves}:
        log.critical("an audit entry was deleted before it was in the tree", extra={"entry_id": str(lost)})
    edge = list(merkle.cover(0, size))
    hashes = await trees.list_hashes(session, edge)
    nodes = merkle.grow(size, [hashes[node] for node in edge], [one.hash for one in leaves if one.hash])
    await trees.append_leaves(session, size, leaves, dict(nodes), [one.seq for one in queued])
    return size + len(leaves)
