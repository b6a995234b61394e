"""Receives a server's write-ahead log as it is written, by PostgreSQL's own `pg_receivewal`, and archives it.

Every few seconds what has come is compressed, encrypted and put into the archive: so much is lost with the server."""

import asyncio
import os
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import asyncpg

from deploy.backups.bases import take_base
from deploy.backups.chain import Chain, begin, chain_begun, chains, moment, remove_superseded
from deploy.backups.gauges import Gauges, State
from deploy.backups.programs import connection, program
from deploy.backups.segments import archive_spool, spooled
from deploy.backups.server import role_url
from deploy.backups.settings import BackupSettings
from deploy.local.errors import RunError
from deploy.local.locking import alone
from deploy.local.settings import Settings
from kit.migrations import REPLICATION

# A base is what a recovery starts from; the more log there is to be read after it, the longer that takes.
BASE_EVERY = timedelta(days=1)
# How long the log may take from the server to the spool's disk.
PATIENCE = 30.0
SOON, AGAIN = 0.2, 5.0
IDENTITY = """
SELECT (SELECT system_identifier::text FROM pg_control_system()) AS system,
       ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int AS timeline,
       pg_size_bytes(current_setting('wal_segment_size'))::int AS segment_octets
"""
SLOT = """
SELECT restart_lsn::text AS position, wal_status, active_pid, (pg_current_wal_lsn() - restart_lsn)::bigint AS lag
FROM pg_replication_slots WHERE slot_name = $1
"""
# A commit of its own: a recovery that is to stop before a moment finds one that comes after it, on a quiet server too.
BEAT = "SELECT pg_logical_emit_message(true, 'storyloom', '')"
FLUSHED = "SELECT restart_lsn >= $2::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $1"
DROP = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = ANY ($1) AND NOT active"


async def receive(settings: Settings, backups: BackupSettings) -> int:
    """Archives the log of the running server until it is told to end."""
    url = role_url(settings, os.environ.get("REPLICATION_DATABASE_URL"), REPLICATION)
    receiver = Receiver(backups, url, lambda line: print(line, flush=True))
    gauges = Gauges(os.environ, backups, receiver.state)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, receiver.stop)
    try:
        await receiver.run()
    finally:
        await asyncio.to_thread(gauges.close)
    if receiver.state.reach:
        print(f"Archived until {moment(receiver.state.reach)}", flush=True)
    return 0


class Receiver:
    """Follows one server, into the chain that goes on with it or into a new one."""

    def __init__(self, settings: BackupSettings, url: str, say: Callable[[str], None]) -> None:
        self._settings, self._url, self._say = settings, url, say
        self._stopped = asyncio.Event()
        self._base: asyncio.Task[None] | None = None
        self._base_tried = datetime.min.replace(tzinfo=UTC)
        self.state = State()

    def stop(self) -> None:
        self._stopped.set()

    async def run(self) -> None:
        """Until `stop`. What fails is said and tried again: the slot keeps for us what we have not got."""
        failed, said = 0.0, ""
        spool = self._settings.spool
        spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Two would take each other's segments.
        with alone(spool, f"The log is received into {spool} already: one receiver is enough."):
            while not self._stopped.is_set():
                try:
                    await self._follow()
                except (RunError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                    self.state.failures["log"] += 1
                    now = asyncio.get_running_loop().time()
                    again = AGAIN if now - failed < AGAIN * 2 else SOON
                    if again == SOON or str(error) != said:
                        said = str(error)
                        self._say(f"The log is not archived: {said.rstrip('.')}. Trying again")
                    failed = now
                    await self._wait(again)

    async def _follow(self) -> None:
        options = {"synchronous_commit": "on"}
        try:
            connected = await asyncpg.connect(self._url, server_settings=options, command_timeout=PATIENCE)
        except OSError as error:
            raise RunError(f"PostgreSQL is not there ({os.strerror(error.errno) if error.errno else error})") from error
        try:
            chain = await self._find_chain(connected)
            async with self._receiving(connected, chain) as process:
                self._say(f"Archiving the log into {chain.folder}")
                while not self._stopped.is_set():
                    await self._beat(connected, chain, process)
                    self._consider_base(chain)
                    await self._wait(self._settings.wal_seconds)
                await self._beat(connected, chain, process)
        finally:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await connected.close(timeout=PATIENCE)
            if self._base:
                # Whatever follows: two bases at once help nobody.
                await self._base

    async def _beat(self, connected: asyncpg.Connection, chain: Chain, process: Process) -> None:
        """Has everything that is committed now archived."""
        time = await connected.fetchval("SELECT clock_timestamp()")
        await connected.execute(BEAT)
        position = await connected.fetchval("SELECT pg_current_wal_insert_lsn()::text")
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while not await connected.fetchval(FLUSHED, chain.slot, position):
            if process.returncode is not None:
                raise RunError(f"pg_receivewal ended: {await _last_words(process)}.")
            if asyncio.get_running_loop().time() > deadline:
                raise RunError(f"pg_receivewal does not come to {position}, where the server was {PATIENCE:g} s ago.")
            await asyncio.sleep(0.02)
        before = self.state.reach or chain_begun(chain)
        await asyncio.to_thread(archive_spool, chain, self._settings, before, time)
        self.state.reach = time
        slot = await connected.fetchrow(SLOT, chain.slot)
        self.state.lag = slot["lag"] if slot else 0

    async def _find_chain(self, connected: asyncpg.Connection) -> Chain:
        """The chain that goes on with this server; a new one, when none does without a gap."""
        server = dict((await connected.fetchrow(IDENTITY)) or {})
        known = chains(self._settings)
        for chain in reversed(known):
            if {"system": chain.system, "timeline": chain.timeline, "segment_octets": chain.segment_octets} == server:
                if not chain.wal.is_dir():
                    raise RunError(f"{chain.wal} is not there: is its disk?")
                gap = await self._gap(connected, chain)
                if not gap:
                    self.state.reach = chain.reach()
                    return chain
                self._say(f"A new chain begins: {gap}")
                break
        else:
            if known:
                self._say("A new chain begins: the server was restored, or is another.")
        # Nothing of it can be brought back before its first base.
        self._base_tried = datetime.min.replace(tzinfo=UTC)
        chain = begin(self._settings, datetime.now(UTC), **server)
        self.state.reach = None
        await connected.fetch(DROP, [one.slot for one in known])
        # From now on the server keeps what comes.
        await connected.fetchval("SELECT pg_create_physical_replication_slot($1, true)", chain.slot)
        return chain

    async def _gap(self, connected: asyncpg.Connection, chain: Chain) -> str:
        """Why the chain can't go on where it ended; '' when it can."""
        slot = await connected.fetchrow(SLOT, chain.slot)
        if slot is None:
            return f"the server has no slot {chain.slot}."
        if slot["wal_status"] == "lost" or slot["position"] is None:
            return f"the slot {chain.slot} is lost: the server kept as much log as max_slot_wal_keep_size allows."
        last = chain.last_whole()
        coming = [chain.number(name) for name in spooled(self._settings.spool / chain.folder.name)]
        first = min(coming, default=chain.number(chain.segment_at(slot["position"])))
        if last is not None and first > last + 1:
            return f"segments from {chain.segment(last + 1)} to {chain.segment(first - 1)} were lost with the spool."
        return ""

    @asynccontextmanager
    async def _receiving(self, connected: asyncpg.Connection, chain: Chain) -> AsyncIterator[Process]:
        """`pg_receivewal`, alone on the slot: one whose parent was killed goes on, and is told to end by the server."""
        spool = self._settings.spool / chain.folder.name
        for left in self._settings.spool.glob("*/"):
            if left != spool:
                shutil.rmtree(left)
        spool.mkdir(mode=0o700, exist_ok=True)
        for half in chain.wal.glob("*.new"):
            half.unlink()
        while (slot := await connected.fetchrow(SLOT, chain.slot)) and slot["active_pid"] is not None:
            await connected.fetchval("SELECT pg_terminate_backend($1, 5000)", slot["active_pid"])
        place, environment = connection(self._url)
        arguments = ["--directory", str(spool), "--slot", chain.slot, "--synchronous", "--no-loop", "--dbname", place]
        # In a session of its own: Ctrl-C ends it after what has come is archived.
        process = await asyncio.create_subprocess_exec(
            program("pg_receivewal"), *arguments, env=environment, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE,
            start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
            await process.communicate()

    def _consider_base(self, chain: Chain) -> None:
        """Begins a base backup when the newest is old; the log goes on being archived meanwhile."""
        now = datetime.now(UTC)
        if (self._base and not self._base.done()) or now - self._base_tried < timedelta(minutes=5):
            return
        newest = max((one.finish_time for one in chain.bases.trusted()), default=None)
        if newest is None or now - newest > BASE_EVERY:
            self._base_tried = now
            self._base = asyncio.create_task(self._make_base(chain))

    async def _make_base(self, chain: Chain) -> None:
        try:
            base = await asyncio.to_thread(take_base, chain, self._settings, self._url)
            size = sum(part.octets for part in base.parts) / 1e6
            self._say(f"Base backup {base.name}: {size:.1f} MB. From {base.finish_time:%H:%M:%S} UTC on, every moment")
            now = datetime.now(UTC)
            for said in (*chain.prune(now, self._settings.keep), *remove_superseded(self._settings, now)):
                self._say(said)
        except (RunError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            self.state.failures["base"] += 1
            self._say(f"The base backup failed: {error}")

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), seconds)


async def _last_words(process: Process) -> str:
    _, said = await process.communicate()
    lines = said.decode(errors="replace").strip().splitlines()
    return " / ".join(lines[-3:]).removesuffix(".") or f"exit code {process.returncode}"
