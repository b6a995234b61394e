"""Rows on their way in: first where they are nobody's, which the database binds to the one tenant; then in place."""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import groupby
from typing import IO, Any
from uuid import UUID

import asyncpg

from deploy.local.errors import RunError
from deploy.tenants.subject_keys import Change, rewritten
from deploy.tenants.tables import KEPT, LEFT_OUT, PLATFORMS, Table

PIECE = 1 << 18
# Errors that are what a value, or a row, is worth: class 22, 23, and text that is not of the type (42).
REFUSED = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.SyntaxOrAccessError,
    asyncpg.ProgramLimitExceededError,
)


async def stage(
    database: asyncpg.Connection, table: Table, tenant_id: UUID, data: IO[bytes], change: Change | None
) -> tuple[int, str]:
    """Takes in the rows of a member; how many they are, and their digest. RunError for columns that the table does not
    have, for values that are not of their types, and for any row of another tenant."""
    wanted = f"{','.join(table.columns)}\n".encode()
    if data.read(len(wanted)) != wanted:
        raise RunError(f"{table.member} has other columns than {table.name}.")
    await database.execute(
        f"CREATE TEMPORARY TABLE {_name(table)} ON COMMIT DROP AS SELECT {table.listed} FROM {table.name} WITH NO DATA;"  # noqa: S608
        f" ALTER TABLE {table.staged} ADD CONSTRAINT tenant CHECK (tenant_id IS NOT DISTINCT FROM '{tenant_id}')"
    )
    digest = sha256()
    pieces = rewritten(data, table.columns, change) if change else iter(lambda: data.read(PIECE), b"")
    try:
        done = await database.copy_to_table(
            table.name, schema_name="pg_temp", source=_through(pieces, digest), columns=table.columns, format="csv"
        )
    except REFUSED as error:
        raise refused(table.member, error) from None
    return int(done.rpartition(" ")[2]), digest.hexdigest()


async def put(database: asyncpg.Connection, tables: Sequence[Table], tenant_id: UUID) -> None:
    """Puts what was staged into its tables.

    All that is bound by foreign keys goes in with one statement for each schema: they are looked at when it ends, so
    that rows may refer to each other. Triggers run as they do for every row; what they write, into tables that have no
    foreign key, gives way to what was staged.
    """
    try:
        for _, group in groupby((one for one in tables if not one.loose), key=lambda one: one.schema):
            await database.execute(_together(f"INSERT INTO {one.name} ({one.listed}) {_staged(one)}" for one in group))
        await database.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for one in tables:
            if one.loose:
                await database.execute(f"DELETE FROM {one.name} WHERE tenant_id = '{tenant_id}'")  # noqa: S608
                await database.execute(f"INSERT INTO {one.name} ({one.listed}) {_staged(one)}")
    except REFUSED as error:
        raise refused("A row", error) from None


async def clear(database: asyncpg.Connection, tables: Sequence[Table], tenant_id: UUID) -> None:
    """Removes the tenant's rows, all but its log: of tables that archives leave out as well."""
    gone = [one for one in tables if one.scoped and one.name not in KEPT and LEFT_OUT.get(one.name) != PLATFORMS]
    for _, group in groupby(gone, key=lambda one: one.schema):
        await database.execute(_together(f"DELETE FROM {one.name} WHERE tenant_id = '{tenant_id}'" for one in group))  # noqa: S608


def refused(what: str, error: asyncpg.PostgresError) -> RunError:
    """What the database said of a value or a row, without either: the log of whoever runs this is no place for them."""
    where = ".".join(str(one) for one in (error.schema_name, error.table_name, error.constraint_name) if one)
    return RunError(f"{what} is refused by the database: {where or type(error).__name__}.")


def _name(table: Table) -> str:
    return f'"{table.name}"'


def _staged(table: Table) -> str:
    return f"SELECT {table.listed} FROM {table.staged}"  # noqa: S608


def _together(statements: Iterable[str]) -> str:
    parts = [f"_{number} AS ({statement})" for number, statement in enumerate(statements)]
    return f"WITH {', '.join(parts)} SELECT"


async def _through(pieces: Iterator[bytes], digest: Any) -> AsyncIterator[bytes]:
    for piece in pieces:
        digest.update(piece)
        yield piece
