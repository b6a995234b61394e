"""Roles, schemas and migrations: `python -m kit.migrations upgrade|downgrade|revision`, and what migrations share."""

import argparse
import asyncio
import io
import logging
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from alembic import command, op
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import MetaData, pool
from sqlalchemy.ext.asyncio import create_async_engine

from kit.altering import IN_USE, LIMITS, MigrationError, tried
from kit.connecting import connected, limits_of_role
from kit.settings import SERVICES

DATABASE_NAME = "storyloom"
# Migrates, and owns all tables; makes backups, and may only read; receives the write-ahead log, and may read no table.
OWNER, BACKUP, REPLICATION = "storyloom_owner", "storyloom_backup", "storyloom_replication"
# Tables without a tenant's data, which therefore carry no policy.
INFRASTRUCTURE = frozenset({"outbox", "inbox", "alembic_version"})
ROOT = Path(__file__).parent.parent
# What searches need: indexes by trigrams, and indexes of texts that lead with the tenant.
EXTENSIONS = ("btree_gin", "pg_trgm")


def role_of(service: str) -> str:
    """The database role that a service signs in as."""
    return f"storyloom_{service}"


ROLES = (OWNER, BACKUP, REPLICATION, *(role_of(service) for service in SERVICES))


async def bootstrap(admin_url: str, passwords: dict[str, str]) -> None:
    """Makes the database, its roles and each service's schema; changes nothing that is right.

    `passwords` are by role name. `admin_url` is of a role that may create roles and databases.
    """
    async with connected(admin_url) as admin:
        await make_roles(admin, passwords)
        if not await admin.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE_NAME):
            await admin.execute(f"CREATE DATABASE {DATABASE_NAME} OWNER {OWNER}")
    async with connected(in_database(admin_url, DATABASE_NAME)) as database:
        await prepare_schemas(database)


async def make_roles(admin: Any, passwords: dict[str, str]) -> None:
    """Makes the roles, or gives those that are there these passwords, by role name."""
    for role in ROLES:
        await _ensure_role(admin, role, passwords[role])
    await admin.execute(f"GRANT pg_read_all_data TO {BACKUP}")
    await admin.execute(f"ALTER ROLE {BACKUP} SET default_transaction_read_only = on")
    # The administrator of a managed server may not give this right: there the provider keeps the log.
    if await admin.fetchval("SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user"):
        await admin.execute(f"ALTER ROLE {REPLICATION} REPLICATION")
    for service in SERVICES:
        await admin.execute(limits_of_role(role_of(service)))


async def prepare_schemas(database: Any) -> None:
    """Makes the schemas in the connected database, owned by the owner, usable by their services alone."""
    await database.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    for service in SERVICES:
        role = role_of(service)
        await database.execute(f"CREATE SCHEMA IF NOT EXISTS {service} AUTHORIZATION {OWNER}")
        await database.execute(f"GRANT USAGE ON SCHEMA {service} TO {role}")
    # In a schema of their own, which nobody but the administrator adds anything to.
    await database.execute(f"CREATE SCHEMA IF NOT EXISTS extensions; GRANT USAGE ON SCHEMA extensions TO {OWNER}")
    await database.execute(f"GRANT USAGE ON SCHEMA extensions TO {role_of('content')}")
    for extension in EXTENSIONS:
        await database.execute(f"CREATE EXTENSION IF NOT EXISTS {extension} SCHEMA extensions")


async def _ensure_role(admin: Any, role: str, password: str) -> None:
    exists = await admin.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role)
    quoted = await admin.fetchval("SELECT quote_literal($1::text)", password)
    verb = "ALTER" if exists else "CREATE"
    # These two see data of all tenants, so policies must not hide rows from them; services never get this.
    bypass = "BYPASSRLS" if role in {OWNER, BACKUP} else "NOBYPASSRLS"
    await admin.execute(f"{verb} ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE {bypass} PASSWORD {quoted}")


async def revisions(database: Any) -> dict[str, str]:
    """The newest migration of each schema."""
    return {one: await database.fetchval(f"SELECT version_num FROM {one}.alembic_version") for one in SERVICES}  # noqa: S608


def in_database(url: str, database: str, *, user: str = "", password: str = "") -> str:
    """The URL with another database, and perhaps another user."""
    parts = urlsplit(url)
    netloc = parts.netloc
    if user:
        host = netloc.rpartition("@")[2]
        netloc = f"{quote(user, safe='')}:{quote(password, safe='')}@{host}"
    return urlunsplit(parts._replace(netloc=netloc, path=f"/{database}"))


def protection(schema: str, table: str) -> tuple[str, ...]:
    """The statements that bind a tenant table to the tenant of the transaction, for its owner too. The policy raises
    when no tenant is set."""
    mine = "tenant_id = current_setting('app.tenant_id')::uuid"
    return (
        f"ALTER TABLE {schema}.{table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {schema}.{table} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY tenant ON {schema}.{table} FOR ALL USING ({mine}) WITH CHECK ({mine})",
    )


def protect(schema: str, *tables: str) -> None:
    """Row-level security for tenant tables, and the service's rights on them."""
    for table in tables:
        for statement in protection(schema, table):
            op.execute(statement)
    grant(schema, *tables)


# The tables that the kit needs in each schema, as the first migrations make them. What changes here later is a
# migration of each service: this text stays as it is.
INFRASTRUCTURE_SQL = """
CREATE TABLE {schema}.outbox (
  seq bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_outbox PRIMARY KEY,
  event_id uuid NOT NULL,
  tenant_id uuid NOT NULL,
  consumer text NOT NULL,
  aggregate_type text NOT NULL,
  aggregate_id uuid NOT NULL,
  payload_type text NOT NULL,
  payload bytea NOT NULL,
  traceparent text NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL DEFAULT now(),
  attempts integer NOT NULL DEFAULT 0,
  due_at timestamptz NOT NULL DEFAULT now(),
  parked_at timestamptz
);
CREATE INDEX ix_outbox_consumer_aggregate_id_seq ON {schema}.outbox (consumer, aggregate_id, seq);
CREATE INDEX ix_outbox_consumer_due_at ON {schema}.outbox (consumer, due_at);
CREATE TABLE {schema}.inbox (
  event_id uuid CONSTRAINT pk_inbox PRIMARY KEY,
  handled_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ix_inbox_handled_at ON {schema}.inbox (handled_at);
CREATE TABLE {schema}.idempotency_keys (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  request_hash bytea NOT NULL,
  response bytea,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT pk_idempotency_keys PRIMARY KEY (tenant_id, id)
);
CREATE INDEX ix_idempotency_keys_tenant_id_created_at ON {schema}.idempotency_keys (tenant_id, created_at);
"""


def create_infrastructure(schema: str) -> None:
    """Outbox, inbox and idempotency keys, with the service's rights on them."""
    for statement in INFRASTRUCTURE_SQL.format(schema=schema).split(";"):
        if statement.strip():
            op.execute(statement)
    protect(schema, "idempotency_keys")
    grant(schema, "outbox", "inbox")


def drop_infrastructure(schema: str) -> None:
    """Undoes `create_infrastructure`."""
    for table in ("idempotency_keys", "inbox", "outbox"):
        op.drop_table(table, schema=schema)


def create_erasure_receipts(schema: str) -> None:
    """What the service did for each erasure, as the migrations after the first make it; the text stays as it is."""
    op.execute(
        f"CREATE TABLE {schema}.erasure_receipts (tenant_id uuid NOT NULL, id uuid NOT NULL,"
        " counts jsonb NOT NULL DEFAULT '{}', created_at timestamptz NOT NULL DEFAULT now(), completed_at timestamptz,"
        " CONSTRAINT pk_erasure_receipts PRIMARY KEY (tenant_id, id))"
    )
    protect(schema, "erasure_receipts")


def create_jobs(schema: str, *tables: str) -> None:
    """How far the service's jobs are, as the migration that a service makes for them has it; the text stays as it is.

    Jobs go from tenant to tenant: the function says which is the next one with rows in any of the tables, because the
    service itself sees one tenant at a time.
    """
    op.execute(
        f"CREATE TABLE {schema}.jobs (name text CONSTRAINT pk_jobs PRIMARY KEY, state text NOT NULL,"
        " tenant_id uuid NOT NULL, position uuid NOT NULL, done bigint NOT NULL, total bigint NOT NULL,"
        " started_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(),"
        " CONSTRAINT ck_jobs_state CHECK (state IN ('running', 'pausing', 'paused', 'failed', 'done')))"
    )
    grant(schema, "jobs")
    nexts = ", ".join(
        f"(SELECT tenant_id FROM {schema}.{table} WHERE tenant_id > after ORDER BY tenant_id LIMIT 1)"  # noqa: S608
        for table in tables
    )
    op.execute(
        f"CREATE FUNCTION {schema}.next_tenant(after uuid) RETURNS uuid LANGUAGE sql STABLE STRICT SECURITY DEFINER"
        f" SET search_path = pg_catalog, pg_temp RETURN LEAST({nexts})"
    )
    op.execute(f"REVOKE ALL ON FUNCTION {schema}.next_tenant(uuid) FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION {schema}.next_tenant(uuid) TO {role_of(schema)}")


def drop_jobs(schema: str) -> None:
    """Undoes `create_jobs`."""
    op.execute(f"DROP FUNCTION {schema}.next_tenant(uuid)")
    op.drop_table("jobs", schema=schema)


def grant(schema: str, *tables: str, rights: str = "SELECT, INSERT, UPDATE, DELETE") -> None:
    """The service's rights on tables; for infrastructure this is all, since it carries no policy."""
    for table in tables:
        op.execute(f"GRANT {rights} ON {schema}.{table} TO {role_of(schema)}")


def config(service: str, url: str, *, also: Path | None = None) -> Config:
    """Alembic's configuration for one service's history, and that of another folder which goes on from it."""
    made = Config()
    folders = [ROOT / "services" / service / "migrations", *([also] if also else [])]
    made.set_main_option("script_location", str(ROOT / "kit" / "alembic"))
    made.set_main_option("version_locations", os.pathsep.join(map(str, folders)))
    made.set_main_option("path_separator", "os")
    made.set_main_option("file_template", "%%(year)d_%%(month).2d_%%(day).2d_%%(hour).2d%%(minute).2d_%%(slug)s")
    made.attributes["service"], made.attributes["url"] = service, url
    return made


def metadata_of(service: str) -> MetaData:
    """The tables that the service's models declare."""
    found: MetaData = import_module(f"services.{service}.models").Base.metadata
    return found


def upgrade(service: str, url: str, revision: str = "head", *, also: Path | None = None) -> None:
    """Brings one service's schema to the revision."""
    _migrate(command.upgrade, service, url, revision, also)


def downgrade(service: str, url: str, revision: str, *, also: Path | None = None) -> None:
    """Takes one service's schema back to the revision."""
    _migrate(command.downgrade, service, url, revision, also)


def _migrate(
    act: Callable[[Config, str], None], service: str, url: str, revision: str, also: Path | None
) -> None:
    def migrate() -> None:
        made = config(service, url, also=also)
        in_use = IN_USE if asyncio.run(current(service, url)) else {}
        made.attributes["limits"] = LIMITS | in_use | {"application_name": "storyloom-migrations"}
        act(made, revision)

    tried(service, migrate)


class Executed(io.StringIO):
    """Keeps apart what Alembic writes at once: what would be executed at once."""

    def __init__(self) -> None:
        super().__init__()
        self.each: list[str] = []

    def write(self, text: str) -> int:
        self.each.append(text)
        return super().write(text)


def statements(service: str, revisions: str, *, down: bool = False, also: Path | None = None) -> list[str]:
    """The SQL of the migrations from one revision to another, as `base:202611220900`: whatever is executed at once."""
    made = config(service, "", also=also)
    made.output_buffer = executed = Executed()
    made.attributes["limits"] = LIMITS | IN_USE
    (command.downgrade if down else command.upgrade)(made, revisions, sql=True)
    return executed.each


async def current(service: str, url: str) -> tuple[str, ...]:
    """The revision that the service's schema is at; none before its first migration."""
    engine = create_async_engine(async_url(url), poolclass=pool.NullPool)
    async with engine.connect() as connection:
        found = await connection.run_sync(
            lambda sync: MigrationContext.configure(sync, opts={"version_table_schema": service}).get_current_heads()
        )
    await engine.dispose()
    return found


def async_url(url: str) -> str:
    """The URL as SQLAlchemy's engine for asyncpg takes it."""
    return url.replace("postgresql://", "postgresql+asyncpg://", 1)


def main() -> int:
    parser = argparse.ArgumentParser(description="Migrates the schemas of the services; the URL is OWNER_DATABASE_URL.")
    commands = parser.add_subparsers(dest="command", required=True)
    forward = commands.add_parser("upgrade", help="bring all services, or those named, to the newest")
    forward.add_argument("services", nargs="*", default=SERVICES)
    back = commands.add_parser("downgrade", help="take one service's schema back")
    back.add_argument("service", choices=SERVICES)
    back.add_argument("revision", help="the newest that stays; -1 takes the last one back, base all of them")
    revision = commands.add_parser("revision")
    revision.add_argument("service", choices=SERVICES)
    revision.add_argument("name", help="what it does, verb first: create_stories")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    if not (url := os.environ.get("OWNER_DATABASE_URL", "")):
        parser.error("OWNER_DATABASE_URL is not set")
    if arguments.command == "revision":
        made = config(arguments.service, url)
        identity = datetime.now(UTC).strftime("%Y%m%d%H%M")
        command.revision(made, arguments.name, autogenerate=True, rev_id=identity)
        return 0
    down = arguments.command == "downgrade"
    try:
        for service in [arguments.service] if down else arguments.services or SERVICES:
            if down:
                downgrade(service, url, arguments.revision)
            else:
                upgrade(service, url)
            sys.stdout.write(f"{service} is at {', '.join(asyncio.run(current(service, url))) or 'nothing'}\n")
    except MigrationError as error:
        sys.stderr.write(f"migrations: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
