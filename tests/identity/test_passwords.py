"""Passwords and their hashes."""

import asyncio
import itertools
import os
import sys
import threading
import time
import unicodedata

import pytest
from argon2 import PasswordHasher

from services.identity.passwords import Passwords


@pytest.fixture(scope="module")
def passwords() -> Passwords:
    return Passwords()


class TestPasswords:
    async def test_verifies_the_password_and_no_other(self, passwords):
        stored = await passwords.hash("correct horse")
        assert await passwords.verify(stored, "correct horse")
        assert not await passwords.verify(stored, "correct horsf")

    async def test_uses_argon2id_with_19_mib_and_two_passes(self, passwords):
        assert (await passwords.hash("secret")).startswith("$argon2id$v=19$m=19456,t=2,p=1$")

    async def test_the_same_letters_composed_differently_are_the_same_password(self, passwords):
        stored = await passwords.hash(unicodedata.normalize("NFD", "Tiếng Việt"))
        assert await passwords.verify(stored, unicodedata.normalize("NFC", "Tiếng Việt"))

    async def test_without_a_hash_it_is_false_and_takes_as_long(self, passwords):
        stored = await passwords.hash("secret")
        assert await passwords.verify(None, "nobody has this password") is False
        known, unknown = [], []
        for _ in range(7):
            for times, one in ((known, stored), (unknown, None)):
                # Of the processor, with that of all threads: what others do meanwhile takes turns with it.
                started = time.process_time()
                await passwords.verify(one, "wrong")
                times.append(time.process_time() - started)
        assert 0.5 < min(known) / min(unknown) < 2

    @pytest.mark.parametrize("broken", ["", "plain", "$argon2id$v=19$m=19456,t=2,p=1$AAAA"])
    async def test_a_damaged_hash_matches_nothing(self, passwords, broken):
        assert not await passwords.verify(broken, "secret")

    @pytest.mark.parametrize("costs", [(9, 1024, 1), (1, 65 * 1024, 1), (1, 1024, 9)])
    async def test_a_hash_that_costs_more_than_anybodys_matches_nothing(self, passwords, costs):
        """It came with a school from elsewhere; of what it could cost, this is the least that is refused."""
        passes, memory, lanes = costs
        dear = PasswordHasher(time_cost=passes, memory_cost=memory, parallelism=lanes).hash("secret")
        assert not await passwords.verify(dear, "secret")

    async def test_knows_a_hash_of_weaker_parameters(self, passwords):
        weak = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash("secret")
        assert passwords.is_outdated(weak)
        assert not passwords.is_outdated(await passwords.hash("secret"))

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a niceness of threads")
    async def test_hashing_gives_way_to_everything_else(self, passwords):
        def niceness():
            return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

        assert await asyncio.wrap_future(passwords._threads.submit(niceness)) == niceness() + 10

    async def test_the_loop_goes_on_meanwhile(self, passwords):
        """Of ten hashes at once, none holds up the loop, whose ticks tell."""
        ticks, over = [], asyncio.Event()

        async def tick():
            while not over.is_set():
                ticks.append(time.perf_counter())
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        await asyncio.gather(*(passwords.hash("secret") for _ in range(10)))
        over.set()
        await ticking
        gaps = sorted(after - before for before, after in itertools.pairwise(ticks))
        assert gaps[len(gaps) * 99 // 100] < 0.02
