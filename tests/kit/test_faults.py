"""Connections that die, deadlines and cancellations in the middle of work, errors that a handler swallows."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import grpc
import pytest
from sqlalchemy import select, text

from kit.auth import current
from kit.errors import from_exception
from tests.kit.toy import Toy, another, note_service
from tests.kit.wire import call_by_hand
from tests.stack import refused

EVERYTHING = ("all", "manage")
SLEEP = "SELECT pg_sleep(20)"
TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'storyloom_toy' AND query LIKE $1"
    " AND pid <> pg_backend_pid()"
)
OPEN = (
    "SELECT query FROM pg_stat_activity WHERE usename = 'storyloom_toy' AND (state LIKE 'idle in transaction%'"
    " OR state = 'active')"
)


class Troubled:
    """A servicer whose CreateNote writes a note and then does as the note's text says."""

    def __init__(self, toy: Toy) -> None:
        self._toy, self._others = toy, note_service(toy)
        self.SERVICE = self._others.SERVICE

    def __getattr__(self, rpc: str) -> Any:
        return getattr(self._others, rpc)

    async def CreateNote(self, request: Any, context: Any) -> Any:
        async with self._toy.db.write() as session:
            session.add(self._toy.note(text=request.text, secret=request.secret, author_id=current().subject))
            await session.flush()
            if request.text == "sleep":
                await session.execute(text(SLEEP))
            if request.text == "wait":
                await asyncio.sleep(20)
            if request.text == "swallow":
                with suppress(Exception):
                    await session.execute(text("SELECT 1 FROM toy.nowhere"))
        return request

    async def WatchNotes(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield self._toy.pb.Note(text="first")
        async with self._toy.db.read() as session:
            await session.execute(text(SLEEP if request.text == "sleep" else "SELECT 1 FROM toy.nowhere"))


@pytest.fixture(scope="module")
async def troubled(toy: Toy) -> AsyncIterator[Toy]:
    async with another(toy, Troubled, pool_size=2) as other:
        yield other


async def wait_for_statement(toy: Toy, pattern: str) -> None:
    query = "SELECT 1 FROM pg_stat_activity WHERE usename = 'storyloom_toy' AND query LIKE $1 AND state <> 'idle'"
    async with asyncio.timeout(5):
        while not await toy.rows(query, pattern):
            await asyncio.sleep(0.01)


async def nothing_is_left(toy: Toy) -> None:
    """Everything is given back, and the server has no transaction open."""
    async with asyncio.timeout(4):
        while toy.db.engine.pool.checkedout() or await toy.rows(OPEN):  # type: ignore[attr-defined]
            await asyncio.sleep(0.02)


async def notes_of(toy: Toy, marker: str) -> int:
    return len(await toy.rows("SELECT 1 FROM toy.notes WHERE secret = $1", marker))


class TestLostConnections:
    async def test_connections_lost_while_idle_cost_no_call(self, troubled: Toy) -> None:
        stub = troubled.stub(troubled.grant(uuid4(), EVERYTHING))
        request = troubled.pb.ListNotesRequest()
        await asyncio.gather(*(stub.ListNotes(request) for _ in range(4)))
        for _ in range(2):
            await troubled.rows(TERMINATE, "%")
            await asyncio.sleep(0.1)
            await asyncio.gather(*(stub.ListNotes(request) for _ in range(4)))

    @pytest.mark.parametrize("key", ["", "key"])
    async def test_a_call_that_loses_its_connection_is_unavailable_and_the_next_is_served(
        self, troubled: Toy, key: str
    ) -> None:
        headers = {"idempotency_key": uuid4().hex} if key else {}
        stub = troubled.stub(troubled.grant(uuid4(), EVERYTHING), **headers)
        marker = uuid4().hex
        for kind, pattern in (("sleep", SLEEP), ("wait", "INSERT INTO toy.notes%")):
            call = asyncio.ensure_future(stub.CreateNote(troubled.pb.Note(text=kind, secret=marker)))
            await wait_for_statement(troubled, pattern)
            await troubled.rows(TERMINATE, pattern)
            if kind == "wait":
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
                continue
            async with refused("DEPENDENCY_UNAVAILABLE", code=grpc.StatusCode.UNAVAILABLE):
                await call
        for _ in range(4):
            await stub.CreateNote(troubled.pb.Note(text="fine", secret=marker))
        assert await notes_of(troubled, marker) == (1 if key else 4)

    @pytest.mark.parametrize("way", ["statement", "driver", "commit"])
    async def test_whatever_notices_it_first_says_unavailable(self, troubled: Toy, way: str) -> None:
        with pytest.raises(Exception) as caught:
            async with troubled.db.write(uuid4()) as session:
                # The driver's own word for it would be a pooler's.
                pid = await session.driver.fetchval("SELECT pg_backend_pid()")
                await troubled.rows("SELECT pg_terminate_backend($1)", pid)
                await asyncio.sleep(0 if way == "driver" else 0.05)
                if way == "statement":
                    await session.execute(text("SELECT 1"))
                if way == "driver":
                    await session.driver.fetch("SELECT 1")
        assert from_exception(caught.value).code is grpc.StatusCode.UNAVAILABLE
        for _ in range(3):
            async with troubled.db.read(uuid4()) as session:
                assert await session.scalar(select(text("1"))) == 1


class TestCutOff:
    @pytest.mark.parametrize("kind", ["sleep", "wait"])
    @pytest.mark.parametrize("key", ["", "key"])
    async def test_a_deadline_leaves_no_transaction_open(self, troubled: Toy, kind: str, key: str) -> None:
        headers = {"idempotency_key": uuid4().hex} if key else {}
        stub = troubled.stub(troubled.grant(uuid4(), EVERYTHING), **headers)
        marker = uuid4().hex
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.CreateNote(troubled.pb.Note(text=kind, secret=marker), timeout=0.4)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await nothing_is_left(troubled)
        assert await notes_of(troubled, marker) == 0

    async def test_cancelling_calls_within_their_transactions_leaves_every_connection_usable(
        self, troubled: Toy
    ) -> None:
        stub = troubled.stub(troubled.grant(uuid4(), EVERYTHING))
        marker = uuid4().hex
        for kind in ("sleep", "wait", "sleep"):
            calls = [
                asyncio.ensure_future(stub.CreateNote(troubled.pb.Note(text=kind, secret=marker))) for _ in range(2)
            ]
            await wait_for_statement(troubled, SLEEP if kind == "sleep" else "INSERT INTO toy.notes%")
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            await nothing_is_left(troubled)
        await asyncio.gather(*(stub.CreateNote(troubled.pb.Note(text="x", secret=marker)) for _ in range(6)))
        assert await notes_of(troubled, marker) == 6

    @pytest.mark.parametrize("statement", [SLEEP, "SELECT 20"])
    @pytest.mark.parametrize("pauses", [0, 1, 3, 10])
    async def test_being_cancelled_twice_leaves_no_less(self, troubled: Toy, pauses: int, statement: str) -> None:
        async def work() -> None:
            async with troubled.db.write(uuid4()) as session:
                await session.execute(text(statement))
                await asyncio.sleep(20)

        for _ in range(2):
            tasks = [asyncio.create_task(work()) for _ in range(2)]
            await wait_for_statement(troubled, statement)
            # The client's deadline and the server's own end the call, one right after the other.
            for task in tasks:
                task.cancel()
            for _ in range(pauses):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            assert [type(one) for one in await asyncio.gather(*tasks, return_exceptions=True)] == [
                asyncio.CancelledError
            ] * 2
            await nothing_is_left(troubled)

    async def test_a_stream_that_its_client_leaves_ends_its_statement(self, troubled: Toy) -> None:
        stream = troubled.stub(troubled.grant(uuid4(), EVERYTHING)).WatchNotes(
            troubled.pb.ListNotesRequest(text="sleep")
        )
        assert (await stream.read()).text == "first"
        await wait_for_statement(troubled, SLEEP)
        stream.cancel()
        await nothing_is_left(troubled)

    async def test_a_stream_that_fails_tells_nothing_of_the_database(self, troubled: Toy) -> None:
        stream = troubled.stub(troubled.grant(uuid4(), EVERYTHING)).WatchNotes(troubled.pb.ListNotesRequest())
        async with refused("INTERNAL_FAULT") as refusal:
            async for _ in stream:
                pass
        assert "nowhere" not in str(refusal.error)
        await nothing_is_left(troubled)


class TestSwallowedFailure:
    async def test_a_transaction_that_failed_is_never_reported_as_done(self, troubled: Toy) -> None:
        stub, marker = troubled.stub(troubled.grant(uuid4(), EVERYTHING)), uuid4().hex
        async with refused("INTERNAL_FAULT"):
            await stub.CreateNote(troubled.pb.Note(text="swallow", secret=marker))
        assert await notes_of(troubled, marker) == 0
        await stub.CreateNote(troubled.pb.Note(text="fine", secret=marker))
        assert await notes_of(troubled, marker) == 1


class TestHostileHeaders:
    @pytest.mark.parametrize("value", [b"\xc3\xa9", b"\xff\xfe", b"\xe1\xbb\x87" * 20], ids=repr)
    async def test_a_request_id_that_cannot_be_sent_back_is_replaced(self, toy: Toy, value: bytes) -> None:
        path = b"/toy.v1.NoteService/ListNotes"
        received = await asyncio.to_thread(
            call_by_hand, toy.settings.listen_address, path, (b"x-request-id", value), (b"traceparent", value)
        )
        # No token was sent: refused as such (16), not because the server stumbled (2, 13).
        assert b"grpc-status\x0216" in received, received
