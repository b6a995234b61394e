"""Statements on approvals and the decisions on them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import ColumnElement, Row, Select, and_, false, func, not_, or_, select

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import existing
from kit.models import now
from kit.pagination import Page
from services.audit.models import Approval, ApprovalAuthor, ApprovalDecision
from services.audit.queries.filters import equal
from services.audit.rules import State
from storyloom.audit.v1.approvals_pb2 import ListApprovalsRequest

APPROVAL: Select[Any] = select(*(column for column in Approval.__table__.columns if column.key != "tenant_id"))


async def get_approval(session: WriteSession, approval_id: str) -> Approval:
    """The approval, locked: decisions on it are made one after the other."""
    statement = select(Approval).where(Approval.tenant_id == session.tenant_id, Approval.id == UUID(approval_id))
    approval: Approval | None = await session.scalar(statement.with_for_update())
    return existing(approval, "approval")


async def get_approval_row(session: ReadSession, approval_id: str) -> Row[Any]:
    statement = APPROVAL.where(Approval.tenant_id == session.tenant_id, Approval.id == UUID(approval_id))
    return existing((await session.execute(statement)).one_or_none(), "approval")


async def list_approvals(
    session: ReadSession, request: ListApprovalsRequest, state: str, page: Page
) -> tuple[Sequence[Row[Any]], str]:
    statement = APPROVAL.where(
        Approval.tenant_id == session.tenant_id,
        visible("list", Approval),
        *equal(Approval, request, texts=("entity_type",), ids=("entity_id", "requester_id")),
        *([_is_in(State(state))] if state else []),
        *([Approval.due_time < _time(request.due_before_time)] if request.HasField("due_before_time") else []),
    )
    rows = (await session.execute(page.apply(statement, Approval.id))).all()
    return page.split(rows, key=lambda row: (row.id,))


async def list_open(
    session: WriteSession, entity_type: str, entity_id: UUID, content_hash: str
) -> Sequence[Approval]:
    """The approvals of this content that are pending, or granted and not superseded, locked."""
    statement = select(Approval).where(
        Approval.tenant_id == session.tenant_id,
        Approval.entity_type == entity_type,
        Approval.entity_id == entity_id,
        Approval.content_hash == content_hash,
        or_(Approval.state == State.PENDING, and_(Approval.state == State.APPROVED, not_(Approval.superseded))),
    )
    found: Sequence[Approval] = (await session.execute(statement.with_for_update())).scalars().all()
    return found


async def list_authors(session: ReadSession, approval_id: UUID) -> frozenset[UUID]:
    """Who wrote some of what the approval is of."""
    statement = select(ApprovalAuthor.user_id).where(
        ApprovalAuthor.tenant_id == session.tenant_id, ApprovalAuthor.approval_id == approval_id
    )
    return frozenset((await session.execute(statement)).scalars())


def _time(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)


def _is_in(state: State) -> ColumnElement[bool]:
    """Whether the approval is in the state by now, as `rules.state_at` has it."""
    overdue = and_(Approval.state == State.PENDING, func.coalesce(Approval.due_time <= now(), false()))
    match state:
        case State.PENDING:
            return and_(Approval.state == state, not_(overdue))
        case State.EXPIRED:
            return or_(Approval.state == state, overdue)
    return Approval.state == state


async def list_decisions(session: ReadSession, approval_ids: Sequence[UUID]) -> dict[UUID, list[Row[Any]]]:
    """The decisions on these approvals, oldest first, by approval."""
    found: dict[UUID, list[Row[Any]]] = {one: [] for one in approval_ids}
    columns = ApprovalDecision.__table__.columns
    statement = (
        select(columns.approval_id, columns.user_id, columns.verdict, columns.comment, columns.created_at)
        .where(ApprovalDecision.tenant_id == session.tenant_id, ApprovalDecision.approval_id.in_(approval_ids))
        .order_by(ApprovalDecision.id)
    )
    for row in await session.execute(statement):
        found[row.approval_id].append(row)
    return found
