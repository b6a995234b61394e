"""Approvals: requested for what an entity says now, decided by others, void when it is edited."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID

from kit import audit, outbox
from kit.access import require
from kit.audit import Action
from kit.auth import current
from kit.clients import Clients
from kit.db import Database, WriteSession
from kit.enums import stored_name
from kit.errors import InvalidArgument, wrong_state
from kit.ids import NIL
from kit.models import check_etag, now
from kit.pagination import Page
from services.audit import models, queries, rules
from services.audit.rules import State, Verdict
from storyloom.audit.v1 import approvals_pb2
from storyloom.audit.v1.approvals_pb2 import (
    Approval,
    ApprovalDecision,
    ApprovalState,
    ApproveApprovalRequest,
    CreateApprovalRequest,
    GetApprovalRequest,
    ListApprovalsRequest,
    ListApprovalsResponse,
    RejectApprovalRequest,
    WithdrawApprovalRequest,
)
from storyloom.audit.v1.events_pb2 import ApprovalDecided
from storyloom.content.v1.events_pb2 import ApprovableEdited
from storyloom.content.v1.lessons_pb2 import GetLessonRequest, Lesson
from storyloom.content.v1.lessons_pb2_grpc import LessonServiceStub
from storyloom.content.v1.story_versions_pb2 import GetStoryVersionRequest, StoryVersion
from storyloom.content.v1.story_versions_pb2_grpc import StoryVersionServiceStub
from storyloom.event.v1.events_pb2 import Event
from storyloom.identity.v1.events_pb2 import ResourcePolicyEdited
from storyloom.identity.v1.resource_policies_pb2 import GetResourcePolicyRequest, ResourcePolicy
from storyloom.identity.v1.resource_policies_pb2_grpc import ResourcePolicyServiceStub
from storyloom.identity.v1.tenants_pb2 import GetMyTenantRequest
from storyloom.identity.v1.tenants_pb2_grpc import TenantServiceStub


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What an entity says now, as a hash, and who wrote it: whoever wrote last, and all who wrote some of it."""

    content_hash: str
    author_id: UUID
    authors: frozenset[UUID]

    @classmethod
    def of(cls, content_hash: str, authors: Sequence[str]) -> Self:
        """`authors` are ids, that of whoever wrote last first; none are known of what is older than their record."""
        ids = [UUID(one) for one in authors] or [NIL]
        return cls(content_hash, ids[0], frozenset(ids))


Look = Callable[[str], Awaitable[Fingerprint]]


def approvables(clients: Clients) -> dict[str, Look]:
    """How to get the fingerprint of an entity of each kind that can be approved, as the caller may see it."""
    versions = clients.stub(StoryVersionServiceStub, "content")
    lessons = clients.stub(LessonServiceStub, "content")
    policies = clients.stub(ResourcePolicyServiceStub, "identity")

    async def story_version(entity_id: str) -> Fingerprint:
        request = GetStoryVersionRequest(id=entity_id, view="BASIC", with_contributors=True)
        version: StoryVersion = await versions.GetStoryVersion(request)
        if version.superseded:
            raise wrong_state("The story has a later version by now.", "superseded")
        return Fingerprint.of(version.content_hash, [version.author_id, *version.contributor_ids])

    async def lesson(entity_id: str) -> Fingerprint:
        found: Lesson = await lessons.GetLesson(GetLessonRequest(id=entity_id))
        return Fingerprint.of(found.content_hash, found.contributor_ids)

    async def resource_policy(entity_id: str) -> Fingerprint:
        policy: ResourcePolicy = await policies.GetResourcePolicy(GetResourcePolicyRequest(id=entity_id))
        return Fingerprint.of(policy.content_hash, policy.contributor_ids)

    return {"story_version": story_version, "lesson": lesson, "resource_policy": resource_policy}


async def on_approvable_edited(session: WriteSession, event: Event, edited: ApprovableEdited) -> None:
    await _void(session, edited.entity_type, edited.entity_id, edited.content_hash, used=edited.used)


async def on_policy_edited(session: WriteSession, event: Event, edited: ResourcePolicyEdited) -> None:
    await _void(session, "resource_policy", edited.policy_id, edited.content_hash, used=edited.used)


async def _void(session: WriteSession, entity_type: str, entity_id: str, content_hash: str, *, used: bool) -> None:
    """Voids what was asked for or granted of content that is edited; what was used stays granted, and is closed."""
    for approval in await queries.list_open(session, entity_type, UUID(entity_id), content_hash):
        state = rules.after_edit(rules.state_at(approval.state, approval.due_time, now()), used=used)
        if state == State.APPROVED:
            approval.superseded = True
        else:
            _move(session, "expire" if state is State.EXPIRED else "void", approval, state)


class ApprovalService:
    SERVICE = approvals_pb2.DESCRIPTOR.services_by_name["ApprovalService"]

    def __init__(self, db: Database, clients: Clients) -> None:
        self.db = db
        self.looks: Mapping[str, Look] = approvables(clients)
        self.tenants = clients.stub(TenantServiceStub, "identity")

    async def CreateApproval(self, request: CreateApprovalRequest, context: Any) -> Approval:
        wanted, due = request.approval, _due(request.approval)
        found = await self.looks[wanted.entity_type](wanted.entity_id)
        tenant = await self.tenants.GetMyTenant(GetMyTenantRequest())
        approval = models.Approval(
            entity_type=wanted.entity_type,
            entity_id=UUID(wanted.entity_id),
            comment=wanted.comment,
            content_hash=found.content_hash,
            requester_id=current().subject,
            author_id=found.author_id,
            quorum=tenant.settings.approval_quorum or 1,
            due_time=due,
        )
        async with self.db.write() as session:
            require("create", approval)
            await _expire(session, approval)
            session.add(approval)
            audit.record(session, Action.CREATE, approval)
            await session.flush()
            for user_id in found.authors:
                session.add(models.ApprovalAuthor(approval_id=approval.id, user_id=user_id))
        return approval_to_proto(approval, [])

    async def GetApproval(self, request: GetApprovalRequest, context: Any) -> Approval:
        async with self.db.read() as session:
            row = await queries.get_approval_row(session, request.id)
            require("read", row, resource="approval")
            decisions = await queries.list_decisions(session, [row.id])
        return approval_to_proto(row, decisions[row.id])

    async def ListApprovals(self, request: ListApprovalsRequest, context: Any) -> ListApprovalsResponse:
        page = Page.of(request)
        state = stored_name(ApprovalState, request.state)
        async with self.db.read() as session:
            rows, token = await queries.list_approvals(session, request, state, page)
            decisions = await queries.list_decisions(session, [row.id for row in rows])
        approvals = [approval_to_proto(row, decisions[row.id]) for row in rows]
        return ListApprovalsResponse(approvals=approvals, next_page_token=token)

    async def ApproveApproval(self, request: ApproveApprovalRequest, context: Any) -> Approval:
        return await self._decide(request, Verdict.APPROVE)

    async def RejectApproval(self, request: RejectApprovalRequest, context: Any) -> Approval:
        return await self._decide(request, Verdict.REJECT)

    async def _decide(self, request: ApproveApprovalRequest | RejectApprovalRequest, verdict: Verdict) -> Approval:
        user_id = current().subject
        async with self.db.write() as session:
            approval = await queries.get_approval(session, request.id)
            require("approve", approval, resource=approval.entity_type)
            check_etag(approval, request.etag)
            decisions = (await queries.list_decisions(session, [approval.id]))[approval.id]
            state = rules.decide(
                verdict,
                user_id,
                state=rules.state_at(approval.state, approval.due_time, now()),
                requester_id=approval.requester_id,
                authors=await queries.list_authors(session, approval.id),
                decisions={one.user_id: one.verdict for one in decisions},
                quorum=approval.quorum,
            )
            decision = models.ApprovalDecision(
                approval_id=approval.id, user_id=user_id, verdict=verdict.value, comment=request.comment
            )
            session.add(decision)
            _move(session, verdict, approval, state, comment=request.comment)
        return approval_to_proto(approval, [*decisions, decision])

    async def WithdrawApproval(self, request: WithdrawApprovalRequest, context: Any) -> Approval:
        async with self.db.write() as session:
            approval = await queries.get_approval(session, request.id)
            require("withdraw", approval)
            check_etag(approval, request.etag)
            before = rules.state_at(approval.state, approval.due_time, now())
            state = rules.withdraw(current().subject, state=before, requester_id=approval.requester_id)
            decisions = await queries.list_decisions(session, [approval.id])
            approval.withdrawal_comment = request.comment
            _move(session, "withdraw", approval, state, comment=request.comment)
        return approval_to_proto(approval, decisions[approval.id])


def _due(sent: Approval) -> datetime | None:
    """Until when it can be decided on; INVALID_ARGUMENT when that has passed."""
    if not sent.HasField("due_time"):
        return None
    due = sent.due_time.ToDatetime(tzinfo=UTC)
    if due <= now():
        raise InvalidArgument.fields([("approval.due_time", "must be in the future")])
    return due


async def _expire(session: WriteSession, approval: models.Approval) -> None:
    """Writes down that an earlier request of the same was not decided on in time: it makes room for this one."""
    keys = (approval.entity_type, approval.entity_id, approval.content_hash)
    for earlier in await queries.list_open(session, *keys):
        if rules.state_at(earlier.state, earlier.due_time, now()) is State.EXPIRED:
            _move(session, "expire", earlier, State.EXPIRED)
    await session.flush()


def _move(session: WriteSession, action: str, approval: models.Approval, state: State, *, comment: str = "") -> None:
    """Brings the approval to the state after a decision, and tells the owner of the entity when that is the last."""
    audit.write(
        session,
        action,
        "approval",
        approval.id,
        old={"state": approval.state},
        new={"state": state} | ({"comment": comment} if comment else {}),
        sensitive={"comment"},
    )
    # A decision that leaves the state as it is changes the approval too, and so its etag.
    approval.state, approval.updated_at = state.value, now()
    if state is not State.PENDING:
        outbox.publish(session, "approval", approval.id, _decided(approval))


def _decided(approval: models.Approval) -> ApprovalDecided:
    return ApprovalDecided(
        approval_id=str(approval.id),
        entity_type=approval.entity_type,
        entity_id=str(approval.entity_id),
        content_hash=approval.content_hash,
        state=_state(approval.state),
    )


def approval_to_proto(approval: Any, decisions: Sequence[Any]) -> Approval:
    """Of an entity or a row, and the decisions on it."""
    message = Approval(
        id=str(approval.id),
        entity_type=approval.entity_type,
        entity_id=str(approval.entity_id),
        comment=approval.comment,
        content_hash=approval.content_hash,
        requester_id=str(approval.requester_id),
        author_id=str(approval.author_id),
        state=_state(rules.state_at(approval.state, approval.due_time, now())),
        withdrawal_comment=approval.withdrawal_comment,
        quorum=approval.quorum,
        decisions=[_decision_to_proto(one) for one in decisions],
        etag=str(approval.revision),
    )
    if approval.due_time is not None:
        message.due_time.FromDatetime(approval.due_time)
    message.create_time.FromDatetime(approval.created_at)
    message.update_time.FromDatetime(approval.updated_at)
    return message


def _decision_to_proto(decision: Any) -> ApprovalDecision:
    message = ApprovalDecision(
        user_id=str(decision.user_id),
        verdict=f"APPROVAL_VERDICT_{decision.verdict.upper()}",
        comment=decision.comment,
    )
    message.create_time.FromDatetime(decision.created_at)
    return message


def _state(stored: str) -> str:
    return f"APPROVAL_STATE_{stored.upper()}"
