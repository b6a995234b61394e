"""What must be true of a restored database. Each check says what it looked at, and what is wrong."""

import asyncio
from collections.abc import Mapping, Sequence
from uuid import UUID

import asyncpg

from deploy.backups.forgetting import Forgotten, forget_again
from kit import migrations as kit_migrations
from kit.catalog import lint
from kit.connecting import connected
from kit.migrations import DATABASE_NAME, ROLES, in_database, make_roles
from kit.settings import SERVICES
from tools.verify_audit import Tree

Result = tuple[str, list[str]]
TENANT_TABLES = """
SELECT c.oid::regclass::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relrowsecurity
  AND has_table_privilege($2, c.oid, 'SELECT')
ORDER BY 1
"""
TENANTS = "SELECT DISTINCT tenant_id FROM identity.users ORDER BY 1 LIMIT 20"
LEAVES = "SELECT hash FROM audit.tree_leaves WHERE tenant_id = $1 ORDER BY leaf_index"
STORED = """
SELECT count(*) FROM audit.audit_logs a JOIN audit.tree_leaves l USING (tenant_id, id)
WHERE a.tenant_id = $1 AND l.hash <> sha256('\\x00'::bytea || a.leaf)
"""
SIGNED = "SELECT tree_size, root_hash FROM audit.checkpoints WHERE tenant_id = $1"


async def looked_over(
    admin_url: str,
    passwords: Mapping[str, str],
    wanted: Mapping[str, str] | None,
    erasures: Sequence[Forgotten] | None,
) -> bool:
    """Gives the roles these passwords and prints what each check found, a line for each; whether all was as it must be.
    `wanted` are the migrations of the backup, None where it does not say; `erasures` None where nobody could say."""
    async with connected(admin_url) as admin:
        await make_roles(admin, dict(passwords))
    urls = {role: in_database(admin_url, DATABASE_NAME, user=role, password=passwords[role]) for role in ROLES}
    whole = await _checked(in_database(admin_url, DATABASE_NAME), urls, wanted)
    if erasures is None:
        print("     who was erased since comes back: the running database was not asked")
        return whole
    done, asked = await forget_again(erasures, urls), len(erasures)
    print(f"{'ok  ' if done == asked else 'FAIL'} who was erased since is erased anew: {done} of {asked}", flush=True)
    return whole and done == asked


async def _checked(superuser_url: str, urls: Mapping[str, str], wanted: Mapping[str, str] | None) -> bool:
    whole = True
    since = "those of the backup" if wanted is not None else "known here"
    for what, check in (
        (f"migrations are {since}, and the newest can be made", migrations(wanted, superuser_url, urls)),
        ("the catalog has no hole", catalog(superuser_url)),
        ("each service sees one tenant at a time", isolation(superuser_url, urls)),
        ("audit logs are what was signed", proofs(superuser_url)),
    ):
        found, faults = await check
        whole = whole and not faults
        print(f"{'ok  ' if not faults else 'FAIL'} {what}: {found}")
        print("".join(f"     {one}\n" for one in faults[:20]), end="", flush=True)
    return whole


async def migrations(wanted: Mapping[str, str] | None, superuser_url: str, urls: Mapping[str, str]) -> Result:
    """That each schema has the wanted migrations, and takes those that came since."""
    async with connected(superuser_url) as database:
        found = await kit_migrations.revisions(database)
    wanted = found if wanted is None else wanted
    wrong = [f"{one}: {found[one]}, not {wanted.get(one)}" for one in SERVICES if found[one] != wanted.get(one)]
    for service in SERVICES:
        await asyncio.to_thread(kit_migrations.upgrade, service, urls[kit_migrations.OWNER])
    return f"{len(found)} schemas", wrong


async def catalog(superuser_url: str) -> Result:
    """That no table, policy, key or right lets one tenant reach another's rows."""
    async with connected(superuser_url) as database:
        return "tables, policies, keys, rights and roles", await lint(database)


async def isolation(superuser_url: str, urls: Mapping[str, str]) -> Result:
    """That each service's role sees of each of its tables exactly the rows of the tenant that is set, and none, with an
    error, when none is."""
    looks, wrong = 0, []
    async with connected(superuser_url) as superuser:
        tenants = [row["tenant_id"] for row in await superuser.fetch(TENANTS)]
        for service in SERVICES:
            role = kit_migrations.role_of(service)
            tables = [row["name"] for row in await superuser.fetch(TENANT_TABLES, service, role)]
            async with connected(urls[role]) as database:
                for table in tables:
                    looks += len(tenants) + 1
                    wrong += await _look(superuser, database, table, tenants)
    return f"{looks} looks at tables of {len(tenants)} tenants", wrong


async def _look(
    superuser: asyncpg.Connection, service: asyncpg.Connection, table: str, tenants: list[UUID]
) -> list[str]:
    wrong = []
    counted = f"SELECT tenant_id, count(*) FROM {table} GROUP BY 1"  # noqa: S608
    rows = await _counts(superuser, counted)
    for tenant in tenants:
        async with service.transaction(readonly=True):
            await service.execute(f"SET LOCAL app.tenant_id = '{tenant}'")
            seen = await _counts(service, counted)
        if seen != ({tenant: rows[tenant]} if tenant in rows else {}):
            wrong.append(f"{table}: with tenant {tenant} set, {seen} rows are seen")
    try:
        await service.execute("RESET app.tenant_id")
        await service.fetch(counted)
        # A table without a row asks its policy nothing.
        wrong += [f"{table} can be read without a tenant"] if rows else []
    except asyncpg.PostgresError:
        pass
    return wrong


async def _counts(database: asyncpg.Connection, counted: str) -> dict[UUID, int]:
    return {row["tenant_id"]: row["count"] for row in await database.fetch(counted)}


async def proofs(superuser_url: str) -> Result:
    """That the entries are those that the trees were grown by, and the trees those that were signed: roots computed
    anew from the leaves, by the verifier that auditors have."""
    entries, checkpoints, wrong = 0, 0, []
    async with connected(superuser_url) as database:
        for (tenant,) in await database.fetch("SELECT tenant_id FROM audit.trees ORDER BY 1"):
            signed = {row["tree_size"]: row["root_hash"] for row in await database.fetch(SIGNED, tenant)}
            tree, bad = Tree(), list[int]()
            async with database.transaction(readonly=True):
                async for row in database.cursor(LEAVES, tenant):
                    tree.add(row["hash"])
                    if tree.size in signed and signed[tree.size] != tree.root:
                        bad.append(tree.size)
            if bad:
                wrong.append(f"tenant {tenant}: {len(bad)} checkpoints have another root, from size {bad[0]} on")
            if edited := await database.fetchval(STORED, tenant):
                wrong.append(f"tenant {tenant}: {edited} entries are not what their leaves say")
            if ahead := [size for size in signed if size > tree.size]:
                wrong.append(f"tenant {tenant}: {max(ahead)} entries were signed, {tree.size} are there")
            entries, checkpoints = entries + tree.size, checkpoints + len(signed)
    return f"{entries} entries, {checkpoints} checkpoints", wrong
