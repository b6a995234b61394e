"""Checkpoints and proofs as auditors get them, of entries that real services made."""

import asyncio
import base64
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.audit import merkle
from storyloom.audit.v1.audit_logs_pb2 import ExportAuditLogsRequest, ListAuditLogsRequest
from storyloom.audit.v1.audit_logs_pb2_grpc import AuditLogServiceStub
from storyloom.audit.v1.checkpoints_pb2 import (
    Checkpoint,
    ConsistencyProof,
    GetCheckpointRequest,
    GetConsistencyProofRequest,
    GetInclusionProofRequest,
    GetVerifierKeyRequest,
    InclusionProof,
    ListCheckpointsRequest,
)
from storyloom.audit.v1.checkpoints_pb2_grpc import CheckpointServiceStub
from tests.audit.growing import database, deliver, event, grown
from tests.audit.test_merkle import continues
from tests.stack import Person, School, refused
from tools import verify_audit


def checkpoints(person: Person) -> CheckpointServiceStub:
    return person.stub(CheckpointServiceStub, "audit")


async def latest(person: Person) -> Checkpoint:
    return await checkpoints(person).GetCheckpoint(GetCheckpointRequest())


async def proven(person: Person, entry_id: str, **values: Any) -> InclusionProof:
    return await checkpoints(person).GetInclusionProof(GetInclusionProofRequest(audit_log_id=entry_id, **values))


async def continued(person: Person, **values: Any) -> ConsistencyProof:
    return await checkpoints(person).GetConsistencyProof(GetConsistencyProofRequest(**values))


async def key_of(person: Person) -> str:
    return (await checkpoints(person).GetVerifierKey(GetVerifierKeyRequest())).key


@pytest.fixture(scope="module")
async def grew(school: School) -> list[Checkpoint]:
    """The log after each of three batches of entries."""
    found = []
    for number in (1, 20, 7):
        await deliver(school, *(event(school.auditor.tenant_id) for _ in range(number)))
        await grown(school)
        found.append(await latest(school.auditor))
    return found


class TestGetCheckpoint:
    async def test_is_signed_by_the_tenants_key(self, school: School, grew: list[Checkpoint]) -> None:
        keys = verify_audit.Keys([await key_of(school.auditor)])
        for one in grew:
            (found,) = keys.checkpoints(one.signed_text, "")
            assert (found.size, found.root) == (one.tree_size, one.root_hash)

    async def test_is_the_text_that_other_verifiers_read(self, school: School, grew: list[Checkpoint]) -> None:
        one = grew[-1]
        origin, size, root, empty, signature, end = one.signed_text.split("\n")
        assert origin == f"storyloom/audit/{school.auditor.tenant_id}"
        assert (int(size), base64.b64decode(root), empty, end) == (one.tree_size, one.root_hash, "", "")
        dash, name, signed = signature.split(" ")
        assert (dash, name, len(base64.b64decode(signed))) == ("\u2014", origin, 4 + 64)

    async def test_is_found_by_its_size(self, school: School, grew: list[Checkpoint]) -> None:
        for one in grew:
            found = await checkpoints(school.auditor).GetCheckpoint(GetCheckpointRequest(tree_size=one.tree_size))
            assert found == one

    async def test_of_a_size_that_was_never_signed_is_not_found(self, school: School) -> None:
        async with refused("RESOURCE_NOT_FOUND"):
            await checkpoints(school.auditor).GetCheckpoint(GetCheckpointRequest(tree_size=10**9))

    async def test_is_no_entry_of_the_log(self, school: School) -> None:
        request_id = f"request-{uuid4()}"
        stub = checkpoints(school.auditor)
        await stub.GetCheckpoint(GetCheckpointRequest(), metadata=(("x-request-id", request_id),))
        await school.settle()
        logs = school.auditor.stub(AuditLogServiceStub, "audit")
        assert not (await logs.ListAuditLogs(ListAuditLogsRequest(request_id=request_id))).audit_logs

    async def test_is_for_auditors(self, school: School) -> None:
        for person in (school.student, school.teacher):
            async with refused("PERMISSION_REQUIRED"):
                await latest(person)


class TestListCheckpoints:
    async def test_pages_from_the_newest_to_the_oldest(self, school: School, grew: list[Checkpoint]) -> None:
        sizes, token = [], ""
        while token or not sizes:
            request = ListCheckpointsRequest(page_size=2, page_token=token)
            page = await checkpoints(school.auditor).ListCheckpoints(request)
            sizes += [one.tree_size for one in page.checkpoints]
            token = page.next_page_token
        assert sizes == sorted(set(sizes), reverse=True)
        assert {one.tree_size for one in grew} <= set(sizes)

    async def test_shows_nothing_of_another_tenant(self, school: School, grew: list[Checkpoint]) -> None:
        await grown(school)
        found = await checkpoints(school.outsider_admin).ListCheckpoints(ListCheckpointsRequest())
        assert found.checkpoints
        assert all(school.outsider_admin.tenant_id in one.signed_text for one in found.checkpoints)


class TestGetInclusionProof:
    async def test_leads_from_every_entry_to_the_root(self, school: School, grew: list[Checkpoint]) -> None:
        logs = school.auditor.stub(AuditLogServiceStub, "audit")
        entries = (await logs.ListAuditLogs(ListAuditLogsRequest(page_size=30))).audit_logs
        await grown(school)
        async with database(school) as superuser:
            leaves = {str(row[0]): row[1] for row in await superuser.fetch("SELECT id, leaf FROM audit.audit_logs")}
        for entry in entries:
            found = await proven(school.auditor, entry.id)
            assert found.leaf_hash == merkle.leaf_hash(leaves[entry.id])
            root, size = found.checkpoint.root_hash, found.checkpoint.tree_size
            assert verify_audit.includes(found.leaf_hash, found.leaf_index, size, list(found.hashes), root)

    async def test_may_be_of_any_checkpoint_since(self, school: School) -> None:
        one = event(school.auditor.tenant_id)
        await deliver(school, one)
        await grown(school)
        first = await proven(school.auditor, one.id)
        await deliver(school, *(event(school.auditor.tenant_id) for _ in range(5)))
        await grown(school)
        found = await proven(school.auditor, one.id, tree_size=first.checkpoint.tree_size)
        assert found == first
        later = await proven(school.auditor, one.id)
        assert later.checkpoint.tree_size > first.checkpoint.tree_size
        assert later.leaf_index == first.leaf_index

    async def test_of_an_older_checkpoint_than_the_entry_is_refused(
        self, school: School, grew: list[Checkpoint]
    ) -> None:
        one = event(school.auditor.tenant_id)
        await deliver(school, one)
        await grown(school)
        async with refused("WRONG_STATE"):
            await proven(school.auditor, one.id, tree_size=grew[0].tree_size)

    async def test_of_no_entry_or_anothers_is_not_found(self, school: School, grew: list[Checkpoint]) -> None:
        one = event(school.auditor.tenant_id)
        await deliver(school, one)
        await grown(school)
        for person, entry_id in ((school.auditor, str(uuid4())), (school.outsider_admin, one.id)):
            async with refused("RESOURCE_NOT_FOUND"):
                await proven(person, entry_id)


class TestGetConsistencyProof:
    async def test_shows_that_each_log_begins_with_the_one_before(
        self, school: School, grew: list[Checkpoint]
    ) -> None:
        for place, before in enumerate(grew):
            for after in grew[place:]:
                found = await continued(school.auditor, from_size=before.tree_size, to_size=after.tree_size)
                assert found.checkpoint == after
                assert continues(
                    before.tree_size, after.tree_size, list(found.hashes), before.root_hash, after.root_hash
                )

    async def test_ends_at_the_latest_checkpoint_unless_told(self, school: School, grew: list[Checkpoint]) -> None:
        found = await continued(school.auditor, from_size=grew[0].tree_size)
        assert found.checkpoint.tree_size >= grew[-1].tree_size

    async def test_of_the_empty_log_is_empty(self, school: School, grew: list[Checkpoint]) -> None:
        assert not (await continued(school.auditor)).hashes

    async def test_from_what_is_yet_to_come_is_refused(self, school: School, grew: list[Checkpoint]) -> None:
        async with refused("INVALID_FIELD", field="from_size"):
            await continued(school.auditor, from_size=grew[1].tree_size, to_size=grew[0].tree_size)


class TestGetVerifierKey:
    async def test_differs_for_each_tenant(self, school: School) -> None:
        ours, theirs = await asyncio.gather(key_of(school.auditor), key_of(school.outsider_admin))
        assert ours.startswith(f"storyloom/audit/{school.auditor.tenant_id}+")
        assert ours.split("+", 2)[2] == theirs.split("+", 2)[2]
        assert ours.split("+")[:2] != theirs.split("+")[:2]

    async def test_does_not_verify_another_tenants_checkpoint(self, school: School, grew: list[Checkpoint]) -> None:
        keys = verify_audit.Keys([await key_of(school.outsider_admin)])
        assert not list(keys.checkpoints(grew[0].signed_text, ""))
        theirs = school.outsider_admin.tenant_id
        renamed = grew[0].signed_text.replace(school.auditor.tenant_id, theirs)
        with pytest.raises(verify_audit.Changed, match="not signed"):
            list(keys.checkpoints(renamed, ""))


class TestTheExport:
    async def test_of_the_service_is_verified_and_when_a_superuser_edits_it_no_more(
        self, school: School, grew: list[Checkpoint]
    ) -> None:
        await grown(school)
        keys = verify_audit.Keys([await key_of(school.auditor)])
        kept = [next(keys.checkpoints(one.signed_text, "kept")) for one in grew]
        said = verify_audit.Verifier(keys, kept).run(await exported(school.auditor))
        assert f"{len(kept) + 1} checkpoints agree" in said[0]
        async with database(school) as superuser:
            index = grew[0].tree_size
            row = await superuser.fetchrow(ENTRY, UUID(school.auditor.tenant_id), index)
            await replaced(superuser, row["id"], row["leaf"].replace(b'"action":"', b'"action":"re', 1))
            try:
                found = verify_audit.Verifier(keys, kept)
                with pytest.raises(verify_audit.Changed, match=rf"^entry {index} \({row['id']}\): edited"):
                    found.run(await exported(school.auditor))
            finally:
                await replaced(superuser, row["id"], row["leaf"])

    async def test_of_some_entries_is_verified_by_their_proofs(self, school: School, grew: list[Checkpoint]) -> None:
        await grown(school)
        keys = verify_audit.Keys([await key_of(school.auditor)])
        (said,) = verify_audit.Verifier(keys, []).run(await exported(school.auditor, action="update"))
        assert int(said.split()[0]) >= 28


ENTRY = """
SELECT id, leaf FROM audit.tree_leaves JOIN audit.audit_logs USING (tenant_id, id)
WHERE tenant_id = $1 AND leaf_index = $2
"""


async def replaced(superuser: Any, entry_id: UUID, leaf: bytes) -> None:
    async with superuser.transaction():
        await superuser.execute("SET LOCAL session_replication_role = replica")
        await superuser.execute("UPDATE audit.audit_logs SET leaf = $2 WHERE id = $1", entry_id, leaf)


async def exported(person: Person, **filters: str) -> list[bytes]:
    """The lines of the file that the service makes."""
    stream = person.stub(AuditLogServiceStub, "audit").ExportAuditLogs(ExportAuditLogsRequest(**filters))
    return b"".join([chunk.body.data async for chunk in stream]).splitlines()
