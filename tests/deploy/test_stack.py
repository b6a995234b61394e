"""What stands in the way of a run is said in one sentence; what an earlier run left is cleaned up, by id."""

import asyncio
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from deploy.local.control import Control, order
from deploy.local.environment import Environments
from deploy.local.errors import RunError
from deploy.local.gateway import SHARED_MEMORY, check_envoy, envoy, forget_handover, gateway_program
from deploy.local.postgres import make_private
from deploy.local.processes import Say
from deploy.local.secrets import load_secrets
from deploy.local.settings import ROOT, Settings, UnixAddress, read_settings
from deploy.local.stack import check_ports
from deploy.local.state import Running, only_runner, read_state, stop_left_over, write_state


def local(*arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploy.local", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=20, check=False
    )


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


def ended(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


class TestPorts:
    def test_a_busy_one_is_named_with_the_way_out(self, settings: Settings) -> None:
        with socket.create_server(settings.gateway), pytest.raises(RunError) as raised:
            check_ports(settings)
        assert str(raised.value).startswith(f"{settings.gateway} can't be used (Address already in use): stop the")
        assert "GATEWAY_ADDRESS=127.0.0.1:" in str(raised.value)

    def test_one_of_two_processes_is_moved_with_the_other(self, settings: Settings) -> None:
        both = (settings.gateway, settings.traces)
        with socket.create_server(settings.traces), pytest.raises(RunError) as raised:
            check_ports(replace(settings, services={**settings.services, "content": both}))
        assert re.search(r"CONTENT_ADDRESS=127\.0\.0\.1:\d+,127\.0\.0\.1:\d+\.$", str(raised.value))

    def test_the_port_for_traces_is_not_ours_when_they_go_elsewhere(self, settings: Settings) -> None:
        with socket.create_server(settings.traces):
            check_ports(replace(settings, otlp_endpoint="http://collector:4317"))

    @pytest.mark.parametrize("text", ["8080", "localhost", ":8080", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:x"])
    def test_an_address_that_is_none_is_refused(self, text: str) -> None:
        with pytest.raises(RunError, match=r"CONTENT_ADDRESS=.* is not an address"):
            read_settings({"CONTENT_ADDRESS": text})


class TestSeveralProcesses:
    def test_are_at_ports_a_hundred_apart(self) -> None:
        found = read_settings({"REPLICAS": "2"}, root=ROOT).services
        assert {name: [one.port for one in addresses] for name, addresses in found.items()} == {
            "identity": [7101, 7201],
            "content": [7102, 7202],
            "learning": [7103, 7203],
            "assessment": [7104, 7204],
            "audit": [7105, 7205],
        }

    def test_are_told_apart_and_have_time_to_go(self, place: Path) -> None:
        addresses = "127.0.0.1:17102, 127.0.0.1:17202"
        settings = read_settings({"CONTENT_ADDRESS": addresses}, root=place)
        made = Environments(settings, load_secrets(place / "secrets.env"), "postgresql://x@/x", {"INSTANCE": "here"})
        one, two = made.service("content", 0), made.service("content", 1)
        listed = "127.0.0.1:17102,127.0.0.1:17202"
        assert made.tool()["CONTENT_ADDRESS"] == listed
        assert (one["LISTEN_ADDRESS"], two["LISTEN_ADDRESS"]) == tuple(listed.split(","))
        assert (one["INSTANCE"], two["INSTANCE"], made.service("audit")["INSTANCE"]) == ("here-1", "here-2", "here")
        assert float(one["DRAIN_DELAY"]) > 2
        assert "DRAIN_DELAY" not in made.service("audit")

    def test_of_one_service_may_not_share_a_port(self, settings: Settings) -> None:
        twice = settings.services["audit"] * 2
        with pytest.raises(RunError, match=f"^{twice[0]} is given twice: choose another with AUDIT_ADDRESS"):
            check_ports(replace(settings, services={"audit": twice}))

    @pytest.mark.parametrize(("name", "text"), [("REPLICAS", "3"), ("REPLICAS", "two"), ("GATEWAY_DRAIN", "0")])
    def test_a_number_that_is_none_is_refused(self, name: str, text: str) -> None:
        with pytest.raises(RunError, match=f"{name}={text} is not a whole number from 1 to"):
            read_settings({name: text})


class TestOrders:
    async def test_are_carried_out_one_after_another_and_told_of(self, place: Path) -> None:
        at_work: list[str] = []

        async def act(what: str, say: Say) -> None:
            at_work.append(what)
            say(f"{what} begins")
            await asyncio.sleep(0.1)
            assert at_work == [what]
            at_work.clear()
            if what == "bad":
                raise RunError("It is bad.")

        control = Control(place / "runner.sock", act)
        await control.start()
        try:
            said: list[str] = []
            give = partial(asyncio.to_thread, order, place / "runner.sock")
            await asyncio.gather(give("one", said.append), give("two", said.append))
            assert sorted(said) == ["one begins", "two begins"]
            with pytest.raises(RunError, match=r"^It is bad\.$"):
                await give("bad", said.append)
        finally:
            await control.stop()

    async def test_are_given_up_when_the_runner_ends(self, place: Path) -> None:
        begun = asyncio.Event()

        async def act(what: str, say: Say) -> None:
            begun.set()
            await asyncio.sleep(60)

        control = Control(place / "runner.sock", act)
        await control.start()
        giving = asyncio.create_task(asyncio.to_thread(order, place / "runner.sock", "x", lambda _: None))
        await begun.wait()
        await control.stop()
        with pytest.raises(RunError, match="ended before it was done"):
            await giving

    def test_without_a_runner_are_refused_with_the_way_out(self, place: Path) -> None:
        with pytest.raises(RunError, match="takes no orders"):
            order(place / "runner.sock", "x", lambda _: None)


class TestGateway:
    def test_s_next_takes_over_the_port_and_after_a_death_begins_anew(self, settings: Settings) -> None:
        environments = Environments(settings, load_secrets(settings.directory / "secrets.env"), "postgresql://x@/x", {})
        make_private(settings.admin_directory)
        try:
            # As the first one writes it, when it has found a number that nobody has.
            (settings.admin_directory / "base-id").write_text("4711")
            first, next_one = (gateway_program(settings, environments, epoch) for epoch in (0, 1))
        finally:
            shutil.rmtree(settings.admin_directory)
        assert next_one.command.arguments[-2:] == ["--restart-epoch", "1"]
        assert next_one.anew is not None
        assert next_one.anew.arguments[-2:] == ["--restart-epoch", "0"]
        # Each has its own files, and the same place to meet, which no other user of the machine knows or may enter.
        assert first.command.arguments[2] != next_one.command.arguments[2]
        assert next_one.command.arguments[3:5] == ["--base-id", "4711"]
        for begins in (first.command, next_one.anew):
            assert "--use-dynamic-base-id" in begins.arguments
            assert "--base-id" not in begins.arguments
        for one in (first.command, next_one.command):
            at = one.arguments.index("--socket-path")
            assert Path(one.arguments[at + 1]).parent == settings.admin_directory
            assert one.arguments[at + 2 : at + 4] == ["--socket-mode", "600"]

    def test_leaves_nothing_in_shared_memory(self, settings: Settings) -> None:
        make_private(settings.admin_directory)
        # Numbers of this process, as tests run side by side.
        left, others = (SHARED_MEMORY / f"envoy_shared_memory_{os.getpid()}{nth}0" for nth in range(2))
        try:
            (settings.admin_directory / f"handover_parent_{os.getpid()}00").touch()
            left.touch()
            others.touch()
            forget_handover(settings)
            assert not left.exists()
            assert others.exists()
        finally:
            others.unlink(missing_ok=True)
            shutil.rmtree(settings.admin_directory)


class TestAdministration:
    def test_is_a_socket_in_a_directory_of_the_runner_alone(self, settings: Settings) -> None:
        path = settings.admin_directory / "admin.sock"
        assert settings.gateway_admin == UnixAddress(path)
        # What the kernel takes as the path of a socket.
        assert len(str(path)) < 100
        assert settings.admin_directory != settings.socket_directory
        make_private(settings.admin_directory)
        try:
            assert stat.S_IMODE(settings.admin_directory.stat().st_mode) == 0o700
        finally:
            settings.admin_directory.rmdir()

    def test_a_directory_that_others_may_enter_is_refused(self, place: Path) -> None:
        (place / "open").mkdir()
        (place / "open").chmod(0o755)
        (place / "link").symlink_to(place)
        for one in ("open", "link"):
            with pytest.raises(RunError, match="not a directory of our own"):
                make_private(place / one)

    def test_may_be_put_elsewhere(self) -> None:
        read = partial(read_settings, root=ROOT)
        assert read({"GATEWAY_ADMIN_ADDRESS": "unix:/run/x.sock"}).gateway_admin == UnixAddress(Path("/run/x.sock"))
        assert str(read({"GATEWAY_ADMIN_ADDRESS": "127.0.0.1:9901"}).gateway_admin) == "127.0.0.1:9901"
        with pytest.raises(RunError, match="unix:x is not an address"):
            read({"GATEWAY_ADMIN_ADDRESS": "unix:x"})


class TestEnvoy:
    async def test_that_is_installed_is_new_enough(self) -> None:
        await check_envoy(envoy())

    @pytest.mark.parametrize("said", ["envoy  version: 9e55809/1.39.2/Clean/RELEASE/BoringSSL", "a shell", ""])
    async def test_that_is_older_or_none_is_refused_with_the_way_out(self, place: Path, said: str) -> None:
        program = place / "envoy"
        program.write_text(f"#!/bin/sh\necho '{said}'\n")
        program.chmod(0o755)
        with pytest.raises(RunError, match=r"^Envoy 1\.40 or newer is needed, and this is .*: run `make setup`"):
            await check_envoy(program)


class TestCommandLine:
    def test_a_busy_port_ends_the_run_without_a_traceback(self, settings: Settings) -> None:
        with socket.create_server(settings.gateway):
            done = local("run", environment=environment(settings))
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.startswith(f"storyloom: {settings.gateway} can't be used")
        assert done.stderr.count("\n") == 1
        assert not settings.socket_directory.exists()

    def test_a_second_run_says_that_one_is_there(self, settings: Settings) -> None:
        write_state(settings.state_file, settings.gateway_url, {})
        with only_runner(settings.directory):
            done = local("run", environment=environment(settings))
        assert done.returncode == 1
        assert f"already runs from this checkout (process {os.getpid()})" in done.stderr

    @pytest.mark.parametrize(
        "command", [("status",), ("restart", "audit"), ("trace",), ("trace", "banana"), ("migration", "audit", "add_x")]
    )
    def test_the_others_say_what_is_missing(self, settings: Settings, command: tuple[str, ...]) -> None:
        done = local(*command, environment=environment(settings))
        assert done.returncode == 1
        assert done.stderr.startswith("storyloom: ")
        assert done.stderr.count("\n") == 1


def environment(settings: Settings) -> dict[str, str]:
    addresses = {name: one[0] for name, one in settings.services.items()}
    addresses |= {"gateway": settings.gateway, "trace": settings.traces}
    made = {f"{name.upper()}_ADDRESS": str(address) for name, address in addresses.items()}
    return made | {"RUN_DIRECTORY": str(settings.directory), "DATABASE_URL": ""}


class TestLeftOver:
    def test_of_a_killed_runner_is_stopped_and_nothing_else(self, place: Path) -> None:
        file = place / "state.json"
        left, stranger = sleeper(), sleeper()
        try:
            write_state(file, "http://127.0.0.1:1", {"content": left.pid})
            found = read_state(file)
            assert found is not None
            runner = Running(found.runner.pid, found.runner.created - 100)
            text = file.read_text().replace(str(found.runner.created), str(runner.created))
            file.write_text(text)
            assert stop_left_over(file) == ["content"]
            assert left.poll() is not None
            assert stranger.poll() is None
        finally:
            ended(left)
            ended(stranger)

    def test_of_a_living_runner_stays(self, place: Path) -> None:
        program = sleeper()
        try:
            write_state(place / "state.json", "http://127.0.0.1:1", {"content": program.pid})
            assert stop_left_over(place / "state.json") == []
            assert program.poll() is None
        finally:
            ended(program)

    def test_an_id_that_was_given_to_another_process_is_not_touched(self, place: Path) -> None:
        program = sleeper()
        try:
            created = Running.of(program.pid)
            assert created is not None
            assert Running(program.pid, created.created - 10).process() is None
        finally:
            ended(program)

    @pytest.mark.parametrize("text", ["", "{}", "[]", '{"runner": 1}', '{"runner": {}, "gateway": "", "programs": {}}'])
    def test_a_file_that_makes_no_sense_is_no_state(self, place: Path, text: str) -> None:
        (place / "state.json").write_text(text)
        assert read_state(place / "state.json") is None
