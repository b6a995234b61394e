"""Calls to other services: deadline budget, credentials, trace, retries, and statuses turned back into exceptions."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf import descriptor_pool

from kit.auth import ServiceCredential
from kit.call import Call, current_call
from kit.errors import DeadlineExceeded, Unavailable, from_rpc_error
from kit.options import is_read, requires
from kit.settings import Settings, target_of
from kit.telemetry import Telemetry
from kit.tls import Material, Tls, channel_to

Stub = TypeVar("Stub")

DEADLINE_SECONDS = 5.0
# What stays for this service to answer its own caller after the other one did not.
MARGIN_SECONDS = 0.02
OPTIONS = (
    # The default back-off of a lost connection grows to two minutes: an outage would outlast its cause, and of two
    # processes that are replaced in turn, the second would go before the first is found again.
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # For the same reason: names are resolved again when a connection ends, but by default only every half minute.
    ("grpc.dns_min_time_between_resolutions_ms", 2000),
    ("grpc.keepalive_time_ms", 30_000),
    # A proxy in the environment is for the outside world; it would turn loopback into its own.
    ("grpc.enable_http_proxy", 0),
)
# How long calls that began before a renewal may go on over the connection of the old certificate.
RETIRED_SECONDS = 60.0
RETRIES = {
    "maxAttempts": 3,
    "initialBackoff": "0.05s",
    "maxBackoff": "0.5s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


class Clients:
    """Stubs of the other services, over one channel to each, which spreads calls over its processes."""

    def __init__(self, settings: Settings, telemetry: Telemetry, tls: Tls | None = None) -> None:
        self._settings, self._telemetry = settings, telemetry
        self._credential = ServiceCredential(settings.service, settings.service_credential)
        self._tls = tls
        self._channels: dict[str, _Channel] = {}

    def stub(self, kind: Callable[[Any], Stub], service: str) -> Stub:
        """A generated stub of the service. Its calls raise the exceptions of `kit.errors`.

        Internal RPCs are called with this service's credential; all others in the name of the user being served.
        """
        if service not in self._channels:
            self._channels[service] = _Channel(self, service, self._settings.address_of(service), self._tls)
        return kind(self._channels[service])

    async def invoke(self, service: str, path: str, call: Any, request: Any, timeout: float | None) -> Any:
        """One unary call through the channel's own callable."""
        with self._telemetry.client_span(path, service) as carrier:
            try:
                return await call(request, timeout=_budget(timeout), metadata=self._metadata(service, path, carrier))
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error) from error

    async def stream(self, service: str, path: str, call: Any, request: Any) -> AsyncIterator[Any]:
        """The messages of one server-streaming call, without deadline."""
        try:
            async for message in call(request, metadata=self._metadata(service, path, {})):
                yield message
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody gave this up: its channel was closed under it.
            raise Unavailable(f"The connection to {service} was renewed.") from None
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    def _metadata(self, service: str, path: str, carrier: dict[str, str]) -> tuple[tuple[str, str], ...]:
        call = current_call()
        metadata = dict(carrier)
        if _internal(path) or call is None or call.principal is None:
            metadata["authorization"] = f"Bearer {self._credential.token(service)}"
        else:
            metadata |= _on_behalf(call)
        if call is not None:
            metadata["x-request-id"] = call.request_id
        return tuple(metadata.items())

    async def close(self) -> None:
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))


class _Channel:
    """What a generated stub takes for a channel; its callables go through `Clients`.

    The connection is made at the first call, when it is known which RPCs there are and which may be sent again; and
    once more whenever the TLS files change, as gRPC's clients keep the certificate they began with.
    """

    def __init__(self, clients: Clients, service: str, address: str, tls: Tls | None) -> None:
        self._clients, self._service, self._tls = clients, service, tls
        self._target = target_of(address)
        self._repeatable: list[dict[str, str]] = []
        self._opened: grpc.aio.Channel | None = None
        self._material: Material | None = None
        self._retired: dict[asyncio.Task[None], grpc.aio.Channel] = {}

    def unary_unary(self, path: str, *args: Any, **kwargs: Any) -> Callable[..., Awaitable[Any]]:
        # An inbox forgets what it has seen before, so a delivery may be repeated like a read.
        if is_read(path) or path.endswith("/DeliverEvents"):
            grpc_service, _, method = path.lstrip("/").partition("/")
            name = {"service": grpc_service, "method": method}
            # Two stubs of one gRPC service share the channel; a name given twice makes its configuration invalid.
            if name not in self._repeatable:
                self._repeatable.append(name)

        async def invoke(request: Any, *, timeout: float | None = None) -> Any:
            call = self._callable("unary_unary", path, *args, **kwargs)
            return await self._clients.invoke(self._service, path, call, request, timeout)

        return invoke

    def unary_stream(self, path: str, *args: Any, **kwargs: Any) -> Callable[[Any], AsyncIterator[Any]]:
        return lambda request: self._clients.stream(
            self._service, path, self._callable("unary_stream", path, *args, **kwargs), request
        )

    def stream_unary(self, path: str, *args: Any, **kwargs: Any) -> None:
        """No service streams requests to another one."""

    stream_stream = stream_unary

    def _callable(self, kind: str, *args: Any, **kwargs: Any) -> Any:
        material = self._tls.material() if self._tls else None
        if self._opened is not None and material is not self._material:
            self._retire(self._opened)
            self._opened = None
        if self._opened is None:
            self._opened, self._material = self._open(material), material
        return getattr(self._opened, kind)(*args, **kwargs)

    def _open(self, material: Material | None) -> grpc.aio.Channel:
        config = {
            "methodConfig": [{"name": self._repeatable, "retryPolicy": RETRIES}] if self._repeatable else [],
            "retryThrottling": {"maxTokens": 50, "tokenRatio": 0.1},
            # Each process in turn, but none that says it is about to go: calls that meet its end are cancelled, and
            # most of them must not be sent again.
            "loadBalancingConfig": [{"round_robin": {}}],
            "healthCheckConfig": {"serviceName": f"storyloom.{self._service}"},
        }
        options = (*OPTIONS, ("grpc.service_config", json.dumps(config)))
        return channel_to(self._service, self._target, material, options)

    def _retire(self, channel: grpc.aio.Channel) -> None:
        closing = asyncio.create_task(channel.close(RETIRED_SECONDS))
        self._retired[closing] = channel
        closing.add_done_callback(lambda done: self._retired.pop(done, None))

    async def close(self) -> None:
        retired = dict(self._retired)
        for closing in retired:
            closing.cancel()
        await asyncio.gather(*retired, return_exceptions=True)
        for channel in (*retired.values(), self._opened):
            if channel is not None:
                await channel.close()


def _budget(wanted: float | None) -> float:
    """Seconds the call may take: what is wanted, within what the caller of this service has left."""
    budget = DEADLINE_SECONDS if wanted is None else wanted
    call = current_call()
    if call is not None and call.deadline is not None:
        budget = min(budget, call.deadline - asyncio.get_running_loop().time() - MARGIN_SECONDS)
    if budget <= 0:
        raise DeadlineExceeded("Too little of the deadline is left to ask another service.")
    return budget


def _on_behalf(call: Call) -> dict[str, str]:
    assert call.principal is not None  # noqa: S101  # the caller checked
    metadata = {"authorization": f"Bearer {call.principal.token}"}
    if call.principal.tenant_id != call.principal.home_tenant_id:
        metadata["x-act-in-tenant"] = str(call.principal.tenant_id)
    return metadata


_is_internal: dict[str, bool] = {}


def _internal(path: str) -> bool:
    if path not in _is_internal:
        method = descriptor_pool.Default().FindMethodByName(path.lstrip("/").replace("/", "."))
        _is_internal[path] = requires(method).internal
    return _is_internal[path]
