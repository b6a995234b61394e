"""Statements that spread the database over a Citus cluster: `python -m deploy.citus schema|tenant > ddl.sql`."""

import argparse
import sys
from collections.abc import Iterator

from sqlalchemy import ForeignKeyConstraint, Table
from sqlalchemy.schema import AddConstraint, DropConstraint

from kit.db import DIALECT
from kit.migrations import DATABASE_NAME, metadata_of
from kit.settings import SERVICES

KEY = "tenant_id"
# Where all shards of one tenant are: with its own row.
HOME = "identity.tenants"
# What Citus needs to know in every session. The policies read the tenant on the worker, so it has to get there.
SETTINGS = {"citus.propagate_set_commands": "local", "citus.enable_unsafe_triggers": "on"}
# Citus runs a trigger on the worker that has the row: for one statement it would run once for each shard, and other
# tables it would not find there. What these do has to move into the services' own statements before.
TRIGGERS_IN_THE_WAY = {
    "content": ("keep_document", "drop_document", "unchanging"),
    "learning": ("sum_*", "note_*"),
    "audit": ("append_only_truncate",),
}


def tables(service: str) -> list[Table]:
    """The service's tables, each behind those that its foreign keys lead to, as far as they do not go in circles."""
    return list(metadata_of(service).sorted_tables)


def is_distributed(table: Table) -> bool:
    """Whether its rows can go where their tenant is: a key without the tenant has to be unique in one place."""
    return KEY in table.primary_key.columns


def circular(found: list[Table]) -> Iterator[ForeignKeyConstraint]:
    """Foreign keys to tables that come later."""
    places = {table.fullname: place for place, table in enumerate(found)}
    for table in found:
        for key in sorted(table.foreign_key_constraints, key=lambda key: str(key.name)):
            if places[key.referred_table.fullname] > places[table.fullname]:
                yield key


def by_schema() -> Iterator[str]:
    """Each service's schema as a whole on one node: its own database, but for the name."""
    yield from _head()
    for service in SERVICES:
        yield from _warning(service)
        yield f"SELECT citus_schema_distribute('{service}');"


def by_tenant() -> Iterator[str]:
    """All rows of a tenant on one node, and each query of a tenant there too; what has no tenant on the coordinator."""
    yield from _head()
    for service in (HOME.partition(".")[0], *SERVICES[1:]):
        yield from _warning(service)
        found = tables(service)
        found.sort(key=lambda table: table.fullname != HOME)
        back = list(circular(found))
        yield from (f"{_sql(DropConstraint(key))};" for key in back)
        for table in found:
            if not is_distributed(table):
                yield f"-- {table.fullname} stays on the coordinator."
                continue
            beside = "none" if table.fullname == HOME else HOME
            yield f"SELECT create_distributed_table('{table.fullname}', '{KEY}', colocate_with => '{beside}');"
        yield from (f"{_sql(AddConstraint(key))};" for key in back)


def _head() -> Iterator[str]:
    yield "-- On the coordinator, as superuser, in the migrated database, with its workers known and nobody there."
    yield "CREATE EXTENSION IF NOT EXISTS citus;"
    for name, value in SETTINGS.items():
        yield f"ALTER DATABASE {DATABASE_NAME} SET {name} = '{value}';"
        yield f"SET {name} = '{value}';"


def _warning(service: str) -> Iterator[str]:
    if names := TRIGGERS_IN_THE_WAY.get(service):
        yield f"-- {service}: replace these triggers first: {', '.join(names)}."


def _sql(change: DropConstraint | AddConstraint) -> str:
    return " ".join(str(change.compile(dialect=DIALECT)).split())


WAYS = {"schema": by_schema, "tenant": by_tenant}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.citus", description=__doc__)
    parser.add_argument("way", choices=WAYS, help="what stays together: a service's schema, or a tenant's rows")
    for line in WAYS[parser.parse_args().way]():
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
