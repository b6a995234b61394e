"""People who read and write words without pause, and who waits for whom in the database meanwhile."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from storyloom.content.v1.vocabularies_pb2 import (
    CreateVocabularyRequest,
    GetVocabularyRequest,
    ListVocabulariesRequest,
    UpdateVocabularyRequest,
    Vocabulary,
)
from storyloom.content.v1.vocabularies_pb2_grpc import VocabularyServiceStub
from tests.stack import Person

LEVELS = ("A1", "A2", "B1", "B2", "C1", "C2")
PAUSE = 0.005
# A migration's waits keep nobody off but those behind it, who are seen themselves.
LOCKS = """
SELECT a.application_name LIKE 'storyloom-migrations%' AS own, l.granted, l.pid, l.relation,
       coalesce(extract(epoch FROM clock_timestamp() - l.waitstart), 0)::float AS waited
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype IN ('relation', 'transactionid', 'tuple', 'virtualxid')
  AND (NOT l.granted OR l.mode = 'AccessExclusiveLock' AND l.relation = 'content.vocabularies'::regclass)
"""


@dataclass
class Locks:
    """Seconds: the longest that a service waited for a lock, and that one was held which keeps everybody out."""

    waited: float = 0.0
    held: float = 0.0
    _since: dict[int, float] = field(default_factory=dict)

    def see(self, rows: Sequence[Any], now: float) -> None:
        self.waited = max([self.waited, *(row["waited"] for row in rows if not row["own"])])
        holders = {row["pid"] for row in rows if row["granted"]}
        self._since = {pid: self._since.get(pid, now) for pid in holders}
        self.held = max([self.held, *(now - since for since in self._since.values())])


@dataclass
class Crowd:
    """What became of the requests: how long each took, and those that failed."""

    person: Person
    ids: Sequence[str]
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    locks: Locks = field(default_factory=Locks)

    def __post_init__(self) -> None:
        self._words = self.person.stub(VocabularyServiceStub, "content")

    async def sign_in_again(self) -> None:
        """Tokens live ten minutes."""
        self.person.token = (await self.person.stack.sign_in("lotus", self.person.email)).token

    async def _read(self) -> Any:
        return await self._words.GetVocabulary(GetVocabularyRequest(id=random.choice(self.ids)))

    async def _list(self) -> Any:
        return await self._words.ListVocabularies(ListVocabulariesRequest(page_size=20))

    async def _create(self) -> Any:
        word = Vocabulary(
            term=f"từ {uuid4()}", translation="word", part_of_speech="PART_OF_SPEECH_NOUN", level=random.choice(LEVELS)
        )
        return await self._words.CreateVocabulary(CreateVocabularyRequest(vocabulary=word))

    async def _update(self) -> Any:
        word = Vocabulary(id=random.choice(self.ids), level=random.choice(LEVELS))
        return await self._words.UpdateVocabulary(
            UpdateVocabularyRequest(vocabulary=word, update_mask=FieldMask(paths=["level"]))
        )

    async def _keep(self, call: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        while True:
            began = time.perf_counter()
            try:
                await call()
            except grpc.aio.AioRpcError as error:
                self.failures.append(f"{call.__name__}: {error.code().name} {error.details()}")
            self.seconds.append(time.perf_counter() - began)
            await asyncio.sleep(PAUSE)

    async def _watch(self, url: str) -> None:
        connection = await asyncpg.connect(url, server_settings={"application_name": "watching"})
        try:
            while True:
                self.locks.see(await connection.fetch(LOCKS), time.perf_counter())
                await asyncio.sleep(0.01)
        finally:
            await connection.close()

    def told(self) -> str:
        """All of it."""
        ordered = sorted(1000 * one for one in self.seconds)
        many = len(ordered)
        return (
            f"{many:,} requests, {len(self.failures)} failed; median {ordered[many // 2]:.0f} ms,"
            f" 99 % {ordered[many * 99 // 100]:.0f} ms, longest {ordered[-1]:.0f} ms\n"
            f"longest wait for a lock {1000 * self.locks.waited:.0f} ms,"
            f" table closed for {1000 * self.locks.held:.0f} ms at most"
        )


@asynccontextmanager
async def crowded(person: Person, ids: Sequence[str], superuser_url: str, *, each: int) -> AsyncIterator[Crowd]:
    """So many at a time of each kind of request, for as long as the block takes."""
    crowd = Crowd(person, ids)
    calls = (crowd._read, crowd._list, crowd._create, crowd._update)
    tasks = [asyncio.ensure_future(crowd._keep(call)) for call in calls for _ in range(each)]
    tasks.append(asyncio.ensure_future(crowd._watch(superuser_url)))
    try:
        yield crowd
        assert not [task for task in tasks if task.done()], "the load has ended by itself"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
