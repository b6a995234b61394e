"""Whether the gateway answers."""

import asyncio

from .settings import Address

PAUSE = 0.05


async def until_answering(address: Address, path: str) -> None:
    """Returns when a GET of `path` is answered with 200."""
    while True:
        if await answers(address, path):
            return
        await asyncio.sleep(PAUSE)


async def answers(address: Address, path: str) -> bool:
    """Whether a GET of `path` is answered with 200 within two seconds."""
    try:
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
                status = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return status.split()[1:2] == [b"200"]
