"""A schema goes up, down and up again under a service that knows nothing of it, and nobody waits for a second."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from alembic.script import ScriptDirectory

from kit import migrations
from kit.jobs import Runner
from tests.fault.crowding import Crowd, crowded
from tests.fault.processes import Processes, processes
from tests.fault.ranking import RANK_LEVELS
from tests.postgres import Cluster
from tests.profile import PROOF
from tests.stack import School

WIDENING = Path(__file__).parent / "widening"
BEFORE = ScriptDirectory.from_config(migrations.config("content", "")).get_current_head() or ""
EXPANDED, ENFORCED = "202701100900", "202701200900"
# What a transaction of a migration may take. Services themselves give up after a second, so that none waits longer.
MOST = 0.9
ROWS, SOME_ROWS, KILLED_AFTER = 1_000_000, 10_000, 200_000
FILL = """
INSERT INTO content.vocabularies (tenant_id, term, term_key, translation, part_of_speech, sense, level, explanation,
                                  forms, language, learning_language)
SELECT $1, 'filled ' || n, 'filled ' || n, 'word', 'noun', 1, (ARRAY['A1', 'A2', 'B1', 'B2', 'C1', 'C2'])[n % 6 + 1],
       '', '[]', 'vi', 'en'
FROM generate_series(1, $2::integer) n
"""
SOME = """
SELECT id::text FROM content.vocabularies WHERE tenant_id = $1 AND term LIKE 'filled %' ORDER BY random() LIMIT 5000
"""
WRONG = "SELECT count(*) FROM content.vocabularies WHERE level_rank IS DISTINCT FROM content.rank_of(level)"
MADE = """
SELECT indexrelid::regclass::text || ' ' || indisvalid FROM pg_index
WHERE indexrelid::regclass::text ~ 'vocabularies_tenant_id_(level_rank|story)'
UNION ALL SELECT conname || ' ' || convalidated FROM pg_constraint
WHERE conname IN ('nn_vocabularies_level_rank', 'fk_vocabularies_tenant_id_story_id')
ORDER BY 1
"""
WAITING = """
SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE NOT l.granted AND a.application_name = 'storyloom-migrations'
"""
ALL_MADE = [
    "content.ix_vocabularies_tenant_id_level_rank_id true",
    "content.ix_vocabularies_tenant_id_story_id true",
    "fk_vocabularies_tenant_id_story_id true",
    "nn_vocabularies_level_rank true",
]


async def fill(tables: Any, tenant_id: str, rows: int) -> list[str]:
    """Past the triggers that keep what searches look into: it is not what is looked at here."""
    async with tables.transaction():
        await tables.execute("SET LOCAL session_replication_role = replica")
        await tables.execute(FILL, UUID(tenant_id), rows, timeout=900)
    await tables.execute("ANALYZE content.vocabularies")
    return [row["id"] for row in await tables.fetch(SOME, UUID(tenant_id))]


async def to(cluster: Cluster, revision: str, *, down: bool = False) -> None:
    move = migrations.downgrade if down else migrations.upgrade
    await asyncio.to_thread(move, "content", cluster.owner_url, revision, also=WIDENING)


async def check_made(tables: Any) -> None:
    assert await tables.fetchval(WRONG) == 0
    assert [row[0] for row in await tables.fetch(MADE)] == ALL_MADE


def check(crowd: Crowd) -> None:
    assert crowd.failures == []
    assert crowd.locks.waited < MOST
    assert crowd.locks.held < MOST


@asynccontextmanager
async def reading_long(cluster: Cluster, tables: Any, seconds: float) -> AsyncIterator[None]:
    """A report that reads the table, for so long after a migration has begun to wait for its end."""
    connection = await asyncpg.connect(cluster.superuser_url)

    async def read() -> None:
        async with connection.transaction(), asyncio.timeout(60):
            await connection.fetchval("SELECT id FROM content.vocabularies LIMIT 1")
            while not await tables.fetchval(WAITING):
                await asyncio.sleep(0.02)
            await asyncio.sleep(seconds)

    report = asyncio.create_task(read())
    await asyncio.sleep(0.1)
    try:
        yield
    finally:
        await report
        await connection.close()


@pytest.mark.slow
class TestUpDownUp:
    async def test_keeps_nobody_waiting(self, school: School) -> None:
        """The short way of the proof, in the services that other tests have too."""
        cluster, db = school.stack.cluster, school.stack.services["content"].db
        tables = await asyncpg.connect(cluster.superuser_url)
        ids = await fill(tables, school.teacher.tenant_id, SOME_ROWS)
        try:
            async with crowded(school.teacher, ids, cluster.superuser_url, each=1) as crowd:
                async with reading_long(cluster, tables, 1.2):
                    await to(cluster, EXPANDED)
                await Runner(db, RANK_LEVELS, batch_size=5000, tell=lambda _: None).run()
                await to(cluster, ENFORCED)
                await check_made(tables)
                await to(cluster, BEFORE, down=True)
                await to(cluster, EXPANDED)
                await to(cluster, BEFORE, down=True)
            check(crowd)
        finally:
            await tables.execute("DELETE FROM content.jobs WHERE name = 'rank_levels'")
            await tables.execute("SET session_replication_role = replica")
            await tables.execute("DELETE FROM content.vocabularies WHERE term LIKE 'filled %'")
            await tables.close()


class Steps:
    """Says what was done, and what people saw of it: all that is known at the end of each step."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[None]:
        await self._crowd.sign_in_again()
        began, seen = time.monotonic(), len(self._crowd.seconds)
        yield
        longest = max(self._crowd.seconds[seen:], default=0.0)
        many = len(self._crowd.seconds) - seen
        took = f"{name:<36} {time.monotonic() - began:6.1f} s"
        sys.stdout.write(f"{took}  {many:>7,} requests, longest {1000 * longest:5,.0f} ms\n")


async def backfill(running: Processes, tables: Any, *, kill: bool) -> None:
    """By the command that operators have; killed in the middle, it goes on when it is run again."""
    environment = running.environments["content"] | {"PATH": os.environ["PATH"], "PYTHONPATH": "gen"}
    for killed in (True, False) if kill else (False,):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "ignore", "-m", "tests.fault.ranking", "run", "content", "rank_levels"),
            env=environment,
            cwd=migrations.ROOT,
            stderr=asyncio.subprocess.PIPE,
        )
        if killed:
            while (await tables.fetchval("SELECT max(done) FROM content.jobs") or 0) < KILLED_AFTER:
                await asyncio.sleep(0.05)
            process.send_signal(signal.SIGKILL)
        _, said = await process.communicate()
        last = said.decode().strip().splitlines()[-1]
        sys.stdout.write(f"  {last} → exit status {process.returncode}\n")
        assert process.returncode == (-signal.SIGKILL if killed else 0)


@pytest.mark.skipif(not PROOF, reason="a million rows take minutes: make proof")
@pytest.mark.timeout(1800)
class TestUpDownUpWithAMillionRows:
    async def test_keeps_nobody_waiting(self, tmp_path: Path) -> None:
        async with processes(tmp_path, "identity", "content") as (running, school):
            tables = await asyncpg.connect(running.cluster.superuser_url)
            began = time.monotonic()
            ids = await fill(tables, school.teacher.tenant_id, ROWS)
            sys.stdout.write(f"\n{ROWS:,} words filled in in {time.monotonic() - began:.0f} s\n")
            async with crowded(school.teacher, ids, running.cluster.superuser_url, each=2) as crowd:
                await self._up_down_up(running, tables, Steps(crowd))
            sys.stdout.write(f"{crowd.told()}\n")
            await tables.close()
            check(crowd)

    async def _up_down_up(self, running: Processes, tables: Any, steps: Steps) -> None:
        async with steps.step("nothing, for comparison"):
            await asyncio.sleep(10)
        async with steps.step("expand, behind a report of 5 s"), reading_long(running.cluster, tables, 5):
            await to(running.cluster, EXPANDED)
        async with steps.step("backfill, killed and gone on with"):
            await backfill(running, tables, kill=True)
        async with steps.step("enforce"):
            await to(running.cluster, ENFORCED)
        await check_made(tables)
        async with steps.step("down"):
            await to(running.cluster, BEFORE, down=True)
        async with steps.step("expand again"):
            await to(running.cluster, EXPANDED)
        async with steps.step("backfill again"):
            await backfill(running, tables, kill=False)
        async with steps.step("enforce again"):
            await to(running.cluster, ENFORCED)
        await check_made(tables)
