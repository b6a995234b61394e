"""Waits until a service says SERVING."""

import asyncio
from contextlib import suppress

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from .settings import Address

PAUSE = 0.1
# The default back-off of a refused connection begins at a second, which a start-up would feel.
OPTIONS = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 300)]


async def until_serving(service: str, address: Address) -> None:
    """Returns when gRPC health says SERVING for `storyloom.<service>`."""
    request = health_pb2.HealthCheckRequest(service=f"storyloom.{service}")
    async with grpc.aio.insecure_channel(str(address), options=OPTIONS) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while True:
            with suppress(grpc.aio.AioRpcError):
                answer = await stub.Check(request, timeout=2.0, wait_for_ready=True)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            await asyncio.sleep(PAUSE)
