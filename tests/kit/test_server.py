"""A service's life: what it refuses to start with, and how it ends without losing a call."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kit import outbox
from storyloom.type.v1 import options_pb2
from tests.kit.toy import Toy, another, note_service
from tests.stack import free_port

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
ROOT = Path(__file__).parents[2]


def service_with(name: str, **requires: Any) -> Any:
    """A servicer with one RPC that declares this."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="odd.v1", syntax="proto3")
    file.message_type.add(name="Empty")
    method = file.service.add(name="OddService").method.add(name="Do", input_type=".odd.v1.Empty")
    method.output_type = ".odd.v1.Empty"
    if requires:
        option: Any = options_pb2.requires
        method.options.Extensions[option].CopyFrom(options_pb2.Requires(**requires))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)

    async def do(request: Any, context: Any) -> Any:
        pytest.fail("nobody may get here")

    return SimpleNamespace(SERVICE=pool.FindServiceByName("odd.v1.OddService"), Do=do)


class TestStart:
    @pytest.mark.parametrize(
        "requires",
        [
            {},
            {"resource": "note"},
            {"action": "read"},
            {"public": True, "internal": True},
            {"resource": "note", "action": "read", "public": True},
        ],
        ids=str,
    )
    async def test_refuses_an_rpc_that_does_not_say_who_may_call_it(self, toy: Toy, requires: dict[str, Any]) -> None:
        service = service_with("odd", **requires)
        with pytest.raises(TypeError, match=r"/odd\.v1\.OddService/Do does not declare who may call it"):
            async with another(toy, lambda _: service):
                pass

    async def test_refuses_a_servicer_that_lacks_an_rpc(self, toy: Toy) -> None:
        service = service_with("odd", public=True)
        del service.Do
        with pytest.raises(AttributeError, match="Do"):
            async with another(toy, lambda _: service):
                pass

    async def test_refuses_a_port_in_use(self, toy: Toy) -> None:
        from kit.server import Service

        second = Service(toy.settings, callers=lambda service, caller: False)
        with pytest.raises(RuntimeError):
            await second.start()
        await second.db.close()

    async def test_is_healthy_under_every_name(self, toy: Toy) -> None:
        stub = health_pb2_grpc.HealthStub(toy.channel)
        for name in ("", "storyloom.toy", "toy.v1.NoteService"):
            assert (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status == SERVING


class Gate:
    """A servicer whose Misbehave waits until the test lets it go."""

    def __init__(self, toy: Toy) -> None:
        self._others = note_service(toy)
        self.SERVICE = self._others.SERVICE
        self.entered, self.open = asyncio.Event(), asyncio.Event()

    def __getattr__(self, rpc: str) -> Any:
        return getattr(self._others, rpc)

    async def Misbehave(self, request: Any, context: Any) -> Any:
        self.entered.set()
        await self.open.wait()
        return request


def gate_of(made: list[Gate]) -> Callable[[Toy], Gate]:
    def servicer(toy: Toy) -> Gate:
        made.append(Gate(toy))
        return made[0]

    return servicer


class TestStop:
    async def test_a_running_call_ends_well_after_health_has_gone(self, toy: Toy) -> None:
        made: list[Gate] = []
        async with another(toy, gate_of(made), drain_delay=0.2, drain_grace=5.0) as other:
            seen: list[Any] = []

            async def follow() -> None:
                watch = health_pb2_grpc.HealthStub(other.channel).Watch(health_pb2.HealthCheckRequest())
                async for answer in watch:
                    seen.append(answer.status)

            following = asyncio.create_task(follow())
            running = asyncio.ensure_future(other.stub().Misbehave(toy.pb.Note(text="kept")))
            await made[0].entered.wait()
            while not seen:
                await asyncio.sleep(0.01)
            stopping = asyncio.create_task(other.service.stop())
            while len(seen) < 2:
                await asyncio.sleep(0.01)
            # Told that it goes, a balancer may still send a call or two: those are served.
            assert seen == [SERVING, NOT_SERVING]
            assert not running.done()
            await other.stub(toy.grant(uuid4(), ("all", "manage"))).ListNotes(toy.pb.ListNotesRequest())
            await asyncio.sleep(0.3)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await other.stub().Misbehave(toy.pb.Note(), timeout=0.5)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            made[0].open.set()
            assert (await running).text == "kept"
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await stopping

    async def test_a_call_that_outlasts_the_grace_is_cut_off(self, toy: Toy) -> None:
        made: list[Gate] = []
        async with another(toy, gate_of(made), drain_grace=0.1) as other:
            running = asyncio.ensure_future(other.stub().Misbehave(toy.pb.Note()))
            await made[0].entered.wait()
            async with asyncio.timeout(2):
                await other.service.stop()
            assert isinstance((await asyncio.gather(running, return_exceptions=True))[0], grpc.aio.AioRpcError)

    @pytest.mark.slow
    async def test_the_relay_and_every_task_end(self, toy: Toy) -> None:
        before = asyncio.all_tasks()
        away = f"127.0.0.1:{free_port()}"
        async with another(toy, publishes={toy.pb.Note: ("learning",)}, learning_address=away) as other:
            async with other.db.write(toy.tenant) as session:
                outbox.publish(session, "note", uuid4(), toy.pb.Note(text="x"))
            query = "SELECT due_at, created_at FROM toy.outbox WHERE consumer = 'learning'"
            async with asyncio.timeout(3):
                while (row := (await toy.rows(query))[0])["due_at"] <= row["created_at"]:
                    await asyncio.sleep(0.05)
        await toy.rows("UPDATE toy.outbox SET due_at = created_at WHERE consumer = 'learning'")
        await asyncio.sleep(outbox.IDLE_SECONDS + 0.1)
        assert [row["due_at"] <= row["created_at"] for row in await toy.rows(query)] == [True]
        await toy.rows("DELETE FROM toy.outbox WHERE consumer = 'learning'")
        left = [task for task in asyncio.all_tasks() - before if not task.done()]
        assert not [task for task in left if "kit/" in str(task.get_coro())], left

    @pytest.mark.slow
    async def test_background_work_survives_its_own_failure(self, toy: Toy) -> None:
        from kit.server import _supervised

        rounds: list[int] = []

        async def work() -> None:
            rounds.append(1)
            raise ValueError("this round fails")

        task = asyncio.create_task(_supervised(work))
        await asyncio.sleep(1.2)
        task.cancel()
        assert len(rounds) == 2


def environment(toy: Toy, address: str) -> dict[str, str]:
    stubs = Path(toy.pb.__file__).parents[2]
    values = asdict(toy.settings) | {"listen_address": address, "drain_grace": 5.0}
    path = os.pathsep.join(map(str, (stubs, ROOT / "gen", ROOT)))
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": path,
        "PYTHONWARNINGS": "ignore",
        **{name.upper(): str(value) for name, value in values.items() if name != "service"},
    }


@pytest.mark.slow
class TestProcess:
    async def test_drains_and_exits_with_0_when_told_to_end(self, toy: Toy) -> None:
        address = f"127.0.0.1:{free_port()}"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.kit.process", env=environment(toy, address), stderr=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(20), grpc.aio.insecure_channel(address) as channel:
                stub = toy.grpc.NoteServiceStub(channel)
                napping = asyncio.ensure_future(stub.Misbehave(toy.pb.Note(text="nap"), wait_for_ready=True))
                health = health_pb2_grpc.HealthStub(channel)
                await health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)
                await asyncio.sleep(0.1)
                process.send_signal(signal.SIGTERM)
                assert (await napping).text == "rested"
                _, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, errors.decode()
        lines = [json.loads(line) for line in errors.decode().splitlines()]
        assert "serving" in [line["message"] for line in lines]
        assert not [line for line in lines if line["level"] == "CRITICAL"]
