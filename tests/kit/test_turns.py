"""What is scarce is had in turn by tenant, and who waits for it is in nobody else's way."""

import asyncio
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from kit.call import _current
from kit.errors import ResourceExhausted
from kit.limiter import Limiter
from kit.turns import Worker, in_turn


@dataclass
class Caller:
    """What a worker looks at of a call."""

    tenant_id: str
    slot: Any


class TestInTurn:
    async def test_lends_the_slot_of_who_waits_and_has_it_again_after(self) -> None:
        turns, limiter = Limiter(1, 0.5), Limiter(1, 0.05)

        async def call() -> None:
            async with limiter.slot("a") as slot:
                _current.set(Caller("a", slot))  # type: ignore[arg-type]  # a part of one
                async with in_turn(turns, "a"):
                    with pytest.raises(ResourceExhausted):
                        async with limiter.slot("b"):
                            pass

        async with turns.slot("b"):
            task = asyncio.create_task(call())
            await asyncio.sleep(0.01)
            async with limiter.slot("b"):
                pass
        await task

    async def test_gives_the_turn_back_when_the_slot_is_not_had_again(self) -> None:
        turns, limiter = Limiter(1, 0.5), Limiter(1, 0.05)

        async def call() -> None:
            async with limiter.slot("a") as slot:
                _current.set(Caller("a", slot))  # type: ignore[arg-type]
                async with in_turn(turns, "a"):
                    pass

        async with turns.slot("b"):
            task = asyncio.create_task(call())
            await asyncio.sleep(0.01)
            held = limiter.slot("b")
            await held.__aenter__()
        with pytest.raises(ResourceExhausted):
            await task
        await held.__aexit__(None, None, None)
        async with turns.slot("c"), limiter.slot("c"):
            pass


class TestWorker:
    async def test_lends_the_slot_of_who_waits(self) -> None:
        worker, limiter, gate = Worker("test"), Limiter(1, 0.5), threading.Event()

        async def call() -> bool:
            async with limiter.slot("a") as slot:
                _current.set(Caller("a", slot))  # type: ignore[arg-type]
                return await worker.do(gate.wait, 10)

        task = asyncio.create_task(call())
        await asyncio.sleep(0.01)
        async with limiter.slot("b"):
            gate.set()
        assert await task

    async def test_takes_tenants_in_turn(self) -> None:
        worker, gate = Worker("test"), threading.Event()
        done: list[tuple[str, int]] = []

        async def call(tenant: str, number: int) -> None:
            _current.set(Caller(tenant, None))  # type: ignore[arg-type]
            await worker.do(gate.wait, 10)
            done.append((tenant, number))

        tasks = [asyncio.create_task(call("a", number)) for number in range(5)]
        await asyncio.sleep(0.01)
        tasks.append(asyncio.create_task(call("b", 0)))
        await asyncio.sleep(0.01)
        gate.set()
        await asyncio.gather(*tasks)
        assert done.index(("b", 0)) <= 2
