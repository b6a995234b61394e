"""Changes of tables that are in use: nobody waits long for them, and what was broken off is done again."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from alembic import op
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from kit.errors import Aborted, DeadlineExceeded, Unavailable, from_exception

log = logging.getLogger(__name__)

# While a migration waits for a lock, all who come after it wait behind it.
LIMITS = {
    "lock_timeout": "300ms",
    "statement_timeout": "60s",
    # The server ends what a migration was doing that was killed.
    "client_connection_check_interval": "500ms",
}
# And while it has a lock, all wait until its transaction ends. A schema without tables has nobody who waits.
IN_USE = {"transaction_timeout": "900ms"}
# What keeps neither readers nor writers out may take its time.
PATIENT = ("lock_timeout", "statement_timeout", "transaction_timeout")
PASSING = (Aborted, Unavailable, DeadlineExceeded)
# Some seven minutes in all: a long report has ended by then, or somebody has to look.
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, *[30.0] * 13)
PATIENCE = 1800.0
HELD = "somebody holds what it waits for"
OVERDUE = f"ended by the server, as after {IN_USE['transaction_timeout']} in one transaction"


class MigrationError(Exception):
    """The migration cannot be made now; the message is a sentence."""


def tried(service: str, migrate: Callable[[], None]) -> None:
    """Migrates; again, after a pause, when others were in the way. What is committed stays, the rest is begun anew."""
    for pause in PAUSES:
        try:
            return migrate()
        except DBAPIError as error:
            # What the driver said; what became of the connection tells why.
            why = from_exception((error.orig and error.orig.__cause__) or error)
            if not isinstance(why, PASSING):
                raise
            reason = OVERDUE if isinstance(why, Unavailable | DeadlineExceeded) else HELD
            log.warning("%s: %s; again in %g s", service, reason, pause)
        time.sleep(pause)
    return migrate()


def keep_others_out(connection: Connection, service: str) -> None:
    """Waits until no other migration of the schema runs; the lock is the connection's, and ends with it.

    It is asked for now and then: a statement that waited for it would have a snapshot, and an index that is built
    concurrently waits for all who have one.
    """
    attempt = text("SELECT pg_try_advisory_lock(hashtextextended(:key, 0))")
    until, told = time.monotonic() + PATIENCE, False
    while not connection.scalar(attempt, {"key": f"{service}.migrations"}):
        connection.commit()
        if time.monotonic() > until:
            raise MigrationError(f"Another migration of {service} does not end.")
        if not told:
            log.warning("%s: another migration runs, waiting for its end", service)
            told = True
        time.sleep(0.2)
    connection.commit()


def build_index(schema: str, name: str, on: str) -> None:
    """Builds an index of a table that is in use: `build_index("content", "ix_words_tenant_id_rank", "words (tenant_id,
    rank)")`. One that is there but not whole was broken off: it is built anew."""
    with _in_no_transaction(), _patiently():
        if _offline() or _found(f"pg_index WHERE indexrelid = to_regclass('{schema}.{name}') AND NOT indisvalid"):
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {schema}.{name}")
        op.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {schema}.{on}")


def drop_index(schema: str, name: str) -> None:
    """Drops an index of a table that is in use."""
    with _in_no_transaction(), _patiently():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {schema}.{name}")


def enforce(schema: str, table: str, name: str, rule: str) -> None:
    """Adds a constraint to a table that is in use, then looks at the rows that are there: `enforce("content", "words",
    "nn_words_rank", "NOT NULL rank")`. New rows are bound by it before the others are looked at."""
    there = f"pg_constraint WHERE conrelid = '{schema}.{table}'::regclass AND conname = '{name}'"
    with _in_no_transaction():
        if _offline() or not _found(there):
            op.execute(f"ALTER TABLE {schema}.{table} ADD CONSTRAINT {name} {rule} NOT VALID")
        with _patiently():
            op.execute(f"ALTER TABLE {schema}.{table} VALIDATE CONSTRAINT {name}")


def _offline() -> bool:
    return op.get_context().as_sql


def _found(what: str) -> bool:
    """Whether an earlier run, which did not come to its end, has left it."""
    return op.get_bind().scalar(text(f"SELECT 1 FROM {what}")) is not None  # noqa: S608  # names of the migration


@contextmanager
def _in_no_transaction() -> Iterator[None]:
    """Each statement is committed by itself. What the migration did before is committed too, and would be done again
    with it: such a migration does nothing else, or what can be done twice."""
    with op.get_context().autocommit_block():
        yield


@contextmanager
def _patiently() -> Iterator[None]:
    for name in PATIENT:
        op.execute(f"SET {name} = 0")
    yield
    for name in PATIENT:
        op.execute(f"RESET {name}")
