"""Calls between services: what they carry, how long they may take, what is sent again."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest

from kit import call as calls
from kit.auth import current
from kit.errors import Aborted, DeadlineExceeded, FailedPrecondition, StoryloomError, Unavailable
from tests.kit.toy import Toy, another
from tests.kit.wire import call_by_hand
from tests.stack import refused

EVERYTHING = ("all", "manage")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@dataclass
class Seen:
    """One call as it arrived."""

    rpc: str
    metadata: dict[str, Any]
    remaining: float
    service: str
    user: Any

    @property
    def issuer(self) -> str:
        payload = self.metadata["authorization"].split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["iss"])


@dataclass
class Back:
    """The service behind: notes what arrives, and fails as often as the test says."""

    toy: Toy
    seen: list[Seen] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    slow: float = 0.0

    def __post_init__(self) -> None:
        self.SERVICE = self.toy.pb.DESCRIPTOR.services_by_name["NoteService"]

    def __getattr__(self, rpc: str) -> Any:
        if not rpc[0].isupper():
            raise AttributeError(rpc)

        async def serve(request: Any, context: Any) -> Any:
            call = calls.current_call()
            assert call is not None
            who = call.principal
            metadata = dict(context.invocation_metadata())
            self.seen.append(
                Seen(rpc, metadata, context.time_remaining(), who.service if who else "", who.user_id if who else None)
            )
            if self.failures:
                raise self.failures.pop(0)
            await asyncio.sleep(self.slow)
            return self.toy.pb.ListNotesResponse() if rpc in {"ListNotes", "CountNotes"} else self.toy.pb.Note()

        return serve


class Front:
    """The service in front: forwards to `content`; Misbehave and UpdateNote ask for the internal CountNotes."""

    def __init__(self, toy: Toy) -> None:
        self.SERVICE = toy.pb.DESCRIPTOR.services_by_name["NoteService"]
        self._toy = toy
        self._stub = toy.service.clients.stub(toy.grpc.NoteServiceStub, "toy")

    def __getattr__(self, rpc: str) -> Any:
        if not rpc[0].isupper():
            raise AttributeError(rpc)

        async def forward(request: Any, context: Any) -> Any:
            if rpc in {"Misbehave", "UpdateNote"}:
                await self._stub.CountNotes(self._toy.pb.ListNotesRequest())
                return self._toy.pb.Note()
            return await getattr(self._stub, rpc)(request)

        return forward


@dataclass
class Chain:
    """Front and back, wired by the front's own clients."""

    front: Toy
    back: Back

    async def read(self, token: str, *, timeout: float = 5, **headers: str) -> Seen:
        request = self.front.pb.GetNoteRequest(id=str(uuid4()))
        await self.front.stub(token, **headers).GetNote(request, timeout=timeout)
        return self.back.seen[-1]


@pytest.fixture(scope="module")
async def running(toy: Toy) -> AsyncIterator[Chain]:
    backs: list[Back] = []

    def back(of: Toy) -> Back:
        backs.append(Back(of))
        return backs[0]

    async with (
        another(toy, back, callers=lambda service, caller: caller == "toy") as behind,
        another(toy, Front, toy_address=behind.settings.listen_address) as front,
    ):
        yield Chain(front, backs[0])


@pytest.fixture
def chain(running: Chain) -> Chain:
    running.back.seen.clear()
    running.back.failures.clear()
    running.back.slow = 0.0
    return running


class TestDeadline:
    @pytest.mark.slow
    async def test_the_caller_s_remaining_time_goes_on_less_a_margin(self, toy: Toy, chain: Chain) -> None:
        seen = await chain.read(toy.grant(uuid4(), EVERYTHING), timeout=1.0)
        assert 0.6 < seen.remaining < 1.0 - 0.02

    async def test_a_caller_with_much_time_gets_no_more_than_the_usual(self, toy: Toy, chain: Chain) -> None:
        seen = await chain.read(toy.grant(uuid4(), EVERYTHING), timeout=60)
        assert 4 < seen.remaining < 5.1

    @pytest.mark.slow
    async def test_what_takes_longer_is_told_by_the_front_itself(self, toy: Toy, chain: Chain) -> None:
        chain.back.slow = 5.0
        token = toy.grant(uuid4(), EVERYTHING)
        async with refused("DEADLINE_TOO_SHORT"):
            # The server hears of the client's deadline late enough to answer only if it gave itself a margin.
            await chain.front.stub(token).GetNote(chain.front.pb.GetNoteRequest(id=str(uuid4())), timeout=0.6)

    async def test_with_no_time_left_nobody_is_asked(self, toy: Toy, chain: Chain) -> None:
        stub = chain.front.service.clients.stub(toy.grpc.NoteServiceStub, "toy")
        with pytest.raises(DeadlineExceeded):
            await stub.Misbehave(toy.pb.Note(), timeout=0.0)
        assert not chain.back.seen


class TestIdentity:
    async def test_a_user_s_rpc_is_called_in_their_name(self, toy: Toy, chain: Chain) -> None:
        user = uuid4()
        token = toy.grant(user, EVERYTHING)
        seen = await chain.read(token)
        assert (seen.metadata["authorization"], seen.user) == (f"Bearer {token}", user)

    @pytest.mark.parametrize("rpc", ["Misbehave", "UpdateNote"])
    async def test_an_internal_rpc_is_called_with_the_service_s_credential(
        self, toy: Toy, chain: Chain, rpc: str
    ) -> None:
        token = toy.grant(uuid4(), EVERYTHING)
        request = toy.pb.Note() if rpc == "Misbehave" else toy.pb.UpdateNoteRequest()
        await getattr(chain.front.stub(token), rpc)(request)
        seen = chain.back.seen[-1]
        assert (seen.rpc, seen.service, seen.user, seen.issuer) == ("CountNotes", "toy", None, "toy")
        assert token not in str(seen.metadata)

    async def test_background_work_calls_as_the_service(self, toy: Toy, chain: Chain) -> None:
        await chain.front.service.clients.stub(toy.grpc.NoteServiceStub, "toy").Misbehave(toy.pb.Note())
        assert chain.back.seen[-1].issuer == "toy"

    async def test_platform_staff_go_on_acting_in_the_same_tenant(self, toy: Toy, chain: Chain) -> None:
        from kit.ids import SYSTEM_TENANT

        tenant = str(uuid4())
        token = toy.grant(uuid4(), EVERYTHING, tenant=SYSTEM_TENANT)
        seen = await chain.read(token, x_act_in_tenant=tenant)
        assert seen.metadata["x-act-in-tenant"] == tenant


class TestPropagation:
    async def test_request_id_and_trace_go_on(self, toy: Toy, chain: Chain) -> None:
        token = toy.grant(uuid4(), EVERYTHING)
        for flags in ("00", "01"):
            parent = f"00-{TRACE}-00f067aa0ba902b7-{flags}"
            seen = await chain.read(token, x_request_id="phone-7", traceparent=parent)
            assert seen.metadata["x-request-id"] == "phone-7"
            version, trace, span, sampled = seen.metadata["traceparent"].split("-")
            assert (version, trace) == ("00", TRACE)
            assert span != "00f067aa0ba902b7"
            # The toy has no collector: it records nothing, whatever its caller does.
            assert sampled in {"00", flags}

    @pytest.mark.parametrize("value", [b"\xc3\xa9", b"\xff\xfe"], ids=repr)
    async def test_a_request_id_that_cannot_go_on_breaks_nothing(self, chain: Chain, value: bytes) -> None:
        address, path = chain.front.settings.listen_address, b"/toy.v1.NoteService/Misbehave"
        received = await asyncio.to_thread(call_by_hand, address, path, (b"x-request-id", value))
        assert b"grpc-status\x010" in received, received

    async def test_a_call_without_either_gets_its_own(self, toy: Toy, chain: Chain) -> None:
        token = toy.grant(uuid4(), EVERYTHING)
        one, two = await chain.read(token), await chain.read(token)
        for name in ("x-request-id", "traceparent"):
            assert one.metadata[name] != two.metadata[name]


class TestRetries:
    async def test_a_read_is_sent_again_when_the_service_was_away(self, toy: Toy, chain: Chain) -> None:
        chain.back.failures = [Unavailable("restarting"), Unavailable("restarting")]
        await chain.read(toy.grant(uuid4(), EVERYTHING))
        assert [seen.rpc for seen in chain.back.seen] == ["GetNote"] * 3

    async def test_a_read_is_not_sent_for_ever(self, toy: Toy, chain: Chain) -> None:
        chain.back.failures = [Unavailable("restarting") for _ in range(9)]
        async with refused("DEPENDENCY_UNAVAILABLE"):
            await chain.read(toy.grant(uuid4(), EVERYTHING))
        assert len(chain.back.seen) == 3

    async def test_a_mutation_is_sent_once(self, toy: Toy, chain: Chain) -> None:
        chain.back.failures = [Unavailable("restarting")]
        async with refused("DEPENDENCY_UNAVAILABLE"):
            await chain.front.stub(toy.grant(uuid4(), EVERYTHING)).CreateNote(toy.pb.Note(text="once"))
        assert [seen.rpc for seen in chain.back.seen] == ["CreateNote"]

    async def test_no_other_failure_is_sent_again(self, toy: Toy, chain: Chain) -> None:
        chain.back.failures = [DeadlineExceeded("late"), Aborted("no")]
        async with refused("DEADLINE_TOO_SHORT"):
            await chain.read(toy.grant(uuid4(), EVERYTHING))
        assert len(chain.back.seen) == 1


class TestFailures:
    async def test_the_exception_comes_out_at_the_other_end(self, toy: Toy, chain: Chain) -> None:
        chain.back.failures = [FailedPrecondition("Changed.", metadata={"revision": "7"})]
        with pytest.raises(StoryloomError) as caught:
            await chain.front.service.clients.stub(toy.grpc.NoteServiceStub, "toy").Misbehave(toy.pb.Note())
        assert (type(caught.value), caught.value.metadata) == (FailedPrecondition, {"revision": "7"})

    def test_the_front_has_no_principal_outside_of_a_call(self) -> None:
        with pytest.raises(StoryloomError):
            current()
