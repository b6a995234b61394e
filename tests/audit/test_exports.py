"""The log as a file, made while it is read: complete, bounded, provable, and no formula."""

import asyncio
import base64
import csv
import io
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import grpc
import pytest

from kit.ids import NIL
from services.audit.exporting import LARGEST_CHUNK, _chunks
from services.audit.queries import streams
from services.audit.signing import Head
from storyloom.audit.v1.audit_logs_pb2 import AuditLogFormat, ExportAuditLogsRequest, ExportProgress
from storyloom.audit.v1.audit_logs_pb2_grpc import AuditLogServiceStub
from storyloom.identity.v1.users_pb2 import SetUserRolesRequest
from storyloom.identity.v1.users_pb2_grpc import UserServiceStub
from tests.audit.test_audit_logs import deliver, event, listed
from tests.stack import Person, School, Stack, add_person, found_school, refused
from tools.verify_audit import CHANGED, VERIFIED, main

CSV = AuditLogFormat.AUDIT_LOG_FORMAT_CSV


@dataclass
class File:
    kind: str
    data: bytes
    progress: list[ExportProgress]

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.data.splitlines()]

    @property
    def records(self) -> list[list[str]]:
        return list(csv.reader(io.StringIO(self.data.decode(), newline="")))


async def exported(person: Person, *, metadata: Any = (), **request: Any) -> File:
    stub = person.stub(AuditLogServiceStub, "audit")
    made = File("", b"", [])
    async for chunk in stub.ExportAuditLogs(ExportAuditLogsRequest(**request), metadata=metadata):
        made.kind = chunk.body.content_type
        made.data += chunk.body.data
        made.progress.append(chunk.progress)
    return made


async def in_tree(school: School | Stack, tenant_id: str) -> None:
    """Waits until the tenant's tree has all that is in its log."""
    await school.settle()
    stack = school.stack if isinstance(school, School) else school
    async with superuser(stack) as connection, asyncio.timeout(15):
        while await connection.fetchval("SELECT count(*) FROM audit.tree_queue WHERE tenant_id = $1", UUID(tenant_id)):
            await asyncio.sleep(0.05)


@asynccontextmanager
async def superuser(stack: Stack) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(stack.cluster.superuser_url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture(scope="module")
async def quiet(stack: Stack) -> School:
    """A school whose log nobody else adds to."""
    mark = uuid4().hex[:12]
    return await found_school(stack, f"quiet{mark}", f"silent{mark}")


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Of the leaves with these hashes, as RFC 6962 (2.1) defines it."""
    if len(hashes) == 1:
        return hashes[0]
    half = 1 << (len(hashes) - 1).bit_length() - 1
    return sha256(b"\1" + root_of(hashes[:half]) + root_of(hashes[half:])).digest()


def hash_of(leaf: bytes) -> bytes:
    return sha256(b"\0" + leaf).digest()


async def rest_of(call: Any) -> bytes:
    data = b""
    while (chunk := await call.read()) is not grpc.aio.EOF:
        data += chunk.body.data
    return data


class TestJsonLines:
    async def test_have_a_header_every_entry_of_the_tree_and_an_end(self, quiet: School) -> None:
        await deliver(quiet, *(event(quiet.auditor.tenant_id, new_values='{"title": "Chợ"}') for _ in range(30)))
        await in_tree(quiet, quiet.auditor.tenant_id)
        made = await exported(quiet.auditor)
        first, *entries, last = made.lines
        assert made.kind == "application/jsonl"
        assert first["export"]["tenant_id"] == quiet.auditor.tenant_id
        assert first["export"]["filters"] == {}
        assert (first["export"]["from"], first["export"]["to"]) == (None, None)
        assert sorted(line["index"] for line in entries) == list(range(first["export"]["tree_size"]))
        assert last == {"end": {"rows": len(entries)}}
        assert [line["entry"]["id"] for line in entries] == sorted(line["entry"]["id"] for line in entries)

    async def test_have_the_leaves_that_the_root_of_the_tree_is_made_of(self, quiet: School) -> None:
        await in_tree(quiet, quiet.auditor.tenant_id)
        first, *entries, _ = (await exported(quiet.auditor)).lines
        leaves = [base64.b64decode(line["leaf"]) for line in sorted(entries, key=lambda line: line["index"])]
        checkpoint, key = first["export"]["checkpoint"], first["export"]["public_key"]
        head = Head.of(checkpoint)
        assert 0 < head.size <= len(leaves) == first["export"]["tree_size"]
        assert root_of([hash_of(leaf) for leaf in leaves[: head.size]]) == head.root
        name, key_id, _ = key.split("+", 2)
        assert name == head.origin
        assert base64.b64decode(checkpoint.split()[-1])[:4].hex() == key_id

    async def test_show_the_entry_as_the_api_does(self, quiet: School) -> None:
        one = event(quiet.auditor.tenant_id, old_values='{"title": "Cũ"}', user_id=quiet.teacher.user_id)
        await deliver(quiet, one)
        await in_tree(quiet, quiet.auditor.tenant_id)
        _, line, _ = (await exported(quiet.auditor, entity_id=one.aggregate_id)).lines
        assert line["entry"]["oldValues"] == {"title": "Cũ"}
        assert line["entry"]["userId"] == quiet.teacher.user_id
        assert json.loads(base64.b64decode(line["leaf"]))["id"] == line["entry"]["id"] == one.id

    async def test_say_in_the_header_what_was_asked_for(self, quiet: School) -> None:
        start, end = datetime(2026, 11, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)
        made = await exported(quiet.auditor, action="publish", start_time=start, end_time=end)
        header = made.lines[0]["export"]
        assert header["filters"] == {"action": "publish"}
        assert (header["from"], header["to"]) == ("2026-11-01T00:00:00Z", "2099-01-01T00:00:00Z")


class TestProofs:
    async def test_the_whole_log_verifies_offline(self, quiet: School, tmp_path: Path) -> None:
        await in_tree(quiet, quiet.auditor.tenant_id)
        assert verified(await exported(quiet.auditor), tmp_path) == VERIFIED

    async def test_a_part_of_it_verifies_by_its_own_proofs(self, quiet: School, tmp_path: Path) -> None:
        one = event(quiet.auditor.tenant_id, action="publish")
        await deliver(quiet, one, event(quiet.auditor.tenant_id), event(quiet.auditor.tenant_id, action="publish"))
        await in_tree(quiet, quiet.auditor.tenant_id)
        for part in ({"action": "publish"}, {"entity_id": one.aggregate_id}, {"start_time": START}):
            made = await exported(quiet.auditor, **part)
            assert len(made.lines) > 2
            assert verified(made, tmp_path) == VERIFIED
            changed = made.data.replace(made.lines[1]["leaf"].encode(), base64.b64encode(b'{"id":"x"}'), 1)
            assert verified(File(made.kind, changed, []), tmp_path) == CHANGED

    async def test_an_entry_that_was_edited_in_the_database_is_found(self, quiet: School, tmp_path: Path) -> None:
        one = event(quiet.auditor.tenant_id)
        await deliver(quiet, one)
        await in_tree(quiet, quiet.auditor.tenant_id)
        edit = "UPDATE audit.audit_logs SET leaf = $2 WHERE id = $1"
        async with superuser(quiet.stack) as connection:
            leaf = await connection.fetchval("SELECT leaf FROM audit.audit_logs WHERE id = $1", UUID(one.id))
            await connection.execute("SET session_replication_role = replica")
            await connection.execute(edit, UUID(one.id), leaf.replace(b'"update"', b'"delete"'))
            try:
                for part in ({}, {"entity_id": one.aggregate_id}):
                    assert verified(await exported(quiet.auditor, **part), tmp_path) == CHANGED
            finally:
                await connection.execute(edit, UUID(one.id), leaf)


START = datetime(2026, 1, 1, tzinfo=UTC)


def verified(file: File, folder: Path) -> int:
    path = folder / "export.jsonl"
    path.write_bytes(file.data)
    return main([str(path), "--key", file.lines[0]["export"]["public_key"]])


class TestCsv:
    async def test_has_a_header_one_record_for_each_entry_and_an_end(self, quiet: School) -> None:
        awkward = '{"title": "a,\\"b\\"\\r\\nc"}'
        one = event(quiet.auditor.tenant_id, new_values=awkward, request_id="r-1")
        await deliver(quiet, one)
        await in_tree(quiet, quiet.auditor.tenant_id)
        made = await exported(quiet.auditor, format=CSV, entity_id=one.aggregate_id)
        header, record, end = made.records
        assert made.kind.startswith("text/csv")
        assert made.data.endswith(b"\r\n")
        cells = dict(zip(header, record, strict=True))
        assert (cells["id"], cells["request_id"]) == (one.id, "r-1")
        assert json.loads(cells["new_values"]) == json.loads(awkward)
        assert end == ["end", "1", *[""] * (len(header) - 2)]

    @pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "＝1+1"])
    async def test_has_no_formula(self, quiet: School, text: str) -> None:
        one = event(quiet.auditor.tenant_id, request_id=text)
        await deliver(quiet, one)
        await in_tree(quiet, quiet.auditor.tenant_id)
        header, record, _ = (await exported(quiet.auditor, format=CSV, entity_id=one.aggregate_id)).records
        assert dict(zip(header, record, strict=True))["request_id"] == f"'{text}"


class TestBounds:
    @pytest.mark.parametrize("name", ["entity_id", "user_id", "action", "entity_type", "request_id", "trace_id"])
    async def test_filters_as_the_list_does(self, quiet: School, name: str) -> None:
        wanted = {"action": "act_x", "entity_type": "kind_x", "request_id": "r-x", "trace_id": "0f" * 16}
        value = wanted.get(name, str(uuid4()))
        events = [event(quiet.auditor.tenant_id, **{name: value}) for _ in range(2)]
        await deliver(quiet, *events, event(quiet.auditor.tenant_id))
        await in_tree(quiet, quiet.auditor.tenant_id)
        made = await exported(quiet.auditor, **{name: value})
        assert [line["entry"]["id"] for line in made.lines[1:-1]] == [one.id for one in events]

    async def test_takes_the_start_but_not_the_end_of_a_time_range(self, quiet: School) -> None:
        noon = datetime(2026, 11, 20, 12, tzinfo=UTC)
        entity_id = str(uuid4())
        events = [
            event(quiet.auditor.tenant_id, entity_id=entity_id, at=noon + timedelta(seconds=n)) for n in range(-1, 3)
        ]
        await deliver(quiet, *events)
        await in_tree(quiet, quiet.auditor.tenant_id)
        until = datetime.now(UTC) + timedelta(days=1)
        found = (await exported(quiet.auditor, entity_id=entity_id, end_time=until)).lines[1:-1]
        assert len(found) == 4
        # The ids of these are of today, far from their times: the range is one of times.
        assert (await exported(quiet.auditor, entity_id=entity_id, start_time=until)).lines[1:-1] == []

    async def test_what_arrives_meanwhile_is_in_the_next_one(
        self, quiet: School, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(streams, "ROWS_AT_ONCE", 5)
        entity_id = str(uuid4())
        await deliver(quiet, *(event(quiet.auditor.tenant_id, entity_id=entity_id) for _ in range(20)))
        await in_tree(quiet, quiet.auditor.tenant_id)
        stub = quiet.auditor.stub(AuditLogServiceStub, "audit")
        call = stub.ExportAuditLogs(ExportAuditLogsRequest(entity_id=entity_id))
        data = (await call.read()).body.data
        await deliver(quiet, *(event(quiet.auditor.tenant_id, entity_id=entity_id) for _ in range(3)))
        await in_tree(quiet, quiet.auditor.tenant_id)
        data += await rest_of(call)
        assert File("", data, []).lines[-1] == {"end": {"rows": 20}}
        assert (await exported(quiet.auditor, entity_id=entity_id)).lines[-1] == {"end": {"rows": 23}}

    async def test_tells_how_far_it_is(self, quiet: School, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(streams, "ROWS_AT_ONCE", 10)
        entity_id = str(uuid4())
        await deliver(quiet, *(event(quiet.auditor.tenant_id, entity_id=entity_id) for _ in range(25)))
        await in_tree(quiet, quiet.auditor.tenant_id)
        progress = (await exported(quiet.auditor, entity_id=entity_id)).progress
        assert [one.chunk for one in progress] == [0, 1, 2, 3, 4]
        assert [one.rows for one in progress] == [0, 10, 20, 25, 25]
        assert {one.total_rows for one in progress} == {25}
        assert [one.complete for one in progress] == [False] * 4 + [True]

    async def test_reads_little_at_once_however_long_entries_are(
        self, quiet: School, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(streams, "BYTES_AT_ONCE", 3000)
        entity_id = str(uuid4())
        long = json.dumps({"text": "x" * 2000})
        await deliver(quiet, *(event(quiet.auditor.tenant_id, entity_id=entity_id, new_values=long) for _ in range(6)))
        await in_tree(quiet, quiet.auditor.tenant_id)
        progress = (await exported(quiet.auditor, entity_id=entity_id)).progress
        assert [one.rows for one in progress] == [0, 2, 4, 6, 6]

    def test_no_message_is_longer_than_clients_take(self) -> None:
        lines = [b"x" * (LARGEST_CHUNK // 2 - 1) + b"\n", b"y" * 3 * LARGEST_CHUNK + b"\n", b"z\n"]
        made = list(_chunks(lines))
        assert b"".join(data for data, _ in made) == b"".join(lines)
        assert max(len(data) for data, _ in made) == LARGEST_CHUNK
        assert sum(count for _, count in made) == 3

    async def test_an_estimate_is_told_where_counting_takes_too_long(
        self, quiet: School, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await deliver(quiet, *(event(quiet.auditor.tenant_id) for _ in range(400)))
        await in_tree(quiet, quiet.auditor.tenant_id)
        monkeypatch.setattr(streams, "COUNTING", "1us")
        made = await exported(quiet.auditor, action="update")
        assert made.lines[-1]["end"]["rows"] >= 400
        assert made.progress[0].total_rows > 0


class TestAccess:
    async def test_is_recorded_once_with_filters_and_rows_before_it_begins(self, quiet: School) -> None:
        entity_id, request_id = str(uuid4()), f"request-{uuid4()}"
        await deliver(quiet, *(event(quiet.auditor.tenant_id, entity_id=entity_id) for _ in range(3)))
        await in_tree(quiet, quiet.auditor.tenant_id)
        stub = quiet.auditor.stub(AuditLogServiceStub, "audit")
        request = ExportAuditLogsRequest(entity_id=entity_id, format=CSV)
        call = stub.ExportAuditLogs(request, metadata=(("x-request-id", request_id),))
        await call.read()
        call.cancel()
        await quiet.settle()
        (entry,) = await listed(quiet.auditor, request_id=request_id)
        assert (entry.action, entry.entity_type, entry.entity_id) == ("export_audit_log", "audit_log", str(NIL))
        assert dict(entry.new_values) == {"entity_id": entity_id, "format": "AUDIT_LOG_FORMAT_CSV", "rows": 3}

    async def test_has_nothing_of_another_tenant(self, quiet: School) -> None:
        await deliver(quiet, one := event(quiet.auditor.tenant_id))
        await in_tree(quiet, quiet.auditor.tenant_id)
        await in_tree(quiet, quiet.outsider_admin.tenant_id)
        theirs = await exported(quiet.outsider_admin)
        assert one.id.encode() not in theirs.data
        assert quiet.auditor.tenant_id.encode() not in theirs.data
        assert theirs.lines[-1]["end"]["rows"] > 0

    async def test_refuses_who_is_no_auditor(self, school: School) -> None:
        for person in (school.student, school.teacher):
            async with refused("PERMISSION_REQUIRED"):
                await exported(person)

    async def test_ends_with_the_rights_of_the_caller(self, quiet: School, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(streams, "ROWS_AT_ONCE", 1)
        long = json.dumps({"text": "x" * 100_000})
        await deliver(quiet, *(event(quiet.auditor.tenant_id, new_values=long) for _ in range(40)))
        await in_tree(quiet, quiet.auditor.tenant_id)
        person = await add_person(quiet.admin, quiet.slug, f"auditor{uuid4().hex[:8]}", "auditor")
        call = person.stub(AuditLogServiceStub, "audit").ExportAuditLogs(ExportAuditLogsRequest())
        await call.read()
        # Not read on, so that the service waits: rights go meanwhile.
        users = quiet.admin.stub(UserServiceStub, "identity")
        await users.SetUserRoles(SetUserRolesRequest(id=person.user_id, role_ids=[]))
        await asyncio.sleep(1.5)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while b'"end"' not in (await call.read()).body.data:
                pass
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
