"""Who works on an erasure, in which order services are asked, and how long nobody asks one that does not answer."""

import asyncio
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from kit.errors import Unavailable
from kit.ids import SYSTEM_TENANT, new_id
from services.identity import rules
from services.identity.erasures import OTHERS, Eraser, _subject
from services.identity.models import Erasure
from storyloom.identity.v1.erasures_pb2 import ErasureState, GetErasureRequest
from tests.identity.conftest import Own
from tests.identity.test_erasures import deleted, purged, service
from tests.stack import Stack

DONE = ErasureState.ERASURE_STATE_DONE


class TestEraser:
    def eraser(self, stack: Stack, subjects: Callable[[Any, str], Any] | None = None) -> Eraser:
        identity = stack.services["identity"]
        (own,) = (one for one in identity._servicers if type(one).__name__ == "SubjectService")
        made = Eraser(identity.db, identity.clients, own)
        for name, stub in list(made._services.items()):
            made._services[name] = subjects(stub, name) if subjects else stub
        return made

    @pytest.fixture
    async def alone(self, stack: Stack, monkeypatch: pytest.MonkeyPatch, database: asyncpg.Connection) -> None:
        """The service's own eraser finds nothing for a while: the test's has the work to itself."""

        async def nothing_due(self: Any) -> bool:
            return False

        while await database.fetchval("SELECT count(*) FROM identity.erasure_tasks"):
            await asyncio.sleep(0.05)
        monkeypatch.setattr(Eraser, "_carry_on_safely", nothing_due)

    async def due(self, database: asyncpg.Connection) -> None:
        await database.execute("UPDATE identity.erasure_tasks SET due_at = now()")

    @pytest.mark.usefixtures("alone")
    async def test_asks_everybody_twice_and_identity_last(
        self, own: Own, stack: Stack, database: asyncpg.Connection
    ) -> None:
        asked: list[str] = []

        class Watched:
            def __init__(self, stub: Any, name: str) -> None:
                self.stub, self.name = stub, name

            async def EraseUser(self, request: Any, *, timeout: float) -> Any:
                asked.append(self.name)
                return await self.stub.EraseUser(request, timeout=timeout)

        erasure = await purged(own, (await deleted(own)).id)
        await stack.settle()
        eraser = self.eraser(stack, Watched)
        for _ in range(3):
            await self.due(database)
            assert await eraser.carry_on()
        assert sorted(asked[:4]) == sorted(asked[4:]) == sorted(OTHERS)
        found = await service(own.admin).GetErasure(GetErasureRequest(id=erasure.id))
        assert found.state == DONE
        assert not await eraser.carry_on()

    def test_ends_a_tenant_only_when_the_platforms_own_rows_say_so(self) -> None:
        """A school's may have come with it from elsewhere, and name any other."""
        school, other = new_id(), new_id()
        assert _subject(Erasure(tenant_id=SYSTEM_TENANT, subject_type="tenant", subject_id=other)) == (other, None)
        assert _subject(Erasure(tenant_id=school, subject_type="tenant", subject_id=other)) == (school, other)

    @pytest.mark.usefixtures("alone")
    async def test_one_process_works_on_an_erasure_at_a_time(
        self, own: Own, stack: Stack, database: asyncpg.Connection
    ) -> None:
        await purged(own, (await deleted(own)).id)
        await stack.settle()
        await self.due(database)
        worked = await asyncio.gather(*(self.eraser(stack).carry_on() for _ in range(3)))
        assert sorted(worked) == [False, False, True]
        for _ in range(4):
            await self.due(database)
            await self.eraser(stack).carry_on()

    @pytest.mark.usefixtures("alone")
    async def test_waits_longer_and_longer_for_a_service_that_does_not_answer(
        self, own: Own, stack: Stack, database: asyncpg.Connection
    ) -> None:
        class Down:
            def __init__(self, stub: Any, name: str) -> None:
                self.stub, self.name = stub, name

            async def EraseUser(self, request: Any, *, timeout: float) -> Any:
                if self.name == "learning":
                    raise Unavailable("Another service cannot be reached; try again.")
                return await self.stub.EraseUser(request, timeout=timeout)

        user = await deleted(own)
        erasure = await purged(own, user.id)
        await stack.settle()
        delays = []
        for _ in range(4):
            await self.due(database)
            await self.eraser(stack, Down).carry_on()
            delays.append(await database.fetchval("SELECT due_at - now() FROM identity.erasure_tasks"))
        assert delays == sorted(delays)
        assert delays[-1].total_seconds() > 4
        kept = await database.fetchval("SELECT receipts FROM identity.erasures WHERE id = $1", UUID(erasure.id))
        assert set(json.loads(kept)) == set(OTHERS) - {"learning"}
        assert await database.fetchval("SELECT count(*) FROM identity.users WHERE id = $1", UUID(user.id)) == 1
        for _ in range(4):
            await self.due(database)
            await self.eraser(stack).carry_on()
        assert (await service(own.admin).GetErasure(GetErasureRequest(id=erasure.id))).state == DONE


class TestToAsk:
    def test_begins_no_round_before_everybody_has_finished_the_one_before(self) -> None:
        names = ["a", "b"]
        assert rules.to_ask({}, names) == (1, ["a", "b"])
        assert rules.to_ask({"a": {"round": 1}}, names) == (1, ["b"])
        assert rules.to_ask({"a": {"round": 1}, "b": {"round": 1}}, names) == (2, ["a", "b"])
        assert rules.to_ask({"a": {"round": 1}, "b": {"round": 2}}, names) == (2, ["a"])
        assert rules.to_ask({"a": {"round": 2}, "b": {"round": 2}}, names) == (3, [])

    def test_the_longest_wait_is_a_minute(self) -> None:
        waits = [rules.erasure_delay(n, progress=False).total_seconds() for n in range(2000)]
        assert waits == sorted(waits)
        assert (waits[0], waits[-1]) == (0.5, 60.0)
        assert rules.erasure_delay(2000, progress=True).total_seconds() < 1
