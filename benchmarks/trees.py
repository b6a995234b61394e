"""`python -m benchmarks.trees`: what the audit log's trees cost at a thousand entries and at a million, and how fast an
export is verified; on a PostgreSQL of its own, made for it and thrown away."""

import asyncio
import base64
import json
import os
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import asyncpg

from benchmarks.cpu import processor_times
from benchmarks.report import table, verdict
from deploy.local.postgres import Postgres
from deploy.local.processes import Child
from deploy.local.settings import read_settings
from kit import migrations
from kit.db import Database
from kit.ids import new_id
from kit.settings import Settings
from kit.telemetry import Telemetry
from services.audit import merkle
from services.audit.publishing import Publisher
from services.audit.queries import trees as queries
from services.audit.signing import Head, Signer
from services.audit.trees import Trees
from tools.verify_audit import Keys, Verifier

SMALL, LARGE = 1_000, 1_000_000
RATIO_LIMIT, VERIFY_LIMIT = 1.3, 20_000.0
ROUNDS, BATCH, PROOFS, LINES = 40, 50, 25, 20_000
MINUTE = 60.0
SIGNER = Signer(os.urandom(32))
# Hashes that are those of no entries: what reading and writing them costs does not depend on what they are.
LEAVES = """
INSERT INTO audit.tree_leaves SELECT $1, uuidv7(), place, sha256(int8send(place)) FROM generate_series(0, $2 - 1) place
"""
NODES = """
INSERT INTO audit.tree_nodes
SELECT $1, (lpad(to_hex(level), 16, '0') || lpad(to_hex(place), 16, '0'))::uuid, sha256(int8send(place))
FROM generate_series(1, 62) level, generate_series(0, ($2::bigint >> level) - 1) place
"""
TREE = "INSERT INTO audit.trees (tenant_id, size, signed_size) VALUES ($1, $2, $2)"
ENTRIES = """
WITH made AS (
  INSERT INTO audit.audit_logs (tenant_id, id, action, entity_type, entity_id, service, request_id, trace_id, rpc,
    occurred_at, leaf)
  SELECT $1, uuidv7(), 'update', 'story', uuidv7(), '', '', '', '', now(), convert_to(repeat(md5(n::text), 20), 'UTF8')
  FROM generate_series(1, $2) n RETURNING id
) INSERT INTO audit.tree_queue (tenant_id, id) SELECT $1, id FROM made
"""


@dataclass(frozen=True, slots=True)
class Server:
    """The database, and what runs in it."""

    pid: int
    superuser: asyncpg.Connection
    db: Database

    def used(self) -> float:
        """Microseconds of processor time, here and in the database."""
        return (time.process_time() + processor_times({"postgres": self.pid})["postgres"]) * 1e6

    async def load(self, size: int) -> UUID:
        """A tenant with a tree of that size."""
        tenant_id = new_id()
        for statement in (LEAVES, NODES, TREE):
            await self.superuser.execute(statement, tenant_id, size)
        return tenant_id


@asynccontextmanager
async def own_server(service: str = "audit") -> AsyncIterator[Server]:
    """A database with the tables of one service, and what the service needs to use it."""
    with tempfile.TemporaryDirectory(prefix="sl-") as folder:
        settings = read_settings({}, root=Path(folder))
        settings.logs.mkdir(parents=True)
        postgres = Postgres(settings, say=lambda _: None)
        await postgres.prepare()
        child = Child(postgres.program(), say=lambda _: None)
        await child.start()
        pid = int((settings.directory / "postgres" / "postmaster.pid").read_text().split()[0])
        try:
            server = await _migrated(postgres.admin_url, pid, service)
            yield server
            await server.superuser.close()
            await server.db.close()
        finally:
            await child.stop(grace=5)
            shutil.rmtree(postgres.sockets)


async def _migrated(admin_url: str, pid: int, service: str) -> Server:
    passwords = {role: secrets.token_hex(16) for role in migrations.ROLES}
    await migrations.bootstrap(admin_url, passwords)

    def url(role: str) -> str:
        return migrations.in_database(admin_url, "storyloom", user=role, password=passwords[role])

    await asyncio.to_thread(migrations.upgrade, service, url(migrations.OWNER))
    superuser = await asyncpg.connect(migrations.in_database(admin_url, "storyloom"))
    role = url(migrations.role_of(service))
    settings = Settings(service=service, database_url=role, secret_key="", service_credential="", service_keys="")
    return Server(pid, superuser, Database(role, service=service, pool_size=2, telemetry=Telemetry(settings)))


async def main() -> int:
    async with own_server() as server:
        await server.superuser.execute("ALTER SYSTEM SET autovacuum = off")
        print(f"Loading {LARGE:,} entries", flush=True)
        large = await server.load(LARGE)
        small = [await server.load(SMALL) for _ in range(ROUNDS)]
        await server.superuser.execute("VACUUM ANALYZE")
        await server.superuser.execute("CHECKPOINT")
        rows = [
            await compared(server, f"append {BATCH}, each entry", small, large, append, BATCH),
            await compared(server, "the same and a checkpoint", small, large, append_and_sign, BATCH),
            await compared(server, "inclusion proof", small, large, prove_inclusion, PROOFS),
            await compared(server, "consistency proof", small, large, prove_consistency, PROOFS),
        ]
    head = ("CPU µs, service and PostgreSQL", f"at {SMALL:,}", f"at {LARGE:,}", "ratio", "limit", "verdict")
    print("\n".join(table([head, *rows])))
    speed = max(verify_speed() for _ in range(3))
    print(f"verify: {speed:,.0f} entries a second of processor time; {verdict(VERIFY_LIMIT, speed)}")
    return 0


Work = Callable[[Server, UUID, int], Awaitable[None]]


async def compared(server: Server, name: str, small: list[UUID], large: UUID, work: Work, each: int) -> tuple[str, ...]:
    """The work on each of the small trees, and as often on the large one, by turns: a neighbour slows both alike."""
    spent = [0.0, 0.0]
    for tenant_id in small:
        for place, (one, size) in enumerate(((tenant_id, SMALL), (large, LARGE))):
            if work in {append, append_and_sign}:
                await server.superuser.execute(ENTRIES, one, BATCH)
            before = server.used()
            await work(server, one, size)
            spent[place] += server.used() - before
    at_small, at_large = (one / len(small) / each for one in spent)
    ratio = at_large / at_small
    return name, f"{at_small:.0f}", f"{at_large:.0f}", f"{ratio:.2f}", f"{RATIO_LIMIT}", verdict(ratio, RATIO_LIMIT)


async def append(server: Server, tenant_id: UUID, size: int) -> None:
    await Trees(server.db, SIGNER, Publisher(""), seconds=MINUTE).grow(tenant_id)


async def append_and_sign(server: Server, tenant_id: UUID, size: int) -> None:
    await Trees(server.db, SIGNER, Publisher(""), seconds=0).grow(tenant_id)


async def prove_inclusion(server: Server, tenant_id: UUID, size: int) -> None:
    await _prove(server, tenant_id, [merkle.inclusion_path(random.randrange(size), size) for _ in range(PROOFS)])


async def prove_consistency(server: Server, tenant_id: UUID, size: int) -> None:
    await _prove(server, tenant_id, [merkle.consistency_path(random.randrange(size), size) for _ in range(PROOFS)])


async def _prove(server: Server, tenant_id: UUID, paths: list[list[tuple[int, int]]]) -> None:
    for path in paths:
        async with server.db.read(tenant_id) as session:
            merkle.proof(path, await queries.list_hashes(session, merkle.nodes_of(path)))


def verify_speed() -> float:
    tenant_id, signer = new_id(), Signer(os.urandom(32))
    leaves = [_leaf(tenant_id, number) for number in range(LINES)]
    hashes = [merkle.leaf_hash(json.dumps(one).encode()) for one in leaves]
    nodes = {(0, place): one for place, one in enumerate(hashes)} | dict(merkle.grow(0, [], hashes))
    checkpoint = signer.sign(Head(tenant_id, LINES, merkle.root(LINES, nodes)))
    header = {"tenant_id": str(tenant_id), "tree_size": LINES, "checkpoint": checkpoint}
    lines = [json.dumps({"export": header}).encode(), *_lines(leaves, hashes)]
    before = time.process_time()
    Verifier(Keys(signer.verifier_keys(tenant_id)), []).run(lines)
    return LINES / (time.process_time() - before)


def _leaf(tenant_id: UUID, number: int) -> dict[str, object]:
    seal = {"sealed": {"subject": str(tenant_id), "key": str(tenant_id), "nonce": "x" * 16, "data": "x" * 60}}
    return {
        "v": 1,
        "id": str(new_id()),
        "tenant_id": str(tenant_id),
        "action": "update",
        "entity_type": "story",
        "entity_id": str(new_id()),
        "user_id": str(new_id()),
        "acting_tenant_id": None,
        "service": None,
        "request_id": str(new_id()),
        "trace_id": "0123456789abcdef" * 2,
        "rpc": "/storyloom.content.v1.StoryService/UpdateStory",
        "occur_time": "2026-11-22T09:00:00.123456Z",
        "old_values": {"title": "Buổi sáng ở chợ", "position": number},
        "new_values": {"title": "Buổi chiều ở chợ", "position": number + 1, "note": seal},
        "client_address": seal,
    }


def _lines(leaves: list[dict[str, object]], hashes: list[bytes]) -> Iterator[bytes]:
    names = {"entity_type": "entityType", "entity_id": "entityId", "user_id": "userId", "request_id": "requestId"}
    names |= {"trace_id": "traceId", "occur_time": "occurTime", "old_values": "oldValues", "new_values": "newValues"}
    names |= {"client_address": "clientAddress"}
    for index, (leaf, found) in enumerate(zip(leaves, hashes, strict=True)):
        entry = {names.get(name, name): value for name, value in leaf.items() if value is not None}
        octets = json.dumps(leaf).encode()
        shown = {"leaf": base64.b64encode(octets).decode(), "hash": base64.b64encode(found).decode()}
        yield json.dumps({"index": index, **shown, "entry": {**entry, "clientAddress": "192.0.2.7"}}).encode()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
