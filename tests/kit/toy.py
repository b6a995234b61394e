"""A service small enough to see the kit through: notes, over its own schema in the real PostgreSQL."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import google.api
import grpc
from grpc_tools import protoc
from joserfc import jwt
from joserfc.jwk import OKPKey
from sqlalchemy import select
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Mapped

from kit import audit, fieldmask
from kit.access import All, Compare, Ref, Rule, require, visible
from kit.access.snapshots import Change, Snapshot
from kit.auth import current
from kit.connecting import limits_of_role
from kit.db import Database
from kit.errors import NotFound
from kit.migrations import async_url, in_database, protection
from kit.models import Base, Resource, check_etag, metadata
from kit.pagination import Page
from kit.server import Service
from kit.settings import SERVICES, Settings
from kit.trust import Trust
from storyloom.access.v1.decisions_pb2 import PolicyInForce
from tests.pgbouncer import pgbouncer, through
from tests.stack import free_port, random_key

PROTOS = Path(__file__).parent / "protos"
ROLE = "storyloom_toy"
RULES = (
    Rule(
        "an author reads and updates their own note",
        "note",
        frozenset({"read", "list", "update"}),
        All((Compare("note.author_id", "eq", Ref("user.id")),)),
    ),
)


def compile_stubs(folder: Path) -> Any:
    """Compiles notes.proto into the folder and imports the messages."""
    generated = Path(sys.modules["storyloom.type.v1.options_pb2"].__file__ or "").parents[3]
    googleapis = Path(next(iter(google.api.__path__))).parents[1]
    well_known = Path(protoc.__file__).parent / "_proto"
    descriptors = folder / "known.binpb"
    descriptors.write_bytes((generated / "descriptors.binpb").read_bytes())
    arguments = [f"-I{PROTOS}", f"-I{googleapis}", f"-I{well_known}", f"--descriptor_set_in={descriptors}"]
    outputs = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    assert protoc.main(["protoc", *arguments, *outputs, "toy/v1/notes.proto"]) == 0
    sys.path.insert(0, str(folder))
    from toy.v1 import notes_pb2, notes_pb2_grpc

    return notes_pb2, notes_pb2_grpc


@cache
def make_model(message: Any) -> Any:
    """The table, made once the message it stands for is known, and once for all toys of a process."""

    class ToyBase(Base):
        __abstract__ = True
        metadata = metadata("toy")

    class Note(Resource, ToyBase):
        __tablename__ = "notes"
        __resource__ = "note"
        __message__ = message
        text: Mapped[str]
        secret: Mapped[str]
        author_id: Mapped[UUID]

    return Note


@dataclass(frozen=True, slots=True, kw_only=True)
class ToySettings(Settings):
    """Settings of a service that may call another toy."""

    toy_address: str = ""


@dataclass
class Toy:
    """The running service, its database, and the trust that the test holds in its hands."""

    service: Service
    pb: Any
    grpc: Any
    note: Any
    settings: ToySettings
    key: OKPKey
    credentials: dict[str, OKPKey]
    superuser_url: str
    snapshots: dict[tuple[UUID, UUID], Snapshot] = field(default_factory=dict)
    changes: asyncio.Queue[Change | None] = field(default_factory=asyncio.Queue)
    tenant: UUID = field(default_factory=uuid4)
    policies: dict[UUID, list[PolicyInForce]] = field(default_factory=dict)
    failing: dict[str, Exception] = field(default_factory=dict)

    @property
    def channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self.settings.listen_address)

    @property
    def db(self) -> Database:
        return self.service.db

    def grant(self, user: UUID, *permissions: tuple[str, str], tenant: UUID | None = None, **values: Any) -> str:
        """Lets the user do this, and returns a token of theirs."""
        tenant = tenant or self.tenant
        self.snapshots[tenant, user] = Snapshot(
            tenant_id=tenant, user_id=user, roles=frozenset({"someone"}), permissions=frozenset(permissions), **values
        )
        return self.token(user, tenant)

    def token(self, user: UUID, tenant: UUID, *, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """An access token signed by the key that the service trusts, with parts replaced."""
        body = {
            "iss": self.settings.token_issuer,
            "aud": self.settings.token_audience,
            "sub": str(user),
            "tid": str(tenant),
            "sid": str(uuid4()),
            "exp": int(time.time()) + 600,
        } | claims
        head = {"alg": "EdDSA", "typ": "at+jwt", "kid": "k1"} | dict(header or {})
        return jwt.encode(head, {k: v for k, v in body.items() if v is not None}, self.key, algorithms=["EdDSA"])

    def stub(self, token: str = "", **headers: str) -> Any:
        """A stub whose calls carry the token."""
        metadata = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        if token:
            metadata = (("authorization", f"Bearer {token}"), *metadata)
        return self.grpc.NoteServiceStub(_WithMetadata(self.channel, metadata))

    async def rows(self, query: str, *values: Any) -> list[Any]:
        """What the database holds, seen by its superuser."""
        connection = await asyncpg.connect(self.superuser_url)
        try:
            return list(await connection.fetch(query, *values))
        finally:
            await connection.close()


class _WithMetadata:
    def __init__(self, channel: grpc.aio.Channel, metadata: Any) -> None:
        self._channel, self._metadata = channel, metadata

    def __getattr__(self, kind: str) -> Any:
        def multi_callable(*args: Any, **kwargs: Any) -> Any:
            call = getattr(self._channel, kind)(*args, **kwargs)
            return lambda request, **more: call(request, **{"metadata": self._metadata, "timeout": 10} | more)

        return multi_callable


def note_service(toy: Toy) -> Any:
    """The servicer, written as handlers are."""
    note, pb = toy.note, toy.pb

    def to_proto(row: Any) -> Any:
        return pb.Note(
            id=str(row.id), text=row.text, secret=row.secret, author_id=str(row.author_id), etag=str(row.revision)
        )

    class NoteService:
        SERVICE = pb.DESCRIPTOR.services_by_name["NoteService"]

        async def CreateNote(self, request: Any, context: Any) -> Any:
            async with toy.db.write() as session:
                made = note(text=request.text, secret=request.secret, author_id=current().subject)
                session.add(made)
                audit.record(session, audit.Action.CREATE, made)
            if error := toy.failing.get(request.text):
                raise error
            return to_proto(made)

        async def GetNote(self, request: Any, context: Any) -> Any:
            async with toy.db.read() as session:
                query = select(note.__table__).where(
                    note.tenant_id == session.tenant_id, note.id == UUID(request.id)
                )
                row = (await session.execute(query)).one_or_none()
                if row is None:
                    raise NotFound("note")
                require("read", row, resource="note")
            return to_proto(row)

        async def UpdateNote(self, request: Any, context: Any) -> Any:
            async with toy.db.write() as session:
                query = select(note).where(
                    note.tenant_id == session.tenant_id, note.id == UUID(request.note.id)
                ).with_for_update()  # fmt: skip
                found = (await session.execute(query)).scalar_one_or_none()
                if found is None:
                    raise NotFound("note")
                require("update", found)
                check_etag(found, request.note.etag)
                fieldmask.apply(found, request.note, request.update_mask, {"text", "secret"})
                audit.record(session, audit.Action.UPDATE, found)
            return to_proto(found)

        async def ListNotes(self, request: Any, context: Any) -> Any:
            page = Page.of(request)
            async with toy.db.read() as session:
                query = page.apply(
                    select(note.__table__).where(note.tenant_id == session.tenant_id, visible("list", note)), note.id
                )
                rows, token = page.split((await session.execute(query)).all(), key=lambda row: (row.id,))
            return pb.ListNotesResponse(notes=[to_proto(row) for row in rows], next_page_token=token)

        async def WatchNotes(self, request: Any, context: Any) -> AsyncIterator[Any]:
            for number in range(3):
                yield pb.Note(text=str(number))
            if request.text == "fail":
                raise NotFound("note")

        async def ImportNotes(self, requests: AsyncIterator[Any], context: Any) -> Any:
            return pb.ListNotesResponse(notes=[one async for one in requests])

        async def EchoNotes(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
            async for one in requests:
                yield one

        async def Misbehave(self, request: Any, context: Any) -> Any:
            if request.text == "sleep":
                await asyncio.sleep(30)
            if request.text == "nap":
                await asyncio.sleep(0.5)
                return pb.Note(text="rested")
            raise toy.failing.get(request.text) or ValueError("a secret of the stack")

        async def CountNotes(self, request: Any, context: Any) -> Any:
            return pb.ListNotesResponse()

    return NoteService()


def _only_content(grpc_service: str, caller: str) -> bool:
    return caller == "content"


@asynccontextmanager
async def serving_toy(admin_url: str, folder: Path, *, connections: int = 0, **settings: Any) -> AsyncIterator[Toy]:
    """The toy's own database and the service over it, through PgBouncer when it is to have server connections."""
    async with AsyncExitStack() as stack:
        if connections:
            sockets = stack.enter_context(pgbouncer(admin_url, {ROLE: "toy"}, connections=connections))
            url = through(in_database(admin_url, "toy", user=ROLE, password="toy"), sockets)
            settings |= {"database_url": url, "database_pooler": "transaction"}
        running = await start_toy(admin_url, folder, **settings)
        stack.push_async_callback(running.service.stop)
        yield running


async def start_toy(superuser_url: str, folder: Path, **settings: Any) -> Toy:
    """Makes a database with the toy's schema and role, and serves."""
    pb, stubs = compile_stubs(folder)
    note = make_model(pb.Note.DESCRIPTOR)
    await _make_database(superuser_url, note)
    url = in_database(superuser_url, "toy")
    credentials = {name: OKPKey.generate_key("Ed25519", parameters={"kid": name}) for name in (*SERVICES, "toy")}
    settings.setdefault("database_url", in_database(url, "toy", user=ROLE, password="toy"))
    made = ToySettings(
        service="toy",
        secret_key=random_key(),
        service_credential=json.dumps(credentials["toy"].as_dict(private=True)),
        service_keys=json.dumps({"keys": [key.as_dict(private=False) for key in credentials.values()]}),
        listen_address=f"127.0.0.1:{free_port()}",
        drain_grace=1.0,
        **settings,
    )
    key = OKPKey.generate_key("Ed25519", parameters={"kid": "k1"})
    service = Service(made, rules=RULES, callers=_only_content)
    toy = Toy(service, pb, stubs, note, made, key, credentials, url)
    service.trust(_trust(toy))
    service.add(note_service(toy))
    await service.start()
    return toy


@asynccontextmanager
async def another(
    toy: Toy,
    servicer: Callable[[Toy], Any] = note_service,
    *,
    callers: Callable[[str, str], bool] = _only_content,
    publishes: Mapping[Any, tuple[str, ...]] | None = None,
    **settings: Any,
) -> AsyncIterator[Toy]:
    """A second service over the toy's database and trust, at its own port; it may be stopped before the block ends."""
    made = replace(toy.settings, listen_address=f"127.0.0.1:{free_port()}", **settings)
    service = Service(made, rules=RULES, publishes=publishes, callers=callers)
    other = replace(toy, service=service, settings=made)
    service.trust(_trust(other))
    service.add(servicer(other))
    try:
        await service.start()
    except BaseException:
        await service.db.close()
        raise
    try:
        yield other
    finally:
        await service.stop()


def _trust(toy: Toy) -> Trust:
    async def keys() -> Mapping[str, Any]:
        return {"keys": [toy.key.as_dict(private=False)]}

    async def snapshots(tenant_id: UUID, user_id: UUID) -> Snapshot:
        return toy.snapshots[tenant_id, user_id]

    async def changes() -> AsyncIterator[Change | None]:
        while True:
            try:
                yield await asyncio.wait_for(toy.changes.get(), 0.5)
            except TimeoutError:
                yield None

    async def policies(tenant_id: UUID) -> list[PolicyInForce]:
        return toy.policies.get(tenant_id, [])

    return Trust(keys, snapshots, changes, policies)


async def _make_database(superuser_url: str, note: Any) -> None:
    admin = await asyncpg.connect(superuser_url)
    await admin.execute("CREATE ROLE storyloom_toy LOGIN PASSWORD 'toy'")
    await admin.execute(limits_of_role("storyloom_toy"))
    await admin.execute("CREATE DATABASE toy")
    await admin.close()
    url = in_database(superuser_url, "toy")
    engine = create_async_engine(async_url(url))
    async with engine.begin() as connection:
        await connection.exec_driver_sql("CREATE SCHEMA toy")
        await connection.run_sync(note.metadata.create_all)
        for table in ("notes", "idempotency_keys", "erasure_receipts"):
            for statement in protection("toy", table):
                await connection.exec_driver_sql(statement)
        await connection.exec_driver_sql("GRANT USAGE ON SCHEMA toy TO storyloom_toy")
        await connection.exec_driver_sql(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA toy TO storyloom_toy"
        )
    await engine.dispose()
