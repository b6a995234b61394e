"""Jobs: every tenant's rows once, whatever interrupts; and what is told of how far they are."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from kit.db import Database, ReadSession, WriteSession
from kit.errors import Aborted
from kit.ids import NIL
from kit.jobs import ABORT, PAUSE, Job, JobError, Progress, Runner, Standing, standings, tell_runner
from storyloom.content.v1 import vocabularies_pb2
from storyloom.content.v1.vocabularies_pb2_grpc import VocabularyServiceStub
from tests.stack import School

NUMBERS = count()
WORDS = "content.vocabularies WHERE tenant_id = $1 AND translation = 'for jobs'"
ROWS = f"SELECT id FROM {WORDS} AND id > $2 ORDER BY id LIMIT $3"
HELD_UP = "SELECT true FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '% content.jobs %'"
COUNT = f"SELECT count(*) FROM {WORDS}"


@dataclass
class Visits:
    """A job that writes down which rows it was given. `failures` are raised by the batches with rows of these
    numbers."""

    name: str = field(default_factory=lambda: f"visits_{next(NUMBERS)}")
    rows: list[tuple[UUID, UUID]] = field(default_factory=list)
    failures: dict[int, Exception] = field(default_factory=dict)
    batches: int = 0
    before: Any = None

    @property
    def job(self) -> Job:
        return Job(self.name, "Visits words.", self.count, self.batch, batch_size=2)

    async def count(self, session: ReadSession) -> int:
        return int(await session.driver.fetchval(COUNT, session.tenant_id))

    async def batch(self, session: WriteSession, after: UUID, most: int) -> tuple[int, UUID | None]:
        rows = [row["id"] for row in await session.driver.fetch(ROWS, session.tenant_id, after, most)]
        if not rows:
            return 0, None
        self.batches += 1
        if self.before is not None:
            await self.before()
        if (failure := self.failures.pop(self.batches, None)) is not None:
            raise failure
        self.rows += [(session.tenant_id, row) for row in rows]
        return len(rows), rows[-1]


def runner(db: Database, visits: Visits, **more: Any) -> Runner:
    return Runner(db, visits.job, **({"tell": lambda standing: None} | more))


@pytest.fixture
def db(school: School) -> Database:
    return school.stack.services["content"].db


@pytest.fixture(scope="session")
async def words(school: School) -> list[tuple[UUID, UUID]]:
    """The rows that there are to visit, of two tenants, in the order of the visits."""
    made = []
    for person, many in ((school.teacher, 5), (school.outsider_teacher, 3)):
        sent = [
            vocabularies_pb2.Vocabulary(
                term=f"việc {number}", translation="for jobs", part_of_speech="PART_OF_SPEECH_NOUN"
            )
            for number in range(many)
        ]
        request = vocabularies_pb2.BatchCreateVocabulariesRequest(vocabularies=sent)
        answer = await person.stub(VocabularyServiceStub, "content").BatchCreateVocabularies(request)
        made += [(UUID(person.tenant_id), UUID(one.vocabulary.id)) for one in answer.results]
    return sorted(made)


@pytest.fixture(autouse=True)
async def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kit.jobs.PAUSE_SECONDS", 0.01)


@pytest.fixture
async def table(school: School) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(school.stack.cluster.superuser_url)
    yield connection
    await connection.close()


class TestRunner:
    async def test_visits_the_rows_of_every_tenant_once_in_their_own_transactions(
        self, db: Database, words: list[tuple[UUID, UUID]]
    ) -> None:
        visits, told = Visits(), []
        ended = await runner(db, visits, tell=told.append).run()
        assert visits.rows == words
        assert (ended.state, ended.done, ended.total) == ("done", 8, 8)
        assert [one.done for one in told] == sorted(one.done for one in told)

    async def test_goes_on_where_it_failed(self, db: Database, words: list[tuple[UUID, UUID]]) -> None:
        visits = Visits(failures={2: ValueError("broken")})
        with pytest.raises(ValueError, match="broken"):
            await runner(db, visits).run()
        assert {one.name: one.state for one in await standings(db)}[visits.name] == "failed"
        assert visits.rows == words[:2]
        await runner(db, visits).run()
        assert visits.rows == words

    async def test_tries_again_what_others_were_in_the_way_of(
        self, db: Database, words: list[tuple[UUID, UUID]]
    ) -> None:
        visits = Visits(failures={number: Aborted("busy") for number in (2, 3, 5)})
        assert (await runner(db, visits).run()).state == "done"
        assert visits.rows == words

    async def test_pauses_after_the_batch_at_hand(self, db: Database, words: list[tuple[UUID, UUID]]) -> None:
        visits = Visits()
        paused = runner(db, visits)

        async def pause() -> None:
            paused.pause()

        visits.before = pause
        assert (await paused.run()).state == "paused"
        assert visits.rows == words[:2]
        visits.before = None
        assert (await runner(db, visits).run()).done == 8
        assert visits.rows == words

    async def test_is_paused_and_taken_away_by_others(
        self, db: Database, words: list[tuple[UUID, UUID]], table: Any
    ) -> None:
        visits = Visits()
        assert not await tell_runner(db, PAUSE, visits.name)
        visits.before = lambda: tell_soon(PAUSE)
        waiting: list[Any] = []

        async def tell_soon(statement: str) -> None:
            visits.before = None
            # The batch holds the job's row: this waits for its end.
            waiting.append(asyncio.create_task(tell_runner(db, statement, visits.name)))
            async with asyncio.timeout(5):
                while not await table.fetchval(HELD_UP):
                    await asyncio.sleep(0.01)

        assert (await runner(db, visits).run()).state == "paused"
        # Of two who want the row PostgreSQL takes either: the next batch may come first.
        assert visits.rows == words[: len(visits.rows)] != words
        visits.before = lambda: tell_soon(ABORT)
        with pytest.raises(JobError):
            await runner(db, visits).run()
        assert await asyncio.gather(*waiting) == [True, True]
        visits.before, visits.rows = None, []
        await runner(db, visits).run()
        assert visits.rows == words

    async def test_runs_alone(self, db: Database, words: list[tuple[UUID, UUID]]) -> None:
        visits, others = Visits(), []

        async def run_another() -> None:
            with pytest.raises(JobError) as refusal:
                await runner(db, visits).run()
            others.append(str(refusal.value))

        visits.before = run_another
        await runner(db, visits).run()
        assert set(others) == {f"{visits.name} is running already."}
        assert visits.rows == words

    async def test_stops_when_another_runner_moved_on(
        self, db: Database, words: list[tuple[UUID, UUID]], table: Any
    ) -> None:
        """As if the connection that keeps others away had been lost."""
        visits = Visits()
        moved: list[Any] = []

        def meddle(standing: Standing) -> None:
            if standing.done == 2:
                change = "UPDATE content.jobs SET done = done + 1 WHERE name = $1"
                moved.append(asyncio.ensure_future(table.execute(change, visits.name)))

        with pytest.raises(JobError, match="changed by somebody else"):
            # It rests between batches: otherwise it could always be the next one to get the row.
            await runner(db, visits, tell=meddle, delay=0.1).run()
        await asyncio.gather(*moved)
        assert len(visits.rows) < len(words)

    async def test_done_again_begins_anew(self, db: Database, words: list[tuple[UUID, UUID]]) -> None:
        visits = Visits()
        await runner(db, visits).run()
        await runner(db, visits).run()
        assert visits.rows == words * 2


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def at(done: int, state: str = "running") -> Standing:
    return Standing("cut", state, NIL, NIL, done, 10)


class TestProgress:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
        now = [100.0]
        monkeypatch.setattr("kit.jobs.time.monotonic", lambda: now[0])
        return now  # type: ignore[return-value]

    def test_is_a_line_now_and_then_where_nobody_watches(self, clock: list[float]) -> None:
        stream = io.StringIO()
        progress = Progress(stream)
        for seconds in range(7):
            clock[0] = 100.0 + seconds
            progress.show(at(seconds))
        progress.show(at(10, "done"))
        assert stream.getvalue().splitlines() == [
            "cut running · 0% · 0 of 10",
            "cut running · 50% · 5 of 10 · 1/s · 5 s left",
            "cut done · 100% · 10 of 10",
        ]

    def test_is_a_bar_on_a_terminal(self, clock: list[float]) -> None:
        stream = Terminal()
        progress = Progress(stream)
        progress.show(at(0))
        clock[0] += 2
        progress.show(at(4))
        progress.show(at(10, "done"))
        *_, half, full = stream.getvalue().split("\r\x1b[2K")
        assert half == f"cut running · {'█' * 12}{'░' * 18} · 40% · 4 of 10 · 2/s · 3 s left"
        assert full == f"cut done · {'█' * 30} · 100% · 10 of 10\n"
