"""Calls that wait for something scarce, in turn by tenant, and in the way of none that need nothing of it.

While they wait their own slots are lent, so no transaction may be open.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from typing import Any, TypeVar

from kit.call import current_call
from kit.limiter import Limiter, Slot

T = TypeVar("T")
# As long as a call lives that says nothing else.
LONGEST_WAIT_SECONDS = 10.0


@asynccontextmanager
async def in_turn(turns: Limiter, tenant: Any) -> AsyncIterator[None]:
    """One of these turns, and the call's own slot again."""
    turn = Slot(turns, tenant)
    try:
        async with _lent():
            await turn.take()
        yield
    finally:
        turn.give_back()


class Worker:
    """A thread for work that takes a processor for a while. What its caller gives up goes on to its end."""

    def __init__(self, name: str, longest_wait: float = LONGEST_WAIT_SECONDS) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._turns = Limiter(1, longest_wait)

    async def do(self, work: Callable[..., T], *values: Any) -> T:
        """What the work makes of the values; RESOURCE_EXHAUSTED when too much is to be done before it."""
        call = current_call()
        async with _lent(), self._turns.slot(call.tenant_id if call else None):
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *values)


def _lent() -> Any:
    call = current_call()
    return call.slot.lent() if call and call.slot else nullcontext()
