"""Looks a restored database over as after a real loss, and erases anew who was erased since."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime

import asyncpg

from deploy.backups.checks import catalog, isolation, migrations, proofs
from deploy.backups.forgetting import Forgotten, forget_again, forgotten_since
from deploy.local.errors import RunError
from deploy.local.settings import Settings
from kit.connecting import connected
from kit.migrations import DATABASE_NAME, ROLES, in_database, make_roles


async def erased_since(
    settings: Settings, server: AbstractAsyncContextManager[str], time: datetime
) -> list[Forgotten] | None:
    """Whom the server of these settings, by its administrator's URL, has erased since; None after a real loss."""
    if settings.database_url is None and not (settings.directory / "postgres" / "PG_VERSION").exists():
        return None
    try:
        async with server as admin_url, connected(in_database(admin_url, DATABASE_NAME)) as database:
            return await forgotten_since(database, time)
    except (OSError, RunError, asyncpg.PostgresError) as error:
        print(f"     whom the running database has erased since is not known: {error}")
        return None


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
