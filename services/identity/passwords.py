"""Passwords, hashed with Argon2id in threads of their own."""

import asyncio
import os
import sys
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import timedelta
from typing import Any, TypeVar

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError

from kit.call import current_call
from kit.errors import ResourceExhausted

T = TypeVar("T")

# OWASP's recommendation: a guess costs 19 MiB and some 20 ms.
MEMORY_KIB = 19 * 1024
PASSES = 2
LANES = 1
# A hash says itself what it costs, and may be from elsewhere. One that costs more than this is nobody's: it would take
# the threads, and the memory, of everybody who signs in.
MOST_MEMORY_KIB, MOST_PASSES, MOST_LANES, LONGEST = 64 * 1024, 8, 8, 512
# Each takes a processor and the memory above while it runs; more at once would only starve the event loop.
AT_ONCE = 2
# About a second's worth of work. More would wait in vain for an answer within their deadline.
MOST_WAITING = 64
RETRY_AFTER = timedelta(seconds=1)
# Whoever signs in waits a little for it anyway; calls that only read must not, here and in other services.
NICENESS = 10


class Passwords:
    """Makes and verifies hashes, at most `AT_ONCE` at a time; the others wait their turn, and too many are refused.

    Meanwhile the call's own slot is lent: calls that need no hash do not wait for those that do. So no transaction may
    be open.
    """

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)
        self._threads = ThreadPoolExecutor(AT_ONCE, "argon2", initializer=_give_way)
        self._nobodys = self._hasher.hash("nobody has this password")
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """The hash in PHC string format, with its parameters and salt."""
        return await self._run(self._hasher.hash, _bytes(password))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether the password is the one of the stored hash. Without one it takes as long, and is false."""
        matches = await self._run(self._matches, stored or self._nobodys, _bytes(password))
        return matches and stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Whether the hash was made with other parameters than those of today."""
        return self._hasher.check_needs_rehash(stored)

    async def _run(self, work: Callable[..., T], *values: Any) -> T:
        if self._waiting >= MOST_WAITING:
            raise ResourceExhausted("Too many sign in at once; try again.", retry_after=RETRY_AFTER)
        call = current_call()
        self._waiting += 1
        try:
            async with call.slot.lent() if call and call.slot else nullcontext():
                return await asyncio.get_running_loop().run_in_executor(self._threads, work, *values)
        finally:
            self._waiting -= 1

    def _matches(self, stored: str, password: bytes) -> bool:
        try:
            return _is_affordable(stored) and self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False


def _is_affordable(stored: str) -> bool:
    if len(stored) > LONGEST:
        return False
    asked = extract_parameters(stored)
    return asked.memory_cost <= MOST_MEMORY_KIB and asked.time_cost <= MOST_PASSES and asked.parallelism <= MOST_LANES


def _give_way() -> None:
    """Lets every other thread of the machine have the processor first. Only Linux has this for single threads."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS))


def _bytes(password: str) -> bytes:
    # Keyboards differ in how they compose letters such as ế; the same password must give the same bytes (RFC 8265).
    return unicodedata.normalize("NFC", password).encode()
