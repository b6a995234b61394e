"""Brings a tenant in, or puts one back: all of it in one transaction, which commits when everything was looked over."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import asyncpg

from deploy.local.errors import RunError
from deploy.tenants import loading, tables
from deploy.tenants.archive import Reader, opened
from deploy.tenants.checking import check_log, check_rows, check_times
from deploy.tenants.installation import Installation
from deploy.tenants.manifest import NAME, Manifest
from deploy.tenants.recording import record
from deploy.tenants.recordings import arriving_files, recordings_of
from deploy.tenants.subject_keys import arriving
from deploy.tenants.tables import KEPT, KEYS, LEFT_OUT, Table
from kit.errors import StoryloomError
from kit.ids import SYSTEM_TENANT
from kit.migrations import revisions
from kit.validation import validator
from services.identity.tenants import tenant_to_proto
from storyloom.identity.v1.tenants_pb2 import Tenant

check_message = validator(Tenant)
UNKNOWN = "The archive has no row of its tenant, or with a slug that no tenant can have, a name or settings."
# The platform's list of tenants, and its erasures that are under way, have rows of their own for each tenant.
LIST = f"""
INSERT INTO identity.tenant_listings (tenant_id, id, slug, name, status, settings, revision, created_at, updated_at)
SELECT '{SYSTEM_TENANT}', id, slug, name, status, settings, revision, created_at, updated_at
FROM identity.tenants WHERE tenant_id = $1
ON CONFLICT (tenant_id, id) DO UPDATE SET (slug, name, status, settings, revision, updated_at) =
  (excluded.slug, excluded.name, excluded.status, excluded.settings, excluded.revision, excluded.updated_at)
"""  # noqa: S608
ERASE = f"""
INSERT INTO identity.erasure_tasks (tenant_id, id, home_tenant_id, due_at, attempts)
SELECT '{SYSTEM_TENANT}', id, tenant_id, now(), 0 FROM identity.erasures
WHERE tenant_id = $1 AND subject_type = 'user' AND state = 'pending'
ON CONFLICT DO NOTHING
"""  # noqa: S608
# A school's own erasures are of its people. One of a tenant would be carried out on whichever tenant it names, or be
# repeated there by a restore.
FOREIGN = "SELECT count(*) FROM identity.erasures WHERE tenant_id = $1 AND subject_type <> 'user'"
# Whoever was erased comes back with the rows, and has to go again: all, so that no two clocks have to agree.
ERASE_AGAIN = """
UPDATE identity.erasures SET state = 'pending', complete_time = NULL, receipts = '{}', revision = revision + 1
WHERE tenant_id = $1 AND subject_type = 'user' AND state = 'done'
"""
NEWS = "INSERT INTO identity.access_revisions (tenant_id) VALUES ($1)"
RENAME = "UPDATE identity.tenants SET slug = $2, revision = revision + 1 WHERE tenant_id = $1"
SUSPEND = "UPDATE identity.tenants SET status = 'suspended', revision = greatest(revision, $2) + 1 WHERE tenant_id = $1"
TAKEN = f"SELECT id FROM identity.tenant_listings WHERE tenant_id = '{SYSTEM_TENANT}' AND slug = $1 AND id <> $2"  # noqa: S608
THERE = "SELECT status, revision FROM identity.tenants WHERE tenant_id = $1 FOR UPDATE"
SHOWN = """
SELECT id, slug, name, status, settings, revision, created_at, updated_at FROM identity.tenants WHERE tenant_id = $1
"""
PROVEN = """
SELECT (SELECT count(*) FROM audit.audit_logs WHERE tenant_id = $1) AS entries,
       coalesce((SELECT max(tree_size) FROM audit.checkpoints WHERE tenant_id = $1), 0) AS signed_entries
"""
FORKED = """
SELECT count(*) FROM pg_temp."audit.tree_leaves" s LEFT JOIN audit.tree_leaves l USING (tenant_id, leaf_index)
WHERE l.hash IS DISTINCT FROM s.hash
"""


@dataclass(slots=True)
class Arrival:
    """An import under way. `found` are all tables with rows of tenants, `carried` those that an archive has."""

    here: Installation
    database: asyncpg.Connection
    reader: Reader
    manifest: Manifest
    found: list[Table]
    replaces: bool
    revision: int = 0

    @property
    def tenant_id(self) -> UUID:
        return self.manifest.tenant_id

    @property
    def carried(self) -> list[Table]:
        return [one for one in self.found if one.name in self.manifest.rows]


async def bring_in(
    here: Installation,
    path: Path,
    *,
    identity: Path | None = None,
    slug: str = "",
    operator_id: str = "",
    replaces: bool = False,
) -> Manifest:
    """Brings the archive's tenant in, under another slug if one is given; what the archive says of itself.

    With `replaces` the tenant must be there and suspended: its rows become those of the archive, but for its audit
    log, which goes on. RunError when anything is not as it must be; then nothing has changed.
    """
    with opened(path, identity, here.signer.keys) as reader:
        with reader.member(NAME) as data:
            manifest = Manifest.read(data)
        database = await tables.connect(here.owner_url)
        try:
            async with database.transaction():
                arrival = Arrival(here, database, reader, manifest, await tables.all_tables(database), replaces)
                await _refuse_strangers(arrival)
                await _take_rows(arrival)
                await _settle(arrival, slug)
                await record(database, "import", manifest.tenant_id, operator_id, await _told(arrival))
                reader.before_files()
                async with arriving_files(here, manifest.tenant_id) as take:
                    for one in await recordings_of(database, manifest.tenant_id):
                        with reader.member(one.member) as data:
                            await take(one, data)
                    reader.end()
        finally:
            await database.close()
    return manifest


async def _refuse_strangers(arrival: Arrival) -> None:
    """Refuses what is of another program, what is there already, and what was never there and is to be replaced."""
    database, manifest = arrival.database, arrival.manifest
    if manifest.tenant_id == SYSTEM_TENANT:
        raise RunError("The archive is of a platform's own tenant, which nobody else's platform takes.")
    here = await revisions(database)
    theirs = {one: manifest.revisions.get(one) for one in here}
    if other := [f"{one} is at {theirs[one]}, here at {here[one]}" for one in here if theirs[one] != here[one]]:
        raise RunError(f"The archive is of other migrations: {'; '.join(other)}. Bring both installations to the same.")
    wanted = [one.name for one in arrival.found if one.name not in LEFT_OUT]
    if list(manifest.rows) != wanted:
        raise RunError("The archive has other tables than its migrations make.")
    if arrival.replaces:
        await _refuse_unless_quiet(arrival)
        return
    there = [one.name for one in arrival.found if one.name not in LEFT_OUT and await _has_rows(arrival, one)]
    if there:
        raise RunError(
            f"Rows of this tenant are here already, in {', '.join(there[:5])}. To put a tenant back, suspend it and"
            " import with --replace."
        )


async def _has_rows(arrival: Arrival, table: Table) -> bool:
    found = f"SELECT EXISTS (SELECT FROM {table.name} WHERE tenant_id = $1)"  # noqa: S608
    return bool(await arrival.database.fetchval(found, arrival.tenant_id))


async def _refuse_unless_quiet(arrival: Arrival) -> None:
    """A tenant is put back when nobody works in it and nothing of it is on its way."""
    there = await arrival.database.fetchrow(THERE, arrival.tenant_id)
    if there is None or there["status"] != "suspended":
        raise RunError("Only a tenant that is here, and suspended, can be put back: `tenants suspend` first.")
    arrival.revision = there["revision"]
    if (await tables.waiting(arrival.database, arrival.tenant_id))[0]:
        raise RunError("Events of the tenant are not delivered yet: try again, or see `outbox` and `events list`.")


async def _take_rows(arrival: Arrival) -> None:
    database, tenant_id = arrival.database, arrival.tenant_id
    loaded: dict[str, tuple[int, str]] = {}
    change = arriving(arrival.here.wrapper, tenant_id, arrival.manifest.keys)
    for table in arrival.carried:
        with arrival.reader.member(table.member) as data:
            loaded[table.name] = await loading.stage(
                database, table, tenant_id, data, change if table.name == KEYS else None
            )
        if loaded[table.name][0] != arrival.manifest.rows[table.name]:
            raise RunError(f"{table.member} has another number of rows than the archive says.")
    await check_times(database, arrival.manifest)
    comes = arrival.carried
    if arrival.replaces:
        if await database.fetchval(FORKED):
            raise RunError("The archive's log is not the beginning of the one that is here: it is of another history.")
        await loading.clear(database, arrival.found, tenant_id)
        comes = [table for table in comes if table.name not in KEPT]
    await loading.put(database, comes, tenant_id)
    for table in comes:
        await check_rows(database, table, tenant_id, loaded[table.name])
    await check_log(database, tenant_id, arrival.here.signer, arrival.manifest.verifier_keys)


async def _settle(arrival: Arrival, slug: str) -> None:
    """Does what the tenant's rows do not: the platform's list, erasures under way, and news for what services know."""
    database, tenant_id = arrival.database, arrival.tenant_id
    if await database.fetchval(FOREIGN, tenant_id):
        raise RunError("The archive has erasures of tenants, which are the platform's alone.")
    if slug and slug != arrival.manifest.slug:
        await database.execute(RENAME, tenant_id, slug)
    # Nobody comes in before somebody has looked; an etag that was given out stays behind.
    await database.execute(SUSPEND, tenant_id, arrival.revision)
    if arrival.replaces:
        await database.execute(ERASE_AGAIN, tenant_id)
    name = await _name(database, tenant_id)
    if await database.fetchval(TAKEN, name, tenant_id):
        raise RunError(f"Another tenant is called {name!r} here: choose another name with --slug.")
    for statement in (LIST, ERASE, NEWS):
        await database.execute(statement, tenant_id)


async def _name(database: asyncpg.Connection, tenant_id: UUID) -> str:
    """The tenant's slug, if all that the platform's list will show can be shown: others are in one page with it."""
    try:
        row: dict[str, Any] = dict(await database.fetchrow(SHOWN, tenant_id) or {})
        shown = tenant_to_proto(SimpleNamespace(**row | {"settings": json.loads(row["settings"])}))
        check_message(shown)
    except (LookupError, ValueError, TypeError, OverflowError, RecursionError, StoryloomError):
        raise RunError(UNKNOWN) from None
    if not shown.slug or not shown.name:
        raise RunError(UNKNOWN)
    return shown.slug


async def _told(arrival: Arrival) -> dict[str, Any]:
    """What the logs say of it: also whose key signed it, and how many entries a checkpoint had signed before."""
    manifest = arrival.manifest
    told = {"snapshot_time": manifest.snapshot_time, "rows": sum(manifest.rows.values()), "files": manifest.files}
    proven = await arrival.database.fetchrow(PROVEN, arrival.tenant_id)
    return told | {"replaces": arrival.replaces, "key": arrival.reader.key} | dict(proven or {})
