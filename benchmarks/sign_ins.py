"""What a sign-in costs beside Argon2, and what twenty of them a second cost everybody else's reads."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from statistics import median

import psutil

from benchmarks.cpu import processor_times
from benchmarks.load import Load, Plan, Request, send
from benchmarks.report import SignIns
from benchmarks.scenarios import Setting, read_story_directly, sign_in

NAME = "sign-ins"
SIGN_INS, READS = 20.0, 80.0
# More than ever are on their way at once: a rate is kept by whoever is free.
CALLERS = 16
# Quiet and busy times take turns, so that what else the machine does meanwhile falls on both.
ROUNDS = 5
# The start of a driver takes a processor for a moment; the sign-ins begin before the reads and end after them.
LEAD_SECONDS = 2.0
# Settings of glibc's allocator.
MEMORY = ("MALLOC_", "GLIBC_")
# Verifies as many times as told, after a few, and prints the microseconds of processor time that one took.
ALONE = """
import sys, time
from argon2 import PasswordHasher
from services.identity.passwords import LANES, MEMORY_KIB, PASSES
hasher = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)
stored, times = hasher.hash("secret"), int(sys.argv[1])
for _ in range(3):
    hasher.verify(stored, "secret")
before = time.process_time()
for _ in range(times):
    hasher.verify(stored, "secret")
print((time.process_time() - before) / times * 1e6)
"""


def seconds_needed(setting: Setting) -> float:
    return 2 * ROUNDS * (_span(setting) + LEAD_SECONDS) + 15


def measure(setting: Setting) -> SignIns:
    """Reads of stories, and of one's own account in the very process that signs in, without sign-ins and with."""
    identity = {"identity": setting.stack.programs["identity"]}
    school = setting.school
    # Some sign in and others read: the sessions of who signs in so often end, and with them what services know of them.
    half = len(school.emails) // 2
    signing_in = sign_in(replace(setting, school=replace(school, emails=school.emails[:half])))
    setting = replace(setting, school=replace(school, students=school.students[half:]))
    quiet: list[tuple[Load, Load]] = []
    busy: list[tuple[Load, Load]] = []
    argon2, used, sign_ins = [], 0.0, []
    for _ in range(ROUNDS):
        argon2.append(argon2_cost(identity["identity"]))
        before = processor_times(identity)["identity"]
        quiet.append(_reads(setting))
        between = processor_times(identity)["identity"]
        with ThreadPoolExecutor(1) as thread:
            span = _span(setting) + 2 * LEAD_SECONDS
            beside = thread.submit(send, signing_in, CALLERS, span, "own", SIGN_INS)
            time.sleep(LEAD_SECONDS)
            busy.append(_reads(setting))
            sign_ins.append(beside.result())
        # The reads are in both halves of the round: what the sign-ins took is the difference.
        used += (processor_times(identity)["identity"] - between) - (between - before)
    everything = [*sign_ins, *(one for pair in (*quiet, *busy) for one in pair)]
    signed_in = sum(one.answered for one in sign_ins)
    return SignIns(
        rate=signed_in / sum(one.seconds for one in sign_ins),
        failed=sum(one.failed for one in everything),
        first_error=next((one.first_error for one in everything if one.first_error), ""),
        argon2=median(argon2),
        identity=used / max(1, signed_in) * 1e6,
        p99_of_stories=_middle(quiet, busy, 0),
        p99_of_accounts=_middle(quiet, busy, 1),
    )


def argon2_cost(identity: int) -> float:
    """Microseconds of processor time for verifying a password, alone in a process that gets its memory as this one."""
    memory = {name: value for name, value in psutil.Process(identity).environ().items() if name.startswith(MEMORY)}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(MEMORY)} | memory
    command = [sys.executable, "-c", ALONE, "20"]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def _span(setting: Setting) -> float:
    return max(2.0, setting.seconds / 2)


def _reads(setting: Setting) -> tuple[Load, Load]:
    path = "/storyloom.identity.v1.UserService/GetMe"
    accounts = Plan(
        [Request("GRPC", path, one.token) for one in setting.school.students], setting.stack.address("identity")
    )
    with ThreadPoolExecutor(2) as threads:
        loads = [
            threads.submit(send, plan, CALLERS, _span(setting), "own", READS)
            for plan in (read_story_directly(setting), accounts)
        ]
        first, second = (one.result() for one in loads)
    return first, second


def _middle(quiet: list[tuple[Load, Load]], busy: list[tuple[Load, Load]], which: int) -> tuple[float, float]:
    """The 99th percentiles without and with sign-ins, of the round in the middle by their ratio."""
    pairs = [(alone[which].p99, beside[which].p99) for alone, beside in zip(quiet, busy, strict=True)]
    return sorted(pairs, key=lambda pair: pair[1] / pair[0])[len(pairs) // 2]
