"""Imports people from files, with progress: `python -m tools.import_users --help`."""

import argparse
import csv
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import grpc

from storyloom.identity.v1 import user_imports_pb2
from storyloom.identity.v1.user_imports_pb2 import (
    ImportUsersChunk,
    ImportUsersOptions,
    ImportUsersRequest,
    ImportUsersResponse,
    RowOutcome,
)
from storyloom.identity.v1.user_imports_pb2_grpc import UserImportServiceStub
from tools.signing_in import PASSWORD, UsageError, channel_to, read_password, sign_in

DONE, ROWS_REFUSED, FAILED = 0, 1, 2
# In this order: roles are those of users.
ONEROSTER_FILES = ("users.csv", "roles.csv")
PIECE = 16 * 1024
MOST_MEMBERS, MOST_BYTES = 100, 1 << 30
SECONDS_BETWEEN_LINES = 5.0
REFUSED = (RowOutcome.ROW_OUTCOME_INVALID, RowOutcome.ROW_OUTCOME_DUPLICATE)


@dataclass(frozen=True, slots=True)
class Source:
    """A file to send."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 when all is well, 1 when rows were refused, 2 when the import failed."""
    asked = parser().parse_args(arguments)
    try:
        sources = find_sources(asked.file)
        with channel_to(asked.server, asked.ca) as channel:
            return run(channel, asked, sources)
    except (UsageError, OSError, zipfile.BadZipFile) as error:
        print(f"import_users: {error}", file=sys.stderr)
    except grpc.RpcError as error:
        print(f"\nimport_users: {error.code().name}: {error.details()}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nimport_users: interrupted; rows already answered stay imported", file=sys.stderr)
    return FAILED


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m tools.import_users",
        description="Imports people from a plain CSV file, or from OneRoster 1.2 (a zip, or users.csv and roles.csv)."
        f" Problems go to standard output as CSV, progress to standard error. The password comes from {PASSWORD}"
        " or is asked for.",
    )
    made.add_argument("--server", default="127.0.0.1:7101", help="address of the identity service")
    made.add_argument("--ca", type=Path, help="certificate authority of the server (PEM); without it, loopback only")
    made.add_argument("--tenant", required=True, help="slug of the tenant")
    made.add_argument("--user", required=True, help="e-mail address to sign in with")
    made.add_argument("--file", required=True, type=Path, action="append", help="CSV or zip; may be repeated")
    made.add_argument("--format", choices=("plain", "oneroster"), help="default: told by the names of the files")
    made.add_argument("--role", action="append", default=[], help="role of created users; may be repeated")
    made.add_argument("--update", action="store_true", help="change users who exist already; default: skip them")
    made.add_argument("--family-name-first", action="store_true", help="OneRoster: display names as in Nguyễn Thị Lan")
    made.add_argument("--dry-run", action="store_true", help="only tell what would happen")
    return made


def find_sources(paths: Sequence[Path]) -> list[Source]:
    """The files to send, those of zips with them, in the order in which they must come."""
    found: list[Source] = []
    for path in paths:
        if zipfile.is_zipfile(path):
            found += members(path)
        else:
            found.append(Source(path.name, path.stat().st_size, lambda path=path: path.open("rb")))  # type: ignore[misc]
    if len({source.name.lower() for source in found}) < len(found):
        raise UsageError("two files have the same name")
    return sorted(found, key=lambda source: source.name.lower() != ONEROSTER_FILES[0])


def members(path: Path) -> list[Source]:
    """The files of a OneRoster zip that an import reads. Nothing is unpacked to the disk, so no name leads anywhere."""
    archive = zipfile.ZipFile(path)
    infos = [info for info in archive.infolist() if not info.is_dir()]
    if len(infos) > MOST_MEMBERS:
        raise UsageError(f"{path.name} has more than {MOST_MEMBERS} files")
    used, unused = [], []
    for info in infos:
        name = PurePosixPath(info.filename).name
        if name.lower() not in ONEROSTER_FILES:
            unused.append(name)
            continue
        if info.flag_bits & 1:
            raise UsageError(f"{path.name} is encrypted")
        used.append(Source(name, info.file_size, lambda info=info: archive.open(info)))  # type: ignore[misc]
    if not used:
        raise UsageError(f"{path.name} has no users.csv")
    if sum(source.size for source in used) > MOST_BYTES:
        raise UsageError(f"{path.name} is larger than {MOST_BYTES >> 30} GiB when it is unpacked")
    if unused:
        print(f"{path.name}: not used: {', '.join(sorted(unused))}", file=sys.stderr)
    return used


def run(channel: grpc.Channel, asked: argparse.Namespace, sources: Sequence[Source]) -> int:
    session = sign_in(channel, asked.tenant, asked.user, read_password(asked.user))
    metadata = (("authorization", f"Bearer {session.access_token}"),)
    sending = Sending(options_of(asked, sources), sources)
    progress = Progress(sum(source.size for source in sources))
    problems = csv.writer(sys.stdout)
    problems.writerow(("file", "line", "outcome", "field", "problem"))
    call: Any = UserImportServiceStub(channel).ImportUsers(iter(sending), metadata=metadata)
    summary = user_imports_pb2.ImportSummary()
    try:
        for response in call:
            problems.writerows(told(response))
            progress.show(response)
            summary = response.summary
    except grpc.RpcError:
        if sending.failure is not None:
            raise UsageError(f"the file cannot be read: {sending.failure}") from None
        raise
    finally:
        call.cancel()
    progress.end(summary, asked.dry_run)
    return ROWS_REFUSED if summary.invalid or summary.duplicate else DONE


def options_of(asked: argparse.Namespace, sources: Sequence[Source]) -> ImportUsersOptions:
    named_so = any(source.name.lower() in ONEROSTER_FILES for source in sources)
    oneroster = asked.format == "oneroster" or (asked.format is None and named_so)
    return ImportUsersOptions(
        format=user_imports_pb2.IMPORT_FORMAT_ONEROSTER_1_2 if oneroster else user_imports_pb2.IMPORT_FORMAT_PLAIN_CSV,
        dry_run=asked.dry_run,
        default_roles=asked.role,
        on_existing=user_imports_pb2.ON_EXISTING_USER_UPDATE
        if asked.update
        else user_imports_pb2.ON_EXISTING_USER_SKIP,
        family_name_first=asked.family_name_first,
    )


class Sending:
    """The messages of the request. Should a file turn out to be broken, `failure` says how, and the call ends."""

    def __init__(self, options: ImportUsersOptions, sources: Sequence[Source]) -> None:
        self.options, self.sources = options, sources
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[ImportUsersRequest]:
        yield ImportUsersRequest(options=self.options)
        try:
            for source in self.sources:
                yield from pieces(source)
        except (OSError, zipfile.BadZipFile, EOFError) as error:
            self.failure = error
            raise


def pieces(source: Source) -> Iterator[ImportUsersRequest]:
    sent = 0
    with source.open() as file:
        while (data := file.read(PIECE)) or not sent:
            sent += len(data) or 1
            if sent > MOST_BYTES:
                raise OSError(f"{source.name} is too large")
            yield ImportUsersRequest(chunk=ImportUsersChunk(file_name=source.name, data=data))


def told(response: ImportUsersResponse) -> Iterator[tuple[Any, ...]]:
    """What is to be known, as rows for standard output."""
    for notice in response.notices:
        yield notice.file_name, "", "notice", notice.field, notice.message
    for row in response.rows:
        for problem in row.problems if row.outcome in REFUSED else ():
            yield row.file_name, row.line, word(row.outcome), problem.field, problem.description


def word(outcome: RowOutcome) -> str:
    return RowOutcome.Name(outcome).removeprefix("ROW_OUTCOME_").lower()


class Progress:
    """How far the import is, on standard error: one line that changes on a terminal, now and then a line elsewhere."""

    def __init__(self, total: int) -> None:
        self.total, self.refused = total, 0
        self.began = self.shown = time.monotonic()

    def show(self, response: ImportUsersResponse) -> None:
        self.refused += sum(row.outcome in REFUSED for row in response.rows)
        done, now = response.progress, time.monotonic()
        share = min(100, done.bytes * 100 // self.total) if self.total else 100
        line = f"{done.rows:,} rows · {share} % · {self.refused:,} refused · {now - self.began:.0f} s"
        if sys.stderr.isatty():
            print(f"\r\x1b[2K{line}", end="", file=sys.stderr, flush=True)
        elif now - self.shown >= SECONDS_BETWEEN_LINES:
            self.shown = now
            print(line, file=sys.stderr, flush=True)

    def end(self, summary: user_imports_pb2.ImportSummary, dry_run: bool) -> None:
        names = ("created", "updated", "deleted", "unchanged", "invalid", "duplicate")
        counts = ", ".join(f"{getattr(summary, name):,} {name}" for name in names if getattr(summary, name))
        start = "\r\x1b[2K" if sys.stderr.isatty() else ""
        seconds = time.monotonic() - self.began
        would = "would be: " if dry_run else ""
        print(f"{start}{summary.rows:,} rows in {seconds:.1f} s: {would}{counts or 'nothing'}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
