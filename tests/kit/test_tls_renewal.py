"""Certificates are renewed while everything runs: no restart, and no call is lost."""

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import grpc
import pytest
from cryptography import x509

from kit import clients as kit_clients
from kit import tls as kit_tls
from kit.auth import Principal
from kit.call import Call, enter, leave
from kit.errors import StoryloomError, Unavailable
from kit.pagination import Sealer
from tests.kit.tls import OURS, THEIRS, calling, damaged, place, reach, serving, shows
from tests.kit.toy import Toy

EVERYTHING = ("all", "manage")


@contextmanager
def in_name_of(served: Toy, token: str) -> Iterator[None]:
    """As while an RPC of the user is served."""
    principal = Principal(tenant_id=served.tenant, home_tenant_id=served.tenant, token=token)
    sealer = Sealer(served.settings.secret)
    before = enter(Call(rpc="/x", request_id="x", access=served.service.access, sealer=sealer, principal=principal))
    try:
        yield
    finally:
        leave(before)


def serial_of(pem: bytes) -> int:
    return x509.load_pem_x509_certificate(pem).serial_number


async def served_serial(served: Toy, folder: Path) -> int:
    """Of the certificate that a new connection is shown."""
    place(folder, OURS.issue("gateway"), OURS, THEIRS)
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    context.set_alpn_protocols(["h2"])
    host, _, port = served.settings.listen_address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname="toy")
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return x509.load_der_x509_certificate(shown).serial_number


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are looked at for every connection and call, not once a second."""
    monkeypatch.setattr(kit_tls, "LOOK_SECONDS", 0.0)


@pytest.mark.usefixtures("at_once")
class TestRenewal:
    async def test_of_a_server_is_shown_to_the_next_connection(self, toy: Toy, tmp_path: Path) -> None:
        first, second = OURS.issue("toy"), OURS.issue("toy")
        async with serving(toy, place(tmp_path / "toy", first)) as (served, _):
            assert await served_serial(served, tmp_path / "c") == serial_of(first.certificate)
            place(tmp_path / "toy", second)
            assert await served_serial(served, tmp_path / "c") == serial_of(second.certificate)

    @pytest.mark.parametrize("file", ["tls.key", "tls.crt", "ca.crt"])
    @pytest.mark.parametrize("what", ["another", "garbage", "gone"])
    async def test_of_a_server_that_is_half_done_or_broken_changes_nothing(
        self, toy: Toy, tmp_path: Path, file: str, what: str
    ) -> None:
        issued = OURS.issue("toy")
        async with serving(toy, place(tmp_path / "toy", issued)) as (served, _):
            damaged(tmp_path / "toy" / file, what)
            assert await served_serial(served, tmp_path / "c") == serial_of(issued.certificate)
            place(tmp_path / "toy", renewed := OURS.issue("toy"))
            assert await served_serial(served, tmp_path / "c") == serial_of(renewed.certificate)

    @pytest.mark.parametrize("file", ["tls.key", "tls.crt", "ca.crt"])
    @pytest.mark.parametrize("what", ["another", "garbage", "gone"])
    async def test_of_a_client_that_is_half_done_or_broken_changes_nothing(
        self, toy: Toy, tmp_path: Path, file: str, what: str
    ) -> None:
        async with serving(toy, place(tmp_path / "toy", OURS.issue("toy"))) as (served, witness):
            async with calling(served, place(tmp_path / "content", OURS.issue("content"))) as stub:
                await stub.CountNotes(served.pb.ListNotesRequest())
                damaged(tmp_path / "content" / file, what)
                await stub.CountNotes(served.pb.ListNotesRequest())
            assert len(witness.connections) == 1

    async def test_of_a_client_is_shown_with_its_next_call(self, toy: Toy, tmp_path: Path) -> None:
        first, second = OURS.issue("content"), OURS.issue("content")
        async with serving(toy, place(tmp_path / "toy", OURS.issue("toy"))) as (served, witness):
            async with calling(served, place(tmp_path / "content", first)) as stub:
                await stub.CountNotes(served.pb.ListNotesRequest())
                place(tmp_path / "content", second)
                for _ in range(3):
                    await stub.CountNotes(served.pb.ListNotesRequest())
            serials = [serial_of(one) for one in witness.shown]
            assert serials == [serial_of(first.certificate), *[serial_of(second.certificate)] * 3]
            assert len(witness.connections) == 2

    async def test_lets_running_calls_end_as_they_began(
        self, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kit_clients, "RETIRED_SECONDS", 1.0)
        async with (
            serving(toy, place(tmp_path / "toy", OURS.issue("toy"))) as (served, _),
            calling(served, place(tmp_path / "content", OURS.issue("content"))) as stub,
        ):
            slow = asyncio.ensure_future(stub.Misbehave(served.pb.Note(text="slow")))
            await asyncio.sleep(0.1)
            place(tmp_path / "content", OURS.issue("content"))
            await stub.CountNotes(served.pb.ListNotesRequest())
            assert isinstance(await slow, served.pb.Note)

    async def test_ends_a_stream_with_an_error_and_not_its_reader(
        self, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kit_clients, "RETIRED_SECONDS", 0.2)
        plain, tls = place(tmp_path / "content", OURS.issue("content")), place(tmp_path / "toy", OURS.issue("toy"))
        async with serving(toy, tls) as (served, _), calling(served, plain) as stub:
            heard: list[str] = []

            async def follow() -> None:
                async for note in stub.WatchNotes(served.pb.ListNotesRequest()):
                    heard.append(note.text)
                    place(tmp_path / "content", OURS.issue("content"))
                    await stub.CountNotes(served.pb.ListNotesRequest())

            with in_name_of(served, served.grant(uuid4(), EVERYTHING)), pytest.raises(StoryloomError) as ended:
                await asyncio.wait_for(follow(), 5)
            assert (heard, type(ended.value)) == (["first"], Unavailable)

    async def test_of_the_ca_itself_loses_no_call(self, toy: Toy, tmp_path: Path) -> None:
        """First all trust both, then the certificates change, then the old CA goes."""
        server, client = tmp_path / "toy", tmp_path / "content"
        async with serving(toy, place(server, OURS.issue("toy"))) as (served, witness):
            async with calling(served, place(client, OURS.issue("content"))) as stub:
                stages = [(OURS, (OURS, THEIRS)), (THEIRS, (OURS, THEIRS)), (THEIRS, (THEIRS,))]
                for issuer, trusted in stages:
                    for folder in (server, client):
                        place(folder, issuer.issue(folder.name), *trusted)
                        for _ in range(5):
                            await stub.CountNotes(served.pb.ListNotesRequest())
            issuers = {x509.load_pem_x509_certificate(one).issuer for one in witness.shown}
            assert len(witness.shown) == 30
            assert len(issuers) == 1  # Both CAs have the same name; their keys differ.
            assert await reach(served, shows(OURS.issue("content"), trusts=THEIRS)) is grpc.StatusCode.UNAVAILABLE


@pytest.mark.slow
class TestConnection:
    async def test_is_made_anew_after_a_while_without_losing_a_call(
        self, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("kit.server.CONNECTION_SECONDS", 1)
        async with serving(toy, place(tmp_path / "toy", OURS.issue("toy"))) as (served, witness):
            async with calling(served, place(tmp_path / "content", OURS.issue("content"))) as stub:
                end = asyncio.get_running_loop().time() + 3
                while asyncio.get_running_loop().time() < end:
                    await asyncio.gather(*(stub.Misbehave(served.pb.Note()) for _ in range(8)))
            assert len(witness.connections) >= 2
