"""Tables of the audit service: the log, which is only ever added to, and approvals with their decisions."""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    Table,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from kit import models
from kit.models import Resource, TenantRow, Timed
from services.audit.rules import State
from storyloom.audit.v1 import approvals_pb2, audit_logs_pb2, legal_holds_pb2


class Base(models.Base):
    __abstract__ = True
    metadata = models.metadata("audit")


class AuditLog(TenantRow, Base):
    """One entry. Its id is the event's, so that an event delivered twice is still one entry.

    `leaf` is the whole entry in canonical JSON, its personal values sealed (see `sealing`): proofs are made of these
    bytes. The other columns repeat what entries are looked for by.
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
    request_id: Mapped[str]
    trace_id: Mapped[str]
    rpc: Mapped[str]
    occurred_at: Mapped[datetime]
    recorded_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    leaf: Mapped[bytes]

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


class SubjectKey(TenantRow, Base):
    """The key that seals what entries say of one person, itself encrypted. Destroyed, it stays as an empty row: no
    second one is made for the subject. Condemned, it will be when no legal hold is active any more."""

    __tablename__ = "subject_keys"

    subject_id: Mapped[UUID]
    wrapped_key: Mapped[bytes | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    destroyed_at: Mapped[datetime | None]
    condemned_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("(wrapped_key IS NULL) = (destroyed_at IS NOT NULL)", name="destroyed"),
        UniqueConstraint("tenant_id", "subject_id"),
    )


# Entries that are in no tree yet. Infrastructure, as the outbox is: no policy, so that tenants with entries are found.
tree_queue = Table(
    "tree_queue",
    Base.metadata,
    Column("seq", BigInteger, Identity(always=True), primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    Index(None, "tenant_id", "seq"),
)


# How far each tenant's tree is, and how much of it a checkpoint signs. Infrastructure, as its queue is.
trees = Table(
    "trees",
    Base.metadata,
    Column("tenant_id", Uuid, primary_key=True),
    Column("size", BigInteger, nullable=False, server_default=text("0")),
    Column("signed_size", BigInteger, nullable=False, server_default=text("0")),
    Column("unsigned_since", DateTime(timezone=True)),
    CheckConstraint("signed_size BETWEEN 0 AND size", name="signed_size"),
)


class TreeLeaf(TenantRow, Base):
    """The place of an entry in the tree. Its id is the entry's, and outlives the entry."""

    __tablename__ = "tree_leaves"

    leaf_index: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[bytes]

    __table_args__ = (
        CheckConstraint("leaf_index >= 0", name="leaf_index"),
        CheckConstraint("length(hash) = 32", name="hash"),
        UniqueConstraint("tenant_id", "leaf_index"),
    )


class TreeNode(TenantRow, Base):
    """The hash of a complete subtree of two leaves or more. Its id is where it is: the level in the first 64 bits, the
    place among the nodes of the level in the others."""

    __tablename__ = "tree_nodes"

    hash: Mapped[bytes]

    __table_args__ = (CheckConstraint("length(hash) = 32", name="hash"),)


class Checkpoint(TenantRow, Base):
    """The signed root of the tree at one size; `signed_text` is that as verifiers take it."""

    __tablename__ = "checkpoints"

    tree_size: Mapped[int] = mapped_column(BigInteger)
    root_hash: Mapped[bytes]
    signed_text: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))

    __table_args__ = (
        CheckConstraint("tree_size > 0", name="tree_size"),
        UniqueConstraint("tenant_id", "tree_size"),
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
    due_time: Mapped[datetime | None] = mapped_column(default=None)
    withdrawal_comment: Mapped[str] = mapped_column(default="", server_default=text("''"))
    # What was approved was used, and has been edited since: it may be asked for again.
    superseded: Mapped[bool] = mapped_column(default=False, server_default=text("false"))

    __table_args__ = (
        CheckConstraint(
            "state IN ('pending', 'approved', 'rejected', 'withdrawn', 'voided', 'expired')", name="state"
        ),
        CheckConstraint("quorum >= 1", name="quorum"),
        Index(
            "ix_approvals_open_entity",
            "tenant_id",
            "entity_type",
            "entity_id",
            "content_hash",
            unique=True,
            postgresql_where=text("state = 'pending' OR (state = 'approved' AND NOT superseded)"),
        ),
        Index(None, "tenant_id", "entity_id", "id"),
        Index(None, "tenant_id", "state", "id"),
        Index(None, "tenant_id", "requester_id", "id"),
        Index(None, "tenant_id", "due_time", postgresql_where=text("due_time IS NOT NULL")),
    )


class ApprovalAuthor(TenantRow, Timed, Base):
    """Somebody who wrote some of what an approval is of, as its owner told when the approval was requested."""

    __tablename__ = "approval_authors"

    approval_id: Mapped[UUID]
    user_id: Mapped[UUID]

    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "approval_id"], [Approval.tenant_id, Approval.id]),
        UniqueConstraint("tenant_id", "approval_id", "user_id"),
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


class LegalHold(Resource, Base):
    """While it is not released, the entries of its time range stay, and so do the keys of what they say."""

    __tablename__ = "legal_holds"
    __resource__ = "legal_hold"
    __message__ = legal_holds_pb2.LegalHold.DESCRIPTOR

    reason: Mapped[str]
    start_time: Mapped[datetime | None]
    end_time: Mapped[datetime | None]
    creator_id: Mapped[UUID]
    releaser_id: Mapped[UUID | None]
    release_time: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("start_time < end_time", name="range"),
        CheckConstraint("(releaser_id IS NULL) = (release_time IS NULL)", name="release"),
    )
