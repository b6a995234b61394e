"""What stands in the way of a run is said in one sentence; what an earlier run left is cleaned up, by id."""

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from deploy.local.errors import RunError
from deploy.local.postgres import make_private
from deploy.local.settings import ROOT, Settings, UnixAddress, read_settings
from deploy.local.stack import check_envoy, check_ports, envoy
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

    def test_the_port_for_traces_is_not_ours_when_they_go_elsewhere(self, settings: Settings) -> None:
        with socket.create_server(settings.traces):
            check_ports(replace(settings, otlp_endpoint="http://collector:4317"))

    @pytest.mark.parametrize("text", ["8080", "localhost", ":8080", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:x"])
    def test_an_address_that_is_none_is_refused(self, text: str) -> None:
        with pytest.raises(RunError, match=r"CONTENT_ADDRESS=.* is not an address"):
            read_settings({"CONTENT_ADDRESS": text})


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

    @pytest.mark.parametrize("command", [("status",), ("trace",), ("trace", "banana"), ("migration", "audit", "add_x")])
    def test_the_others_say_what_is_missing(self, settings: Settings, command: tuple[str, ...]) -> None:
        done = local(*command, environment=environment(settings))
        assert done.returncode == 1
        assert done.stderr.startswith("storyloom: ")
        assert done.stderr.count("\n") == 1


def environment(settings: Settings) -> dict[str, str]:
    addresses = {**settings.services} | {"gateway": settings.gateway, "trace": settings.traces}
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
