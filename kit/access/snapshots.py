"""What one user may do, as identity tells it: cached per user, dropped within moments of a change."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from kit.access.policies import NO_POLICIES, Policy, PolicySet
from kit.errors import DeadlineExceeded, ResourceExhausted, StoryloomError, Unavailable
from kit.ids import SYSTEM_TENANT
from kit.measures import Tally

REVOKED_SESSION_SECONDS = 900.0
STREAM_SILENCE_SECONDS = 1.5
RECONNECT_SECONDS = 0.5
CACHED_USERS = 20_000
CACHED_TENANTS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Roles, permissions and attributes of one user at one revision.

    A permission is a (resource, action) pair; `("all", "manage")` stands for everything.
    """

    tenant_id: UUID
    user_id: UUID
    roles: frozenset[str]
    permissions: frozenset[tuple[str, str]]
    level: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    active: bool = True
    tenant_suspended: bool = False
    revoked_sessions: frozenset[UUID] = frozenset()
    # In Unix seconds: then the first permission that was given for a time ends, and this is no longer true.
    expires: float = float("inf")
    policies: PolicySet = NO_POLICIES
    # What is decided for this user and has not to be worked out again, by resource and action.
    plans: dict[tuple[str, str], Any] = field(default_factory=dict, compare=False, repr=False)

    def grants(self, resource: str, action: str) -> bool:
        """Whether a role or a direct grant covers the action; `manage` is every action, `all` every resource."""
        held = self.permissions
        return (
            (resource, action) in held
            or (resource, "manage") in held
            or ("all", action) in held
            or ("all", "manage") in held
        )


@dataclass(frozen=True, slots=True)
class Change:
    """What a revision made obsolete: a user (None: every user) of a tenant (None: all tenants), and perhaps a
    session that ended."""

    tenant_id: UUID | None
    user_id: UUID | None
    session_id: UUID | None


Source = Callable[[UUID, UUID], Awaitable[Snapshot]]
# The policies in force that belong to a tenant.
Policies = Callable[[UUID], Awaitable[tuple[Policy, ...]]]
# Opens the stream of changes; None is a sign of life. It raises when the stream breaks.
Changes = Callable[[], AsyncIterator[Change | None]]


class SnapshotCache:
    """Snapshots by (tenant, user). While the stream of changes lives an entry is current; otherwise it is fetched
    again, and when identity does not answer it serves for at most `max_stale` seconds after it was last known to be
    true."""

    def __init__(self, source: Source, changes: Changes, policies: Policies, *, max_stale: float) -> None:
        self._source, self._changes, self._max_stale = source, changes, max_stale
        self._policies = policies
        self.tally, self.tally_of_sets = Tally(), Tally()
        self._sets: dict[UUID, tuple[PolicySet, float]] = {}
        self._entries: dict[tuple[UUID, UUID], tuple[Snapshot, float]] = {}
        self._fetching: dict[tuple[UUID, UUID, int], asyncio.Task[Snapshot]] = {}
        self._ended: dict[UUID, float] = {}
        # Since when the stream lives, or lived last, and when it last gave a sign of it.
        self._alive_since, self._alive_at = float("inf"), 0.0
        self._living = False
        self._epoch = 0

    async def get(self, tenant_id: UUID, user_id: UUID) -> Snapshot:
        """The user's snapshot; UNAVAILABLE when there is none fresh enough and identity does not answer."""
        key = (tenant_id, user_id)
        entry = self._entries.get(key)
        now = time.monotonic()
        if entry and entry[0].expires <= time.time():
            # No news tells of it, and it must not be served again when identity is silent.
            entry = None
        if entry and self._is_current(entry[1]):
            self.tally.hits += 1
            return entry[0]
        self.tally.misses += 1
        try:
            return await self._fetch(key)
        except (Unavailable, DeadlineExceeded, ResourceExhausted):
            if entry and now - self._known_at(entry[1]) < self._max_stale:
                return entry[0]
            raise

    def _is_current(self, fetched_at: float) -> bool:
        """Whether every change since then would have been told."""
        heard = time.monotonic() - self._alive_at < STREAM_SILENCE_SECONDS
        return self._living and heard and fetched_at >= self._alive_since

    def _known_at(self, fetched_at: float) -> float:
        """Until when every change since then would have been told: what was fetched an hour ago is no older than the
        stream's last sign of life."""
        return max(fetched_at, self._alive_at) if fetched_at >= self._alive_since else fetched_at

    async def _fetch(self, key: tuple[UUID, UUID]) -> Snapshot:
        # Many calls of one user at once share one look-up, but none that began before the last change.
        shared = (*key, self._epoch)
        if shared not in self._fetching:
            task = asyncio.create_task(self._load(key))
            self._fetching[shared] = task
            task.add_done_callback(lambda _: self._fetching.pop(shared, None))
        return await asyncio.shield(self._fetching[shared])

    async def _load(self, key: tuple[UUID, UUID]) -> Snapshot:
        started, epoch = time.monotonic(), self._epoch
        snapshot = replace(await self._source(*key), policies=await self._policies_of(key[0]))
        # A change that arrived during the look-up may not be in the answer: then it is not kept.
        if epoch == self._epoch:
            while len(self._entries) >= CACHED_USERS:
                self._entries.pop(next(iter(self._entries)))
            self._entries[key] = (snapshot, started)
        return snapshot

    async def _policies_of(self, tenant_id: UUID) -> PolicySet:
        """What binds the tenant's users: its own policies and the platform's. All its users share it."""
        known = self._sets.get(tenant_id)
        if known and self._is_current(known[1]):
            self.tally_of_sets.hits += 1
            return known[0]
        self.tally_of_sets.misses += 1
        started, epoch = time.monotonic(), self._epoch
        found = await self._policies(tenant_id)
        if tenant_id != SYSTEM_TENANT:
            found += tuple((await self._policies_of(SYSTEM_TENANT)).policies)
        made = PolicySet(found) if found else NO_POLICIES
        if epoch == self._epoch:
            while len(self._sets) >= CACHED_TENANTS:
                self._sets.pop(next(iter(self._sets)))
            self._sets[tenant_id] = (made, started)
        return made

    def session_ended(self, session_id: UUID | None) -> bool:
        return session_id in self._ended

    def apply(self, change: Change) -> None:
        """Forgets what the change made obsolete."""
        self._epoch += 1
        if change.session_id is not None:
            self._remember_ended(change.session_id)
        if change.tenant_id and change.user_id:
            self._entries.pop((change.tenant_id, change.user_id), None)
            return
        for tenant_id in [one for one in self._sets if change.tenant_id in {None, one}]:
            del self._sets[tenant_id]
        for key in [key for key in self._entries if _concerns(change, *key)]:
            del self._entries[key]

    def _remember_ended(self, session_id: UUID) -> None:
        now = time.monotonic()
        # In the order in which they ended: the oldest come first.
        while self._ended and now - next(iter(self._ended.values())) > REVOKED_SESSION_SECONDS:
            del self._ended[next(iter(self._ended))]
        self._ended.pop(session_id, None)
        self._ended[session_id] = now

    async def watch(self) -> None:
        """Follows the stream of changes for ever, reconnecting; run it as a task."""
        while True:
            try:
                with suppress(StoryloomError):
                    async for change in self._changes():
                        self._heard(change)
            finally:
                # However the stream ended: changes are missed until it lives again.
                self._living = False
            await asyncio.sleep(RECONNECT_SECONDS)

    def _heard(self, change: Change | None) -> None:
        now = time.monotonic()
        if not self._living:
            # What was cached before the stream lived may have changed unseen.
            self._living, self._alive_since = True, now
        self._alive_at = now
        if change is not None:
            self.apply(change)


def _concerns(change: Change, tenant_id: UUID, user_id: UUID) -> bool:
    return change.tenant_id in {None, tenant_id} and change.user_id in {None, user_id}
