"""Requests that come as a stream, from clients that may stop in the middle of it."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from kit.errors import DeadlineExceeded

# A file is there already when its upload begins; who sends nothing of it for so long will not.
LONGEST_SILENCE_SECONDS = 60.0
Request = TypeVar("Request")


async def spoken(requests: AsyncIterator[Request]) -> AsyncIterator[Request]:
    """The requests, as long as they come; DEADLINE_EXCEEDED when none comes for too long."""
    while True:
        try:
            async with asyncio.timeout(LONGEST_SILENCE_SECONDS):
                request = await anext(requests)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise DeadlineExceeded(f"Nothing came for {LONGEST_SILENCE_SECONDS:g} seconds.") from None
        yield request
