"""PostgreSQL's own programs: where they are, how they are told whom to connect as, and what they say meanwhile."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from deploy.local.errors import RunError
from deploy.local.postgres import installed

Tell = Callable[[str], None]
LINES_KEPT = 5


def program(name: str) -> str:
    """The program that came with the database, else the one on the path."""
    try:
        bundled = installed() / "bin" / name
    except RunError:
        bundled = Path()
    found = str(bundled) if bundled.is_file() else shutil.which(name)
    if found is None:
        raise RunError(f"{name} is not installed here: run `make setup`, or install PostgreSQL 18's client programs.")
    return found


def connection(url: str) -> tuple[str, dict[str, str]]:
    """The URL without its password, and the environment that has it: arguments are there for every user to read."""
    parts = urlsplit(url)
    credentials, at, place = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    options = parse_qsl(parts.query, keep_blank_values=True)
    chosen = dict(options).get("password") or unquote(password)
    variables = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    if chosen:
        variables["PGPASSWORD"] = chosen
    query = urlencode([one for one in options if one[0] != "password"], safe="/:", quote_via=quote)
    return urlunsplit(parts._replace(netloc=f"{user}{at}{place}", query=query)), variables


@contextmanager
def running(
    arguments: Sequence[str], environment: dict[str, str], tell: Tell, *, feeds: bool = False
) -> Iterator[IO[bytes]]:
    """A program whose output is read, or that is fed when it `feeds` on input. `tell` hears each line of its errors.

    `RunError` when it fails, with the last that it said.
    """
    process = subprocess.Popen(
        arguments,
        env=environment,
        stdin=subprocess.PIPE if feeds else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if feeds else subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    said: list[str] = []
    stream = process.stdin if feeds else process.stdout
    assert stream is not None
    assert process.stderr is not None
    listener = threading.Thread(target=_listen, args=(process.stderr, said, tell))
    listener.start()
    try:
        yield stream
        stream.close()
    except BrokenPipeError:
        # It ended before it had read all: why, it has said.
        pass
    except BaseException:
        process.kill()
        raise
    finally:
        with suppress(BrokenPipeError):
            stream.close()
        code = process.wait()
        listener.join()
        process.stderr.close()
    if code != 0:
        raise RunError(f"{Path(arguments[0]).name} failed: {' / '.join(said) or f'exit code {code}'}")


def _listen(errors: IO[bytes], said: list[str], tell: Tell) -> None:
    for line in errors:
        text = line.decode(errors="replace").strip()
        said[:] = [*said, text][-LINES_KEPT:]
        tell(text)


def silently(line: str) -> None:
    """For what a program says when all goes well."""


class Progress:
    """A bar over so many tables; a program tells of one by a line that has this word."""

    def __init__(self, label: str, total: int, word: str) -> None:
        self._label, self._total, self._word, self._done = label, max(total, 1), word, 0
        self._shown = -1
        self._show()

    def __call__(self, line: str) -> None:
        if self._word in line:
            self._done += 1
            self._show()

    def at(self, percent: int) -> None:
        """For programs that say themselves how far they are."""
        self._done, self._total = percent, 100
        self._show()

    def _show(self) -> None:
        percent = min(100, 100 * self._done // self._total)
        if percent == self._shown:
            return
        self._shown = percent
        if sys.stdout.isatty():
            print(f"\r{self._label} [{'#' * (percent // 4):<25}] {percent:>3} %", end="", flush=True)

    def end(self) -> None:
        """Leaves the line, whole."""
        print(f"\r{self._label} [{'#' * 25}] 100 %" if sys.stdout.isatty() else f"{self._label}: done", flush=True)
