"""Calls to other services: deadline budget, credentials, trace, retries, and statuses turned back into exceptions."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf import descriptor_pool

from kit.auth import ServiceCredential
from kit.call import Call, current_call
from kit.errors import DeadlineExceeded, from_rpc_error
from kit.options import requires
from kit.settings import Settings
from kit.telemetry import Telemetry

Stub = TypeVar("Stub")

DEADLINE_SECONDS = 5.0
# What stays for this service to answer its own caller after the other one did not.
MARGIN_SECONDS = 0.02
OPTIONS = (
    # The default back-off of a lost connection grows to two minutes: an outage would outlast its cause.
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.keepalive_time_ms", 30_000),
    (
        "grpc.service_config",
        json.dumps(
            {
                "methodConfig": [
                    {
                        "name": [{}],
                        "retryPolicy": {
                            "maxAttempts": 3,
                            "initialBackoff": "0.05s",
                            "maxBackoff": "0.5s",
                            "backoffMultiplier": 2,
                            "retryableStatusCodes": ["UNAVAILABLE"],
                        },
                    }
                ],
                "retryThrottling": {"maxTokens": 50, "tokenRatio": 0.1},
            }
        ),
    ),
)


class Clients:
    """Stubs of the other services, over one channel to each."""

    def __init__(self, settings: Settings, telemetry: Telemetry) -> None:
        self._settings, self._telemetry = settings, telemetry
        self._credential = ServiceCredential(settings.service, settings.service_credential)
        self._channels: dict[str, grpc.aio.Channel] = {}

    def stub(self, kind: Callable[[Any], Stub], service: str) -> Stub:
        """A generated stub of the service. Its calls raise the exceptions of `kit.errors`.

        Internal RPCs are called with this service's credential; all others in the name of the user being served.
        """
        if service not in self._channels:
            address = self._settings.address_of(service)
            self._channels[service] = grpc.aio.insecure_channel(address, options=OPTIONS)
        return kind(_Channel(self._channels[service], self, service))

    async def invoke(self, service: str, path: str, call: Any, request: Any, timeout: float | None) -> Any:
        """One unary call through the channel's own callable."""
        with self._telemetry.client_span(path, service) as carrier:
            try:
                return await call(request, timeout=_budget(timeout), metadata=self._metadata(path, carrier))
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error) from error

    async def stream(self, path: str, call: Any, request: Any) -> AsyncIterator[Any]:
        """The messages of one server-streaming call, without deadline."""
        try:
            async for message in call(request, metadata=self._metadata(path, {})):
                yield message
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    def _metadata(self, path: str, carrier: dict[str, str]) -> tuple[tuple[str, str], ...]:
        call = current_call()
        metadata = dict(carrier)
        if _internal(path) or call is None or call.principal is None:
            metadata["authorization"] = f"Bearer {self._credential.token()}"
        else:
            metadata |= _on_behalf(call)
        if call is not None:
            metadata["x-request-id"] = call.request_id
        return tuple(metadata.items())

    async def close(self) -> None:
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))


class _Channel:
    """What a generated stub takes for a channel; its callables go through `Clients`."""

    def __init__(self, channel: grpc.aio.Channel, clients: Clients, service: str) -> None:
        self._channel, self._clients, self._service = channel, clients, service

    def unary_unary(self, path: str, *args: Any, **kwargs: Any) -> Callable[..., Awaitable[Any]]:
        call = self._channel.unary_unary(path, *args, **kwargs)

        async def invoke(request: Any, *, timeout: float | None = None) -> Any:
            return await self._clients.invoke(self._service, path, call, request, timeout)

        return invoke

    def unary_stream(self, path: str, *args: Any, **kwargs: Any) -> Callable[[Any], AsyncIterator[Any]]:
        call = self._channel.unary_stream(path, *args, **kwargs)
        return lambda request: self._clients.stream(path, call, request)

    def stream_unary(self, path: str, *args: Any, **kwargs: Any) -> Any:
        return self._channel.stream_unary(path, *args, **kwargs)

    def stream_stream(self, path: str, *args: Any, **kwargs: Any) -> Any:
        return self._channel.stream_stream(path, *args, **kwargs)


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
