"""Connections to PostgreSQL: the limits of those that services have, what a pooler asks for, and plain ones."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import asyncpg

from kit.settings import POOLERS

# No statement and no lock may outlive the patience of the call that waits for it.
LIMITS = {
    "statement_timeout": "5s",
    "lock_timeout": "1s",
    "idle_in_transaction_session_timeout": "10s",
    "transaction_timeout": "15s",
    "jit": "off",
    # A client that hangs up in the middle of a statement cannot always ask the server to end it.
    "client_connection_check_interval": "500ms",
}
# Types below are PostgreSQL's own, the same in every database; those above are of extensions, or of a schema.
FIRST_OTHER_TYPE = 16_384
# The second's server connections are a client's for the length of a transaction, as PgBouncer's can be.
DIRECT, TRANSACTION = POOLERS
NOT_LIMITED = f"""
SELECT string_agg(name, ', ' ORDER BY name) FROM unnest(ARRAY[{", ".join(map(repr, LIMITS))}],
                                                        ARRAY[{", ".join(map(repr, LIMITS.values()))}]) s (name, wanted)
WHERE current_setting(name) <> wanted
"""  # noqa: S608  # the constants above


class Informed(asyncpg.Connection):
    """Asks once in a process, not once on each connection, what types such as `uuid[]` are made of: PostgreSQL takes
    longer to answer that than all the statements of a call."""

    _answers: ClassVar[dict[frozenset[int], Any]] = {}

    async def _introspect_types(self, typeoids: Any, timeout: Any) -> Any:
        asked = frozenset(typeoids)
        if asked in self._answers:
            return self._answers[asked]
        found = await super()._introspect_types(typeoids, timeout)  # type: ignore[misc]  # not in the stubs
        if max(asked) < FIRST_OTHER_TYPE:
            self._answers[asked] = found
        return found


class Pooled(Informed):
    """Does not ask for a statement's end. Whoever is cancelled cuts the connection off, and the pooler does so to the
    server; one that asks first and then goes is too much for PgBouncer before 1.20 (its issue 801): it ends."""

    def _cancel_current_command(self, waiter: Any, cancel_waiter: Any = None) -> None:
        waiter.set_result(None)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of its own for what programs beside the services do, closed after the block."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


def connect_arguments(service: str, pooler: str) -> dict[str, Any]:
    """What the driver is given besides the URL."""
    name = {"application_name": f"storyloom-{service}"}
    if pooler == DIRECT:
        return {"server_settings": {**LIMITS, **name}, "connection_class": Informed}
    # A prepared statement stays on the server connection where it was made, and the next transaction may get another
    # one: without caches the driver sends the text of each with its values. The limits are the role's own settings.
    caches = {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
    return {"server_settings": name, "connection_class": Pooled, **caches}


def limits_of_role(role: str) -> str:
    """The statements that give a role the limits, however it connects."""
    return "; ".join(f"ALTER ROLE {role} SET {name} = '{value}'" for name, value in LIMITS.items())
