"""Passwords, hashed with Argon2id in threads of their own."""

import asyncio
import unicodedata
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

# OWASP's recommendation: a guess costs 19 MiB and some 20 ms.
MEMORY_KIB = 19 * 1024
PASSES = 2
LANES = 1
# Each takes a processor and the memory above while it runs; more at once would only starve the event loop.
AT_ONCE = 2


class Passwords:
    """Makes and verifies hashes, at most `AT_ONCE` at a time; the others wait their turn."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)
        self._threads = ThreadPoolExecutor(AT_ONCE, "argon2")
        self._nobodys = self._hasher.hash("nobody has this password")

    async def hash(self, password: str) -> str:
        """The hash in PHC string format, with its parameters and salt."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._hasher.hash, _bytes(password))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether the password is the one of the stored hash. Without one it takes as long, and is false."""
        loop = asyncio.get_running_loop()
        matches = await loop.run_in_executor(self._threads, self._matches, stored or self._nobodys, _bytes(password))
        return matches and stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Whether the hash was made with other parameters than those of today."""
        return self._hasher.check_needs_rehash(stored)

    def _matches(self, stored: str, password: bytes) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False


def _bytes(password: str) -> bytes:
    # Keyboards differ in how they compose letters such as ế; the same password must give the same bytes (RFC 8265).
    return unicodedata.normalize("NFC", password).encode()
