"""Processor time and memory as /proc tells them, held against what Python knows of this very process."""

import os
import subprocess
import sys
import time

import pytest

from benchmarks import cpu

STAT = "4242 (a (b) c) S 1 4242 4242 0 -1 4194560 99 0 0 0 1500 250 300 50 20 0 1 0 290630 3133440 381"


class TestUsedSeconds:
    def test_adds_up_own_time_and_that_of_ended_children_whatever_the_name(self):
        assert cpu.used_seconds(STAT) * cpu.TICKS == pytest.approx(1500 + 250 + 300 + 50)

    def test_grows_as_this_process_works(self):
        programs = {"me": os.getpid()}
        before, own = cpu.processor_times(programs)["me"], time.process_time()
        while time.process_time() - own < 0.3:
            sum(range(10_000))
        used = cpu.processor_times(programs)["me"] - before
        assert used == pytest.approx(time.process_time() - own, abs=0.05)


class TestBusySeconds:
    def test_adds_up_all_but_idling_and_waiting(self):
        text = "cpu  100 20 30 9000 500 4 6 40 7 8\ncpu0 1 1 1 1 1 1 1 1 1 1\n"
        assert cpu.busy_seconds(text) * cpu.TICKS == pytest.approx(100 + 20 + 30 + 4 + 6 + 40)


class TestMoment:
    def test_leaves_out_idling_and_tells_what_others_had(self):
        before = cpu.Moment(at=10.0, programs={"gateway": 1.0, "audit": 2.0}, own=5.0, machine=100.0)
        after = cpu.Moment(at=20.0, programs={"gateway": 4.0, "audit": 2.1}, own=6.0, machine=109.1)
        used = after.since(before, {"gateway": 0.1, "audit": 0.02})
        assert used.programs == pytest.approx({"gateway": 2.0, "audit": 0.0})
        assert used.others == pytest.approx(5.0 / 10.0 / (os.cpu_count() or 1))

    def test_sees_what_a_child_of_this_process_used(self):
        before = cpu.Moment.now({})
        work = "import time\nwhile time.process_time() < 0.5: pass"
        subprocess.run([sys.executable, "-c", work], check=True)
        after = cpu.Moment.now({})
        assert after.own - before.own >= 0.4
        assert after.machine - before.machine >= 0.4


class TestMemory:
    def test_reads_megabytes(self):
        text = "55de-7ffd ---p 00000000 00:00 0    [rollup]\nRss:     2048 kB\nPss:      512 kB\nPss_Dirty: 1 kB\n"
        assert cpu.megabytes(text) == cpu.Memory(rss=2.0, pss=0.5)

    def test_sees_what_this_process_takes(self):
        before = cpu.memory({"me": os.getpid()})["me"]
        taken = bytearray(os.urandom(1)) * (32 * 2**20)
        after = cpu.memory({"me": os.getpid()})["me"]
        assert len(taken) == 32 * 2**20
        assert 28 < after.rss - before.rss < 40
        assert after.pss <= after.rss

    def test_counts_nothing_for_a_process_that_has_ended(self):
        # Linux gives out no process id that high.
        assert cpu.memory({"gone": 2**30})["gone"] == cpu.Memory(0.0, 0.0)
        assert cpu.processor_times({"gone": 2**30, "postgres": 2**30}) == {"gone": 0.0, "postgres": 0.0}


class TestUntilIdle:
    def test_returns_when_nothing_is_done_any_more(self):
        assert cpu.until_idle({"gone": 2**30}, patience=5.0) < 1.0

    def test_loses_patience(self):
        busy = {"init": 1, "me": os.getpid()}
        assert cpu.until_idle(busy, patience=0.0) < 1.0
