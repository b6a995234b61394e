"""ResourcePolicyService: the policies of a tenant, their versions, and which of them are in force."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Value

from kit import audit, fieldmask, outbox
from kit.access import EXEMPT, Condition, ConditionError, require
from kit.access.documents import read
from kit.audit import Action
from kit.auth import current
from kit.db import Database, WriteSession
from kit.enums import stored_name
from kit.errors import InvalidArgument, NotFound, wrong_state
from kit.models import check_etag, now, set_times
from kit.pagination import Page
from services.identity import grants, queries, rules
from services.identity.catalogue import APPROVABLE, ONLY_APPROVED, Permission, attributes, is_known
from services.identity.models import ResourcePolicy, ResourcePolicyVersion
from storyloom.audit.v1.approvals_pb2 import ApprovalState
from storyloom.audit.v1.events_pb2 import ApprovalDecided
from storyloom.event.v1.events_pb2 import Event
from storyloom.identity.v1 import resource_policies_pb2
from storyloom.identity.v1.events_pb2 import ResourcePolicyEdited
from storyloom.identity.v1.resource_policies_pb2 import PolicyEffect, PolicyState

SAID = ("name", "description", "resource", "actions", "conditions", "effect", "priority")
REQUIRED = ("name", "resource", "conditions", "effect")
# Services read them again for every tenant, in one message.
MOST_CONDITION_BYTES = 65_536


class ResourcePolicyService:
    SERVICE = resource_policies_pb2.DESCRIPTOR.services_by_name["ResourcePolicyService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def CreateResourcePolicy(
        self, request: resource_policies_pb2.CreateResourcePolicyRequest, context: Any
    ) -> resource_policies_pb2.ResourcePolicy:
        policy = ResourcePolicy(**said(request.policy), version=1)
        check_policy(policy)
        async with self.db.write() as session:
            require("create", policy)
            await grants.check_grant(session, covered(policy, "allow"))
            session.add(policy)
            return await _answer(session, Action.CREATE, policy)

    async def GetResourcePolicy(
        self, request: resource_policies_pb2.GetResourcePolicyRequest, context: Any
    ) -> resource_policies_pb2.ResourcePolicy:
        async with self.db.read() as session:
            row = await queries.get_policy_row(session, UUID(request.id))
            authors = await queries.list_authors(session, row.id)
        require("read", row, resource="resource_policy")
        return policy_to_proto(row, authors)

    async def ListResourcePolicies(
        self, request: resource_policies_pb2.ListResourcePoliciesRequest, context: Any
    ) -> resource_policies_pb2.ListResourcePoliciesResponse:
        page, state = Page.of(request), stored_name(PolicyState, request.state)
        async with self.db.read() as session:
            rows = await queries.list_policies(
                session, page, resource=request.resource, state=state, deleted=request.deleted
            )
        rows, token = page.split(rows, key=lambda row: (row.id,))
        return resource_policies_pb2.ListResourcePoliciesResponse(
            policies=[policy_to_proto(row) for row in rows], next_page_token=token
        )

    async def UpdateResourcePolicy(
        self, request: resource_policies_pb2.UpdateResourcePolicyRequest, context: Any
    ) -> resource_policies_pb2.ResourcePolicy:
        written = said(request.policy, request.update_mask)
        async with self.db.write() as session:
            await queries.get_tenant(session)
            policy = await queries.get_policy(session, UUID(request.policy.id))
            require("update", policy)
            check_etag(policy, request.policy.etag)
            await _rewrite(session, policy, written)
            return await _answer(session, Action.UPDATE, policy)

    async def ActivateResourcePolicy(
        self, request: resource_policies_pb2.ActivateResourcePolicyRequest, context: Any
    ) -> resource_policies_pb2.ResourcePolicy:
        async with self.db.write() as session:
            # Two activations at once must not both be the last that there is room for.
            tenant = await queries.get_tenant(session)
            policy = await queries.get_policy(session, UUID(request.id))
            require("activate", policy)
            check_etag(policy, request.etag)
            if tenant.settings.get("policy_approval_required"):
                rules.check_approved(hash_of(policy), policy.approved_hash)
            policy.state = rules.put_in_force(policy.state, await queries.count_policies_in_force(session))
            check_policy(policy)
            await grants.check_grant(session, covered(policy, "allow"))
            return await _answer(session, "activate", policy)

    async def DeactivateResourcePolicy(
        self, request: resource_policies_pb2.DeactivateResourcePolicyRequest, context: Any
    ) -> resource_policies_pb2.ResourcePolicy:
        async with self.db.write() as session:
            policy = await queries.get_policy(session, UUID(request.id))
            require("activate", policy)
            check_etag(policy, request.etag)
            policy.state = rules.taken_out_of_force(policy.state)
            await grants.check_grant(session, covered(policy, "deny"))
            await queries.change_policies(session)
            return await _answer(session, "deactivate", policy)

    async def DeleteResourcePolicy(
        self, request: resource_policies_pb2.DeleteResourcePolicyRequest, context: Any
    ) -> resource_policies_pb2.ResourcePolicy:
        async with self.db.write() as session:
            policy = await queries.get_policy(session, UUID(request.id))
            require("delete", policy)
            check_etag(policy, request.etag)
            rules.check_draft(policy.state)
            await grants.check_grant(session, covered(policy, "deny"))
            policy.deleted_at = now()
            _supersede(session, policy, hash_of(policy))
            return await _answer(session, Action.DELETE, policy)

    async def UndeleteResourcePolicy(
        self, request: resource_policies_pb2.UndeleteResourcePolicyRequest, context: Any
    ) -> resource_policies_pb2.ResourcePolicy:
        async with self.db.write() as session:
            policy = await queries.get_policy(session, UUID(request.id), also_deleted=True)
            require("undelete", policy)
            check_etag(policy, request.etag)
            if policy.deleted_at is None:
                raise wrong_state("The policy is not deleted.", policy.state)
            policy.deleted_at = None
            return await _answer(session, Action.UNDELETE, policy)

    async def ListResourcePolicyVersions(
        self, request: resource_policies_pb2.ListResourcePolicyVersionsRequest, context: Any
    ) -> resource_policies_pb2.ListResourcePolicyVersionsResponse:
        page = Page.of(request)
        async with self.db.read() as session:
            policy = await queries.get_policy_row(session, UUID(request.policy_id))
            require("read", policy, resource="resource_policy")
            rows, token = page.split(await queries.list_versions(session, policy.id, page), lambda row: (row.version,))
        return resource_policies_pb2.ListResourcePolicyVersionsResponse(
            versions=[version_to_proto(row) for row in rows], next_page_token=token
        )

    async def RestoreResourcePolicyVersion(
        self, request: resource_policies_pb2.RestoreResourcePolicyVersionRequest, context: Any
    ) -> resource_policies_pb2.ResourcePolicy:
        async with self.db.write() as session:
            await queries.get_tenant(session)
            policy = await queries.get_policy(session, UUID(request.id))
            require("update", policy)
            check_etag(policy, request.etag)
            earlier = await queries.get_version(session, policy.id, request.version)
            await _rewrite(session, policy, {name: getattr(earlier, name) for name in SAID})
            return await _answer(session, "restore_version", policy)


async def _rewrite(session: WriteSession, policy: ResourcePolicy, written: dict[str, Any]) -> None:
    """Makes it the next version of the policy that it says what is written."""
    if policy.state == "active":
        settings = (await queries.get_tenant_row(session)).settings
        rules.check_edit(approval_required=settings.get("policy_approval_required", False))
    lifted, before = covered(policy, "deny"), hash_of(policy)
    for name, value in written.items():
        setattr(policy, name, value)
    check_policy(policy)
    await grants.check_grant(session, lifted | covered(policy, "allow"))
    policy.version += 1
    if hash_of(policy) != before:
        _supersede(session, policy, before)


def _supersede(session: WriteSession, policy: ResourcePolicy, content_hash: str) -> None:
    """Takes back what was approved or asked for of what the policy said, whose hash this is."""
    edited = ResourcePolicyEdited(policy_id=str(policy.id), content_hash=content_hash, used=policy.state == "active")
    outbox.publish(session, "resource_policy", policy.id, edited)
    policy.approval_id = policy.approved_hash = None


async def on_approval_decided(session: WriteSession, event: Event, decided: ApprovalDecided) -> None:
    """Binds an approval that was granted to the policy, if it still says what was approved. If not, the edit and the
    decision met on their ways, and audit is told once more that the approval is void."""
    if decided.entity_type != "resource_policy" or decided.state != ApprovalState.APPROVAL_STATE_APPROVED:
        return
    try:
        policy = await queries.get_policy(session, UUID(decided.entity_id), also_deleted=True)
    except NotFound:
        return
    if policy.deleted_at is not None or hash_of(policy) != decided.content_hash:
        late = ResourcePolicyEdited(policy_id=decided.entity_id, content_hash=decided.content_hash)
        outbox.publish(session, "resource_policy", policy.id, late)
        return
    policy.approval_id, policy.approved_hash = UUID(decided.approval_id), decided.content_hash
    audit.record(session, "approve", policy)


async def _answer(session: WriteSession, action: str, policy: ResourcePolicy) -> resource_policies_pb2.ResourcePolicy:
    """Records the change with the version that it makes, if it makes one, and spreads it as far as it is in force."""
    audit.record(session, action, policy)
    if action in {Action.CREATE, Action.UPDATE, "restore_version"}:
        # First the policy itself: a version refers to it.
        await session.flush()
        session.add(_version_of(policy))
    if policy.state == "active":
        rules.check_size_in_force(await queries.size_of_policies_in_force(session))
        await queries.change_policies(session)
    await session.flush()
    return policy_to_proto(policy, await queries.list_authors(session, policy.id))


def _version_of(policy: ResourcePolicy) -> ResourcePolicyVersion:
    texts = {name: getattr(policy, name) for name in (*SAID, "version")}
    return ResourcePolicyVersion(policy_id=policy.id, author_id=current().subject, **texts)


def said(sent: resource_policies_pb2.ResourcePolicy, mask: FieldMask | None = None) -> dict[str, Any]:
    """What the policy sent says, as it is stored; without a mask, of the fields that are populated."""
    found = fieldmask.changes(sent, mask or FieldMask(), SAID)
    if "actions" in found:
        found["actions"] = list(found["actions"])
    if "conditions" in found:
        found["conditions"] = document_of(found["conditions"])
    if "effect" in found:
        effect = found["effect"]
        found["effect"] = stored_name(PolicyEffect, effect)
    return found


def document_of(sent: Value) -> Any:
    """The conditions as they were written."""
    try:
        document = _plain(MessageToDict(sent))
    except ValueError as error:
        raise InvalidArgument.fields([("policy.conditions", "a number is not finite")]) from error
    if len(json.dumps(document)) > MOST_CONDITION_BYTES:
        raise InvalidArgument.fields([("policy.conditions", f"longer than {MOST_CONDITION_BYTES} bytes as JSON")])
    return document


def _plain(document: Any) -> Any:
    """With whole numbers as such: protobuf reads all as floats."""
    match document:
        case dict():
            return {name: _plain(value) for name, value in document.items()}
        case list():
            return [_plain(value) for value in document]
        case float() if document.is_integer():
            return int(document)
    return document


def check_policy(policy: Any, required: Iterable[str] = REQUIRED) -> Condition:
    """The condition of a policy that fits the platform; INVALID_ARGUMENT says why another one does not. Of a policy
    that is only tried less is required."""
    wrong = [(f"policy.{name}", "is required") for name in required if getattr(policy, name) in (None, "")]
    if wrong := wrong or _unknown(policy.resource, policy.actions):
        raise InvalidArgument.fields(wrong)
    try:
        return read(policy.conditions, policy.resource, attributes(policy.resource))
    except ConditionError as error:
        where, _, what = str(error).partition(": ")
        raise InvalidArgument.fields([(f"policy.{where}", what)]) from error


def _unknown(resource: str, actions: Sequence[str]) -> list[tuple[str, str]]:
    """What is wrong with the resource and the actions that a policy is to be about."""
    if resource == EXEMPT or resource in ONLY_APPROVED:
        return [("policy.resource", f"no policy is about {resource}")]
    if not is_known((resource, "manage")):
        return [("policy.resource", f"{resource} is not in the permission catalogue")]
    return [
        (f"policy.actions[{index}]", f"{resource}:{action} is not in the permission catalogue")
        for index, action in enumerate(actions)
        if not is_known((resource, action)) or (action == "approve" and resource in APPROVABLE)
    ]


def covered(policy: ResourcePolicy, effect: str) -> set[Permission]:
    """The permissions that a policy of this effect is about; none of one that has the other effect.

    Whoever lets somebody do something, by allowing it or by lifting what refuses it, must be able to do it too.
    """
    return grants.about(policy) if policy.effect == effect else set()


def _text_to_proto(row: Any) -> resource_policies_pb2.ResourcePolicy:
    return resource_policies_pb2.ResourcePolicy(
        name=row.name,
        description=row.description,
        resource=row.resource,
        actions=row.actions,
        conditions=ParseDict(row.conditions, Value()),
        effect=f"POLICY_EFFECT_{row.effect.upper()}",
        priority=row.priority,
        version=row.version,
    )


def hash_of(row: Any) -> str:
    """SHA-256, in hexadecimal, of the JSON of what a policy says, its keys sorted and without white space."""
    text = {name: getattr(row, name) for name in SAID}
    canonical = json.dumps(text, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def policy_to_proto(row: Any, authors: Iterable[UUID] = ()) -> resource_policies_pb2.ResourcePolicy:
    """Of a policy, or of a row of its columns."""
    message = resource_policies_pb2.ResourcePolicy(
        id=str(row.id),
        state=f"POLICY_STATE_{row.state.upper()}",
        etag=str(row.revision),
        content_hash=hash_of(row),
        contributor_ids=map(str, authors),
    )
    message.MergeFrom(_text_to_proto(row))
    if row.approval_id is not None:
        message.approval_id, message.approved = str(row.approval_id), True
    set_times(message, row)
    return message


def version_to_proto(row: Any) -> resource_policies_pb2.ResourcePolicyVersion:
    policy = _text_to_proto(row)
    policy.id = str(row.policy_id)
    message = resource_policies_pb2.ResourcePolicyVersion(
        version=row.version, policy=policy, author_id=str(row.author_id)
    )
    message.create_time.FromDatetime(row.created_at)
    return message
