"""How another program tells the runner what to do: one line over a Unix socket, answered by lines until it is done."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from .errors import RunError
from .processes import Say

DONE, FAILED = "done", "failed: "
Act = Callable[[str, Say], Awaitable[None]]


class Control:
    """The runner's end. One order at a time; whoever sends another meanwhile waits."""

    def __init__(self, path: Path, act: Act) -> None:
        self._path, self._act = path, act
        self._turn = asyncio.Lock()
        self._server: asyncio.Server | None = None
        self._at_work: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """In a directory that no other user enters."""
        self._server = await asyncio.start_unix_server(self._answer, self._path)

    async def stop(self) -> None:
        """Gives up what is under way."""
        if self._server:
            self._server.close()
        for task in self._at_work:
            task.cancel()
        await asyncio.gather(*self._at_work, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        order = (await reader.readline()).decode(errors="replace").strip()
        # Of its own: whoever asked may go (Ctrl-C), and what was begun must not stay half done.
        task = asyncio.create_task(self._carry_out(order, writer))
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)

    async def _carry_out(self, order: str, writer: asyncio.StreamWriter) -> None:
        def say(line: str) -> None:
            if not writer.is_closing():
                writer.write(f"{line}\n".encode())

        try:
            async with self._turn:
                await self._act(order, say)
            say(DONE)
        except RunError as failure:
            say(f"{FAILED}{failure}")
        finally:
            writer.close()


def order(path: Path, text: str, say: Say) -> None:
    """Tells the runner whose socket it is, shows what it says, and returns when it is done; `RunError` if it fails."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            raise RunError("The runner takes no orders (yet): wait for READY.") from None
        connection.sendall(f"{text}\n".encode())
        last = ""
        for line in connection.makefile(encoding="utf-8"):
            if last:
                say(last)
            last = line.rstrip("\n")
    if last != DONE:
        raise RunError(last.removeprefix(FAILED) or "The runner ended before it was done.")
