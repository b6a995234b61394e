"""Checkpoints of the tenant's log, and what proves that it is what they say."""

from typing import Any

from sqlalchemy import Row

from kit.access import require
from kit.auth import current
from kit.db import Database, ReadSession
from kit.errors import FailedPrecondition, InvalidArgument, NotFound
from kit.pagination import Page
from services.audit import merkle, queries
from services.audit.queries import checkpoints, trees
from services.audit.signing import Signer
from storyloom.audit.v1 import checkpoints_pb2
from storyloom.audit.v1.checkpoints_pb2 import (
    Checkpoint,
    ConsistencyProof,
    GetCheckpointRequest,
    GetConsistencyProofRequest,
    GetInclusionProofRequest,
    GetVerifierKeyRequest,
    InclusionProof,
    ListCheckpointsRequest,
    ListCheckpointsResponse,
    VerifierKey,
)
from storyloom.type.v1.errors_pb2 import ErrorReason

# Hashes tell nothing of what is in the log, and somebody who mirrors checkpoints asks every minute: none of these
# reads is an entry of the log, or it would never be at rest.
AUDIT_LOG = "audit_log"


# They are of no entry: a caller whom a policy shows only some of the entries may verify those.
WHOLE = None


class CheckpointService:
    SERVICE = checkpoints_pb2.DESCRIPTOR.services_by_name["CheckpointService"]

    def __init__(self, db: Database, signer: Signer) -> None:
        self.db, self.signer = db, signer

    async def GetCheckpoint(self, request: GetCheckpointRequest, context: Any) -> Checkpoint:
        async with self.db.read() as session:
            row = await checkpoints.get_checkpoint(session, request.tree_size)
            require("read", WHOLE, resource=AUDIT_LOG)
        return checkpoint_to_proto(row)

    async def ListCheckpoints(self, request: ListCheckpointsRequest, context: Any) -> ListCheckpointsResponse:
        page = Page.of(request)
        require("list", WHOLE, resource=AUDIT_LOG)
        async with self.db.read() as session:
            rows, token = await checkpoints.list_checkpoints(session, page)
        return ListCheckpointsResponse(checkpoints=map(checkpoint_to_proto, rows), next_page_token=token)

    async def GetInclusionProof(self, request: GetInclusionProofRequest, context: Any) -> InclusionProof:
        async with self.db.read() as session:
            entry = await queries.get_audit_log(session, request.audit_log_id)
            require("read", entry, resource=AUDIT_LOG)
            row = await _checkpoint_for_proof(session, request.tree_size)
            leaf = await trees.find_tree_leaf(session, entry.id)
            if leaf is None or leaf.leaf_index >= row.tree_size:
                raise _not_covered()
            path = merkle.inclusion_path(leaf.leaf_index, row.tree_size)
            hashes = await trees.list_hashes(session, merkle.nodes_of(path))
        return InclusionProof(
            leaf_index=leaf.leaf_index,
            leaf_hash=leaf.hash,
            hashes=merkle.proof(path, hashes),
            checkpoint=checkpoint_to_proto(row),
        )

    async def GetConsistencyProof(self, request: GetConsistencyProofRequest, context: Any) -> ConsistencyProof:
        async with self.db.read() as session:
            row = await checkpoints.get_checkpoint(session, request.to_size)
            require("read", WHOLE, resource=AUDIT_LOG)
            if request.from_size > row.tree_size:
                raise InvalidArgument.fields([("from_size", "is greater than the size of the checkpoint")])
            path = merkle.consistency_path(request.from_size, row.tree_size)
            hashes = await trees.list_hashes(session, merkle.nodes_of(path))
        return ConsistencyProof(
            from_size=request.from_size, hashes=merkle.proof(path, hashes), checkpoint=checkpoint_to_proto(row)
        )

    async def GetVerifierKey(self, request: GetVerifierKeyRequest, context: Any) -> VerifierKey:
        require("read", WHOLE, resource=AUDIT_LOG)
        key, *earlier = self.signer.verifier_keys(current().tenant_id)
        return VerifierKey(key=key, earlier_keys=earlier)


async def _checkpoint_for_proof(session: ReadSession, tree_size: int) -> Row[Any]:
    row = await checkpoints.find_checkpoint(session, tree_size)
    if row is not None:
        return row
    if tree_size:
        raise NotFound("checkpoint")
    raise _not_covered()


def _not_covered() -> FailedPrecondition:
    return FailedPrecondition(
        "No such checkpoint covers the entry yet; the next one comes within a minute.", reason=ErrorReason.WRONG_STATE
    )


def checkpoint_to_proto(row: Row[Any]) -> Checkpoint:
    message = Checkpoint(tree_size=row.tree_size, root_hash=row.root_hash, signed_text=row.signed_text)
    message.create_time.FromDatetime(row.created_at)
    return message
