"""AccessService: what users may do, told to clients and to the other services."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from kit import audit
from kit.access import Snapshot, require
from kit.access.snapshots import Change
from kit.auth import current
from kit.db import Database
from kit.errors import InvalidArgument, NotFound, Unauthenticated
from kit.trust import Trust, change_of, snapshot_of
from services.identity import queries
from services.identity.catalogue import catalogue, owner_of
from services.identity.revisions import RevisionFeed
from services.identity.roles import permissions_to_proto
from services.identity.signing import Keyring
from storyloom.access.v1 import decisions_pb2
from storyloom.identity.v1 import access_pb2


class AccessService:
    SERVICE = access_pb2.DESCRIPTOR.services_by_name["AccessService"]

    def __init__(self, db: Database, feed: RevisionFeed, deciders: Mapping[str, Any]) -> None:
        self.db, self.feed, self.deciders = db, feed, deciders

    async def CheckAccess(
        self, request: access_pb2.CheckAccessRequest, context: Any
    ) -> access_pb2.CheckAccessResponse:
        evaluation = access_pb2.AccessEvaluation(action=request.action, resource=request.resource)
        (decision,) = await self._check(request.subject, [evaluation])
        return access_pb2.CheckAccessResponse(decision=decision)

    async def BatchCheckAccess(
        self, request: access_pb2.BatchCheckAccessRequest, context: Any
    ) -> access_pb2.BatchCheckAccessResponse:
        decisions = await self._check(request.subject, request.evaluations)
        answers = [access_pb2.CheckAccessResponse(decision=one) for one in decisions]
        return access_pb2.BatchCheckAccessResponse(evaluations=answers)

    async def ExplainAccess(
        self, request: access_pb2.ExplainAccessRequest, context: Any
    ) -> decisions_pb2.Explanation:
        caller, check = current(), _question(request, "")
        asked = decisions_pb2.ExplainDecisionRequest(
            tenant_id=str(caller.tenant_id), user_id=_subject(request.subject), check=check
        )
        decider = self.deciders[owner_of(check.resource)]
        # Whoever asks may read the attributes of resources that they could not read otherwise.
        async with self.db.write() as session:
            audit.write(session, "explain_access", check.resource, UUID(check.id), new={"user_id": asked.user_id})
        explanation: decisions_pb2.Explanation = await decider.ExplainDecision(asked)
        return explanation

    async def _check(self, subject: Any, evaluations: Sequence[Any]) -> list[bool]:
        """The decisions, in order, each from the service that owns the resource; one call to each of them."""
        user_id = _subject(subject)
        if user_id != str(current().subject):
            require("explain", None, resource="resource_policy")
        many = len(evaluations) > 1
        checks = [_question(one, f"evaluations[{index}]." if many else "") for index, one in enumerate(evaluations)]
        owners = [owner_of(one.resource) for one in checks]
        answers = await asyncio.gather(
            *(
                self._ask(owner, user_id, [one for one, of in zip(checks, owners, strict=True) if of == owner])
                for owner in dict.fromkeys(owners)
            )
        )
        by_owner = dict(zip(dict.fromkeys(owners), map(iter, answers), strict=True))
        return [next(by_owner[owner]) for owner in owners]

    async def _ask(self, owner: str, user_id: str, checks: Sequence[Any]) -> Sequence[bool]:
        request = decisions_pb2.CheckResourcesRequest(
            tenant_id=str(current().tenant_id), user_id=user_id, checks=checks
        )
        found: Sequence[bool] = (await self.deciders[owner].CheckResources(request)).decisions
        return found

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

    async def GetPoliciesInForce(
        self, request: access_pb2.GetPoliciesInForceRequest, context: Any
    ) -> access_pb2.PoliciesInForce:
        return access_pb2.PoliciesInForce(policies=await read_policies(self.db, UUID(request.tenant_id)))

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
    if row.expires_at:
        message.expire_time.FromDatetime(row.expires_at)
    return message


async def read_policies(db: Database, tenant_id: UUID) -> list[decisions_pb2.PolicyInForce]:
    """The policies in force that belong to the tenant."""
    async with db.read(tenant_id) as session:
        rows = await queries.list_policies_in_force(session)
    return [policy_in_force(row, tenant_id) for row in rows]


def policy_in_force(row: Any, tenant_id: UUID) -> decisions_pb2.PolicyInForce:
    """Of a policy, or of a row of its columns."""
    return decisions_pb2.PolicyInForce(
        id=str(row.id),
        tenant_id=str(tenant_id),
        name=row.name,
        resource=row.resource,
        actions=row.actions,
        conditions=json.dumps(row.conditions),
        allow=row.effect == "allow",
        priority=row.priority,
    )


def _subject(subject: access_pb2.AccessSubject) -> str:
    return subject.id.lower() or str(current().subject)


def _question(sent: Any, at: str) -> decisions_pb2.ResourceCheck:
    """What is asked, if there is such a permission."""
    asked = (sent.resource.type, sent.action.name)
    if asked not in catalogue():
        raise InvalidArgument.fields([(f"{at}action.name", f"{':'.join(asked)} is not in the permission catalogue")])
    return decisions_pb2.ResourceCheck(resource=asked[0], action=asked[1], id=sent.resource.id)


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

    async def policies(tenant_id: UUID) -> list[decisions_pb2.PolicyInForce]:
        return await read_policies(db, tenant_id)

    return Trust(keyring.jwks, snapshots, changes, policies)
