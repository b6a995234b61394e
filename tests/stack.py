"""The five services as real servers in this process, over a real PostgreSQL, and the people who call them."""

import asyncio
import base64
import json
import secrets
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from typing import Any, TypeVar

import asyncpg
import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from joserfc.jwk import OKPKey

from kit.server import Service
from kit.settings import SERVICES, Settings
from services.identity import rules
from storyloom.identity.v1 import sessions_pb2, tenants_pb2, users_pb2
from storyloom.identity.v1.sessions_pb2_grpc import SessionServiceStub
from storyloom.identity.v1.tenants_pb2_grpc import TenantServiceStub
from storyloom.identity.v1.users_pb2_grpc import UserServiceStub
from tests.postgres import Cluster
from tests.statements import record_statements

Stub = TypeVar("Stub")
PLATFORM_EMAIL = "root@platform.example"
PASSWORD = "correct horse battery staple"
EPHEMERAL_PORTS = 32768
# What tokens live but for those of the people whom `Stack.sign_in` signs in.
LIFETIME = rules.ACCESS_TOKEN_LIFETIME


def free_port() -> int:
    """A free port below those the system gives to outgoing connections."""
    while True:
        port = 10_000 + secrets.randbelow(EPHEMERAL_PORTS - 10_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


def random_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


GATEWAY_SECRET = random_key()


def from_address(address: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call that came through the gateway from this address."""
    return (("x-envoy-external-address", address), ("x-gateway-secret", GATEWAY_SECRET))


class Stack:
    """The services of one cluster; `settings` are by service, `services` what runs, `statements` what it asked for."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        keys = {name: OKPKey.generate_key("Ed25519", parameters={"kid": name}) for name in SERVICES}
        ports = {name: free_port() for name in SERVICES}
        shared = {
            "SECRET_KEY": random_key(),
            "KEY_ENCRYPTION_KEY": random_key(),
            "AUDIT_KEY_ENCRYPTION_KEY": random_key(),
            "AUDIT_SIGNING_KEY": random_key(),
            "STORAGE_DIRECTORY": tempfile.mkdtemp(prefix="storyloom-files-"),
            # A checkpoint with every batch, so that no test waits for one.
            "AUDIT_CHECKPOINT_SECONDS": "0",
            "GATEWAY_SECRET": GATEWAY_SECRET,
            "SERVICE_KEYS": json.dumps({"keys": [key.as_dict(private=False) for key in keys.values()]}),
            "PLATFORM_ADMIN_EMAIL": PLATFORM_EMAIL,
            "PLATFORM_ADMIN_PASSWORD": PASSWORD,
            **{f"{name.upper()}_ADDRESS": f"127.0.0.1:{port}" for name, port in ports.items()},
        }
        self.environments = {
            name: shared
            | {
                "DATABASE_URL": cluster.service_url(name),
                "DATABASE_POOLER": "transaction" if cluster.pooler else "",
                "LISTEN_ADDRESS": f"127.0.0.1:{ports[name]}",
                "SERVICE_CREDENTIAL": json.dumps(keys[name].as_dict(private=True)),
                "DRAIN_GRACE": "1",
            }
            for name in SERVICES
        }
        self.services: dict[str, Service] = {}
        self.statements: set[str] = set()
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in self.environments["identity"].items():
            if name.startswith(("PLATFORM_", "GATEWAY_")):
                monkeypatch.setenv(name, value)
        self.statements = record_statements(monkeypatch)
        for name in SERVICES:
            await self.start_service(name)

    async def start_service(self, name: str) -> None:
        build = import_module(f"services.{name}.__main__").build
        self.services[name] = build(Settings.from_environment(name, self.environments[name]))
        await self.services[name].start()

    async def stop_service(self, name: str) -> None:
        await self.services.pop(name).stop()

    async def stop(self) -> None:
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))
        await asyncio.gather(*(self.stop_service(name) for name in tuple(self.services)))
        if folder := self.environments["content"].get("STORAGE_DIRECTORY"):
            shutil.rmtree(folder)

    def channel(self, service: str) -> grpc.aio.Channel:
        if service not in self._channels:
            address = self.environments[service]["LISTEN_ADDRESS"]
            self._channels[service] = grpc.aio.insecure_channel(address)
        return self._channels[service]

    async def settle(self, timeout: float = 15.0) -> None:
        """Waits until every event is delivered, and what is gathered before it becomes one."""
        for service in self.services.values():
            await service.notes.write(everything=True)
        query = " UNION ALL ".join(f"SELECT 1 FROM {name}.outbox WHERE parked_at IS NULL" for name in SERVICES)
        connection = await asyncpg.connect(self.cluster.superuser_url)
        try:
            async with asyncio.timeout(timeout):
                while await connection.fetchval(f"SELECT count(*) FROM ({query}) AS waiting"):
                    await asyncio.sleep(0.02)
        finally:
            await connection.close()

    async def sign_in(self, tenant: str, email: str, password: str = PASSWORD) -> "Person":
        """Signs in for real; the person's calls carry the token."""
        stub = SessionServiceStub(self.channel("identity"))
        request = sessions_pb2.CreateSessionRequest(tenant=tenant, email=email, password=password)
        # People sign in once, and the suite takes longer than their tokens would live.
        rules.ACCESS_TOKEN_LIFETIME = timedelta(hours=2)
        try:
            session = await stub.CreateSession(request)
        finally:
            rules.ACCESS_TOKEN_LIFETIME = LIFETIME
        return Person(self, session.user.id, email, session.access_token, session.refresh_token)


@dataclass
class Person:
    """Somebody who is signed in."""

    stack: Stack
    user_id: str
    email: str
    token: str
    refresh_token: str = ""
    tenant_id: str = ""
    extra: tuple[tuple[str, str], ...] = ()

    def stub(self, kind: Callable[[Any], Stub], service: str) -> Stub:
        """A generated stub whose calls are this person's; `metadata=` of a call is added."""
        return kind(_Authorized(self.stack.channel(service), self))

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token}"), *self.extra)


class _Authorized:
    def __init__(self, channel: grpc.aio.Channel, person: Person) -> None:
        self._channel, self._person = channel, person

    def __getattr__(self, kind: str) -> Any:
        make = getattr(self._channel, kind)

        def multi_callable(path: str, *args: Any, **kwargs: Any) -> Any:
            call = make(path, *args, **kwargs)

            def invoke(request: Any, *, metadata: Any = (), timeout: float = 20) -> Any:
                return call(request, metadata=(*self._person.metadata, *metadata), timeout=timeout)

            return invoke

        return multi_callable


@dataclass
class School:
    """A tenant with its people, and two people of another tenant."""

    stack: Stack
    root: Person
    slug: str
    admin: Person
    teacher: Person
    teacher2: Person
    student: Person
    student2: Person
    auditor: Person
    outsider: Person
    outsider_admin: Person
    outsider_teacher: Person
    others: dict[str, Any] = field(default_factory=dict)

    async def settle(self) -> None:
        await self.stack.settle()


async def found_school(stack: Stack, slug: str, other_slug: str) -> School:
    """Creates both tenants and their people through identity's own RPCs."""
    root = await stack.sign_in("platform", PLATFORM_EMAIL)
    people: dict[str, Person] = {}
    for tenant, names in (
        (slug, ("teacher", "teacher2", "student", "student2", "auditor")),
        (other_slug, ("outsider", "outsider_teacher")),
    ):
        admin, tenant_id = await _found_tenant(root, tenant)
        people["admin" if tenant == slug else "outsider_admin"] = admin
        for name in names:
            role = {"outsider": "student"}.get(name, name.removeprefix("outsider_").rstrip("2"))
            people[name] = await add_person(admin, tenant, name, role)
            people[name].tenant_id = tenant_id
    return School(stack=stack, root=root, slug=slug, **people)


async def _found_tenant(root: Person, slug: str) -> tuple[Person, str]:
    tenants = root.stub(TenantServiceStub, "identity")
    email = f"admin@{slug}.example"
    tenant = await tenants.CreateTenant(
        tenants_pb2.CreateTenantRequest(
            tenant=tenants_pb2.Tenant(slug=slug, name=slug.title()),
            administrator=tenants_pb2.TenantAdministrator(email=email, display_name="Admin", password=PASSWORD),
        )
    )
    admin = await root.stack.sign_in(slug, email)
    admin.tenant_id = tenant.id
    return admin, tenant.id


async def add_person(admin: Person, tenant: str, name: str, role: str) -> Person:
    """Creates a user of the admin's tenant with one role, and signs them in."""
    users = admin.stub(UserServiceStub, "identity")
    email = f"{name}@{tenant}.example"
    user = users_pb2.User(email=email, display_name=name.title(), roles=[role])
    await users.CreateUser(users_pb2.CreateUserRequest(user=user, password=PASSWORD))
    person = await admin.stack.sign_in(tenant, email)
    person.tenant_id = admin.tenant_id
    return person


@dataclass
class Refusal:
    """The error a call ended with."""

    error: grpc.aio.AioRpcError | None = None

    @property
    def status(self) -> status_pb2.Status:
        assert self.error is not None
        details = dict(self.error.trailing_metadata() or ())
        return status_pb2.Status.FromString(details["grpc-status-details-bin"])

    def detail(self, kind: Any) -> Any:
        """The first detail of the type, or None."""
        for one in self.status.details:
            if one.Is(kind.DESCRIPTOR):
                return kind.FromString(one.value)
        return None

    @property
    def reason(self) -> str:
        return str(self.detail(error_details_pb2.ErrorInfo).reason)

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self.detail(error_details_pb2.ErrorInfo).metadata)

    @property
    def fields(self) -> list[str]:
        bad = self.detail(error_details_pb2.BadRequest)
        return [one.field for one in bad.field_violations] if bad else []


@asynccontextmanager
async def refused(reason: str, *, field: str = "", code: grpc.StatusCode | None = None) -> AsyncIterator[Refusal]:
    """Asserts that the block's call is refused for the ErrorReason of this name."""
    refusal = Refusal()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield refusal
    refusal.error = caught.value
    assert refusal.reason == reason, caught.value
    assert not field or field in refusal.fields, refusal.fields
    assert code is None or caught.value.code() is code
