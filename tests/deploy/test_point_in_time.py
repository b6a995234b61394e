"""Moments: every change is archived as it is made, and the server comes back as it was at any of them."""

import asyncio
import base64
import dataclasses
import os
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

import asyncpg
import pyrage
import pytest

from deploy.backups.chain import chains, plan
from deploy.backups.checks import looked_over
from deploy.backups.drill import drill_moment
from deploy.backups.receiving import Receiver
from deploy.backups.rewinding import recovered, rewind, unpack
from deploy.backups.server import local_server, scratch_settings
from deploy.backups.settings import BackupSettings
from deploy.local.errors import RunError
from deploy.local.secrets import load_secrets, role_passwords
from deploy.local.settings import ROOT, Settings
from kit.catalog import lint
from kit.migrations import REPLICATION, ROLES, bootstrap
from kit.signing import Keyring
from tests.postgres import Cluster, migrated
from tests.profile import PROOF

KEY = os.urandom(32)


@pytest.fixture
def backups(place: Path) -> BackupSettings:
    kept, keys = place / "backups", Keyring(KEY)
    return BackupSettings(kept, timedelta(days=7), "", None, None, spool=place / "wal", wal_seconds=0.3, keys=keys)


@asynccontextmanager
async def receiving(backups: BackupSettings, cluster: Cluster) -> AsyncIterator[Receiver]:
    """A receiver that has a base and follows."""
    said: list[str] = []
    receiver = Receiver(backups, cluster.url(REPLICATION), said.append)
    running = asyncio.create_task(receiver.run())
    try:
        async with asyncio.timeout(30):
            while not any(chain.bases.all() for chain in chains(backups)[-1:]) or not receiver.state.reach:
                assert not running.done(), said
                await asyncio.sleep(0.05)
        yield receiver
    finally:
        receiver.stop()
        await running


@asynccontextmanager
async def marking(cluster: Cluster, backups: BackupSettings) -> AsyncIterator[asyncpg.Connection]:
    """A table for marks, on a server that keeps no log for us afterwards."""
    admin = await asyncpg.connect(cluster.admin_url)
    await admin.execute("CREATE TABLE IF NOT EXISTS marks (name text)")
    try:
        yield admin
    finally:
        await admin.execute("DROP TABLE marks")
        for chain in chains(backups):
            with suppress(asyncpg.UndefinedObjectError):
                await admin.fetchval("SELECT pg_drop_replication_slot($1)", chain.slot)
        await admin.close()


async def archived(receiver: Receiver, admin: asyncpg.Connection) -> datetime:
    """A moment until which everything is in the archive, once it is."""
    now: datetime = await admin.fetchval("SELECT clock_timestamp()")
    async with asyncio.timeout(30):
        while receiver.state.reach is None or receiver.state.reach <= now:
            await asyncio.sleep(0.02)
    return now


async def marks(admin_url: str) -> set[str]:
    admin = await asyncpg.connect(admin_url)
    try:
        return {row[0] for row in await admin.fetch("SELECT name FROM marks")}
    finally:
        await admin.close()


class TestReplicationRole:
    async def test_reads_no_table_and_the_catalog_says_so_if_it_may(self, cluster: Cluster) -> None:
        receiver = await asyncpg.connect(cluster.url(REPLICATION))
        for statement in ("SELECT FROM identity.users", "CREATE SCHEMA loot", "SELECT pg_read_file('PG_VERSION')"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await receiver.execute(statement)
        await receiver.close()
        admin = await asyncpg.connect(cluster.superuser_url)
        assert await lint(admin) == []
        change = admin.transaction()
        await change.start()
        await admin.execute(f"GRANT USAGE ON SCHEMA identity TO {REPLICATION}; ALTER ROLE {REPLICATION} BYPASSRLS")
        await admin.execute(f"GRANT SELECT ON identity.users TO {REPLICATION}")
        found = await lint(admin)
        await change.rollback()
        await admin.close()
        assert found == [
            "role storyloom_replication may SELECT on identity.users",
            "role storyloom_replication has USAGE on schema identity",
            "role storyloom_replication: rolbypassrls",
        ]


@pytest.mark.slow
class TestMoment:
    async def test_has_what_was_there_before_it_and_nothing_of_what_came_after(
        self, cluster: Cluster, backups: BackupSettings, place: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        key = pyrage.x25519.Identity.generate()
        (place / "identity").write_text(str(key))
        mine = dataclasses.replace(backups, recipient=str(key.to_public()), identity=place / "identity")
        async with marking(cluster, mine) as admin:
            async with receiving(mine, cluster) as receiver:
                await admin.execute("INSERT INTO marks VALUES ('before')")
                # Some whole segments, and the receiver killed between them: it goes on where it was.
                await admin.fetchval("SELECT pg_switch_wal()")
                walsender = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active"
                await admin.fetchval(walsender)
                await admin.execute("INSERT INTO marks VALUES ('at last')")
                await admin.fetchval("SELECT pg_switch_wal()")
                moment = await archived(receiver, admin)
                await admin.execute("INSERT INTO marks VALUES ('after')")
                await archived(receiver, admin)
            chain = chains(mine)[-1]
            assert {one.read_bytes()[:21] for one in chain.wal.iterdir()} == {b"age-encryption.org/v1"}
            way = plan(mine, moment, print)
            assert len(way.pieces) >= 2
            with scratch_settings() as scratch:
                unpack(way, mine, scratch)
                async with recovered(way, scratch) as admin_url:
                    assert await marks(admin_url) == {"before", "at last"}
                    assert await looked_over(admin_url, cluster.passwords, None, [])
        assert capsys.readouterr().out.count("ok  ") == 5


@pytest.mark.slow
@pytest.mark.skipif(not PROOF, reason="takes longer than it tells: `make proof`")
class TestReceiver:
    async def test_killed_with_its_child_left_behind_goes_on_without_a_gap(
        self, cluster: Cluster, backups: BackupSettings
    ) -> None:
        async with marking(cluster, backups) as admin:
            for round_ in range(5):
                program = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "deploy.backups", "wal",
                    env=os.environ | environment(backups, cluster), cwd=ROOT, stdout=DEVNULL,
                )  # fmt: skip
                async with asyncio.timeout(60):
                    while not (known := chains(backups)) or not known[-1].bases.all():
                        await asyncio.sleep(0.05)
                await admin.execute(f"INSERT INTO marks VALUES ('{round_}')")
                await admin.fetchval("SELECT pg_switch_wal()")
                await asyncio.sleep(0.3 * round_)
                program.kill()
                await program.wait()
            await admin.fetchval("SELECT pg_switch_wal()")
            async with receiving(backups, cluster) as receiver:
                moment = await archived(receiver, admin)
            (chain,) = chains(backups)
            assert sorted(chain.pieces()) == list(range(min(chain.pieces()), max(chain.pieces()) + 1))
            with scratch_settings() as scratch:
                way = plan(backups, moment, print)
                unpack(way, backups, scratch)
                async with recovered(way, scratch) as admin_url:
                    assert await marks(admin_url) == {str(one) for one in range(5)}

    async def test_that_lost_its_slot_leaves_a_gap_that_is_told(
        self, cluster: Cluster, backups: BackupSettings, place: Path
    ) -> None:
        async with marking(cluster, backups) as admin:
            async with receiving(backups, cluster) as receiver:
                last = await archived(receiver, admin)
            first = chains(backups)[-1]
            await admin.fetchval("SELECT pg_drop_replication_slot($1)", first.slot)
            lost: datetime = await admin.fetchval("SELECT clock_timestamp()")
            async with receiving(backups, cluster) as receiver:
                later = await archived(receiver, admin)
            assert len(chains(backups)) == 2
            assert plan(backups, last, print).chain.folder == first.folder
            assert plan(backups, later, print).chain.folder != first.folder
            with pytest.raises(RunError, match=r"The archive ends at .*, before what was asked for. It goes on at "):
                plan(backups, lost, print)

    async def test_begins_anew_when_the_server_could_not_keep_the_log_for_it(
        self, settings: Settings, backups: BackupSettings
    ) -> None:
        async with local_server(settings, {"max_slot_wal_keep_size": "16MB"}) as admin_url:
            cluster = Cluster(admin_url, dict.fromkeys(ROLES, "known"))
            await bootstrap(admin_url, cluster.passwords)
            async with marking(cluster, backups) as admin:
                async with receiving(backups, cluster) as receiver:
                    await archived(receiver, admin)
                for _ in range(4):
                    await admin.execute("INSERT INTO marks VALUES ('much')")
                    await admin.fetchval("SELECT pg_switch_wal()")
                await admin.execute("CHECKPOINT")
                assert await admin.fetchval("SELECT wal_status FROM pg_replication_slots") == "lost"
                async with receiving(backups, cluster) as receiver:
                    await archived(receiver, admin)
        assert len(chains(backups)) == 2

    async def test_catches_up_when_the_archive_could_not_be_written(
        self, cluster: Cluster, backups: BackupSettings, place: Path
    ) -> None:
        async with marking(cluster, backups) as admin:
            async with receiving(backups, cluster) as receiver:
                await archived(receiver, admin)
                wal = chains(backups)[-1].wal
                aside = wal.with_name("aside")
                # No disk can be filled here: a folder that is gone fails at the same place.
                wal.rename(aside)
                for _ in range(3):
                    await admin.fetchval("SELECT pg_switch_wal()")
                    await asyncio.sleep(0.5)
                behind = receiver.state.reach
                aside.rename(wal)
                moment = await archived(receiver, admin)
            assert behind
            assert behind < moment
            assert plan(backups, moment, print).at == moment


def environment(backups: BackupSettings, cluster: Cluster) -> dict[str, str]:
    return {
        "PYTHONPATH": str(ROOT / "gen"),
        "BACKUP_DIRECTORY": str(backups.directory),
        "BACKUP_SIGNING_KEY": base64.urlsafe_b64encode(KEY).decode(),
        "BACKUP_SPOOL_DIRECTORY": str(backups.spool),
        "BACKUP_WAL_SECONDS": "1",
        "REPLICATION_DATABASE_URL": cluster.url(REPLICATION),
        "OTEL_METRICS_EXPORTER": "none",
    }


@pytest.mark.slow
@pytest.mark.skipif(not PROOF, reason="starts whole servers: `make proof`")
class TestRewind:
    async def test_puts_the_local_server_back_and_keeps_what_was_there(
        self, settings: Settings, backups: BackupSettings, capsys: pytest.CaptureFixture[str]
    ) -> None:
        passwords = role_passwords(load_secrets(settings.directory / "secrets.env"))
        async with local_server(settings) as admin_url:
            cluster = await migrated(admin_url, passwords)
            async with marking(cluster, backups) as admin, receiving(backups, cluster) as receiver:
                await admin.execute("INSERT INTO marks VALUES ('before')")
                moment = await archived(receiver, admin)
                await admin.execute("INSERT INTO marks VALUES ('after')")
                await archived(receiver, admin)
        assert await drill_moment(settings, backups, moment) == 0
        assert await rewind(settings, backups, moment) == 0
        said = capsys.readouterr().out
        assert said.count("ok  ") == 10
        assert said.count("RPO") == said.count("RTO") == 2
        async with local_server(settings) as admin_url:
            assert await marks(admin_url) == {"before"}
            # It is another server now: its log goes into a chain of its own.
            async with receiving(backups, Cluster(admin_url, passwords)):
                assert [one.timeline for one in chains(backups)] == [1, 2]
        (kept,) = settings.directory.glob("postgres_*")
        async with local_server(dataclasses.replace(settings, directory=moved(kept))) as admin_url:
            connected = await asyncpg.connect(admin_url)
            assert await connected.fetchval("SELECT pg_is_in_recovery()") is False
            await connected.close()


def moved(data: Path) -> Path:
    """A stack's folder that has this data."""
    folder = data.with_name("kept")
    (folder / "logs").mkdir(parents=True)
    data.rename(folder / "postgres")
    return folder
