"""Tables of the audit service: the log, which is only ever added to, and approvals with their decisions."""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from kit import models
from kit.models import Resource, TenantRow, Timed
from services.audit.rules import State
from storyloom.audit.v1 import approvals_pb2, audit_logs_pb2


class Base(models.Base):
    __abstract__ = True
    metadata = models.metadata("audit")


class AuditLog(TenantRow, Base):
    """One entry. Its id is the event's, so that an event delivered twice is still one entry.

    Values are kept as the text that arrived, byte for byte: proofs of the log are made of it.
    """

    __tablename__ = "audit_logs"
    __resource__: ClassVar[str] = "audit_log"
    __message__: ClassVar[Any] = audit_logs_pb2.AuditLog.DESCRIPTOR

    action: Mapped[str]
    entity_type: Mapped[str]
    entity_id: Mapped[UUID]
    user_id: Mapped[UUID | None]
    acting_tenant_id: Mapped[UUID | None]
    service: Mapped[str]
    old_values: Mapped[str | None]
    new_values: Mapped[str | None]
    request_id: Mapped[str]
    trace_id: Mapped[str]
    rpc: Mapped[str]
    client_address: Mapped[str]
    occurred_at: Mapped[datetime]
    recorded_at: Mapped[datetime] = mapped_column(server_default=text("now()"))

    __table_args__ = (
        # Finds an entity without its kind too: the kinds are few, so the index skips from one to the next.
        Index(None, "tenant_id", "entity_type", "entity_id", "id"),
        Index(None, "tenant_id", "entity_type", "id"),
        Index(None, "tenant_id", "user_id", "id"),
        Index(None, "tenant_id", "action", "id"),
        Index(None, "tenant_id", "request_id", "id"),
        Index(None, "tenant_id", "trace_id", "id"),
        # By month: an id begins with its time, so a month's entries are one range of ids.
        {"postgresql_partition_by": "RANGE (id)"},
    )


class Approval(Resource, Base):
    __tablename__ = "approvals"
    __resource__ = "approval"
    __message__ = approvals_pb2.Approval.DESCRIPTOR

    entity_type: Mapped[str]
    entity_id: Mapped[UUID]
    comment: Mapped[str]
    content_hash: Mapped[str]
    requester_id: Mapped[UUID]
    author_id: Mapped[UUID]
    state: Mapped[str] = mapped_column(default=State.PENDING.value)
    quorum: Mapped[int]

    __table_args__ = (
        CheckConstraint("state IN ('pending', 'approved', 'rejected', 'withdrawn', 'voided')", name="state"),
        CheckConstraint("quorum >= 1", name="quorum"),
        Index(
            "ix_approvals_open_entity",
            "tenant_id",
            "entity_type",
            "entity_id",
            unique=True,
            postgresql_where=text("state IN ('pending', 'approved')"),
        ),
        Index(None, "tenant_id", "entity_id", "id"),
        Index(None, "tenant_id", "state", "id"),
        Index(None, "tenant_id", "requester_id", "id"),
    )


class ApprovalDecision(TenantRow, Timed, Base):
    __tablename__ = "approval_decisions"

    approval_id: Mapped[UUID]
    user_id: Mapped[UUID]
    verdict: Mapped[str]
    comment: Mapped[str]

    __table_args__ = (
        CheckConstraint("verdict IN ('approve', 'reject')", name="verdict"),
        ForeignKeyConstraint(["tenant_id", "approval_id"], [Approval.tenant_id, Approval.id]),
        UniqueConstraint("tenant_id", "approval_id", "user_id"),
    )


