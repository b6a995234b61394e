"""Sends the requests of a plan from a process of its own, as many at a time as there are callers."""

import base64
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("requests.lua")
# For what a driver needs besides its time: start, read the plan, receive the last answers.
GRACE = 25.0
ADVICE = "wrk is not installed, so benchmarks' own driver sends the REST requests: `apt-get install wrk` gets it."


class LoadError(Exception):
    """A driver failed; the message is its own."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request: a REST method and path with a JSON body, or `GRPC`, an RPC's path and a serialized message."""

    method: str
    path: str
    token: str = ""
    body: bytes = b""

    def line(self) -> str:
        """As the drivers read it."""
        body = base64.b64encode(self.body).decode() if self.method == "GRPC" else self.body.decode()
        return "\t".join((self.method, self.path, self.token, body))


@dataclass(frozen=True, slots=True)
class Plan:
    """Requests in their order, all to one address; `once` when none may be sent a second time."""

    requests: Sequence[Request]
    address: str
    once: bool = False

    @property
    def is_rest(self) -> bool:
        return self.requests[0].method != "GRPC"


@dataclass(frozen=True, slots=True)
class Load:
    """What came back. Latencies are in milliseconds, `answered` counts failures too."""

    answered: int
    failed: int
    seconds: float
    p50: float
    p99: float
    octets: int
    first_error: str

    @property
    def rate(self) -> float:
        return self.answered / self.seconds if self.seconds else 0.0


def rest_driver() -> str:
    """`wrk`, or `own` where that is missing."""
    return "wrk" if shutil.which("wrk") else "own"


def send(plan: Plan, callers: int, seconds: float, driver: str, rate: float = 0.0) -> Load:
    """Sends until the time is over or, of a plan to be sent once, until its end. A `rate`, in requests per second, is
    kept by the own driver only; without one each caller sends as soon as it is answered."""
    with tempfile.NamedTemporaryFile("w", prefix="storyloom-plan-", encoding="utf-8") as file:
        # Tokens are in there: the module makes the file readable by its owner only.
        file.writelines(request.line() + "\n" for request in plan.requests)
        file.flush()
        order = "once" if plan.once else "again"
        if plan.is_rest and driver == "wrk":
            return _wrk(plan.address, file.name, callers, seconds, order)
        kind = "rest" if plan.is_rest else "grpc"
        command = [sys.executable, "-m", "benchmarks.drivers", kind, plan.address, file.name]
        return parse(_run([*command, str(callers), str(seconds), order, str(rate)], seconds))


def _wrk(address: str, plan: str, callers: int, seconds: float, order: str) -> Load:
    options = ["-t1", f"-c{callers}", f"-d{max(1, round(seconds))}s", "--timeout", "10s", "-s", str(SCRIPT)]
    return parse_wrk(_run(["wrk", *options, f"http://{address}", "--", plan, order], seconds))


def _run(command: Sequence[str], seconds: float) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + GRACE, check=False)
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"{command[0]} did not end in time") from error
    if done.returncode:
        raise LoadError(f"{' '.join(command[:3])} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def parse(output: str) -> Load:
    """Of the last line of an own driver's output."""
    return Load(**json.loads(output.splitlines()[-1]))


def parse_wrk(output: str) -> Load:
    """Of the line that requests.lua prints at the end."""
    line = next((line for line in output.splitlines() if line.startswith("RESULT\t")), None)
    if line is None:
        raise LoadError(f"wrk told no result: {output.strip()[-500:]}")
    answered, failed, seconds, p50, p99, octets, error = line.split("\t")[1:]
    return Load(
        answered=round(float(answered)),
        failed=round(float(failed)),
        seconds=float(seconds),
        p50=float(p50),
        p99=float(p99),
        octets=round(float(octets)),
        first_error=error,
    )
