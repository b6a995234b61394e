"""AccessService: what users may do, told to clients and to the other services."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from kit.access import Snapshot
from kit.access.snapshots import Change
from kit.auth import current
from kit.db import Database
from kit.errors import NotFound, Unauthenticated
from kit.trust import Trust, change_of, snapshot_of
from services.identity import queries
from services.identity.revisions import RevisionFeed
from services.identity.roles import permissions_to_proto
from services.identity.signing import Keyring
from storyloom.identity.v1 import access_pb2


class AccessService:
    SERVICE = access_pb2.DESCRIPTOR.services_by_name["AccessService"]

    def __init__(self, db: Database, feed: RevisionFeed) -> None:
        self.db, self.feed = db, feed

    async def ListMyPermissions(
        self, request: access_pb2.ListMyPermissionsRequest, context: Any
    ) -> access_pb2.ListMyPermissionsResponse:
        snapshot = current().snapshot
        assert snapshot is not None  # noqa: S101  # only users are authenticated here
        return access_pb2.ListMyPermissionsResponse(
            permissions=permissions_to_proto(snapshot.permissions), roles=sorted(snapshot.roles)
        )

    async def GetAccessSnapshot(
        self, request: access_pb2.GetAccessSnapshotRequest, context: Any
    ) -> access_pb2.AccessSnapshot:
        return await read_snapshot(self.db, UUID(request.tenant_id), UUID(request.user_id))

    async def WatchRevisions(
        self, request: access_pb2.WatchRevisionsRequest, context: Any
    ) -> AsyncIterator[access_pb2.WatchRevisionsResponse]:
        async for change in self.feed.follow(request.after_revision):
            if change is not None:
                yield access_pb2.WatchRevisionsResponse(change=change)
            else:
                heartbeat = access_pb2.RevisionHeartbeat(revision=self.feed.latest)
                yield access_pb2.WatchRevisionsResponse(heartbeat=heartbeat)

    async def GetUserSummaries(
        self, request: access_pb2.GetUserSummariesRequest, context: Any
    ) -> access_pb2.GetUserSummariesResponse:
        ids = [UUID(one) for one in request.ids]
        async with self.db.read(UUID(request.tenant_id)) as session:
            names = await queries.list_names(session, ids)
        return access_pb2.GetUserSummariesResponse(
            users=[
                access_pb2.UserSummary(id=str(one), exists=one in names, display_name=names.get(one, "")) for one in ids
            ]
        )


async def read_snapshot(db: Database, tenant_id: UUID, user_id: UUID) -> access_pb2.AccessSnapshot:
    """What the user may do now; NOT_FOUND when the tenant has no such user."""
    async with db.read(tenant_id) as session:
        row = await queries.get_access(session, user_id)
    message = access_pb2.AccessSnapshot(
        tenant_id=str(tenant_id),
        user_id=str(user_id),
        roles=row.roles,
        permissions=row.permissions,
        level=row.level,
        active=row.active,
        tenant_suspended=row.tenant_status == "suspended",
        revoked_session_ids=map(str, row.ended_sessions),
        revision=row.revision,
    )
    message.attributes.update(row.attributes)
    return message


def own_trust(db: Database, keyring: Keyring, feed: RevisionFeed) -> Trust:
    """Identity trusts its own tables: it is no client of itself."""

    async def snapshots(tenant_id: UUID, user_id: UUID) -> Snapshot:
        try:
            return snapshot_of(await read_snapshot(db, tenant_id, user_id))
        except NotFound as error:
            raise Unauthenticated("The user no longer exists.") from error

    async def changes() -> AsyncIterator[Change | None]:
        async for change in feed.follow():
            yield None if change is None else change_of(change)

    return Trust(keyring.jwks, snapshots, changes)
