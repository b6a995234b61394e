"""Content's jobs, run as processes of their own, and killed in the middle."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import IntegrityError

from services.content.queries import backfills
from storyloom.content.v1.story_versions_pb2 import StoryVersion
from tests.content.conftest import Author, ListEntries
from tests.stack import School

TEXTS = (
    "Một đoạn.",
    "Đoạn một.\n\nĐoạn hai,\nhai dòng.\n \n\nĐoạn ba.",
    "\r\n\r\nCó CRLF.\r\n\r\n  Thụt vào.\r\n",
    "e\u0301 và é 👩‍👩‍👧.\n\n\n\n",
)
CHUNKS = (
    "SELECT version_id, position, kind, text, source, vocabulary_id FROM content.story_chunks"
    " WHERE version_id = ANY ($1) ORDER BY 1, 2"
)
VERSIONS = "SELECT * FROM content.story_versions WHERE id = ANY ($1) ORDER BY id"


@dataclass
class Forgotten:
    """Versions whose chunks are gone, as of rows that something else has written, and what was there before."""

    tables: Any
    ids: list[UUID]
    chunks: list[Any]
    versions: list[Any]

    async def forget(self) -> None:
        for row in self.versions:
            body = StoryVersion.FromString(row["body"])
            body.ClearField("chunks")
            change = "UPDATE content.story_versions SET body = $2, summary = '' WHERE id = $1"
            await self.tables.execute("DELETE FROM content.story_chunks WHERE version_id = $1", row["id"])
            await self.tables.execute(change, row["id"], body.SerializeToString())

    async def cut(self) -> int:
        """How many have chunks."""
        return len({row["version_id"] for row in await self.tables.fetch(CHUNKS, self.ids)})

    async def check_whole(self) -> None:
        assert await self.tables.fetch(CHUNKS, self.ids) == self.chunks
        assert await self.tables.fetch(VERSIONS, self.ids) == self.versions


@pytest.fixture
async def forgotten(tables: Any, teacher: Author, outsider: Author, words: dict[str, str]) -> Forgotten:
    made = [await teacher.story(text=text) for text in TEXTS * 2]
    made += [await outsider.story(text=text) for text in TEXTS]
    made += [await teacher.weave((await teacher.story()).id, share) for share in ("1", "0")]
    ids = [UUID(story.current_version.id) for story in made]
    there = Forgotten(tables, ids, *[await tables.fetch(query, ids) for query in (CHUNKS, VERSIONS)])
    await there.forget()
    return there


class Jobs:
    """`python -m kit.jobs`, with the environment of the running service."""

    def __init__(self, school: School) -> None:
        self.environment = {
            **school.stack.environments["content"],
            "PATH": os.environ["PATH"],
            "PYTHONPATH": "gen",
        }
        self.processes: list[asyncio.subprocess.Process] = []

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "kit.jobs", *arguments),
            env=self.environment,
            cwd=Path(__file__).parents[2],
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self.processes.append(process)
        return process

    async def backfill(self, *more: str) -> asyncio.subprocess.Process:
        return await self.start("run", "content", "backfill_chunks", *more)

    async def slowly(self, delay: str = "0.3") -> asyncio.subprocess.Process:
        return await self.backfill("--batch", "1", "--delay", delay)


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    out, said = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, (out + said).decode()


@pytest.fixture
async def jobs(school: School, tables: Any) -> AsyncIterator[Jobs]:
    made = Jobs(school)
    yield made
    for process in made.processes:
        if process.returncode is None:
            process.kill()
            await process.wait()
    await tables.execute("DELETE FROM content.jobs WHERE name = 'backfill_chunks'")


async def some_are_cut(forgotten: Forgotten, least: int) -> None:
    async with asyncio.timeout(30):
        while await forgotten.cut() < least:
            await asyncio.sleep(0.01)


@pytest.mark.slow
class TestBackfillChunks:
    async def test_gives_versions_exactly_the_chunks_that_new_ones_have(
        self, forgotten: Forgotten, jobs: Jobs
    ) -> None:
        status, said = await ended(await jobs.backfill())
        assert (status, said.splitlines()[-1]) == (0, f"backfill_chunks done · 100% · {len(forgotten.ids)} of 14")
        await forgotten.check_whole()
        status, said = await ended(await jobs.start("list", "content"))
        assert (status, said.partition(".")[0]) == (0, "backfill_chunks: done, 14 of 14")

    async def test_killed_in_the_middle_it_goes_on_and_nothing_is_doubled_or_lost(
        self, forgotten: Forgotten, jobs: Jobs, entries_of: ListEntries
    ) -> None:
        for least in (2, 6):
            process = await jobs.slowly()
            await some_are_cut(forgotten, least)
            process.send_signal(signal.SIGKILL)
            await process.wait()
            assert least <= await forgotten.cut() < len(forgotten.ids)
        status, said = await ended(await jobs.backfill("--batch", "3"))
        assert (status, said.splitlines()[-1]) == (0, "backfill_chunks done · 100% · 14 of 14")
        await forgotten.check_whole()
        told = [one.new_values for one in await entries_of(action="backfill_chunks")]
        named = [UUID(one["last_id"]) for one in told]
        assert len(named) == len(set(named))

    async def test_pauses_when_it_is_told_to_end_and_is_alone_meanwhile(self, forgotten: Forgotten, jobs: Jobs) -> None:
        process = await jobs.slowly("30")
        await some_are_cut(forgotten, 1)
        assert await ended(await jobs.backfill()) == (2, "jobs: backfill_chunks is running already.\n")
        process.terminate()
        status, said = await ended(process)
        assert (status, "backfill_chunks paused" in said) == (3, True)
        assert await forgotten.cut() < len(forgotten.ids)
        assert (await ended(await jobs.backfill()))[0] == 0
        await forgotten.check_whole()

    async def test_a_version_that_has_chunks_cannot_be_written(self, school: School, teacher: Author) -> None:
        version_id = UUID((await teacher.story()).current_version.id)
        with pytest.raises(IntegrityError, match="never changes"):
            async with school.stack.services["content"].db.write(UUID(teacher.person.tenant_id)) as session:
                await backfills.write_messages(session, version_id, b"", b"")

    async def test_what_there_is_not_is_refused(self, jobs: Jobs) -> None:
        refusal = await ended(await jobs.start("run", "content", "nothing"))
        assert refusal == (2, "jobs: content has no job nothing; it has backfill_chunks.\n")
