"""Programs are started, restarted when they die, and stopped by their id."""

import asyncio
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.local.errors import RunError
from deploy.local.processes import Child, Command, Program, run_step, together
from tests.running import until

LIVE = "import time; print('up', flush=True); time.sleep(60)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {LIVE}"


def python(code: str, place: Path, environment: dict[str, str] | None = None) -> Command:
    return Command([sys.executable, "-c", code], environment or {}, place)


def program(code: str, place: Path, name: str = "program") -> Program:
    log = place / f"{name}.log"

    async def said_up(_: int) -> None:
        await until(lambda: log.exists() and "up" in log.read_text())

    return Program(name, python(code, place), log, said_up)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class TestChild:
    async def test_is_started_again_when_it_is_killed(self, place: Path) -> None:
        said: list[str] = []
        child = Child(program(LIVE, place), said.append)
        await child.start()
        first = child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: child.pid not in (None, first))
        assert len(said) == 1
        assert "program ended (SIGKILL): starting it again in 0.2 s" in said[0]
        await child.stop(grace=2)

    @pytest.mark.slow
    async def test_waits_longer_from_death_to_death(self, place: Path) -> None:
        said: list[str] = []
        child = Child(program("import time; print('up', flush=True); time.sleep(0.2)", place), said.append)
        await child.start()
        await until(lambda: len(said) == 3)
        await child.stop(grace=2)
        assert [line.split(" in ")[1].split(" s;")[0] for line in said] == ["0.2", "0.4", "0.8"]

    async def test_stops_what_it_started_and_nothing_else(self, place: Path) -> None:
        one, other = (Child(program(LIVE, place, name), lambda _: None) for name in ("one", "other"))
        await together(one.start(), other.start())
        stopped = one.pid
        assert stopped is not None
        await one.stop(grace=2)
        assert not alive(stopped)
        assert one.pid is None
        assert other.pid is not None
        assert alive(other.pid)
        await other.stop(grace=2)

    async def test_ends_one_that_ignores_the_request(self, place: Path) -> None:
        child = Child(program(DEAF, place), lambda _: None)
        await child.start()
        began = time.monotonic()
        await child.stop(grace=0.3)
        assert child.pid is None
        assert 0.3 <= time.monotonic() - began < 3

    async def test_is_out_of_reach_of_the_terminal(self, place: Path) -> None:
        child = Child(program(LIVE, place), lambda _: None)
        await child.start()
        assert child.pid is not None
        assert os.getpgid(child.pid) == child.pid != os.getpgrp()
        await child.stop(grace=2)

    async def test_says_where_to_look_when_it_does_not_start(self, place: Path) -> None:
        child = Child(program("raise SystemExit('no luck today')", place), lambda _: None)
        with pytest.raises(RunError) as raised:
            await child.start()
        sentence = f"program stopped at its start (exit code 1); see {place}/program.log: no luck today"
        assert str(raised.value) == sentence

    async def test_says_when_it_is_not_ready_in_time(self, place: Path) -> None:
        child = Child(program("import time; time.sleep(60)", place), lambda _: None)
        with pytest.raises(RunError, match=r"program is not ready after 0\.2 s; see"):
            await child.start(timeout=0.2)
        await child.stop(grace=2)
        assert child.pid is None

    async def test_keeps_one_log_before_this(self, place: Path) -> None:
        for _ in range(3):
            child = Child(program(LIVE, place), lambda _: None)
            await child.start()
            await child.stop(grace=2)
        assert sorted(os.listdir(place)) == ["program.log", "program.log.1"]
        assert (place / "program.log").read_text() == "up\n"


class TestReplacing:
    async def test_ends_one_and_starts_the_next(self, place: Path) -> None:
        said: list[str] = []
        child = Child(program(LIVE, place), said.append)
        await child.start()
        first = child.pid
        assert first is not None
        await child.replace(grace=2)
        assert not alive(first)
        assert child.pid not in (None, first)
        # It did not die, so nobody says so; should it, it is started again as ever.
        assert (said, child.deaths) == ([], 0)
        os.kill(child.pid or 0, signal.SIGKILL)
        await until(lambda: child.deaths == 1 and child.pid is not None)
        await child.stop(grace=2)

    async def test_goes_on_with_one_that_does_not_start(self, place: Path) -> None:
        made = place / "made"
        code = f"import pathlib; pathlib.Path({str(made)!r}).open('x'); {LIVE}"
        child = Child(program(code, place), lambda _: None)
        await child.start()
        with pytest.raises(RunError, match="stopped at its start"):
            await child.replace(grace=2)
        made.unlink()
        await until(lambda: child.pid is not None and made.exists())
        await child.stop(grace=2)

    async def test_after_a_death_takes_the_command_for_that(self, place: Path) -> None:
        first = program(LIVE, place)
        anew = python(f"print('anew', flush=True); {LIVE}", place)
        child = Child(replace(first, anew=anew), lambda _: None)
        await child.start()
        os.kill(child.pid or 0, signal.SIGKILL)
        await until(lambda: "anew" in first.log.read_text())
        await child.stop(grace=2)

    async def test_waits_for_one_that_ends_by_itself(self, place: Path) -> None:
        child = Child(program("import time; print('up', flush=True); time.sleep(0.5)", place), lambda _: None)
        await child.start()
        child.let_die()
        began = time.monotonic()
        await child.until_ended(patience=5)
        assert child.pid is None
        assert time.monotonic() - began < 3


class TestRunStep:
    async def test_shows_and_keeps_what_is_said(self, place: Path) -> None:
        said: list[str] = []
        await run_step("Talking", python("print('one\\ntwo')", place), place / "step.log", said.append)
        assert said == ["one", "two"]
        assert (place / "step.log").read_text() == "one\ntwo\n"

    async def test_names_the_log_and_its_last_line_on_failure(self, place: Path) -> None:
        with pytest.raises(RunError, match=r"Talking failed \(exit code 3\); see .*step\.log: bad$"):
            await run_step("Talking", python("print('bad'); raise SystemExit(3)", place), place / "step.log")

    async def test_says_which_program_is_missing(self, place: Path) -> None:
        with pytest.raises(RunError, match=r"/no/such/program can't be started: No such file"):
            await run_step("Talking", Command(["/no/such/program"], {}, place), place / "step.log")

    async def test_leaves_nothing_running_when_it_is_cancelled(self, place: Path) -> None:
        pids: list[str] = []
        code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
        step = asyncio.ensure_future(run_step("Waiting", python(code, place), place / "step.log", pids.append))
        await until(lambda: bool(pids))
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step
        assert not alive(int(pids[0]))


class TestTogether:
    async def test_the_first_failure_ends_the_others(self) -> None:
        ended = asyncio.Event()

        async def long() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

        async def failing() -> None:
            await asyncio.sleep(0.01)
            raise RunError("broken")

        with pytest.raises(RunError, match="broken"):
            await together(long(), failing())
        assert ended.is_set()
