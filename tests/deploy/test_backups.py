"""Backups of a database with people in it: made, checked, brought back, kept and thrown away."""

import asyncio
import dataclasses
import errno
import os
import secrets
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pyrage
import pytest

from deploy.backups.archive import Archive, Backup
from deploy.backups.drill import drill
from deploy.backups.dumping import begun, create
from deploy.backups.forgetting import forget_again, forgotten_since
from deploy.backups.parts import Counting
from deploy.backups.restoring import make_missing_roles, restore, restore_files
from deploy.backups.settings import BackupSettings, read_backup_settings
from deploy.local.errors import RunError
from deploy.local.settings import Settings
from kit.ids import NIL
from kit.migrations import BACKUP, ROLES, in_database
from kit.signing import Keyring
from tests.postgres import Cluster, empty_server
from tests.stack import School

# For a superuser, the log is not append-only.
UNGUARDED = "SET session_replication_role = replica"
FORGE = (
    "INSERT INTO identity.erasures (tenant_id, subject_type, subject_id, requester_id, state, receipts, complete_time)"
    " VALUES"
)
FAULTS = (
    "DROP POLICY tenant ON identity.users; CREATE POLICY tenant ON identity.users USING (true)",
    f"{UNGUARDED}; UPDATE audit.audit_logs SET leaf = leaf || ' '::bytea"
    " WHERE id = (SELECT l.id FROM audit.tree_leaves l JOIN audit.audit_logs USING (tenant_id, id) LIMIT 1)",
    # Of trees that were signed once, so that there is a root that contradicts it.
    f"{UNGUARDED}; UPDATE audit.tree_leaves SET hash = sha256('x') WHERE leaf_index = 0"
    " AND tenant_id = (SELECT tenant_id FROM audit.checkpoints LIMIT 1)",
)
TABLES = """
SELECT c.oid::regclass::text FROM pg_class c WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND c.relnamespace::regnamespace::text IN ('identity', 'content', 'learning', 'assessment', 'audit') ORDER BY 1
"""


@pytest.fixture
def backups(place: Path) -> BackupSettings:
    return kept_in(place / "backups")


def kept_in(folder: Path) -> BackupSettings:
    keys = Keyring(secrets.token_bytes(32))
    return BackupSettings(folder, timedelta(days=7), recipient="", identity=None, storage=None, keys=keys)


class Kept(NamedTuple):
    """A backup, and where it is."""

    settings: BackupSettings
    backup: Backup


@pytest.fixture(scope="module")
async def sound(school: School, cluster: Cluster) -> AsyncIterator[Kept]:
    """A backup of a school, which nobody may change."""
    await school.settle()
    # Trees grow by themselves, twice a second.
    await asyncio.sleep(1)
    with tempfile.TemporaryDirectory(prefix="sl-") as folder:
        settings = kept_in(Path(folder))
        yield Kept(settings, await made(settings, cluster))


@pytest.fixture
async def empty() -> AsyncIterator[Cluster]:
    """A server with nothing on it, and passwords for the roles that a restore makes."""
    async with empty_server() as admin_url:
        yield Cluster(admin_url, {role: secrets.token_hex(8) for role in ROLES})


async def made(backups: BackupSettings, cluster: Cluster) -> Backup:
    folder = await asyncio.to_thread(create, backups, cluster.url(BACKUP))
    return backups.dumps.find(folder.name)


async def counts(url: str) -> dict[str, int]:
    connected = await asyncpg.connect(url)
    try:
        tables = [row[0] for row in await connected.fetch(TABLES)]
        return {one: await connected.fetchval(f"SELECT count(*) FROM {one}") for one in tables}
    finally:
        await connected.close()


async def executed(url: str, statement: str) -> str:
    connected = await asyncpg.connect(url)
    try:
        return await connected.execute(statement)
    finally:
        await connected.close()


async def brought_back(settings: BackupSettings, backup: Backup, into: Cluster) -> str:
    return await restore(backup, settings, into.admin_url, into.passwords)


class TestBackupRole:
    async def test_reads_every_tenants_rows_and_writes_none(self, school: School, cluster: Cluster) -> None:
        assert (await counts(cluster.url(BACKUP)))["identity.users"] > 1
        for statement in ("DELETE FROM identity.users", "CREATE TABLE identity.loot (id int)"):
            for begin in ("", "SET default_transaction_read_only = off; "):
                with pytest.raises(asyncpg.PostgresError):
                    await executed(cluster.url(BACKUP), begin + statement)


class TestRestore:
    async def test_brings_every_row_back_and_keeps_what_was_there_under_another_name(
        self, school: School, cluster: Cluster, backups: BackupSettings, empty: Cluster
    ) -> None:
        await school.settle()
        backup, wanted = await made(backups, cluster), await counts(cluster.superuser_url)
        assert await brought_back(backups, backup, empty) == ""
        found = await counts(empty.superuser_url)
        # Services write on their own: what was sent, what sessions and rows of work became.
        moving = {name for name in wanted if name.rpartition(".")[2] in {"outbox", "inbox", "idempotency_keys"}}
        assert {name: found[name] for name in found.keys() - moving} == {
            name: wanted[name] for name in wanted.keys() - moving
        }
        assert await executed(empty.service_url("content"), "SELECT 1") == "SELECT 1"
        await executed(empty.superuser_url, f"{UNGUARDED}; DELETE FROM audit.checkpoints")
        kept = await brought_back(backups, backup, empty)
        assert kept.startswith("storyloom_20")
        assert (await counts(in_database(empty.admin_url, kept)))["audit.checkpoints"] == 0
        assert (await counts(empty.superuser_url))["audit.checkpoints"] > 0

    async def test_touches_nothing_while_services_are_connected(
        self, school: School, sound: Kept, cluster: Cluster
    ) -> None:
        with pytest.raises(RunError, match="stop the services first"):
            await brought_back(*sound, cluster)

    async def test_refuses_a_backup_that_was_changed(
        self, cluster: Cluster, backups: BackupSettings, place: Path
    ) -> None:
        backup = await made(backups, cluster)
        path = backups.dumps.path(backup, backup.part("database"))
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with pytest.raises(RunError, match="SHA-256 differs"):
            await brought_back(backups, backup, cluster)

    async def test_gives_uploaded_files_back(self, backups: BackupSettings, cluster: Cluster, place: Path) -> None:
        storage = place / "storage"
        storage.mkdir()
        (storage / "voice.mp3").write_bytes(b"sound")
        (storage / "voice.mp3").chmod(0o6755)
        mine = dataclasses.replace(backups, storage=storage)
        backup = await made(mine, cluster)
        (storage / "voice.mp3").unlink()
        (storage / "later.mp3").write_bytes(b"later")
        assert restore_files(mine.dumps, backup, mine) == storage
        assert {one.name: one.read_bytes() for one in storage.iterdir()} == {
            "voice.mp3": b"sound",
            "later.mp3": b"later",
        }
        # Nothing in a backup becomes a program that runs as whoever restores it.
        assert not (storage / "voice.mp3").stat().st_mode & 0o7000


    async def test_makes_roles_that_operators_have_given_rights_to(self, empty: Cluster) -> None:
        script = """
CREATE ROLE analyst;
ALTER ROLE analyst WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB LOGIN NOREPLICATION NOBYPASSRLS;
ALTER ROLE analyst SET statement_timeout TO '5s';
CREATE ROLE "Odd ""big"" name";
ALTER ROLE "Odd ""big"" name" WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB NOLOGIN NOREPLICATION NOBYPASSRLS;
CREATE ROLE postgres;
ALTER ROLE postgres WITH NOSUPERUSER;
GRANT "Odd ""big"" name" TO analyst WITH INHERIT TRUE GRANTED BY somebody;
GRANT analyst TO postgres GRANTED BY somebody;
"""
        admin = await asyncpg.connect(empty.admin_url)
        await make_missing_roles(admin, script)
        found = {row["rolname"]: row for row in await admin.fetch("SELECT * FROM pg_roles")}
        members = await admin.fetch("SELECT FROM pg_auth_members WHERE roleid = 'analyst'::regrole")
        await admin.close()
        assert found["postgres"]["rolsuper"]
        assert found["analyst"]["rolconfig"] == ["statement_timeout=5s"]
        assert 'Odd "big" name' in found
        assert members == []


class TestEncryption:
    async def test_shows_nothing_and_opens_with_the_identity_alone(
        self, school: School, cluster: Cluster, backups: BackupSettings, empty: Cluster, place: Path
    ) -> None:
        key, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
        mine = dataclasses.replace(backups, recipient=str(key.to_public()))
        backup = await made(mine, cluster)
        assert backup.encrypted
        for part in backup.parts:
            assert mine.dumps.path(backup, part).read_bytes().startswith(b"age-encryption.org/v1")
        with pytest.raises(RunError, match="BACKUP_IDENTITY"):
            await brought_back(mine, backup, empty)
        for name, identity in (("right", key), ("wrong", other)):
            (place / name).write_text(f"# made for a test\n{identity}\n")
        with pytest.raises(RunError, match="No matching keys"):
            await brought_back(dataclasses.replace(mine, identity=place / "wrong"), backup, empty)
        await brought_back(dataclasses.replace(mine, identity=place / "right"), backup, empty)
        assert (await counts(empty.superuser_url))["identity.users"] > 1


class TestDrill:
    async def test_finds_a_sound_backup_sound(
        self, sound: Kept, cluster: Cluster, settings: Settings, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert await drill(dataclasses.replace(settings, database_url=cluster.admin_url), sound.settings, "latest") == 0
        said = capsys.readouterr().out
        assert said.count("ok  ") == 5
        assert "RPO" in said
        assert "RTO" in said

    async def test_finds_what_is_wrong(
        self, sound: Kept, empty: Cluster, settings: Settings, place: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        await brought_back(*sound, empty)
        for fault in FAULTS:
            await executed(empty.superuser_url, fault)
        damaged = dataclasses.replace(sound.settings, directory=place / "damaged")
        await made(damaged, empty)
        assert await drill(dataclasses.replace(settings, database_url=empty.admin_url), damaged, "latest") == 1
        said = capsys.readouterr().out
        for told in (
            "FAIL the catalog has no hole",
            "identity.users: policy using is",
            "FAIL each service sees one tenant at a time",
            "identity.users can be read without a tenant",
            "FAIL audit logs are what was signed",
            "entries are not what their leaves say",
            "checkpoints have another root",
        ):
            assert told in said


class TestForgetting:
    async def test_erases_anew_who_was_erased_since(
        self, school: School, sound: Kept, empty: Cluster
    ) -> None:
        await brought_back(*sound, empty)
        user = school.student
        before = await counts(empty.superuser_url)
        await executed(
            empty.superuser_url,
            f"{FORGE} ('{user.tenant_id}', 'user', '{user.user_id}', '{school.admin.user_id}', 'done', '{{}}', now())",
        )
        superuser = await asyncpg.connect(empty.superuser_url)
        # A school's row that names another school, as one may have come with it from elsewhere.
        other = school.outsider.tenant_id
        await superuser.execute(f"{FORGE} ('{user.tenant_id}', 'tenant', '{other}', '{NIL}', 'done', '{{}}', now())")
        erasures = await forgotten_since(superuser, datetime.now(UTC) - timedelta(minutes=1))
        urls = {role: empty.url(role) for role in ROLES}
        assert not [one for one in erasures if str(one.subject_id) == other]
        assert [one.subject_id for one in erasures if str(one.subject_id) == str(user.user_id)]
        assert await forget_again(erasures, urls) == len(erasures)
        assert not await superuser.fetchval("SELECT count(*) FROM identity.users WHERE id = $1", user.user_id)
        await superuser.close()
        after = await counts(empty.superuser_url)
        assert after["identity.users"] < before["identity.users"]


class TestArchive:
    def kept(self, archive: Archive, days_ago: int, *, damaged: bool = False) -> Backup:
        at = datetime.now(UTC) - timedelta(days=days_ago)
        folder = archive.begin(at)
        out = Counting(folder / "database.dump")
        out.write(b"rows")
        backup = Backup(folder.name.partition(".")[0], at, at, "18", encrypted=False, parts=(out.close(),))
        final = archive.keep(folder, backup)
        if damaged:
            (final / "database.dump").write_bytes(b"rubbish")
        return backup

    def dispensable(self, archive: Archive) -> list[str]:
        return [one.name for one in archive.dispensable(datetime.now(UTC), timedelta(days=7))]

    def test_lets_go_of_what_is_older_than_a_week(self, place: Path) -> None:
        archive = Archive(place)
        old, _, _ = self.kept(archive, 8), self.kept(archive, 6), self.kept(archive, 0)
        assert self.dispensable(archive) == [old.name]
        archive.remove(old)
        assert len(archive.all()) == 2

    def test_never_lets_go_of_the_last_one(self, place: Path) -> None:
        archive = Archive(place)
        older, _ = self.kept(archive, 400), self.kept(archive, 300)
        assert self.dispensable(archive) == [older.name]

    def test_never_lets_go_of_the_last_one_that_is_whole(self, place: Path) -> None:
        archive = Archive(place)
        whole, damaged = self.kept(archive, 400), self.kept(archive, 0, damaged=True)
        assert archive.faults(damaged)
        assert self.dispensable(archive) == []
        assert not archive.faults(whole)

    def test_lets_go_of_nothing_when_none_is_whole(self, place: Path) -> None:
        archive = Archive(place)
        self.kept(archive, 400, damaged=True), self.kept(archive, 300, damaged=True)
        assert self.dispensable(archive) == []

    def test_does_not_take_what_was_interrupted_for_a_backup(self, place: Path) -> None:
        archive = Archive(place)
        (archive.begin(datetime.now(UTC)) / "database.dump").write_bytes(b"half")
        assert archive.all() == []
        with pytest.raises(RunError, match="there are: none"):
            archive.find("latest")

    def test_leaves_nothing_behind_when_a_dump_fails(self, backups: BackupSettings, place: Path) -> None:
        with pytest.raises((RunError, OSError)):
            create(backups, f"postgresql://nobody@/storyloom?host={place}")
        assert [one.name for one in backups.directory.iterdir()] == ["lock"]

    def test_clears_what_a_killed_one_left_and_lets_only_one_be_made_at_a_time(self, place: Path) -> None:
        archive = Archive(place / "backups")
        left = archive.begin(datetime.now(UTC) - timedelta(hours=1))
        (left / "database.dump").write_bytes(b"half")
        with archive.alone():
            assert not left.exists()
            with pytest.raises(RunError, match="Another backup is being made"), archive.alone():
                pass

    def test_takes_the_newest_whole_one_and_says_what_is_wrong_with_newer_ones(self, place: Path) -> None:
        archive = Archive(place)
        whole, damaged, lost = (self.kept(archive, days) for days in (3, 2, 1))
        (place / damaged.name / "database.dump").write_bytes(b"rubbish")
        (place / lost.name / "manifest.json").write_text("{")
        assert archive.unreadable() == [lost.name]
        found, wrong = archive.newest_whole()
        assert found == whole
        assert [one.split(" ")[0] for one in wrong] == [lost.name, damaged.name]
        (place / whole.name / "database.dump").unlink()
        with pytest.raises(RunError, match="There is no whole backup"):
            archive.newest_whole()

    def test_says_that_the_disk_is_full_and_leaves_nothing(self, place: Path) -> None:
        archive = Archive(place)
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with (
            pytest.raises(RunError, match=r"does not fit into .*: No space left on device"),
            begun(archive, datetime.now(UTC)) as folder,
        ):
            (folder / "database.dump").write_bytes(b"half")
            raise full
        assert list(place.iterdir()) == []


class TestSettings:
    def test_name_what_is_wrong(self, settings: Settings) -> None:
        with pytest.raises(RunError, match="BACKUP_KEEP_DAYS=0"):
            read_backup_settings({"BACKUP_KEEP_DAYS": "0"}, settings)

    def test_keep_a_week_beside_the_other_files(self, settings: Settings) -> None:
        found = read_backup_settings({}, settings)
        assert found.keep == timedelta(days=7)
        assert found.directory == settings.directory / "backups"
