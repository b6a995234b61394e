"""Takes a tenant out: all its rows as they were at one moment, then the recordings that they name."""

import asyncio
import io
import tempfile
from functools import partial
from pathlib import Path
from typing import IO
from uuid import UUID

import asyncpg

from deploy.local.errors import RunError
from deploy.tenants import tables
from deploy.tenants.archive import Writer, written
from deploy.tenants.installation import Installation
from deploy.tenants.manifest import NAME, OPEN, WRAPPED, Manifest
from deploy.tenants.recording import record
from deploy.tenants.recordings import fetch, recordings_of
from deploy.tenants.subject_keys import Change, rewritten
from deploy.tenants.tables import KEYS, LEFT_OUT, Table, carried, connect, write_rows
from kit.ids import SYSTEM_TENANT
from kit.migrations import revisions

# So long events may take to be delivered, and so often it is looked.
DELIVERED_WITHIN, POLL_SECONDS = 30.0, 0.2
IN_MEMORY = 8 << 20
SLUG = "SELECT slug FROM identity.tenants WHERE tenant_id = $1"
SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


async def export(
    here: Installation,
    tenant_id: UUID,
    out: Path,
    *,
    recipient: str = "",
    operator_id: str = "",
    wait: float = DELIVERED_WITHIN,
) -> Manifest:
    """Writes the tenant's archive and returns what it says of itself.

    Without a recipient it is not encrypted, and keys of the log's personal values stay wrapped with the installation's.
    The act is recorded first, so that the archive's own log tells of it.
    """
    if tenant_id == SYSTEM_TENANT:
        raise RunError("The platform's own tenant is no school: it can't be taken out.")
    database = await connect(here.owner_url)
    try:
        if await database.fetchval(SLUG, tenant_id) is None:
            raise RunError("There is no such tenant.")
        await record(database, "export", tenant_id, operator_id, {"encrypted": bool(recipient)})
        await _begin(database, tenant_id, wait)
        with written(out, recipient) as sink:
            return await _write(database, here, tenant_id, sink, open_keys=bool(recipient))
    finally:
        await database.close()


async def _begin(database: asyncpg.Connection, tenant_id: UUID, seconds: float) -> None:
    """Begins the one snapshot that all is read in: a moment at which no event of the tenant is on its way."""
    clock = asyncio.get_running_loop().time
    give_up = clock() + seconds
    while True:
        await database.execute(SNAPSHOT)
        events, parked = await tables.waiting(database, tenant_id)
        if not events:
            return
        await database.execute("ROLLBACK")
        if parked or clock() > give_up:
            raise RunError(
                f"{events} events of the tenant are not delivered, {parked} of them parked: have these tried again with"
                " `events replay`, or suspend the tenant and try once more."
            )
        await asyncio.sleep(POLL_SECONDS)


async def _write(
    database: asyncpg.Connection, here: Installation, tenant_id: UUID, sink: IO[bytes], *, open_keys: bool
) -> Manifest:
    recordings = await recordings_of(database, tenant_id)
    found = await carried(database)
    counts = {one.name: await _count(database, one, tenant_id) for one in found}
    manifest = Manifest(
        tenant_id=tenant_id,
        slug=await database.fetchval(SLUG, tenant_id),
        snapshot_time=await database.fetchval("SELECT now()"),
        revisions=await revisions(database),
        keys=OPEN if open_keys else WRAPPED,
        verifier_keys=here.signer.verifier_keys(tenant_id),
        rows=counts,
        files=len(recordings),
        left_out=dict(LEFT_OUT),
    )
    archive = Writer(sink, manifest.snapshot_time.timestamp())
    archive.add(NAME, io.BytesIO(manifest.text()))
    for table in found:
        unwrap = partial(here.wrapper.unwrap, tenant_id) if open_keys and table.name == KEYS else None
        await _add_table(archive, database, table, tenant_id, unwrap)
    # Not longer than the rows take: a snapshot keeps the whole database from being tidied up.
    await database.execute("COMMIT")
    for one in recordings:
        with _spool() as data:
            await fetch(here.storage, one, data)
            archive.add(one.member, data)
    archive.close(here.signer.keys)
    return manifest


async def _count(database: asyncpg.Connection, table: Table, tenant_id: UUID) -> int:
    found = await database.fetchval(f"SELECT count(*) FROM {table.name} WHERE tenant_id = $1", tenant_id)  # noqa: S608
    return int(found)


async def _add_table(
    archive: Writer, database: asyncpg.Connection, table: Table, tenant_id: UUID, unwrap: Change | None
) -> None:
    with _spool() as data:
        await write_rows(database, table, tenant_id, data)
        if unwrap is None:
            archive.add(table.member, data)
            return
        data.seek(0)
        with _spool() as opened:
            opened.write(data.readline())
            opened.writelines(rewritten(data, table.columns, unwrap))
            archive.add(table.member, opened)


def _spool() -> IO[bytes]:
    """A file without a name: how long a member is stands before it."""
    return tempfile.SpooledTemporaryFile(IN_MEMORY)
