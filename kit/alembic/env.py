"""The one Alembic environment: online, one service's schema at a time, with limits on what a migration may hold up."""

import asyncio
from typing import Any

from alembic import context
from sqlalchemy import Connection, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

from kit.migrations import async_url, metadata_of

SERVICE: str = context.config.attributes["service"]
URL: str = context.config.attributes["url"]


def including(connection: Connection) -> Any:
    """What is compared with the models: this service's schema, without the partitions that its tables consist of."""
    query = text("SELECT relname FROM pg_class WHERE relispartition AND relnamespace = to_regnamespace(:schema)")
    partitions = frozenset(connection.scalars(query, {"schema": SERVICE}))
    connection.commit()

    def include(name: str | None, kind: str, parents: Any) -> bool:
        return name == SERVICE if kind == "schema" else name not in partitions

    return include


def migrate(connection: Connection) -> None:
    connection.execute(text("SET lock_timeout = '1s'"))
    connection.execute(text("SET statement_timeout = '60s'"))
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=metadata_of(SERVICE),
        version_table_schema=SERVICE,
        include_schemas=True,
        include_name=including(connection),
        compare_server_default=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def run() -> None:
    engine = create_async_engine(async_url(URL), poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


asyncio.run(run())
