"""Approvals: requested for what an entity says now, decided by others, void when it is edited."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from kit import audit, outbox
from kit.access import require
from kit.audit import Action
from kit.auth import current
from kit.clients import Clients
from kit.db import Database, WriteSession
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
from storyloom.content.v1.story_versions_pb2 import GetStoryVersionRequest, StoryVersion
from storyloom.content.v1.story_versions_pb2_grpc import StoryVersionServiceStub
from storyloom.event.v1.events_pb2 import Event
from storyloom.identity.v1.tenants_pb2 import GetMyTenantRequest
from storyloom.identity.v1.tenants_pb2_grpc import TenantServiceStub

# What an entity says now and who made it: its content hash and its author.
Fingerprint = Callable[[str], Awaitable[tuple[str, UUID]]]


def approvables(clients: Clients) -> dict[str, Fingerprint]:
    """How to get the fingerprint of an entity of each kind that can be approved, as the caller may see it."""
    versions = clients.stub(StoryVersionServiceStub, "content")

    async def story_version(entity_id: str) -> tuple[str, UUID]:
        version: StoryVersion = await versions.GetStoryVersion(GetStoryVersionRequest(id=entity_id, view="BASIC"))
        return version.content_hash, UUID(version.author_id)

    return {"story_version": story_version}


async def on_approvable_edited(session: WriteSession, event: Event, edited: ApprovableEdited) -> None:
    found = await queries.list_pending(session, edited.entity_type, edited.entity_id, edited.content_hash)
    for approval in found:
        _move(session, "void", approval, State.VOIDED)


class ApprovalService:
    SERVICE = approvals_pb2.DESCRIPTOR.services_by_name["ApprovalService"]

    def __init__(self, db: Database, clients: Clients) -> None:
        self.db = db
        self.fingerprints: Mapping[str, Fingerprint] = approvables(clients)
        self.tenants = clients.stub(TenantServiceStub, "identity")

    async def CreateApproval(self, request: CreateApprovalRequest, context: Any) -> Approval:
        wanted = request.approval
        content_hash, author_id = await self.fingerprints[wanted.entity_type](wanted.entity_id)
        tenant = await self.tenants.GetMyTenant(GetMyTenantRequest())
        async with self.db.write() as session:
            approval = models.Approval(
                entity_type=wanted.entity_type,
                entity_id=UUID(wanted.entity_id),
                comment=wanted.comment,
                content_hash=content_hash,
                requester_id=current().subject,
                author_id=author_id,
                quorum=tenant.settings.approval_quorum or 1,
            )
            require("create", approval)
            session.add(approval)
            audit.record(session, Action.CREATE, approval)
        return approval_to_proto(approval, [])

    async def GetApproval(self, request: GetApprovalRequest, context: Any) -> Approval:
        async with self.db.read() as session:
            row = await queries.get_approval_row(session, request.id)
            require("read", row, resource="approval")
            decisions = await queries.list_decisions(session, [row.id])
        return approval_to_proto(row, decisions[row.id])

    async def ListApprovals(self, request: ListApprovalsRequest, context: Any) -> ListApprovalsResponse:
        page = Page.of(request)
        state = _stored_state(request.state) if request.state else ""
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
                state=approval.state,
                requester_id=approval.requester_id,
                author_id=approval.author_id,
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
            state = rules.withdraw(current().subject, state=approval.state, requester_id=approval.requester_id)
            decisions = await queries.list_decisions(session, [approval.id])
            _move(session, "withdraw", approval, state)
        return approval_to_proto(approval, decisions[approval.id])


def _move(session: WriteSession, action: str, approval: models.Approval, state: State, *, comment: str = "") -> None:
    """Brings the approval to the state after a decision, and tells the owner of the entity when that is the last."""
    audit.write(
        session,
        action,
        "approval",
        approval.id,
        old={"state": approval.state},
        new={"state": state} | ({"comment": audit.REDACTED} if comment else {}),
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
        state=_state(approval.state),
        quorum=approval.quorum,
        decisions=[_decision_to_proto(one) for one in decisions],
        etag=str(approval.revision),
    )
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


def _stored_state(state: ApprovalState) -> str:
    return ApprovalState.Name(state).removeprefix("APPROVAL_STATE_").lower()
