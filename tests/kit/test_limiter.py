"""The limiter: as many at once as there are slots, in turn by tenant, the rest refused."""

import asyncio

import pytest

from kit.errors import ResourceExhausted
from kit.limiter import WAITERS_PER_SLOT, Limiter


class TestLimiter:
    async def test_admits_no_more_at_once_than_slots(self) -> None:
        limiter, running, most = Limiter(3, 1), 0, 0

        async def work(tenant: int) -> None:
            nonlocal running, most
            async with limiter.slot(tenant):
                running += 1
                most = max(most, running)
                await asyncio.sleep(0.001)
                running -= 1

        await asyncio.gather(*(work(n % 4) for n in range(40)))
        assert most == 3

    async def test_refuses_after_the_wait(self) -> None:
        limiter = Limiter(1, 0.05)
        async with limiter.slot("a"):
            with pytest.raises(ResourceExhausted):
                async with limiter.slot("a"):
                    pass
        async with limiter.slot("a"):
            pass

    async def test_refuses_at_once_when_too_many_wait(self) -> None:
        limiter = Limiter(1, 5)

        async def wait() -> None:
            async with limiter.slot("a"):
                pass

        async with limiter.slot("a"):
            waiting = [asyncio.create_task(wait()) for _ in range(WAITERS_PER_SLOT)]
            await asyncio.sleep(0)
            with pytest.raises(ResourceExhausted):
                async with limiter.slot("b"):
                    pass
        await asyncio.gather(*waiting)

    async def test_the_flood_of_one_tenant_does_not_hold_up_another(self) -> None:
        limiter, order = Limiter(1, 5), []

        async def work(tenant: str) -> None:
            async with limiter.slot(tenant):
                order.append(tenant)

        async with limiter.slot("flood"):
            tasks = [asyncio.create_task(work("flood")) for _ in range(10)]
            await asyncio.sleep(0)
            tasks.append(asyncio.create_task(work("quiet")))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert order.index("quiet") <= 1

    async def test_a_call_that_gives_up_waiting_loses_no_slot(self) -> None:
        limiter = Limiter(1, 5)
        for _ in range(20):
            async with limiter.slot("a"):
                task = asyncio.create_task(limiter.slot("b").__aenter__())
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(0.2), limiter.slot("c"):
            pass
