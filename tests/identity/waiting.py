"""What is promised to happen within two seconds."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from tests.stack import refused

PROMISED_SECONDS = 2.0


async def soon_refused(reason: str, call: Callable[[], Awaitable[Any]]) -> None:
    """Asserts that the call begins to be refused for the reason within the promised time."""
    until = time.monotonic() + PROMISED_SECONDS
    while time.monotonic() < until:
        try:
            await call()
        except grpc.aio.AioRpcError:
            break
        await asyncio.sleep(0.02)
    async with refused(reason):
        await call()


async def soon_allowed(call: Callable[[], Awaitable[Any]]) -> None:
    """Asserts that the call begins to succeed within the promised time."""
    until = time.monotonic() + PROMISED_SECONDS
    while True:
        try:
            await call()
        except grpc.aio.AioRpcError:
            assert time.monotonic() < until
        else:
            return
        await asyncio.sleep(0.02)
