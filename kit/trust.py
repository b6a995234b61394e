"""Where a service gets its trust from: identity's published keys, access snapshots and stream of revisions."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from google.protobuf.json_format import MessageToDict

from kit.access.snapshots import Change, Changes, Snapshot, Source
from kit.auth import KeySource
from kit.clients import Clients
from kit.errors import NotFound, Unauthenticated
from storyloom.access.v1.decisions_pb2 import PolicyInForce
from storyloom.identity.v1 import access_pb2, sessions_pb2
from storyloom.identity.v1.access_pb2_grpc import AccessServiceStub
from storyloom.identity.v1.sessions_pb2_grpc import SessionServiceStub


@dataclass(frozen=True, slots=True)
class Trust:
    """Keys that sign access tokens, what users may do, news of changes, and the policies in force that belong to a
    tenant. Identity gives its own, from its tables."""

    keys: KeySource
    snapshots: Source
    changes: Changes
    policies: Callable[[UUID], Awaitable[Iterable[PolicyInForce]]]


def remote_trust(clients: Clients) -> Trust:
    """The trust of every service but identity: by its RPCs."""
    sessions = clients.stub(SessionServiceStub, "identity")
    access: Any = clients.stub(AccessServiceStub, "identity")

    async def keys() -> Mapping[str, Any]:
        body = await sessions.GetJwks(sessions_pb2.GetJwksRequest())
        found: Mapping[str, Any] = json.loads(body.data)
        return found

    async def snapshots(tenant_id: UUID, user_id: UUID) -> Snapshot:
        request = access_pb2.GetAccessSnapshotRequest(tenant_id=str(tenant_id), user_id=str(user_id))
        try:
            return snapshot_of(await access.GetAccessSnapshot(request))
        except NotFound as error:
            raise Unauthenticated("The user no longer exists.") from error

    async def changes() -> AsyncIterator[Change | None]:
        async for message in access.WatchRevisions(access_pb2.WatchRevisionsRequest()):
            yield change_of(message.change) if message.HasField("change") else None

    async def policies(tenant_id: UUID) -> Iterable[PolicyInForce]:
        request = access_pb2.GetPoliciesInForceRequest(tenant_id=str(tenant_id))
        found: access_pb2.PoliciesInForce = await access.GetPoliciesInForce(request)
        return found.policies

    return Trust(keys, snapshots, changes, policies)


def snapshot_of(message: access_pb2.AccessSnapshot) -> Snapshot:
    """The kit's form of a snapshot message."""
    permissions = (permission.partition(":") for permission in message.permissions)
    return Snapshot(
        tenant_id=UUID(message.tenant_id),
        user_id=UUID(message.user_id),
        roles=frozenset(message.roles),
        permissions=frozenset((resource, action) for resource, _, action in permissions),
        level=message.level,
        attributes=MessageToDict(message.attributes),
        active=message.active,
        tenant_suspended=message.tenant_suspended,
        revoked_sessions=frozenset(UUID(one) for one in message.revoked_session_ids),
        expires=message.expire_time.ToNanoseconds() / 1e9 if message.HasField("expire_time") else float("inf"),
    )


def change_of(message: access_pb2.RevisionChange) -> Change:
    """The kit's form of a revision change."""

    def optional(text: str) -> UUID | None:
        return UUID(text) if text else None

    return Change(optional(message.tenant_id), optional(message.user_id), optional(message.revoked_session_id))
