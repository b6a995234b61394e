"""The log as a file: JSON lines with what proofs need, or CSV for spreadsheets; made as fast as it is read."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.json_format import MessageToDict
from sqlalchemy import Select
from sqlalchemy.sql.elements import True_

from kit.access import visible
from kit.auth import renew
from kit.db import Database, ReadSession, WriteSession
from kit.ids import NIL
from kit.sheets import record
from services.audit import merkle, models, sealing
from services.audit.queries import checkpoints, streams, trees
from services.audit.recording import Seals
from services.audit.showing import shown
from services.audit.signing import Signer
from storyloom.audit.v1.audit_logs_pb2 import (
    AuditLog,
    AuditLogFormat,
    ExportAuditLogsRequest,
    ExportAuditLogsResponse,
    ExportProgress,
)

JSON_TYPE, CSV_TYPE = "application/jsonl", "text/csv; charset=utf-8; header=present"
FILTERS = ("entity_type", "entity_id", "user_id", "action", "request_id", "trace_id")
TIMES = ("start_time", "end_time")
# Far below what a gRPC client takes.
LARGEST_CHUNK = 1 << 20
# Whoever exports leaves most connections to others.
READERS = 2
COLUMNS = (
    *("id", "occur_time", "action", "entity_type", "entity_id", "user_id", "acting_tenant_id", "service"),
    *("request_id", "trace_id", "rpc", "client_address", "old_values", "new_values", "record_time"),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What an export will have: fixed before it begins. `total` is an estimate where counting takes too long.

    `proven` is the size of the tree that each entry is proven to be in; 0 where all of them together prove it, and
    where nothing does.
    """

    tenant_id: UUID
    as_csv: bool
    statement: Select[Any]
    header: dict[str, Any]
    proven: int
    total: int


@dataclass(slots=True)
class _Progress:
    plan: Plan
    rows: int = 0
    chunks: int = 0

    def chunk(self, data: bytes, *, complete: bool = False) -> ExportAuditLogsResponse:
        told = ExportProgress(chunk=self.chunks, rows=self.rows, total_rows=self.plan.total, complete=complete)
        self.chunks += 1
        body = HttpBody(content_type=CSV_TYPE if self.plan.as_csv else JSON_TYPE, data=data)
        return ExportAuditLogsResponse(body=body, progress=told)


class Exports:
    """Makes files of the log; a few of them read at once, for as long as a batch takes."""

    def __init__(self, db: Database, seals: Seals, signer: Signer) -> None:
        self._db, self._seals, self._signer = db, seals, signer
        self._turns = asyncio.Semaphore(READERS)

    async def plan(self, session: WriteSession, request: ExportAuditLogsRequest) -> Plan:
        """Counts, for at most two seconds."""
        tenant_id, filters = session.tenant_id, _filters(request)
        as_csv = request.format == AuditLogFormat.AUDIT_LOG_FORMAT_CSV
        size, latest = await streams.get_size(session), await checkpoints.find_checkpoint(session)
        partial = bool(filters) or any(map(request.HasField, TIMES))
        # Each entry of a part brings its own proof, and so must be in the tree of the checkpoint.
        proven = latest.tree_size if latest and partial and not as_csv else 0
        size = proven or size
        if partial or as_csv:
            statement = streams.chosen(tenant_id, request, size)
        else:
            statement = streams.everything(tenant_id, size)
        header = {
            "tenant_id": str(tenant_id),
            "tree_size": size,
            **self._signed(tenant_id, latest.signed_text if latest else ""),
            **_range(request),
            "filters": filters,
        }
        return Plan(tenant_id, as_csv, statement, header, proven, await streams.count_rows(session, statement))

    def _signed(self, tenant_id: UUID, checkpoint: str) -> dict[str, str | None]:
        key = _key_of(checkpoint, self._signer.verifier_keys(tenant_id))
        return {"checkpoint": checkpoint or None, "public_key": key}

    async def write(self, plan: Plan) -> AsyncGenerator[ExportAuditLogsResponse, None]:
        """The file. Each batch is a transaction of its own: who reads slowly keeps no connection, and no snapshot."""
        progress, after = _Progress(plan), NIL
        yield progress.chunk(_first_line(plan))
        while True:
            await renew()
            async with self._turns, self._db.read(plan.tenant_id) as session:
                rows = await streams.list_rows(session, plan.statement, after)
                entries = await shown(self._seals, session, (row for row in rows if row.leaf is not None))
                proofs = await _proofs(session, plan, rows)
            if not rows:
                break
            after = rows[-1].id
            for data, count in _chunks(_lines(plan, rows, entries, proofs)):
                progress.rows += count
                yield progress.chunk(data)
        yield progress.chunk(_last_line(plan, progress.rows), complete=True)


def _filters(request: ExportAuditLogsRequest) -> dict[str, Any]:
    """What keeps entries out of the file; rights that are not for all of them do as well."""
    filters = {name: getattr(request, name) for name in FILTERS if getattr(request, name)}
    return filters if isinstance(visible("export", models.AuditLog), True_) else {**filters, "rights": "some"}


def _range(request: ExportAuditLogsRequest) -> dict[str, str | None]:
    start, end = (getattr(request, one).ToJsonString() if request.HasField(one) else None for one in TIMES)
    return {"from": start, "to": end}


async def _proofs(session: ReadSession, plan: Plan, rows: Sequence[Any]) -> dict[int, list[str]]:
    """Of each row's place in the tree of the checkpoint; nothing where the tree itself is damaged."""
    paths = {row.leaf_index: merkle.inclusion_path(row.leaf_index, plan.proven) for row in rows if plan.proven}
    try:
        hashes = await trees.list_hashes(session, {node for path in paths.values() for node in merkle.nodes_of(path)})
    except KeyError:
        return {}
    return {index: [_base64(one) for one in merkle.proof(path, hashes)] for index, path in paths.items()}


def _first_line(plan: Plan) -> bytes:
    return record(COLUMNS) if plan.as_csv else _json({"export": plan.header})


def _last_line(plan: Plan, rows: int) -> bytes:
    empty = [""] * (len(COLUMNS) - 2)
    return record(["end", str(rows), *empty]) if plan.as_csv else _json({"end": {"rows": rows}})


def _lines(
    plan: Plan, rows: Sequence[Any], entries: Iterable[AuditLog], proofs: Mapping[int, list[str]]
) -> Iterator[bytes]:
    """The lines of the rows; `entries` are those that are still in the log, in the same order."""
    left = iter(entries)
    for row in rows:
        entry = None if row.leaf is None else MessageToDict(next(left))
        if plan.as_csv and entry is not None:
            yield record(_cells(entry))
            continue
        line = {"index": row.leaf_index, "hash": _base64(row.hash)}
        if entry is None:
            # Dropped with its month: its hash is what others are proven with.
            yield _json({**line, "id": str(row.id)})
            continue
        proof = {"proof": proofs[row.leaf_index]} if row.leaf_index in proofs else {}
        yield _json({**line, "leaf": _base64(row.leaf), "entry": entry, **proof})


def _cells(entry: dict[str, Any]) -> Iterator[str]:
    for name in COLUMNS:
        first, *others = name.split("_")
        value = entry.get(first + "".join(map(str.title, others)), "")
        yield value if isinstance(value, str) else sealing.canonical(value).decode()


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _chunks(lines: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    """Pieces of a size that messages may have, each with the number of lines that end in it."""
    gathered, count = bytearray(), 0
    for line in lines:
        gathered += line
        count += 1
        while len(gathered) >= LARGEST_CHUNK:
            whole = len(gathered) == LARGEST_CHUNK
            yield bytes(gathered[:LARGEST_CHUNK]), count if whole else count - 1
            del gathered[:LARGEST_CHUNK]
            count = 0 if whole else 1
    if gathered:
        yield bytes(gathered), count


def _key_of(checkpoint: str, keys: Sequence[str]) -> str:
    """The key that signed it; without a checkpoint, the one that will."""
    mark = base64.b64decode(checkpoint.rsplit(maxsplit=1)[-1])[:4].hex() if checkpoint else ""
    return next((key for key in keys if mark and key.split("+")[1] == mark), keys[0])


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()
