"""What a service knows of users and tenants: told, forgotten, and proven forgotten, as the service declares it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from kit.db import Database, ReadSession, WriteSession, in_tenant
from kit.holdings import ANONYMIZED, DELETED, DESTROYED, KEPT, SUSPENDED, Held, Holdings
from kit.ids import SYSTEM_TENANT
from kit.limiter import Limiter
from storyloom.event.v1.changes_pb2 import ChangeRecorded
from storyloom.subject.v1 import subjects_pb2
from storyloom.subject.v1.subjects_pb2 import (
    EraseUserRequest,
    ExportedRecord,
    ExportUserRequest,
    PurgeTenantRequest,
    Receipt,
    RowCount,
)

# One transaction each; the statement must end long before the database ends it.
BATCH = 500
# A call answers with what it did so far; the next one goes on.
WORKING_SECONDS = 3.0
EXPORTED_AT_ONCE = 200
# Batches of exports, however many exports there are.
EXPORTS_AT_ONCE, LONGEST_WAIT_SECONDS = 2, 10.0
LARGEST_EXACT = 2**53

# Makes what is exported of rows: of their values as JSON, in a transaction of the tenant, for this user.
Show = Callable[[ReadSession, UUID, Sequence[dict[str, Any]]], Awaitable[Sequence[dict[str, Any]]]]


@dataclass(frozen=True, slots=True)
class Step:
    """A statement that treats at most a batch of rows, and answers with how many of each table it treated."""

    tables: tuple[str, ...]
    action: str
    statement: str


@dataclass(frozen=True, slots=True)
class Job:
    """An erasure in one service. `home` is the tenant that keeps its receipt; `events` is SQL that is true of the
    events that must be delivered before it is complete."""

    tenant_id: UUID
    home: UUID
    erasure_id: UUID
    steps: Sequence[Step]
    values: tuple[Any, ...]
    events: str


class SubjectService:
    """Exports, erases and purges as the holdings say. `shown` makes readable what rows of these tables hold."""

    SERVICE = subjects_pb2.DESCRIPTOR.services_by_name["SubjectService"]

    def __init__(self, db: Database, holdings: Holdings, shown: Mapping[str, Show] | None = None) -> None:
        self._db, self.holdings, self._shown = db, holdings, shown or {}
        self.turns = Limiter(EXPORTS_AT_ONCE, LONGEST_WAIT_SECONDS)

    async def ExportUser(self, request: ExportUserRequest, context: Any) -> AsyncIterator[ExportedRecord]:
        user_id = UUID(request.user_id)
        for table, statement in _exports(self.holdings):
            after = UUID(int=0)
            while True:
                # A transaction for each batch: who reads slowly keeps no connection, and no turn. Streams have no slot
                # of the service's own limiter: however many there are, they leave the pool to others.
                tenant_id = UUID(request.tenant_id)
                async with self.turns.slot(tenant_id), self._db.read(tenant_id) as session:
                    rows = await session.fetch(statement, user_id, after)
                    records = [_values(row.shown) for row in rows]
                    if show := self._shown.get(table):
                        records = [_values(json.dumps(one)) for one in await show(session, user_id, records)]
                for record in records:
                    yield ExportedRecord(kind=table, values=ParseDict(record, Struct()))
                if len(rows) < EXPORTED_AT_ONCE:
                    break
                after = rows[-1].id

    async def EraseUser(self, request: EraseUserRequest, context: Any) -> Receipt:
        tenant_id, user_id = UUID(request.tenant_id), UUID(request.user_id)
        job = Job(
            tenant_id=tenant_id,
            home=tenant_id,
            erasure_id=UUID(request.erasure_id),
            steps=list(_erasing(self.holdings, self._db.service)),
            values=(user_id,),
            events=NAMED,
        )
        return await self._carry_out(job)

    async def PurgeTenant(self, request: PurgeTenantRequest, context: Any) -> Receipt:
        job = Job(
            tenant_id=UUID(request.tenant_id),
            home=SYSTEM_TENANT,
            erasure_id=UUID(request.erasure_id),
            steps=list(_purging(self.holdings, self._db.service)),
            values=(),
            events=OF_TENANT,
        )
        return await self._carry_out(job)

    async def is_waiting(self, tenant_id: UUID, user_id: UUID | None) -> bool:
        """Whether events that name the user, or that are the tenant's, are not delivered yet."""
        async with self._db.read(tenant_id) as session:
            if user_id is None:
                return await self._waiting(session, OF_TENANT) > 0
            return await self._waiting(session, NAMED, user_id) > 0

    async def _waiting(self, session: ReadSession, events: str, *values: Any) -> int:
        statement = f"SELECT count(*) AS count FROM {self._db.service}.outbox WHERE {events}"  # noqa: S608
        return int((await session.fetchrow(statement, *values)).count)

    async def _carry_out(self, job: Job) -> Receipt:
        clock = asyncio.get_running_loop().time
        give_up = clock() + WORKING_SECONDS
        for step in job.steps:
            more = True
            while more:
                if clock() > give_up:
                    return await self._receipt(job, cut_short=True)
                async with self._batch(job) as (session, counts):
                    found = await session.fetchrow(step.statement, *job.values)
                    _add(counts, step, found)
                more = step.action != KEPT and found[0] >= BATCH
        return await self._receipt(job, cut_short=False)

    @asynccontextmanager
    async def _batch(self, job: Job) -> AsyncIterator[tuple[WriteSession, dict[str, Any]]]:
        """A transaction in the tenant that also brings the receipt up to date. Calls for one erasure take turns."""
        schema = self._db.service
        async with self._db.write(job.home) as session:
            await session.fetch(
                f"INSERT INTO {schema}.erasure_receipts (tenant_id, id) VALUES ($1, $2) ON CONFLICT DO NOTHING",  # noqa: S608
                job.erasure_id,
            )
            row = await session.fetchrow(
                f"SELECT counts::text AS counts FROM {schema}.erasure_receipts"  # noqa: S608
                " WHERE tenant_id = $1 AND id = $2 FOR UPDATE",
                job.erasure_id,
            )
            counts = json.loads(row.counts)
            # The receipt of a purged tenant is a row of the platform's.
            async with in_tenant(session, job.tenant_id):
                yield session, counts
            await session.fetch(
                f"UPDATE {schema}.erasure_receipts SET counts = $3::text::jsonb WHERE tenant_id = $1 AND id = $2",  # noqa: S608
                job.erasure_id, json.dumps(counts),
            )  # fmt: skip

    async def _receipt(self, job: Job, *, cut_short: bool) -> Receipt:
        schema = self._db.service
        async with self._batch(job) as (session, counts):
            waiting = await self._waiting(session, job.events, *job.values)
        complete = not cut_short and not waiting
        async with self._db.write(job.home) as session:
            row = await session.fetchrow(
                f"UPDATE {schema}.erasure_receipts"  # noqa: S608
                " SET completed_at = coalesce(completed_at, CASE WHEN $3::boolean THEN now() END)"
                " WHERE tenant_id = $1 AND id = $2 RETURNING completed_at",
                job.erasure_id, complete,
            )  # fmt: skip
        return _receipt_of(schema, counts, waiting, complete, row.completed_at)


def _receipt_of(
    service: str, counts: Mapping[str, Any], waiting: int, complete: bool, completed_at: datetime | None
) -> Receipt:
    receipt = Receipt(
        service=service,
        complete=complete,
        waiting_events=waiting,
        counts=(
            RowCount(table=table, action=action, rows=rows)
            for table, actions in sorted(counts.items())
            for action, rows in sorted(actions.items())
        ),
    )
    if completed_at is not None:
        receipt.complete_time.FromDatetime(completed_at)
    return receipt


def _add(counts: dict[str, Any], step: Step, found: Sequence[int]) -> None:
    for table, rows in zip(step.tables, found, strict=True):
        if rows:
            of_table = counts.setdefault(table, {})
            # What stays is counted again each time, what goes only once.
            of_table[step.action] = rows + (0 if step.action == KEPT else of_table.get(step.action, 0))


OF_TENANT = "tenant_id = $1"
# Ids are text in the payloads of all events.
NAMED = "tenant_id = $1 AND position(convert_to($2::uuid::text, 'UTF8') in payload) > 0"
# Parked is what the consumer refused for good. Of audit entries none is dropped: they wait for whoever repairs that.
DROP_PARKED = f"""
WITH gone AS (
  DELETE FROM {{schema}}.outbox WHERE {{where}} AND parked_at IS NOT NULL
    AND payload_type <> '{ChangeRecorded.DESCRIPTOR.full_name}' RETURNING 1
) SELECT count(*) AS count FROM gone
"""  # noqa: S608
# Like every statement of an erasure it is given the user's id.
FORGET_ANSWERS = """
WITH changed AS (
  UPDATE {schema}.idempotency_keys SET response = NULL
  WHERE tenant_id = $1 AND id IN (SELECT id FROM {schema}.idempotency_keys
                                  WHERE tenant_id = $1 AND response IS NOT NULL AND $2::uuid IS NOT NULL LIMIT {batch})
  RETURNING 1
) SELECT count(*) AS count FROM changed
"""
DELETE = """
WITH gone AS (
  DELETE FROM {table} WHERE tenant_id = $1 AND id IN (SELECT id FROM {table} WHERE tenant_id = $1{and_} LIMIT {batch})
  RETURNING 1
) SELECT count(*) AS count FROM gone
"""
UPDATE = """
WITH changed AS (
  UPDATE {table} SET {values}
  WHERE tenant_id = $1 AND id IN (SELECT id FROM {table} WHERE tenant_id = $1 AND {condition} LIMIT {batch}) RETURNING 1
) SELECT count(*) AS count FROM changed
"""
COUNT = "SELECT count(*) AS count FROM {table} WHERE tenant_id = $1{and_}"
# Foreign keys are looked at when the whole statement has run: rows that refer to each other must go in one.
DELETE_BOTH = """
WITH batch AS (SELECT id FROM {table} WHERE tenant_id = $1 LIMIT {batch}), parts AS (
  DELETE FROM {other} WHERE tenant_id = $1 AND {column} IN (SELECT id FROM batch) RETURNING 1
), gone AS (
  DELETE FROM {table} WHERE tenant_id = $1 AND id IN (SELECT id FROM batch) RETURNING 1
) SELECT (SELECT count(*) FROM gone) AS count, (SELECT count(*) FROM parts) AS parts
"""
EXPORT = """
SELECT id, to_jsonb(shown)::text AS shown FROM (
  SELECT {columns} FROM {table} WHERE tenant_id = $1 AND ({condition}) AND id > $3 ORDER BY id LIMIT {batch}
) AS shown
"""


def _erasing(holdings: Holdings, schema: str) -> Iterator[Step]:
    """The user's rows, parts before what they are part of; then what the kit keeps."""
    order = {table: place for place, table in enumerate(holdings.tables)}
    for held in sorted(holdings.held, key=lambda one: order[one.table]):
        if held.fate.action != KEPT:
            yield Step((held.table.name,), held.fate.action, _erase(held))
    # A row that names the user twice is counted once.
    for table in dict.fromkeys(held.table for held in holdings.held if held.fate.action == KEPT):
        of_table = (one.condition for one in holdings.held if one.table is table and one.fate.action == KEPT)
        yield Step((table.name,), KEPT, COUNT.format(table=table, and_=f" AND ({' OR '.join(of_table)})"))
    # Answers are sealed, so nobody knows which of them tell of the user: all of them go. The keys stay for their day,
    # so that no call takes effect twice.
    yield Step(("idempotency_keys",), ANONYMIZED, FORGET_ANSWERS.format(schema=schema, batch=BATCH))
    yield Step(("outbox",), DELETED, DROP_PARKED.format(schema=schema, where=NAMED))


def _erase(held: Held) -> str:
    if held.fate.action == DELETED:
        return DELETE.format(table=held.table, and_=f" AND {held.condition}", batch=BATCH)
    pending = f" AND {held.fate.pending}" if held.fate.pending else ""
    return _update(held, held.condition + pending)


def _update(held: Held, condition: str) -> str:
    values = dict(held.fate.values)
    if "revision" in held.table.columns:
        values["revision"] = "revision + 1"
    assigned = ", ".join(f"{column} = {value}" for column, value in values.items())
    return UPDATE.format(table=held.table, values=assigned, condition=condition, batch=BATCH)


def _purging(holdings: Holdings, schema: str) -> Iterator[Step]:
    """All tables of the tenant, those that refer to others before them."""
    together = {other.__table__: None for other, _ in holdings.inseparable.values()}
    pairs = {model.__table__: pair for model, pair in holdings.inseparable.items()}
    emptied = [held for held in holdings.held if held.fate.action in {DESTROYED, SUSPENDED}]
    for table in holdings.tables:
        if steps := [held for held in emptied if held.table is table]:
            for held in steps:
                yield Step((table.name,), held.fate.action, _update(held, held.fate.pending))
        elif table.name in holdings.immortal:
            yield Step((table.name,), KEPT, COUNT.format(table=table, and_=""))
        elif table in pairs:
            other, column = pairs[table]
            statement = DELETE_BOTH.format(table=table, other=other.__table__, column=column, batch=BATCH)
            yield Step((table.name, other.__table__.name), DELETED, statement)
        elif table not in together:
            yield Step((table.name,), DELETED, DELETE.format(table=table, and_="", batch=BATCH))
    yield Step(("outbox",), DELETED, DROP_PARKED.format(schema=schema, where=OF_TENANT))


def _exports(holdings: Holdings) -> Iterator[tuple[str, str]]:
    """The statement of each table; a row that names the user twice is told once."""
    tables = dict.fromkeys(held.table for held in holdings.held)
    for table in tables:
        of_table = [held for held in holdings.held if held.table is table]
        omitted = {name for held in of_table for name in held.omit}
        columns = ", ".join(f'"{column.name}"' for column in table.columns if column.name not in omitted)
        condition = " OR ".join(held.condition for held in of_table)
        statement = EXPORT.format(table=table, columns=columns, condition=condition, batch=EXPORTED_AT_ONCE)
        yield table.name, statement


def _values(text: str) -> dict[str, Any]:
    # A Struct has doubles only: what they cannot say exactly is text.
    found: dict[str, Any] = json.loads(
        text, parse_int=lambda digits: digits if abs(int(digits)) > LARGEST_EXACT else int(digits)
    )
    return found
