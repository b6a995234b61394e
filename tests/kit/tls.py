"""Certificates, and who listens and dials with them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc

from deploy.certificates import Authority, Issued
from kit.clients import Clients
from kit.settings import TlsFiles
from kit.telemetry import Telemetry
from kit.tls import Tls
from tests.kit.toy import Toy, another

OURS, THEIRS = Authority.new(), Authority.new()


def place(folder: Path, issued: Issued, *trusted: Authority) -> dict[str, Any]:
    """Puts the files there, as a renewal does, and returns the settings."""
    folder.mkdir(exist_ok=True)
    authorities = b"".join(one.pem.certificate for one in trusted or (OURS,))
    for name, content in (("tls.key", issued.key), ("ca.crt", authorities), ("tls.crt", issued.certificate)):
        (folder / "new").write_bytes(content)
        (folder / "new").replace(folder / name)
    return {
        "tls_certificate": f"{folder}/tls.crt",
        "tls_key": f"{folder}/tls.key",
        "tls_ca": f"{folder}/ca.crt",
    }


def files_of(settings: dict[str, Any]) -> TlsFiles:
    return TlsFiles(*map(Path, settings.values()))


class Witness:
    """A servicer that knows which certificates its callers showed, and over which connections."""

    def __init__(self, toy: Toy) -> None:
        self.SERVICE = toy.pb.DESCRIPTOR.services_by_name["NoteService"]
        self._pb = toy.pb
        self.shown: list[bytes] = []
        self.connections: set[str] = set()

    def __getattr__(self, rpc: str) -> Any:
        if not rpc[0].isupper():
            raise AttributeError(rpc)

        async def answer(request: Any, context: Any) -> Any:
            self.shown += context.auth_context().get("x509_pem_cert", ())
            self.connections.add(context.peer())
            if rpc == "Misbehave" and request.text == "slow":
                await asyncio.sleep(0.5)
            return self._pb.Note() if rpc in {"CreateNote", "GetNote", "UpdateNote", "Misbehave"} else self._list()

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            yield self._pb.Note(text="first")
            await asyncio.sleep(30)

        return stream if rpc in {"WatchNotes", "EchoNotes"} else answer

    def _list(self) -> Any:
        return self._pb.ListNotesResponse()


@asynccontextmanager
async def serving(toy: Toy, settings: dict[str, Any]) -> AsyncIterator[tuple[Toy, Witness]]:
    made: list[Witness] = []

    def servicer(of: Toy) -> Witness:
        made.append(Witness(of))
        return made[0]

    async with another(toy, servicer, **settings) as served:
        yield served, made[0]


@asynccontextmanager
async def calling(
    served: Toy, settings: dict[str, Any], *, service: str = "content", dials: str = "toy"
) -> AsyncIterator[Any]:
    """A stub with the credential of this service, for what it believes to be `dials`; the folder of the TLS files has
    the name in the certificate."""
    changes: dict[str, Any] = {
        "service_credential": json.dumps(served.credentials[service].as_dict(private=True)),
        f"{dials}_address": served.settings.listen_address,
    }
    made = replace(served.settings, service=service, **changes, **settings)
    files = files_of(settings)
    clients = Clients(made, Telemetry(made), Tls(files.certificate.parent.name, files))
    try:
        yield clients.stub(served.grpc.NoteServiceStub, dials)
    finally:
        await clients.close()


def damaged(path: Path, what: str) -> None:
    content = {"garbage": b"-----BEGIN NOTHING-----", "empty": b"", "another": OURS.issue("toy").key}.get(what)
    path.unlink() if content is None else path.write_bytes(content)


async def reach(served: Toy, credentials: grpc.ChannelCredentials | None) -> grpc.StatusCode:
    """How a public RPC ends over this connection."""
    address, options = served.settings.listen_address, [("grpc.default_authority", "toy")]
    made = (
        grpc.aio.secure_channel(address, credentials, options)
        if credentials
        else grpc.aio.insecure_channel(address, options)
    )
    async with made as channel:
        call = served.grpc.NoteServiceStub(channel).Misbehave(served.pb.Note(), timeout=5)
        with suppress(grpc.aio.AioRpcError):
            await call
        code: grpc.StatusCode = await call.code()
        return code


def shows(issued: Issued | None, *, trusts: Authority = OURS) -> grpc.ChannelCredentials:
    pair = (issued.key, issued.certificate) if issued else (None, None)
    return grpc.ssl_channel_credentials(trusts.pem.certificate, *pair)
