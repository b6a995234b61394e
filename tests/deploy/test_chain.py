"""Archives of moments without a server: what a recovery reads, what is missing of it, and what may go."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from deploy.backups.archive import Backup
from deploy.backups.chain import TIME, Chain, begin, chains, parse_moment, plan, remove_superseded
from deploy.backups.gauges import Gauges, State, note_drill
from deploy.backups.parts import Counting
from deploy.backups.rewinding import rewind
from deploy.backups.settings import BackupSettings
from deploy.local.errors import RunError
from deploy.local.settings import Settings
from deploy.local.state import only_runner

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
WEEK = timedelta(days=7)
DAY = 24 * 60
DAILY = [(number, number * DAY, False) for number in range(3, 16)]


@pytest.fixture
def backups(tmp_path: Path) -> BackupSettings:
    return BackupSettings(tmp_path, WEEK, "", None, None)


def fabricated(
    backups: BackupSettings, pieces: list[tuple[int, int, bool]], *, at: datetime = NOON, bases: tuple[int, ...] = (0,)
) -> Chain:
    """A chain of bases and segments, by number, minutes after it began, and whether there is only a part of it."""
    chain = begin(backups, at, "7711132145793039599", 1, 16 << 20)
    for minute in bases:
        time = at + timedelta(minutes=minute)
        folder = chain.bases.begin(time)
        out = Counting(folder / "base.tar.gz")
        out.write(b"files")
        last = max((number for number, m, _ in pieces if m <= minute), default=pieces[0][0] if pieces else 3)
        chain.bases.keep(
            folder,
            Backup(folder.name[:16], time, time, "18", encrypted=False, parts=(out.close(),), wal=chain.segment(last)),
        )
    for number, minute, partial in pieces:
        time = at + timedelta(minutes=minute)
        chain.put(chain.segment(number), f"{number} {minute}".encode(), time, partial=partial)
    return chain


def minutes(count: float) -> datetime:
    return NOON + timedelta(minutes=count)


class TestPlan:
    def test_reads_no_more_segments_than_it_needs(self, backups: BackupSettings) -> None:
        fabricated(backups, [(3, 1, False), (4, 2, False), (5, 3, False), (6, 9, True)])
        way = plan(backups, minutes(1.5), print)
        assert [one.segment[-1] for one in way.pieces] == ["3", "4"]
        assert (way.at, way.reach) == (minutes(1.5), minutes(9))

    def test_of_the_last_moment_is_as_far_as_the_archive_goes(self, backups: BackupSettings) -> None:
        fabricated(backups, [(3, 1, False), (4, 2, True)])
        assert plan(backups, None, print).at == minutes(2)

    def test_prefers_what_is_whole_and_what_is_newest(self, backups: BackupSettings) -> None:
        fabricated(backups, [(3, 1, False), (3, 2, True), (4, 3, True), (4, 4, True)])
        assert [one.time for one in plan(backups, None, print).pieces] == [minutes(1), minutes(4)]

    def test_begins_with_the_newest_base_that_is_old_enough(self, backups: BackupSettings) -> None:
        fabricated(backups, [(number, number, False) for number in range(3, 30)], bases=(4, 10, 20))
        assert plan(backups, minutes(15), print).base.finish_time == minutes(10)

    def test_takes_the_base_before_one_that_is_damaged_and_says_so(self, backups: BackupSettings) -> None:
        chain = fabricated(backups, [(number, number, False) for number in range(3, 30)], bases=(4, 10))
        (chain.bases.directory / "20261122T121000Z" / "base.tar.gz").write_bytes(b"rubbish")
        said: list[str] = []
        assert plan(backups, minutes(15), said.append).base.finish_time == minutes(4)
        assert "20261122T121000Z is damaged" in said[0]

    @pytest.mark.parametrize("at", [minutes(3.5), None])
    def test_names_a_segment_that_is_missing(self, backups: BackupSettings, at: datetime | None) -> None:
        chain = fabricated(backups, [(3, 1, False), (4, 2, False), (5, 3, False), (6, 4, True)])
        next(chain.wal.glob(f"{chain.segment(5)}.*")).unlink()
        with pytest.raises(RunError, match=r"000000010000000000000005 is missing .* until .*T12:02:00\.0+Z"):
            plan(backups, at, print)
        assert plan(backups, minutes(2), print).at == minutes(2)

    @pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-1], lambda data: data + b"!"])
    def test_names_a_segment_that_is_damaged(
        self, backups: BackupSettings, damage: Callable[[bytes], bytes]
    ) -> None:
        chain = fabricated(backups, [(3, 1, False), (4, 2, False), (5, 3, True)])
        path = next(chain.wal.glob(f"{chain.segment(4)}.*"))
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(RunError, match=r"000000010000000000000004\.\S+ is not what was written.* until .*12:01:00"):
            plan(backups, None, print)
        assert plan(backups, minutes(1), print).at == minutes(1)

    def test_goes_no_further_than_the_archive_does(self, backups: BackupSettings) -> None:
        fabricated(backups, [(3, 1, False), (4, 2, True)])
        with pytest.raises(RunError, match=r"ends at 2026-11-22T12:02:00\.000000Z, before what was asked for\.$"):
            plan(backups, minutes(3), print)
        with pytest.raises(RunError, match=r"earliest moment is 2026-11-22T12:00:00\.000000Z"):
            plan(backups, minutes(-1), print)
        with pytest.raises(RunError, match="`make wal` makes one"):
            plan(replace(backups, directory=backups.directory / "empty"), None, print)

    def test_reads_what_a_part_has_become_when_the_log_is_archived_meanwhile(self, backups: BackupSettings) -> None:
        chain = fabricated(backups, [(3, 1, False), (4, 2, True)])
        known = chain.pieces()
        known[4].path.rename(
            chain.wal / f"{chain.segment(4)}.{minutes(3):{TIME}}.{sha256(b'4 2').hexdigest()}.gz"
        )
        found = chain.read(4, known)
        assert found
        assert (found[0].partial, found[1]) == (False, b"4 2")
        found[0].path.unlink()
        assert chain.read(4, known) is None

    def test_counts_segments_across_the_names_bytes(self, backups: BackupSettings) -> None:
        chain = fabricated(backups, [])
        assert chain.segment(chain.number("0000000100000002000000FF") + 1) == "000000010000000300000000"
        assert chain.segment_at("2/FF000028") == "0000000100000002000000FF"


    def test_tells_of_a_gap_between_two_chains(self, backups: BackupSettings) -> None:
        first = fabricated(backups, [(3, 1, False), (4, 2, True)])
        second = fabricated(backups, [(9, 0, False), (10, 5, True)], at=minutes(10))
        assert plan(backups, minutes(2), print).chain == first
        assert plan(backups, minutes(15), print).chain == second
        with pytest.raises(RunError, match=r"ends at .*12:02:00\.000000Z.* It goes on at .*12:10:00\.000000Z"):
            plan(backups, minutes(5), print)


class TestRetention:
    def test_keeps_a_base_from_before_the_week_and_what_comes_after_it(self, backups: BackupSettings) -> None:
        chain = fabricated(
            backups, DAILY, bases=(4 * DAY, 6 * DAY, 9 * DAY)
        )
        said = list(chain.prune(minutes(14 * DAY), WEEK))
        assert [one.finish_time for one in chain.bases.all()] == [minutes(6 * DAY), minutes(9 * DAY)]
        assert min(chain.pieces()) == 6
        assert said == [
            "20261126T120000Z: base removed, 20261128T120000Z is old enough",
            "3 segments before 000000010000000000000006 removed",
        ]
        assert plan(backups, minutes(7 * DAY), print).base.finish_time == minutes(6 * DAY)

    def test_never_counts_a_damaged_base(self, backups: BackupSettings) -> None:
        chain = fabricated(backups, DAILY, bases=(4 * DAY, 6 * DAY))
        (chain.bases.directory / "20261128T120000Z" / "base.tar.gz").write_bytes(b"rubbish")
        assert list(chain.prune(minutes(30 * DAY), WEEK)) == ["1 segments before 000000010000000000000004 removed"]
        assert len(chain.bases.all()) == 2

    def test_lets_go_of_a_chain_when_a_later_one_can_be_restored(self, backups: BackupSettings) -> None:
        old = fabricated(backups, [(3, 1, False)])
        now = NOON + timedelta(days=20)
        young = fabricated(backups, [(9, 0, False)], at=NOON + timedelta(days=10), bases=())
        assert list(remove_superseded(backups, now)) == []
        young = fabricated(backups, [(9, 0, False)], at=NOON + timedelta(days=11))
        assert [said.split(":")[0] for said in remove_superseded(backups, now)] == [
            old.folder.name, "20261202T120000Z"
        ]  # fmt: skip
        assert [one.folder for one in chains(backups)] == [young.folder]


@pytest.mark.parametrize("text", ["yesterday", "2026-11-22", "2026-11-22T21:00:00", "2026-11-22T25:00:00Z"])
def test_a_moment_has_a_date_a_time_and_a_zone(text: str) -> None:
    with pytest.raises(RunError, match="write it with its zone"):
        parse_moment(text)


def test_a_moment_is_the_same_in_every_zone() -> None:
    assert parse_moment("2026-11-22T21:00:00Z") == parse_moment("2026-11-22 22:00:00+01:00")


def test_gauges_grow_while_nothing_comes_and_tell_what_is_no_backup(backups: BackupSettings) -> None:
    fabricated(backups, [(3, 1, False)])
    (backups.directory / "20261122T130000Z").mkdir()
    note_drill(backups, "moment")
    (backups.directory / "drilled-\udcff").touch()
    reader = InMemoryMetricReader()
    gauges = Gauges({}, backups, State(reach=NOON, lag=5), (reader,))
    found = reader.get_metrics_data()
    assert found
    metrics = found.resource_metrics[0].scope_metrics[0].metrics
    values = {
        (one.name.removeprefix("storyloom."), *dict(point.attributes or {}).values()): point.value
        for one in metrics
        for point in one.data.data_points
    }
    gauges.close()
    assert 0 < values["wal.behind",] <= values["wal.reaches",] + 60
    assert values["backups.age", "base"] > 0
    assert 0 <= values["drills.age", "moment"] < 60
    assert {key: value for key, value in values.items() if not key[0].endswith(("age", "behind", "reaches"))} == {
        ("wal.held",): 5,
        ("backups.size", "base"): len("files"),
        ("backups.refused", "base"): 0,
        ("backups.refused", "dump"): 1,
        ("wal.failures", "log"): 0,
        ("wal.failures", "base"): 0,
    }
    assert len(values) == 6 + 4


def test_a_rewind_waits_for_the_stack_to_end(settings: Settings, backups: BackupSettings) -> None:
    fabricated(backups, [(3, 1, False), (4, 2, True)])
    with only_runner(settings.directory), pytest.raises(RunError, match="already runs"):
        asyncio.run(rewind(settings, backups, None))
