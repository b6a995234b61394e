"""Long work on the rows of all tenants, in batches: `python -m kit.jobs run|pause|abort|list SERVICE [JOB]`."""

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, TextIO
from uuid import UUID

from kit import operators
from kit.db import Database, ReadSession, WriteSession
from kit.errors import Aborted, DeadlineExceeded, StoryloomError, Unavailable, from_exception
from kit.ids import NIL
from kit.settings import SERVICES, Settings, SettingsError
from kit.telemetry import log_as_json

log = logging.getLogger(__name__)

# Exit codes. A job that is paused goes on when it is run again.
DONE, FAILED, REFUSED, PAUSED = 0, 1, 2, 3
TRIES, PAUSE_SECONDS = 5, 1.0
PASSING = (Aborted, Unavailable, DeadlineExceeded)
# Nobody waits for it: counting looks at every row.
UNHURRIED = "SET LOCAL statement_timeout = '10min'; SET LOCAL transaction_timeout = '10min'"
# What holds the lock waits for as long as the job takes.
ENDLESS = "SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL transaction_timeout = 0"
SECONDS_BETWEEN_LINES = 5.0
BAR = 30
COLUMNS = "name, state, tenant_id, position, done, total"
START = """
INSERT INTO {schema}.jobs (name, state, tenant_id, position, done, total) VALUES ($1, 'running', $2, $2, 0, $3)
ON CONFLICT (name) DO UPDATE SET state = 'running', tenant_id = $2, position = $2, done = 0, total = $3,
                                 started_at = now(), updated_at = now()
"""
MOVE = "UPDATE {schema}.jobs SET tenant_id = $2, position = $3, done = done + $4, updated_at = now() WHERE name = $1"
END = "UPDATE {schema}.jobs SET state = $2, updated_at = now() WHERE name = $1"
# Where it was last may be a person: that is nobody's business any more.
FINISH = "UPDATE {schema}.jobs SET state = 'done', tenant_id = $2, position = $2, updated_at = now() WHERE name = $1"
# Sent by somebody else: the runner sees it before its next batch.
PAUSE = "UPDATE {schema}.jobs SET state = 'pausing' WHERE name = $1 AND state = 'running'"
ABORT = "DELETE FROM {schema}.jobs WHERE name = $1"


@dataclass(frozen=True, slots=True)
class Job:
    """Work on the rows of every tenant, in the order of their ids. Done again, it must change nothing.

    `count` says how many rows of the session's tenant are to be done. `batch` does the next ones, at most so many of
    those behind this id, in the session's transaction; it returns how many it did and the id of the last of them, or
    None when there are no more.
    """

    name: str
    doc: str
    count: Callable[[ReadSession], Awaitable[int]]
    batch: Callable[[WriteSession, UUID, int], Awaitable[tuple[int, UUID | None]]]
    batch_size: int = 100


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a job is: `position` is the last row done of the tenant."""

    name: str
    state: str
    tenant_id: UUID
    position: UUID
    done: int
    total: int


class JobError(Exception):
    """The job cannot be run now; the message is a sentence."""


class Runner:
    """Runs one job, for the platform's own tenant first. Each batch is a transaction of one tenant in which the job's
    standing moves on with it: however it ends, it goes on behind the last batch that was committed."""

    def __init__(
        self, db: Database, job: Job, *, batch_size: int = 0, delay: float = 0.0, tell: Callable[[Standing], None]
    ) -> None:
        self._db, self._job, self._tell, self._delay = db, job, tell, delay
        self._batch_size = batch_size or job.batch_size
        self._told_to_pause = asyncio.Event()

    def pause(self) -> None:
        """Stops after the batch at hand."""
        self._told_to_pause.set()

    async def run(self, *, restart: bool = False) -> Standing:
        """Begins, or goes on; from the beginning again when it was done, or when told to. Returns how it ended."""
        async with self._alone():
            standing = await self._begin(restart=restart)
            while standing.state == "running":
                self._tell(standing)
                if self._told_to_pause.is_set():
                    standing = await self._end("paused")
                else:
                    done = standing.done
                    standing = await self._tried(standing)
                    await self._rest(self._delay * (standing.done > done))
            if standing.state == "pausing":
                standing = await self._end("paused")
            self._tell(standing)
            return standing

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        # A transaction's lock: it ends with the connection, also when the process is killed; and it holds through a
        # pooler, which would lend a session to others meanwhile. Waiting, it keeps no rows from being cleaned up.
        async with self._db.read(NIL) as session:
            await session.driver.execute(ENDLESS)
            key = f"{self._db.service}.jobs.{self._job.name}"
            if not await session.driver.fetchval("SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))", key):
                raise JobError(f"{self._job.name} is running already.")
            yield

    async def _begin(self, *, restart: bool) -> Standing:
        found = next((one for one in await standings(self._db) if one.name == self._job.name), None)
        if found is None or found.state == "done" or restart:
            total = await self._count()
            return await self._changed(START, NIL, total)
        return await self._end("running")

    async def _count(self) -> int:
        total, tenant_id = 0, NIL
        while not self._told_to_pause.is_set():
            async with self._db.read(tenant_id) as session:
                await session.driver.execute(UNHURRIED)
                total += await self._job.count(session)
                following = await self._next_tenant(session, tenant_id)
            if following is None:
                break
            tenant_id = following
        return total

    async def _tried(self, standing: Standing) -> Standing:
        """A batch, tried again when others are in its way or the database is away for a moment."""
        left = TRIES
        while True:
            try:
                return await self._step(standing)
            except JobError:
                raise
            except Exception as error:
                left -= 1
                if not left or not isinstance(from_exception(error), PASSING):
                    with suppress(Exception):
                        await self._end("failed")
                    raise
                await asyncio.sleep(PAUSE_SECONDS)

    async def _step(self, standing: Standing) -> Standing:
        """A batch, or the step to the next tenant."""
        async with self._db.write(standing.tenant_id) as session:
            if (found := await self._locked(session, standing)).state != "running":
                return found
            count, last = await self._job.batch(session, standing.position, self._batch_size)
            if last is not None:
                return await self._written(session, MOVE, standing.tenant_id, last, count)
            if (tenant_id := await self._next_tenant(session, standing.tenant_id)) is None:
                return await self._written(session, FINISH, NIL)
            return await self._written(session, MOVE, tenant_id, NIL, 0)

    async def _locked(self, session: WriteSession, standing: Standing) -> Standing:
        """Holds the job's row until the batch is committed. Should a lost connection ever let in a second runner, one
        of the two finds that the other has moved on, or that somebody took the job away."""
        text = f"SELECT {COLUMNS} FROM {self._db.service}.jobs WHERE name = $1 FOR UPDATE"  # noqa: S608
        row = await session.driver.fetchrow(text, self._job.name)
        if row is None or replace(Standing(**row), state=standing.state) != standing:
            raise JobError(f"{self._job.name} was changed by somebody else.")
        return Standing(**row)

    async def _next_tenant(self, session: ReadSession, tenant_id: UUID) -> UUID | None:
        found: UUID | None = await session.driver.fetchval(f"SELECT {self._db.service}.next_tenant($1)", tenant_id)
        return found

    async def _end(self, state: str) -> Standing:
        return await self._changed(END, state)

    async def _changed(self, statement: str, *values: Any) -> Standing:
        async with self._db.write(NIL) as session:
            return await self._written(session, statement, *values)

    async def _written(self, session: WriteSession, statement: str, *values: Any) -> Standing:
        row = await session.driver.fetchrow(_returning(self._db, statement), self._job.name, *values)
        if row is None:
            raise JobError(f"{self._job.name} was taken away by somebody else.")
        return Standing(**row)

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._told_to_pause.wait()


class Repeating:
    """Runs one job now and then for ever; of several processes one at a time."""

    def __init__(self, db: Database, job: Job, *, seconds: float) -> None:
        self._db, self._job, self._seconds = db, job, seconds

    async def run(self) -> None:
        """What fails is tried again when it is next due."""
        while True:
            await asyncio.sleep(self._seconds)
            try:
                await Runner(self._db, self._job, tell=lambda standing: None).run()
            except JobError as error:
                log.info("the job is done elsewhere", extra={"job": self._job.name, "reason": str(error)})
            except Exception:
                log.exception("the job is not done", extra={"job": self._job.name})


async def standings(db: Database) -> list[Standing]:
    """How far the service's jobs are that were ever begun."""
    async with db.read(NIL) as session:
        text = f"SELECT {COLUMNS} FROM {db.service}.jobs ORDER BY name"  # noqa: S608
        return [Standing(**row) for row in await session.driver.fetch(text)]


async def tell_runner(db: Database, statement: str, name: str) -> bool:
    """Pauses or aborts a job; False when there is nothing to pause or abort."""
    async with db.write(NIL) as session:
        return await session.driver.fetchval(_returning(db, statement), name) is not None


def _returning(db: Database, statement: str) -> str:
    return f"{statement.format(schema=db.service)} RETURNING {COLUMNS}"


class Progress:
    """How far a job is: one line that changes on a terminal, now and then a line elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._began, self._shown, self._first = stream, time.monotonic(), 0.0, -1

    def show(self, standing: Standing) -> None:
        """Shows it, if it is time to."""
        now = time.monotonic()
        if self._first < 0:
            self._first = standing.done
        if self._stream.isatty():
            self._stream.write(f"\r\x1b[2K{self.line(standing, now)}" + "\n" * (standing.state != "running"))
        elif standing.state != "running" or now - self._shown >= SECONDS_BETWEEN_LINES:
            self._shown = now
            self._stream.write(self.line(standing, now) + "\n")
        self._stream.flush()

    def line(self, standing: Standing, now: float) -> str:
        """Share, counts, speed and the time left, as far as they are known."""
        done, total = standing.done, max(standing.total, standing.done)
        share = done / total if total else float(standing.state == "done")
        speed = (done - self._first) / max(now - self._began, 0.001)
        parts = [f"{standing.name} {standing.state}", f"{share:.0%}", f"{done:,} of {total:,}"]
        if self._stream.isatty():
            parts.insert(1, "█" * int(share * BAR) + "░" * (BAR - int(share * BAR)))
        if speed and standing.state == "running":
            parts += [f"{speed:,.0f}/s", f"{(total - done) / speed:,.0f} s left"]
        return " · ".join(parts)


async def _run(db: Database, job: Job, asked: argparse.Namespace) -> int:
    progress = Progress(sys.stderr)
    runner = Runner(db, job, batch_size=asked.batch, delay=asked.delay, tell=progress.show)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, runner.pause)
    standing = await runner.run(restart=asked.restart)
    return DONE if standing.state == "done" else PAUSED


async def _list(db: Database, jobs: Sequence[Job], *, as_json: bool) -> int:
    found = {one.name: one for one in await standings(db)}
    for job in jobs:
        one = found.get(job.name)
        if as_json:
            how_far = {"state": one.state, "done": one.done, "total": one.total} if one else {"state": "never begun"}
            sys.stdout.write(json.dumps({"name": job.name, **how_far, "doc": job.doc}) + "\n")
            continue
        how = f"{one.state}, {one.done:,} of {one.total:,}" if one else "never begun"
        sys.stdout.write(f"{job.name}: {how}. {job.doc}\n")
    return DONE


async def _admit(service: Any, asked: argparse.Namespace) -> None:
    """Has the audit log tell what is about to be done, and by whom if an operator has signed in."""
    try:
        operator = await operators.identify(service, sys.stdin.readline().strip()) if asked.as_operator else None
    except StoryloomError as error:
        raise JobError(error.message) from None
    await operators.note(service, asked.command, "job", {"name": asked.job}, operator)


async def _do(asked: argparse.Namespace, settings: Settings) -> int:
    jobs: Sequence[Job] = import_module(f"services.{asked.service}.jobs").JOBS
    # The whole service, though nothing is served: its database knows to whom its events go.
    service: Any = import_module(f"services.{asked.service}.__main__").build(settings)
    db: Database = service.db
    try:
        if asked.command == "list":
            return await _list(db, jobs, as_json=asked.json)
        job = next((one for one in jobs if one.name == asked.job), None)
        if job is None:
            raise JobError(f"{asked.service} has no job {asked.job}; it has {', '.join(one.name for one in jobs)}.")
        await _admit(service, asked)
        if asked.command == "run":
            return await _run(db, job, asked)
        if not await tell_runner(db, PAUSE if asked.command == "pause" else ABORT, job.name):
            raise JobError(f"{job.name} is not running.")
        return DONE
    finally:
        await service.clients.close()
        await db.close()
        service.telemetry.close()


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    made = argparse.ArgumentParser(
        prog="python -m kit.jobs",
        description="Runs a service's jobs, with the service's own environment. Exit status: 0 when it is done, 1 when"
        " it failed, 2 when it could not be run, 3 when it is paused: run it again to go on.",
    )
    commands = made.add_subparsers(dest="command", required=True)
    for name, doc in (
        ("run", "begin a job or go on with it; again from the beginning when it is done"),
        ("pause", "stop a job after the batch at hand"),
        ("abort", "stop it, and begin anew when it is run again"),
        ("list", "tell what jobs there are, and how far"),
    ):
        command = commands.add_parser(name, help=doc)
        command.add_argument("service", choices=SERVICES)
        if name == "list":
            command.add_argument("--json", action="store_true", help="a JSON object for each job")
        else:
            command.add_argument("job")
            command.add_argument("--as-operator", action="store_true", help="whose access token is in standard input")
        if name == "run":
            command.add_argument("--restart", action="store_true", help="begin anew, though it was not done")
            command.add_argument("--batch", type=int, default=0, help="rows of a batch; default: what the job says")
            command.add_argument("--delay", type=float, default=0.0, help="seconds between batches")
    return made


def main() -> int:
    asked = parser().parse_args()
    try:
        settings = Settings.from_environment(asked.service, os.environ)
        log_as_json(asked.service, settings.log_level)
        return asyncio.run(_do(asked, settings))
    except (JobError, SettingsError) as error:
        sys.stderr.write(f"jobs: {error}\n")
        return REFUSED
    except Exception:
        log.exception("the job failed")
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
