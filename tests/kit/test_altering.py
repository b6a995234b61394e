"""Tables in use are altered between those who use them; what was broken off goes on when it is run again."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError

from kit import altering, migrations
from tests.contract import databases
from tests.contract.databases import Scratch
from tests.postgres import Cluster

pytestmark = pytest.mark.slow

FILE = '''
"""A change."""
from alembic import op
from kit.altering import build_index, drop_index, enforce
revision, down_revision, branch_labels, depends_on = "{revision}", {before!r}, None, None
def upgrade():
    {up}
def downgrade():
    {down}
'''
CREATE = 'op.execute("CREATE TABLE learning.shelves (id integer, width integer)")'
WIDEN = 'op.execute("ALTER TABLE learning.shelves ADD COLUMN height integer")'
# The second time there is a mark.
SLOW_AT_FIRST = """import pathlib; mark = pathlib.Path({mark}); there = mark.exists(); mark.touch()
    op.execute(f"SELECT pg_sleep({{0 if there else 5}})")"""
INDEX = 'build_index("learning", "ix_shelves_width", "shelves (width)")'
ENFORCE = 'enforce("learning", "shelves", "ck_shelves_width", "CHECK (width > 0)")'
COLUMNS = "SELECT attname FROM pg_attribute WHERE attrelid = 'learning.shelves'::regclass AND attnum > 0"
VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('learning.ix_shelves_width')"
WORKING = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'storyloom-migrations'"
PROGRAM = """
import sys
from pathlib import Path
from kit import migrations
migrations.upgrade("learning", sys.argv[1], sys.argv[2], also=Path(sys.argv[3]))
"""


@dataclass
class Shelves:
    """A schema in use, with a table and a history of its own in the folder."""

    scratch: Scratch
    folder: Path
    tables: Any
    newest: int = 1000

    def write(self, up: str, down: str = "pass") -> None:
        """The next migration."""
        before, self.newest = str(self.newest) if self.newest > 1000 else None, self.newest + 1
        text = FILE.format(revision=self.newest, before=before, up=up, down=down)
        (self.folder / f"{self.newest}_change.py").write_text(text)

    async def upgrade(self) -> None:
        url, newest = self.scratch.owner_url, str(self.newest)
        await asyncio.to_thread(migrations.upgrade, "learning", url, newest, also=self.folder)

    async def columns(self) -> list[str]:
        return [row["attname"] for row in await self.tables.fetch(COLUMNS)]

    async def until(self, condition: str, wanted: Any) -> None:
        async with asyncio.timeout(30):
            while await self.tables.fetchval(condition) != wanted:
                await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
async def scratch(cluster: Cluster) -> Scratch:
    return await databases.create(cluster, "kit_altering")


@pytest.fixture
async def shelves(
    scratch: Scratch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Shelves]:
    monkeypatch.setattr("kit.altering.PAUSES", (0.1,) * 30)
    tables = await asyncpg.connect(scratch.superuser_url)
    made = Shelves(scratch, tmp_path, tables)
    made.write(CREATE)
    await made.upgrade()
    await tables.execute("INSERT INTO learning.shelves SELECT n, n FROM generate_series(0, 9) n")
    yield made
    await tables.execute("DROP TABLE learning.shelves, learning.alembic_version")
    await tables.close()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the runner said; services that this process serves say things as well."""
    return [one.getMessage() for one in caplog.records if one.name == altering.log.name]


class TestTransactions:
    async def test_let_those_behind_them_pass_while_somebody_reads_for_long(
        self, shelves: Shelves, caplog: pytest.LogCaptureFixture
    ) -> None:
        shelves.write(WIDEN)
        # Whoever comes by meanwhile waits for a moment, and never for as long as this.
        await shelves.tables.execute("SET lock_timeout = '700ms'")
        reader, longest = await asyncpg.connect(shelves.scratch.superuser_url), 0.0
        async with reader.transaction():
            await reader.fetch("SELECT * FROM learning.shelves")
            upgrade = asyncio.create_task(shelves.upgrade())
            while caplog.text.count("somebody holds what it waits for; again in 0.1 s") < 2:
                began = time.monotonic()
                await shelves.tables.fetchval("SELECT count(*) FROM learning.shelves")
                longest = max(longest, time.monotonic() - began)
                await asyncio.sleep(0.01)
        await upgrade
        await reader.close()
        assert longest > 0.1
        assert await shelves.columns() == ["id", "width", "height"]

    async def test_that_keep_a_lock_too_long_are_ended_and_tried_again(
        self, shelves: Shelves, caplog: pytest.LogCaptureFixture
    ) -> None:
        shelves.write(f"{WIDEN}; {SLOW_AT_FIRST}".format(mark=repr(str(shelves.folder / "mark"))))
        await shelves.upgrade()
        assert said(caplog) == ["learning: ended by the server, as after 900ms in one transaction; again in 0.1 s"]
        assert await shelves.columns() == ["id", "width", "height"]

    async def test_are_not_tried_again_when_what_they_do_is_wrong(self, shelves: Shelves) -> None:
        shelves.write('op.execute("ALTER TABLE learning.shelfs ADD COLUMN height integer")')
        with pytest.raises(DBAPIError, match="shelfs"):
            await shelves.upgrade()


class TestTwoAtOnce:
    async def test_come_one_after_the_other(self, shelves: Shelves, caplog: pytest.LogCaptureFixture) -> None:
        shelves.write(WIDEN)
        key = "SELECT {}(hashtextextended('learning.migrations', 0))"
        await shelves.tables.execute(key.format("pg_advisory_lock"))
        upgrade = asyncio.create_task(shelves.upgrade())
        async with asyncio.timeout(30):
            while "another migration runs" not in caplog.text:
                await asyncio.sleep(0.02)
        assert await shelves.columns() == ["id", "width"]
        await shelves.tables.execute(key.format("pg_advisory_unlock"))
        await upgrade
        assert "height" in await shelves.columns()

    async def test_do_not_wait_for_ever(self, shelves: Shelves, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("kit.altering.PATIENCE", 0.1)
        shelves.write(WIDEN)
        await shelves.tables.execute("SELECT pg_advisory_lock(hashtextextended('learning.migrations', 0))")
        with pytest.raises(altering.MigrationError, match="Another migration of learning does not end"):
            await shelves.upgrade()
        await shelves.tables.execute("SELECT pg_advisory_unlock_all()")


class TestBuildIndex:
    async def test_that_was_killed_is_built_anew(self, shelves: Shelves) -> None:
        shelves.write(INDEX)
        writer = await asyncpg.connect(shelves.scratch.superuser_url)
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute("UPDATE learning.shelves SET width = 1 WHERE id = 1")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "ignore", "-c", PROGRAM),
            *(shelves.scratch.owner_url, str(shelves.newest), str(shelves.folder)),
            env={"PATH": os.environ["PATH"], "PYTHONPATH": "gen:."},
            cwd=migrations.ROOT,
        )
        await shelves.until(VALID, False)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        # The server notices by itself that nobody is there for whom it builds the index.
        await shelves.until(WORKING, 0)
        await transaction.rollback()
        await writer.close()
        assert await shelves.tables.fetchval(VALID) is False
        await shelves.upgrade()
        assert await shelves.tables.fetchval(VALID) is True

    async def test_waits_for_writers_as_long_as_they_take(
        self, shelves: Shelves, caplog: pytest.LogCaptureFixture
    ) -> None:
        shelves.write(INDEX, 'drop_index("learning", "ix_shelves_width")')
        writer = await asyncpg.connect(shelves.scratch.superuser_url)
        async with writer.transaction():
            await writer.execute("UPDATE learning.shelves SET width = 1 WHERE id = 1")
            upgrade = asyncio.create_task(shelves.upgrade())
            await shelves.until(VALID, False)
            # Longer than a migration's transactions may take.
            await asyncio.sleep(1)
            await shelves.tables.execute("UPDATE learning.shelves SET width = 2 WHERE id = 2")
            assert not upgrade.done()
        await upgrade
        await writer.close()
        assert said(caplog) == []
        assert await shelves.tables.fetchval(VALID) is True
        url = shelves.scratch.owner_url
        await asyncio.to_thread(migrations.downgrade, "learning", url, "1001", also=shelves.folder)
        assert await shelves.tables.fetchval(VALID) is None


class TestEnforce:
    async def test_goes_on_when_the_rows_that_were_wrong_are_right(self, shelves: Shelves) -> None:
        shelves.write(ENFORCE)
        with pytest.raises(DBAPIError, match="ck_shelves_width"):
            await shelves.upgrade()
        # New rows are bound by it already.
        with pytest.raises(asyncpg.CheckViolationError):
            await shelves.tables.execute("INSERT INTO learning.shelves VALUES (10, 0)")
        await shelves.tables.execute("UPDATE learning.shelves SET width = 1 WHERE width = 0")
        await shelves.upgrade()
        valid = "SELECT convalidated FROM pg_constraint WHERE conname = 'ck_shelves_width'"
        assert await shelves.tables.fetchval(valid) is True
