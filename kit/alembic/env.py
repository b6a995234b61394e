"""The one Alembic environment: one service's schema at a time, with limits on what a migration may hold up."""

import asyncio
from typing import Any

from alembic import context
from sqlalchemy import Connection, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

from kit.altering import LIMITS, keep_others_out
from kit.migrations import async_url, metadata_of

SERVICE: str = context.config.attributes["service"]
URL: str = context.config.attributes["url"]
SETTINGS: dict[str, str] = context.config.attributes.get("limits", LIMITS)
OPTIONS: dict[str, Any] = {"version_table_schema": SERVICE, "transaction_per_migration": True}


def including(connection: Connection) -> Any:
    """What is compared with the models: this service's schema, without the partitions that its tables consist of."""
    query = text("SELECT relname FROM pg_class WHERE relispartition AND relnamespace = to_regnamespace(:schema)")
    partitions = frozenset(connection.scalars(query, {"schema": SERVICE}))
    connection.commit()

    def include(name: str | None, kind: str, parents: Any) -> bool:
        return name == SERVICE if kind == "schema" else name not in partitions

    return include


def migrate(connection: Connection) -> None:
    keep_others_out(connection, SERVICE)
    context.configure(
        connection=connection,
        target_metadata=metadata_of(SERVICE),
        include_schemas=True,
        include_name=including(connection),
        compare_server_default=True,
        **OPTIONS,
    )
    with context.begin_transaction():
        context.run_migrations()


async def run() -> None:
    # As the connection's own, so that RESET brings them back.
    engine = create_async_engine(async_url(URL), poolclass=pool.NullPool, connect_args={"server_settings": SETTINGS})
    try:
        async with engine.connect() as connection:
            await connection.run_sync(migrate)
    finally:
        await engine.dispose()


def show() -> None:
    """Writes the statements instead of running them."""
    context.configure(dialect_name="postgresql", literal_binds=True, **OPTIONS)
    for name, value in SETTINGS.items():
        context.static_output(f"SET {name} = '{value}';")
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    show()
else:
    asyncio.run(run())
