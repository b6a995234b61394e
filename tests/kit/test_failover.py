"""A service of several processes: calls are spread over them, and none fails when one of them goes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from kit.clients import Clients
from kit.errors import StoryloomError, Unavailable
from kit.settings import SettingsError, target_of
from kit.telemetry import Telemetry
from tests.kit.tls import OURS, calling, place, serving
from tests.kit.toy import Toy, another
from tests.stack import free_port


class Process:
    """One of them: says who it is, after a moment."""

    def __init__(self, toy: Toy) -> None:
        self.SERVICE = toy.pb.DESCRIPTOR.services_by_name["NoteService"]
        self._toy = toy

    def __getattr__(self, rpc: str) -> Any:
        if not rpc[0].isupper():
            raise AttributeError(rpc)

        async def answer(request: Any, context: Any) -> Any:
            await asyncio.sleep(0.01)
            return self._toy.pb.Note(text=self._toy.settings.listen_address)

        return answer


@asynccontextmanager
async def stub_for(toy: Toy, addresses: str) -> AsyncIterator[Any]:
    settings = replace(toy.settings, toy_address=addresses)
    clients = Clients(settings, Telemetry(settings))
    try:
        yield clients.stub(toy.grpc.NoteServiceStub, "toy")
    finally:
        await clients.close()


async def answering(stub: Any, toy: Toy, times: int) -> list[str]:
    """Who answers that many calls, one after another, of an RPC that is never sent again."""
    return [(await stub.Misbehave(toy.pb.Note())).text for _ in range(times)]


class TestSeveralProcesses:
    async def test_take_turns(self, toy: Toy) -> None:
        async with another(toy, Process) as one, another(toy, Process) as two:
            addresses = [one.settings.listen_address, two.settings.listen_address]
            async with stub_for(toy, ",".join(addresses)) as stub:
                await answering(stub, toy, 5)
                found = await answering(stub, toy, 10)
        assert sorted(found) == sorted(addresses * 5)

    @pytest.mark.slow
    async def test_one_that_goes_gets_no_more_calls_and_fails_none(self, toy: Toy) -> None:
        failures: list[StoryloomError] = []
        calls, going = 0, asyncio.Event()
        late: list[str] = []

        async def call_without_pause(stub: Any) -> None:
            nonlocal calls
            while not going.is_set() or len(late) < 200:
                calls += 1
                try:
                    answered = await stub.Misbehave(toy.pb.Note())
                except StoryloomError as error:
                    failures.append(error)
                    late.append("")
                else:
                    if going.is_set():
                        late.append(answered.text)

        async with another(toy, Process, drain_delay=0.3) as one, another(toy, Process) as two:
            addresses = one.settings.listen_address, two.settings.listen_address
            async with stub_for(toy, ",".join(addresses)) as stub:
                await answering(stub, toy, 5)
                load = asyncio.gather(*(call_without_pause(stub) for _ in range(8)))
                await asyncio.sleep(0.2)
                stopping = asyncio.create_task(one.service.stop())
                await asyncio.sleep(0.2)
                going.set()
                await asyncio.gather(stopping, load)
        assert failures == []
        assert calls > 200
        # Also while it would still have taken some.
        assert set(late[8:]) == {addresses[1]}

    async def test_one_that_is_not_there_is_passed_over(self, toy: Toy) -> None:
        async with another(toy, Process) as one:
            nobody = f"127.0.0.1:{free_port()}"
            async with stub_for(toy, f"{nobody},{one.settings.listen_address}") as stub:
                assert set(await answering(stub, toy, 10)) == {one.settings.listen_address}

    @pytest.mark.parametrize(("dials", "reached"), [("toy", True), ("identity", False)])
    async def test_each_has_to_show_the_service_s_certificate(
        self, toy: Toy, tmp_path: Path, dials: str, reached: bool
    ) -> None:
        async with serving(toy, place(tmp_path / "toy", OURS.issue("toy"))) as (served, _):
            listed = f"{served.settings.listen_address},127.0.0.1:{free_port()}"
            known = replace(served, settings=replace(served.settings, listen_address=listed))
            async with calling(known, place(tmp_path / "content", OURS.issue("content")), dials=dials) as stub:
                if reached:
                    await stub.CountNotes(toy.pb.ListNotesRequest())
                else:
                    with pytest.raises(Unavailable):
                        await stub.Misbehave(toy.pb.Note())


class TestTarget:
    @pytest.mark.parametrize(
        ("addresses", "target"),
        [
            ("content:7102", "content:7102"),
            ("unix:/run/x", "unix:/run/x"),
            ("127.0.0.1:7102,127.0.0.1:7202", "ipv4:127.0.0.1:7102,127.0.0.1:7202"),
            ("[::1]:7102,[::1]:7202", "ipv6:[::1]:7102,[::1]:7202"),
        ],
    )
    def test_is_what_grpc_takes(self, addresses: str, target: str) -> None:
        assert target_of(addresses) == target
        grpc.insecure_channel(target).close()

    @pytest.mark.parametrize(
        "addresses", ["content-0:7102,content-1:7102", "127.0.0.1:1,[::1]:1", "127.0.0.1:1,", "127.0.0.1:1,unix:/run/x"]
    )
    def test_of_names_or_of_two_kinds_is_refused(self, addresses: str) -> None:
        with pytest.raises(SettingsError, match="all IPv4 or all IPv6"):
            target_of(addresses)
