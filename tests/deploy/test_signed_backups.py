"""Whoever can write into the folder of backups can't have anything restored that was not made here."""

import asyncio
import base64
import dataclasses
import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from opentelemetry.metrics import CallbackOptions

from deploy.backups.__main__ import look_at_keys
from deploy.backups.archive import Archive, Backup
from deploy.backups.chain import Chain, begin, chains, plan, remove_superseded
from deploy.backups.gauges import Gauges, State, note_drill
from deploy.backups.listing import show
from deploy.backups.parts import Counting, reading, written
from deploy.backups.restoring import restore
from deploy.backups.segments import archive_spool
from deploy.backups.settings import BackupSettings, read_backup_settings
from deploy.local.errors import RunError
from deploy.local.secrets import load_secrets
from deploy.local.settings import Settings
from kit.signing import Keyring

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
OLD, YOUNG = "20261122T120000Z", "20261123T120000Z"
WEEK = timedelta(days=7)
SERVER = ("7711132145793039599", 1, 16 << 20)


@pytest.fixture
def backups(place: Path) -> BackupSettings:
    return BackupSettings(place / "backups", WEEK, "", None, None, place / "spool", keys=Keyring(os.urandom(32)))


def made(archive: Archive, at: datetime = NOON, wal: str = "") -> Backup:
    folder = archive.begin(at)
    out = Counting(folder / "database.dump")
    out.write(b"rows")
    backup = Backup(folder.name.partition(".")[0], at, at, "18", encrypted=False, parts=(out.close(),), wal=wal)
    archive.keep(folder, backup)
    return backup


def edited(folder: Path, **changes: object) -> None:
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | changes))


def continuous(backups: BackupSettings, at: datetime = NOON) -> Chain:
    """A chain with a base, a whole segment and part of the next."""
    chain = begin(backups, at, *SERVER)
    made(chain.bases, at, chain.segment(3))
    for number in (3, 4):
        chain.put(chain.segment(number), b"log", at + timedelta(minutes=number), partial=number == 4)
    return chain


class TestDump:
    def refused(self, backups: BackupSettings, name: str = "latest") -> str:
        """Why it is not restored; nobody is there to be connected to, and nobody is asked."""
        with pytest.raises(RunError) as refusal:
            asyncio.run(restore(backups.dumps.find(name), backups, "postgresql://nobody@/none?host=/nowhere", {}))
        return str(refusal.value)

    def test_as_it_was_made_is_whole(self, backups: BackupSettings) -> None:
        assert backups.dumps.faults(made(backups.dumps)) == []

    def test_that_was_changed_is_not_restored_even_with_the_digest_of_the_change(self, backups: BackupSettings) -> None:
        folder = backups.directory / made(backups.dumps).name
        (folder / "database.dump").unlink()
        out = Counting(folder / "database.dump")
        out.write(b"CREATE ROLE intruder SUPERUSER")
        edited(folder, parts=[dataclasses.asdict(out.close())])
        assert "is not signed by a key that is trusted here" in self.refused(backups)

    def test_under_another_name_is_none(self, backups: BackupSettings) -> None:
        made(backups.dumps)
        shutil.copytree(backups.directory / OLD, backups.directory / YOUNG)
        assert [one.name for one in backups.dumps.all()] == [OLD]
        assert backups.dumps.unreadable() == [YOUNG]
        edited(backups.directory / YOUNG, name=YOUNG)
        assert "is not signed by a key" in self.refused(backups, YOUNG)
        assert backups.dumps.newest_whole()[0].name == OLD

    @pytest.mark.parametrize("signature", [None, b"", b"c2hvcnQ=", b"no base64"])
    def test_without_a_signature_is_not_restored(self, backups: BackupSettings, signature: bytes | None) -> None:
        made(dataclasses.replace(backups.dumps, keys=Keyring(None)))
        if signature is not None:
            (backups.directory / OLD / "manifest.json.sig").write_bytes(signature)
        assert "is not signed" in self.refused(backups)

    def test_of_another_key_is_restored_only_while_that_is_trusted(self, backups: BackupSettings) -> None:
        backup = made(backups.dumps)
        new = os.urandom(32)
        assert dataclasses.replace(backups, keys=Keyring(new)).dumps.faults(backup)
        rotated = dataclasses.replace(backups, keys=Keyring(new, backups.keys.public))
        assert rotated.dumps.faults(backup) == []
        assert dataclasses.replace(backups, keys=Keyring(None, backups.keys.public)).dumps.faults(backup) == []

    def test_from_before_there_were_keys_and_steps_can_be_read_without_a_key(self, backups: BackupSettings) -> None:
        old = dataclasses.replace(backups, keys=Keyring(None)).dumps
        made(old)
        parts = json.loads((old.directory / OLD / "manifest.json").read_text())["parts"]
        edited(old.directory / OLD, parts=[{key: part[key] for key in ("name", "octets", "sha256")} for part in parts])
        backup = old.find(OLD)
        assert old.faults(backup) == []
        with old.opened(backup, backup.part("database")) as data:
            assert data.read() == b"rows"

    def test_that_is_not_trusted_is_no_reason_to_let_go_of_one_that_is(self, backups: BackupSettings) -> None:
        made(backups.dumps)
        forged = made(dataclasses.replace(backups.dumps, keys=Keyring(os.urandom(32))), NOON + timedelta(days=20))
        assert [one.name for one in backups.dumps.dispensable(NOON + timedelta(days=40), WEEK)] == [forged.name]

    def test_is_told_from_one_that_is_not_trusted(
        self, backups: BackupSettings, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made(backups.dumps)
        made(dataclasses.replace(backups.dumps, keys=Keyring(None)), NOON + timedelta(days=1))
        show(backups)
        assert [line.endswith("not trusted") for line in capsys.readouterr().out.splitlines()] == [False, True]

    @pytest.mark.parametrize("name", ["../precious", "/etc", "."])
    def test_has_the_name_of_its_folder_and_no_path(self, backups: BackupSettings, name: str) -> None:
        folder = backups.directory / made(backups.dumps).name
        edited(folder, name=name)
        assert backups.dumps.all() == []
        edited(folder, name=OLD, parts=[{"name": f"{name}/x", "octets": 1, "sha256": ""}])
        assert backups.dumps.all() == []


ODD: dict[str, object] = {
    "a text": "text",
    "a number": 1,
    "a time of no zone": {"finish_time": "2026-11-22T12:00:00"},
    "a time before all others": {"snapshot_time": "0001-01-01T00:00:00+14:00"},
    "a size that is none": {"parts": [{"name": "database.dump", "octets": "5", "sha256": ""}]},
    "a server with a command for the terminal": {"server": "18\x1b]0;mine\x07"},
}


class TestFolder:
    """Others may write into it, too."""

    @pytest.mark.parametrize("odd", ODD)
    def test_stops_nobody_by_what_a_manifest_says(
        self, backups: BackupSettings, odd: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made(backups.dumps)
        continuous(backups)
        for archive in (backups.dumps, chains(backups)[0].bases):
            folder = archive.directory / YOUNG
            shutil.copytree(archive.directory / OLD, folder)
            edited(folder, name=YOUNG)
            if isinstance(ODD[odd], dict):
                edited(folder, **cast(dict[str, object], ODD[odd]))
            else:
                (folder / "manifest.json").write_text(json.dumps(ODD[odd]))
        (backups.directory / "continuous" / "00000000T000000Z").mkdir()
        shutil.copy(chains(backups)[0].folder / "chain.json", backups.directory / "continuous" / "00000000T000000Z")
        later = NOON + timedelta(days=90)
        assert show(backups) == 0
        assert "\x1b" not in capsys.readouterr().out
        assert OLD not in [one.name for one in backups.dumps.dispensable(later, WEEK)]
        assert plan(backups, NOON + timedelta(minutes=1), print).base.name == OLD
        assert OLD not in "".join([*chains(backups)[0].prune(later, WEEK), *remove_superseded(backups, later)])

    @pytest.mark.parametrize("kind", ["a link", "a link to nothing", "a pipe"])
    def test_has_nothing_read_that_is_no_file(self, backups: BackupSettings, place: Path, kind: str) -> None:
        def put(path: Path) -> None:
            path.rename(place / "elsewhere")
            if kind == "a pipe":
                os.mkfifo(path)
            else:
                path.symlink_to(place / ("elsewhere" if kind == "a link" else "nowhere"))

        backup = made(backups.dumps)
        chain = continuous(backups)
        put(chain.pieces()[3].path)
        with pytest.raises(RunError, match="can't be read"):
            plan(backups, None, print)
        put(backups.directory / OLD / "database.dump")
        assert backups.dumps.faults(backup)
        put(backups.directory / OLD / "manifest.json")
        assert backups.dumps.unreadable() == [OLD]

    def test_has_nothing_written_where_a_link_leads(self, backups: BackupSettings, place: Path) -> None:
        precious = place / "precious"
        precious.write_text("mine")
        backups.directory.mkdir()
        for name in ("lock", "chain.json.new", "drilled-dump"):
            (backups.directory / name).symlink_to(precious)
        before = precious.stat().st_mtime_ns
        with pytest.raises(RunError, match="lock can't be opened"), backups.dumps.alone():
            pass
        written(backups.directory / "chain.json", b"facts")
        note_drill(backups, "dump")
        assert (precious.read_text(), precious.stat().st_mtime_ns) == ("mine", before)

    def test_is_rid_of_whatever_looks_half_written(self, backups: BackupSettings, place: Path) -> None:
        precious, folder = place / "precious", backups.directory
        for made_folder in (precious, folder / "a.partial"):
            made_folder.mkdir(parents=True)
            (made_folder / "file").write_text("mine")
        (folder / "b.partial").write_text("no folder")
        (folder / "c.partial").symlink_to(precious)
        with backups.dumps.alone():
            assert [one.name for one in folder.iterdir()] == ["lock"]
        assert (precious / "file").read_text() == "mine"

    def test_does_not_have_the_newest_base_grow_younger_or_be_unknown(self, backups: BackupSettings) -> None:
        chain = continuous(backups)
        later = backups.directory / "continuous" / "99991231T235959Z"
        later.mkdir()
        shutil.copy(chain.folder / "chain.json", later)
        gauges = Gauges({}, backups, State())
        assert [dict(one.attributes or {}) for one in gauges._ages(CallbackOptions())] == [{"kind": "base"}]
        gauges.close()

    def test_shows_nobody_what_is_in_a_file(self, backups: BackupSettings) -> None:
        made(backups.dumps)
        continuous(backups)
        found = [one for one in backups.directory.rglob("*") if one.is_file()]
        assert {one.stat().st_mode & 0o777 for one in found} == {0o600}


class TestReading:
    @pytest.mark.parametrize("change", [b"", b"x", b"longer"])
    def test_gives_nothing_away_that_was_changed_after_it_was_looked_at(
        self, place: Path, change: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("deploy.backups.parts.STEP", 64)
        out = Counting(place / "part")
        data = os.urandom(64)
        out.write(data[:10])
        out.write(data[10:] + b"end")
        part = out.close()
        assert part.steps
        with reading(place / "part", part) as whole:
            assert whole.read() == data + b"end"
        (place / "part").write_bytes(data + change)
        with reading(place / "part", part) as changed:
            assert changed.read(64) == data
            with pytest.raises(RunError, match="is not what was written"):
                changed.read(1)
        with (place / "part").open("r+b") as early:
            early.write(b"!")
        with reading(place / "part", part) as changed, pytest.raises(RunError, match="is not what was written"):
            changed.read(1)


class TestChain:
    def test_brings_back_what_was_archived_with_this_key_or_one_that_is_trusted(self, backups: BackupSettings) -> None:
        continuous(backups)
        assert len(plan(backups, None, print).pieces) == 2
        rotated = dataclasses.replace(backups, keys=Keyring(os.urandom(32), backups.keys.public))
        assert len(plan(rotated, None, print).pieces) == 2
        with pytest.raises(RunError, match="No whole base"):
            plan(dataclasses.replace(backups, keys=Keyring(os.urandom(32))), None, print)

    def test_takes_no_segment_that_another_has_put_there(self, backups: BackupSettings) -> None:
        chain = continuous(backups)
        for keys in (Keyring(None), Keyring(os.urandom(32))):
            forged = dataclasses.replace(chain, keys=keys)
            forged.put(chain.segment(4), b"rows of mine", NOON + timedelta(hours=1), partial=False)
        assert [piece.read() for piece in plan(backups, None, print).pieces] == [b"log", b"log"]
        assert chain.reach() == NOON + timedelta(minutes=4)

    def test_takes_no_segment_for_another(self, backups: BackupSettings) -> None:
        chain = continuous(backups)
        path = chain.pieces()[3].path
        for number in (4, 5):
            shutil.copy(path, path.with_name(path.name.replace(chain.segment(3), chain.segment(number))))
        shutil.copy(path, path.with_name(path.name.replace("1203", "1259")))
        assert [piece.time.minute for piece in chain.files()] == [3, 4]

    def test_is_no_other_ones_and_no_other_servers(self, backups: BackupSettings) -> None:
        first, second = continuous(backups), begin(backups, NOON + timedelta(hours=1), *SERVER)
        shutil.copytree(first.folder, second.folder, dirs_exist_ok=True)
        assert (list(second.files()), second.reach()) == ([], None)
        assert second.bases.faults(second.bases.find(OLD))
        edited_chain = first.folder / "chain.json"
        edited_chain.write_text(edited_chain.read_text().replace(SERVER[0], "1"))
        assert list(chains(backups)[0].files()) == []

    def test_takes_no_dump_for_a_base(self, backups: BackupSettings) -> None:
        made(backups.dumps)
        chain = begin(backups, NOON, *SERVER)
        shutil.copytree(backups.directory / OLD, chain.bases.directory / OLD)
        assert chain.bases.faults(chain.bases.find(OLD))

    def test_goes_on_where_another_has_put_the_next_segment(self, backups: BackupSettings) -> None:
        chain = continuous(backups)
        spool = backups.spool / chain.folder.name
        spool.mkdir(parents=True)
        (spool / chain.segment(4)).write_bytes(b"the whole log")
        forged = dataclasses.replace(chain, keys=Keyring(None))
        forged.put(chain.segment(4), b"rows of mine", NOON, partial=False)
        archive_spool(chain, backups, NOON + timedelta(minutes=4), NOON + timedelta(minutes=5))
        assert [piece.partial for piece in chain.files(chain.segment(4))] == [False]
        assert len(plan(backups, None, print).pieces) == 2


class TestSettings:
    def test_without_a_key_whoever_uses_a_backup_is_told(
        self, backups: BackupSettings, capsys: pytest.CaptureFixture[str]
    ) -> None:
        look_at_keys("restore", backups)
        assert capsys.readouterr().err == ""
        look_at_keys("restore", dataclasses.replace(backups, keys=Keyring(None)))
        assert "on your word" in capsys.readouterr().err

    @pytest.mark.parametrize("command", ["create", "base", "wal"])
    def test_that_only_trust_make_no_backup(self, backups: BackupSettings, command: str) -> None:
        trusting = dataclasses.replace(backups, keys=Keyring(None, backups.keys.public))
        with pytest.raises(RunError, match="BACKUP_SIGNING_KEY is empty"):
            look_at_keys(command, trusting)
        look_at_keys("restore", trusting)
        look_at_keys(command, dataclasses.replace(backups, keys=Keyring(None)))

    def test_take_the_key_of_the_local_stack_unless_told_otherwise(self, settings: Settings) -> None:
        file = settings.directory / "secrets.env"
        file.unlink(missing_ok=True)
        assert read_backup_settings({}, settings).keys.public == ()
        load_secrets(file)
        found = read_backup_settings({}, settings).keys.public
        assert len(found) == 1
        assert read_backup_settings({"BACKUP_SIGNING_KEY": ""}, settings).keys.public == ()
        texts = json.dumps([base64.urlsafe_b64encode(found[0]).decode()])
        trusting = {"BACKUP_SIGNING_KEY": "", "BACKUP_TRUSTED_KEYS": texts}
        assert read_backup_settings(trusting, settings).keys.public == found

    @pytest.mark.parametrize("variable", ["BACKUP_SIGNING_KEY", "BACKUP_TRUSTED_KEYS"])
    def test_name_a_key_that_is_none(self, settings: Settings, variable: str) -> None:
        with pytest.raises(RunError, match=variable):
            read_backup_settings({variable: "short"}, settings)
