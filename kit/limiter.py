"""Admits as many calls at once as the pool has connections, in turn by tenant, and refuses the rest quickly."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

from kit.errors import ResourceExhausted
from kit.measures import Waits

WAITERS_PER_SLOT = 16
RETRY_AFTER = timedelta(seconds=1)


class Limiter:
    """`slots` calls at once; a call waits at most `timeout` seconds for its turn.

    A slot that becomes free goes to the tenants that wait in rotation, and when too many wait, the tenant with the
    most of them gives way: so the flood of one does not slow another. Where calls may hold their slots for long, no
    tenant is given more than `most_each`.
    """

    def __init__(self, slots: int, timeout: float, most_each: int | None = None) -> None:
        self.slots, self.waits = slots, Waits(ResourceExhausted)
        self._free, self._timeout = slots, timeout
        self._most_each = most_each or slots
        self._held: Counter[Any] = Counter()
        self._most_waiting = slots * WAITERS_PER_SLOT
        self._waiting: OrderedDict[Any, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def held(self) -> int:
        return self.slots - self._free

    @asynccontextmanager
    async def slot(self, tenant: Any) -> AsyncIterator["Slot"]:
        """Holds a slot; RESOURCE_EXHAUSTED with RetryInfo when none becomes free in time."""
        slot = Slot(self, tenant)
        await slot.take()
        try:
            yield slot
        finally:
            slot.give_back()

    async def _take(self, tenant: Any) -> None:
        if self._free and self._held[tenant] < self._most_each:
            self._free -= 1
            self._held[tenant] += 1
        else:
            await self._wait(tenant)

    async def _wait(self, tenant: Any) -> None:
        with self.waits.one():
            if self.waits.now > self._most_waiting:
                self._make_room(tenant)
            turn = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(tenant, deque()).append(turn)
            try:
                async with asyncio.timeout(self._timeout):
                    await turn
            except BaseException as error:
                if turn.done() and not turn.cancelled() and turn.exception() is None:
                    # The slot arrived at the very moment of giving up: hand it on.
                    self._release(tenant)
                if isinstance(error, TimeoutError):
                    raise _refusal() from None
                raise
            finally:
                with suppress(KeyError, ValueError):
                    self._waiting[tenant].remove(turn)

    def _make_room(self, tenant: Any) -> None:
        """Refuses the newest call of the tenant with the most of them waiting; the caller's own, if that is theirs."""
        longest = max(self._waiting, key=lambda one: len(self._waiting[one]))
        if longest == tenant or not self._waiting[longest]:
            raise _refusal()
        given_up = self._waiting[longest].pop()
        if not given_up.done():
            given_up.set_exception(_refusal())

    def _release(self, tenant: Any) -> None:
        self._held[tenant] -= 1
        self._held += Counter()
        self._free += 1
        for one in [one for one in self._waiting if self._held[one] < self._most_each]:
            turns = self._waiting.pop(one)
            while turns:
                turn = turns.popleft()
                if not turn.done():
                    if turns:
                        self._waiting[one] = turns
                    self._free -= 1
                    self._held[one] += 1
                    turn.set_result(None)
                    return


class Slot:
    """A call's turn, which it may lend to others."""

    def __init__(self, limiter: Limiter, tenant: Any) -> None:
        self._limiter, self._tenant, self._held = limiter, tenant, False

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[None]:
        """The slot is another call's while the block, which must take no connection, does something long. Afterwards
        the call waits for its turn again."""
        self.give_back()
        yield
        await self.take()

    async def take(self) -> None:
        await self._limiter._take(self._tenant)
        self._held = True

    def give_back(self) -> None:
        if self._held:
            self._held = False
            self._limiter._release(self._tenant)


def _refusal() -> ResourceExhausted:
    return ResourceExhausted("The service is at its capacity; try again.", retry_after=RETRY_AFTER)
