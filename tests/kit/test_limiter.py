"""The limiter: as many at once as there are slots, in turn by tenant, the rest refused."""

import asyncio
import random
from contextlib import AsyncExitStack, suppress

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

    async def test_when_too_many_wait_the_tenant_with_the_most_gives_way(self) -> None:
        limiter, served = Limiter(1, 5), []

        async def wait(tenant: str) -> None:
            async with limiter.slot(tenant):
                served.append(tenant)

        async with limiter.slot("flood"):
            flood = [asyncio.create_task(wait("flood")) for _ in range(WAITERS_PER_SLOT)]
            await asyncio.sleep(0)
            with pytest.raises(ResourceExhausted):
                await wait("flood")
            quiet = asyncio.create_task(wait("quiet"))
            await asyncio.sleep(0)
        results = await asyncio.gather(*flood, quiet, return_exceptions=True)
        assert [type(one) for one in results if one] == [ResourceExhausted]
        assert served.count("flood") == WAITERS_PER_SLOT - 1
        assert served.index("quiet") <= 1

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

    async def test_no_slot_is_lost_or_given_twice_whatever_happens(self) -> None:
        seed = random.randrange(1 << 30)
        dice = random.Random(seed)
        limiter, running, most = Limiter(3, 0.004), 0, 0

        async def work(tenant: int) -> None:
            nonlocal running, most
            async with limiter.slot(tenant):
                running += 1
                most = max(most, running)
                try:
                    await asyncio.sleep(dice.random() * 0.003)
                    if dice.random() < 0.2:
                        raise ValueError("failed")
                finally:
                    running -= 1

        async def maybe_cancelled(tenant: int) -> None:
            task = asyncio.create_task(work(tenant))
            await asyncio.sleep(dice.random() * 0.006)
            if dice.random() < 0.4:
                task.cancel()
            with suppress(asyncio.CancelledError, ValueError, ResourceExhausted):
                await task

        for _ in range(10):
            await asyncio.gather(*(maybe_cancelled(n % 5) for n in range(40)))
            assert (most <= 3, running) == (True, 0), f"seed {seed}"
        async with asyncio.timeout(1), limiter.slot("a"), limiter.slot("b"), limiter.slot("c"):
            with pytest.raises(ResourceExhausted):
                async with limiter.slot("d"):
                    pass

    async def test_a_slot_that_comes_with_the_cancellation_is_handed_on(self) -> None:
        limiter = Limiter(1, 5)
        holder = limiter.slot("a")
        await holder.__aenter__()
        waiting = asyncio.create_task(limiter.slot("b").__aenter__())
        await asyncio.sleep(0)
        # Both within one turn of the loop: the slot is given, and the one it is given to goes away.
        await holder.__aexit__(None, None, None)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        async with asyncio.timeout(0.5), limiter.slot("c"):
            pass

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


    async def test_leaves_slots_to_others_where_no_tenant_may_have_all(self) -> None:
        limiter = Limiter(4, 0.05, 2)
        async with limiter.slot("a"), limiter.slot("a"):
            with pytest.raises(ResourceExhausted):
                async with limiter.slot("a"):
                    pass
            async with limiter.slot("b"), limiter.slot("b"):
                pass
        async with limiter.slot("a"), limiter.slot("a"):
            pass

    async def test_a_slot_given_back_goes_past_those_who_have_as_many_as_they_may(self) -> None:
        limiter, served = Limiter(2, 1, 1), []

        async def wait(tenant: str) -> None:
            async with limiter.slot(tenant):
                served.append(tenant)

        async with limiter.slot("a"):
            async with limiter.slot("b"):
                tasks = [asyncio.create_task(wait(tenant)) for tenant in ("a", "c")]
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            assert served == ["c"]
        await asyncio.gather(*tasks)
        assert served == ["c", "a"]


class TestLentSlot:
    async def test_serves_others_meanwhile(self) -> None:
        limiter = Limiter(1, 0.2)
        async with limiter.slot("a") as slot, slot.lent(), limiter.slot("b"):
            pass
        async with limiter.slot("c"):
            pass

    async def test_is_waited_for_again(self) -> None:
        limiter = Limiter(1, 0.05)
        with pytest.raises(ResourceExhausted):
            async with AsyncExitStack() as other, limiter.slot("a") as slot, slot.lent():
                await other.enter_async_context(limiter.slot("b"))
        async with limiter.slot("c"):
            pass

    async def test_is_not_given_back_twice_by_a_call_that_is_cancelled(self) -> None:
        limiter, lent = Limiter(1, 0.05), asyncio.Event()

        async def hang() -> None:
            async with limiter.slot("a") as slot, slot.lent():
                lent.set()
                await asyncio.sleep(10)

        task = asyncio.create_task(hang())
        await lent.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with limiter.slot("b"):
            with pytest.raises(ResourceExhausted):
                async with limiter.slot("c"):
                    pass
