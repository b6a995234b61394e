"""A running Envoy with the gateway's configuration, and a small gRPC server in the place of all services behind it."""

import asyncio
import base64
import json
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
import httpx
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.api import httpbody_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from gateway.descriptors import Api
from gateway.envoy import configuration
from gateway.settings import Settings
from gateway.tls import secrets
from kit.settings import SERVICES
from tests.stack import free_port

ENVOY = Path(sys.executable).parent / "envoy"
Configuration = dict[str, Any]
Behaviour = Callable[[grpc.aio.ServicerContext], Awaitable[None]]
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Whoever signs access tokens: as identity does, with one key."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        public = encoded(self._key.public_key().public_bytes_raw())
        self.key_set = json.dumps(
            {"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "a", "x": public}]}
        ).encode()

    def token(self, user: str = "u", tenant: str = "t", **changes: Any) -> str:
        now = int(time.time())
        claims = {"iss": "https://storyloom.example", "aud": "storyloom", "sub": user, "tid": tenant}
        claims |= {"iat": now, "exp": now + 3600} | changes
        parts = ({"alg": "EdDSA", "kid": "a", "typ": "JWT"}, claims)
        signed = ".".join(encoded(json.dumps(part).encode()) for part in parts)
        return f"{signed}.{encoded(self._key.sign(signed.encode()))}"

    def bearer(self, user: str = "u", tenant: str = "t") -> dict[str, str]:
        return {"authorization": f"Bearer {self.token(user, tenant)}"}


class Health(health.HealthServicer):  # type: ignore[misc]
    """Answers once nothing keeps it from that."""

    def __init__(self) -> None:
        super().__init__()
        self.free = asyncio.Event()
        self.free.set()

    async def Check(self, request: Any, context: Any) -> Any:
        await self.free.wait()
        return await super().Check(request, context)


class Upstream(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers every RPC with an empty message, unless told otherwise, and keeps what it was sent with."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer, self._server = issuer, grpc.aio.server()
        self.health = Health()
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.behaviour: Behaviour | None = None
        self.address = ""

    async def start(self, address: str = "") -> None:
        self._server = grpc.aio.server()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        self._server.add_generic_rpc_handlers((self,))
        self.address = address or f"127.0.0.1:{free_port()}"
        self._server.add_insecure_port(self.address)
        for name in SERVICES:
            await self.health.set(f"storyloom.{name}", SERVING)
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(0)

    def service(self, details: Any) -> Any:
        if details.method.startswith("/grpc.health."):
            return None
        return grpc.unary_unary_rpc_method_handler(self._keys if details.method.endswith("/GetJwks") else self._other)

    async def _keys(self, request: bytes, context: Any) -> bytes:
        body = httpbody_pb2.HttpBody(content_type="application/json", data=self._issuer.key_set)
        return bytes(body.SerializeToString())

    async def _other(self, request: bytes, context: Any) -> bytes:
        sent = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        self.calls.append((sent.get("x-request-id", ""), sent))
        if self.behaviour:
            await self.behaviour(context)
        return b""


@dataclass
class Edge:
    """One running gateway and what stands behind it."""

    url: str
    folder: Path
    issuer: Issuer
    upstreams: list[Upstream]
    client: httpx.AsyncClient
    process: "subprocess.Popen[bytes]"
    admin: httpx.AsyncClient
    metrics: httpx.AsyncClient
    environment: Mapping[str, str] = field(repr=False)

    @property
    def upstream(self) -> Upstream:
        return self.upstreams[0]

    @property
    def address(self) -> str:
        return self.environment["GATEWAY_ADDRESS"]

    async def stat(self, name: str) -> int:
        """The number that Envoy itself counts under this name."""
        found = (await self.admin.get("/stats", params={"filter": f"^{name}$"})).text
        return int(found.rpartition(":")[2] or 0)

    async def override(self, **values: str) -> None:
        """Sets values of Envoy's runtime, dots written as two underscores; empty ones are as configured again."""
        parameters = {name.replace("__", "."): value for name, value in values.items()}
        (await self.admin.post("/runtime_modify", params=parameters)).raise_for_status()

    async def logged(self, answer: httpx.Response) -> dict[str, Any]:
        """What the access log says of the request."""
        async with asyncio.timeout(10):
            while True:
                for line in (self.folder / "access.log").read_text().splitlines():
                    found: dict[str, Any] = json.loads(line)
                    if found["request_id"] == answer.headers["x-request-id"]:
                        return found
                await asyncio.sleep(0.02)


@asynccontextmanager
async def running(
    api: Api,
    written: Path,
    folder: Path,
    *,
    change: Callable[[Configuration], None] | None = None,
    upstreams: int = 1,
    verify: bool | Any = False,
    ready: int = 200,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Edge]:
    """Starts it on the files of `written`, changed where a test would else take minutes."""
    issuer = Issuer()
    behind = [Upstream(issuer) for _ in range(upstreams)]
    for one in behind:
        await one.start()
    addresses = ",".join(one.address for one in behind)
    port, metrics = free_port(), f"127.0.0.1:{free_port()}"
    environment = {f"{name.upper()}_ADDRESS": addresses for name in SERVICES} | {
        "GATEWAY_ADDRESS": f"127.0.0.1:{port}",
        "GATEWAY_ADMIN_ADDRESS": f"unix:{folder}/admin.sock",
        "GATEWAY_METRICS_ADDRESS": metrics,
        "ACCESS_LOG": f"{folder}/access.log",
    } | dict(settings)
    read = Settings.read(environment)
    shutil.copytree(written, folder, dirs_exist_ok=True)
    for name, secret in secrets(read).items():
        (folder / name).write_text(yaml.safe_dump(secret))
    content = configuration(api, read, folder)
    if change is not None:
        change(content)
    # JSON is YAML too, and quicker.
    made = folder / "envoy.json"
    made.write_text(json.dumps(content))
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-path", str(folder / "envoy.log")]
    options += ["--file-flush-interval-msec", "50"]
    process = subprocess.Popen([ENVOY, "-c", str(made), *options])  # noqa: ASYNC220  # it is there at once
    url = f"https://localhost:{port}" if "GATEWAY_TLS_KEY" in environment else f"http://127.0.0.1:{port}"
    over_socket = httpx.AsyncHTTPTransport(uds=f"{folder}/admin.sock")
    try:
        async with (
            httpx.AsyncClient(base_url=url, timeout=10, verify=verify) as client,
            httpx.AsyncClient(base_url="http://gateway", transport=over_socket, timeout=10) as admin,
            httpx.AsyncClient(base_url=f"http://{metrics}", timeout=10, verify=verify) as watcher,
        ):
            await until(client, ready)
            yield Edge(url, folder, issuer, behind, client, process, admin, watcher, environment)
    finally:
        process.terminate()
        process.wait(10)
        for one in behind:
            await one.stop()


async def until(client: httpx.AsyncClient, status: int, path: str = "/healthz", **headers: str) -> httpx.Response:
    """The first answer of this status."""
    async with asyncio.timeout(15):
        while True:
            with suppress(httpx.TransportError):
                answer = await client.get(path, headers=headers)
                if answer.status_code == status:
                    return answer
            await asyncio.sleep(0.02)


def ingress(configuration: Configuration) -> Configuration:
    """The connection manager that clients talk to."""
    chain = configuration["static_resources"]["listeners"][0]["filter_chains"][0]
    found: Configuration = chain["filters"][0]["typed_config"]
    return found


def http_filter(configuration: Configuration, name: str) -> Configuration:
    filters = ingress(configuration)["http_filters"]
    found: Configuration = next(one for one in filters if one["name"] == f"envoy.filters.http.{name}")["typed_config"]
    return found


def slow_refill(configuration: Configuration) -> None:
    """A bucket that is empty stays so while a test runs."""
    for one in http_filter(configuration, "local_ratelimit")["descriptors"]:
        one["token_bucket"]["fill_interval"] = "600s"


def reason(answer: httpx.Response) -> str:
    """ErrorReason of an error, which is JSON as those of services are."""
    assert answer.headers["content-type"] == "application/json"
    (detail,) = answer.json()["details"]
    assert detail["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    return str(detail["reason"])
