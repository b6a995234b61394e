"""Tables of the identity service: tenants, users, roles, sessions, the keys that sign their tokens, and revisions."""

import json
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy import Column as SqlColumn
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

import kit.models
from kit.ids import SYSTEM_TENANT
from kit.models import Resource, SoftDeleted, TenantRow, Timed
from storyloom.identity.v1 import (
    erasures_pb2,
    invitations_pb2,
    resource_policies_pb2,
    roles_pb2,
    tenants_pb2,
    user_permissions_pb2,
    users_pb2,
)


class Base(kit.models.Base):
    __abstract__ = True
    metadata = kit.models.metadata("identity")


class TenantFacts:
    """What clients see of a tenant."""

    slug: Mapped[str]
    name: Mapped[str]
    status: Mapped[str] = mapped_column(default="active")
    settings: Mapped[dict[str, Any]] = mapped_column(JSONB)


class Tenant(TenantFacts, Resource, Base):
    """A tenant, which is a row of its own: `tenant_id` and `id` are the same."""

    __tablename__ = "tenants"
    __resource__ = "tenant"
    __message__ = tenants_pb2.Tenant.DESCRIPTOR
    __table_args__ = (
        CheckConstraint("id = tenant_id", "own"),
        CheckConstraint("status IN ('active', 'suspended')", "status"),
        UniqueConstraint("tenant_id"),
    )


class TenantListing(TenantFacts, TenantRow, Timed, Base):
    """The platform's list of tenants: rows of the system tenant, whose id is the id of the tenant they tell of.

    A sign-in knows a slug and no tenant, and staff search all tenants, but no query can read rows of two tenants. So
    what is known of a tenant is written here again, in the transaction of each change.
    """

    __tablename__ = "tenant_listings"
    __table_args__ = (
        CheckConstraint(f"tenant_id = '{SYSTEM_TENANT}'", "system"),
        Index(None, "tenant_id", "slug", unique=True),
    )
    revision: Mapped[int]


class User(Resource, SoftDeleted, Base):
    __tablename__ = "users"
    __resource__ = "user"
    __message__ = users_pb2.User.DESCRIPTOR
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id"], [Tenant.tenant_id]),
        CheckConstraint("status IN ('active', 'invited', 'deactivated')", "status"),
        CheckConstraint("status <> 'active' OR password_hash IS NOT NULL", "password"),
        Index(
            "ix_users_tenant_id_email",
            "tenant_id",
            text("lower(email)"),
            unique=True,
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index(None, "tenant_id", "display_name", "id"),
        # Imports find by it whom a school's own system means.
        Index(
            "ix_users_tenant_id_sourced_id",
            "tenant_id",
            text("(attributes ->> 'sourced_id')"),
            postgresql_where=text("deleted_at IS NULL AND attributes ->> 'sourced_id' IS NOT NULL"),
        ),
    )
    email: Mapped[str]
    display_name: Mapped[str]
    locale: Mapped[str] = mapped_column(default="")
    level: Mapped[str] = mapped_column(default="")
    attributes: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    status: Mapped[str]
    password_hash: Mapped[str | None] = mapped_column(default=None)


class Role(Resource, Base):
    __tablename__ = "roles"
    __resource__ = "role"
    __message__ = roles_pb2.Role.DESCRIPTOR
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id"], [Tenant.tenant_id]),
        Index(None, "tenant_id", "slug", unique=True),
    )
    slug: Mapped[str]
    name: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    system: Mapped[bool] = mapped_column(default=False)


class RolePermission(TenantRow, Timed, Base):
    __tablename__ = "role_permissions"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "role_id"], [Role.tenant_id, Role.id], ondelete="CASCADE"),
        Index(None, "tenant_id", "role_id", "resource", "action", unique=True),
    )
    role_id: Mapped[UUID]
    resource: Mapped[str]
    action: Mapped[str]


class UserRole(TenantRow, Timed, Base):
    __tablename__ = "user_roles"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "user_id"], [User.tenant_id, User.id], ondelete="CASCADE"),
        ForeignKeyConstraint(["tenant_id", "role_id"], [Role.tenant_id, Role.id]),
        Index(None, "tenant_id", "user_id", "role_id", unique=True),
        Index(None, "tenant_id", "role_id"),
    )
    user_id: Mapped[UUID]
    role_id: Mapped[UUID]


class UserPermission(TenantRow, Timed, Base):
    """A permission that a user has beside those of their roles, until `expires_at` if there is one."""

    __tablename__ = "user_permissions"
    __resource__ = "user_permission"
    __message__ = user_permissions_pb2.UserPermission.DESCRIPTOR
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "user_id"], [User.tenant_id, User.id], ondelete="CASCADE"),
        Index(None, "tenant_id", "user_id", "resource", "action", unique=True),
    )
    user_id: Mapped[UUID]
    resource: Mapped[str]
    action: Mapped[str]
    reason: Mapped[str] = mapped_column(default="", server_default="")
    expires_at: Mapped[datetime | None] = mapped_column(default=None)
    creator_id: Mapped[UUID | None] = mapped_column(default=None)


class Session(TenantRow, Timed, Base):
    """One sign-in on one device, and the family of its refresh tokens.

    `generation` counts the rotations; tokens of it are current.
    """

    __tablename__ = "sessions"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "user_id"], [User.tenant_id, User.id], ondelete="CASCADE"),
        CheckConstraint(
            "end_reason IN ('sign_out', 'password_change', 'barred', 'token_reuse', 'displaced')", "end_reason"
        ),
        Index(None, "tenant_id", "user_id", "ended_at"),
        Index(None, "tenant_id", "expires_at"),
    )
    user_id: Mapped[UUID]
    generation: Mapped[int]
    rotated_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None] = mapped_column(default=None)
    end_reason: Mapped[str | None] = mapped_column(default=None)


class RefreshToken(TenantRow, Timed, Base):
    """A refresh token, of which only the SHA-256 is known. Used ones stay, so that their reuse is noticed."""

    __tablename__ = "refresh_tokens"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "session_id"], [Session.tenant_id, Session.id], ondelete="CASCADE"),
        Index(None, "tenant_id", "session_id", "token_hash", unique=True),
    )
    session_id: Mapped[UUID]
    token_hash: Mapped[bytes]
    generation: Mapped[int]
    expires_at: Mapped[datetime]


class SignInFailures(TenantRow, Timed, Base):
    """Failed attempts for one key: an address, or an account seen from an address. Rows of the system tenant.

    The key is a keyed hash: the table names neither accounts nor addresses.
    """

    __tablename__ = "sign_in_failures"
    __table_args__ = (Index(None, "tenant_id", "key", unique=True), Index(None, "tenant_id", "last_failed_at"))
    key: Mapped[bytes]
    failures: Mapped[int]
    last_failed_at: Mapped[datetime]
    blocked_until: Mapped[datetime]


class SigningKey(TenantRow, Timed, Base):
    """A key that signs access tokens; its id is the `kid`. Rows of the system tenant.

    The partial unique index lets two processes that start together make one first key, not two.
    """

    __tablename__ = "signing_keys"
    __table_args__ = (
        CheckConstraint("state IN ('published', 'active', 'retired')", "state"),
        Index(None, "tenant_id", "state", unique=True, postgresql_where=text("state <> 'retired'")),
    )
    state: Mapped[str]
    public_key: Mapped[bytes]
    sealed_private_key: Mapped[bytes]
    activated_at: Mapped[datetime | None] = mapped_column(default=None)
    retired_at: Mapped[datetime | None] = mapped_column(default=None)


# Says only that somebody's rights changed, not how; read across tenants by one query, so infrastructure without policy.
# Without a tenant it is about everybody.
access_revisions = Table(
    "access_revisions",
    Base.metadata,
    SqlColumn("revision", BigInteger, Identity(always=True), primary_key=True),
    SqlColumn("tenant_id", Uuid),
    SqlColumn("user_id", Uuid),
    SqlColumn("session_id", Uuid),
    SqlColumn(
        "transaction_id", BigInteger, nullable=False, server_default=text("(pg_current_xact_id()::text)::bigint")
    ),
    SqlColumn("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Index(None, "transaction_id"),
    Index(None, "created_at"),
)


class Invitation(Resource, Base):
    """An offer to a user to choose a password. Of its token only the SHA-256 of the secret part is known."""

    __tablename__ = "invitations"
    __resource__ = "invitation"
    __message__ = invitations_pb2.Invitation.DESCRIPTOR
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "user_id"], [User.tenant_id, User.id], ondelete="CASCADE"),
        CheckConstraint("kind IN ('welcome', 'reset')", "kind"),
        Index(None, "tenant_id", "user_id", "id"),
        Index(
            "ix_invitations_pending",
            "tenant_id",
            "user_id",
            unique=True,
            postgresql_where=text("accepted_at IS NULL AND revoked_at IS NULL"),
        ),
    )
    user_id: Mapped[UUID]
    kind: Mapped[str]
    token_hash: Mapped[bytes]
    expires_at: Mapped[datetime]
    accepted_at: Mapped[datetime | None] = mapped_column(default=None)
    revoked_at: Mapped[datetime | None] = mapped_column(default=None)
    creator_id: Mapped[UUID]


class Erasure(Resource, Base):
    """A user or a tenant on the way out of all services; those of tenants are rows of the system tenant.

    `receipts` are by service: what it did, and how often it was asked to the end (`rules.to_ask`).
    """

    __tablename__ = "erasures"
    __resource__ = "erasure"
    __message__ = erasures_pb2.Erasure.DESCRIPTOR
    __table_args__ = (
        CheckConstraint("subject_type IN ('user', 'tenant')", "subject_type"),
        CheckConstraint("state IN ('pending', 'done')", "state"),
        CheckConstraint("(state = 'done') = (complete_time IS NOT NULL)", "complete_time"),
        Index(
            "ix_erasures_one_pending",
            "tenant_id",
            "subject_type",
            "subject_id",
            unique=True,
            postgresql_where=text("state = 'pending'"),
        ),
    )
    subject_type: Mapped[str]
    subject_id: Mapped[UUID]
    state: Mapped[str] = mapped_column(default="pending")
    receipts: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    requester_id: Mapped[UUID]
    complete_time: Mapped[datetime | None] = mapped_column(default=None)


class ErasureTask(TenantRow, Timed, Base):
    """An erasure that is not done, whose id is the row's. Rows of the system tenant: no query finds what is due in all
    tenants."""

    __tablename__ = "erasure_tasks"
    __table_args__ = (CheckConstraint(f"tenant_id = '{SYSTEM_TENANT}'", "system"), Index(None, "tenant_id", "due_at"))
    home_tenant_id: Mapped[UUID]
    due_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(default=0)


class Document(JSONB):
    """JSON in which 1 and true differ, as they do not in Python: else one written over the other would be lost."""

    def compare_values(self, x: Any, y: Any) -> bool:
        return bool(x == y) and json.dumps(x, sort_keys=True) == json.dumps(y, sort_keys=True)


class PolicyText:
    """What a policy says; `conditions` are the document as it was written."""

    name: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    resource: Mapped[str]
    actions: Mapped[list[str]] = mapped_column(ARRAY(Text), default=list)
    conditions: Mapped[Any] = mapped_column(Document)
    effect: Mapped[str]
    priority: Mapped[int] = mapped_column(default=0)
    version: Mapped[int]


class ResourcePolicy(PolicyText, Resource, SoftDeleted, Base):
    """A policy as it stands now: what its latest version says, and whether it is in force."""

    __tablename__ = "resource_policies"
    __resource__ = "resource_policy"
    __message__ = resource_policies_pb2.ResourcePolicy.DESCRIPTOR
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id"], [Tenant.tenant_id]),
        CheckConstraint("effect IN ('allow', 'deny')", "effect"),
        CheckConstraint("state IN ('draft', 'active')", "state"),
        CheckConstraint("state = 'draft' OR deleted_at IS NULL", "deleted"),
        Index(
            "ix_resource_policies_tenant_id_name",
            "tenant_id",
            text("lower(name)"),
            unique=True,
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index(None, "tenant_id", "resource", "id"),
        Index(None, "tenant_id", "state", "id"),
    )
    state: Mapped[str] = mapped_column(default="draft")
    approval_id: Mapped[UUID | None] = mapped_column(default=None)
    approved_hash: Mapped[str | None] = mapped_column(default=None)


class ResourcePolicyVersion(PolicyText, TenantRow, Timed, Base):
    """What a policy said from one change of it to the next. Versions never change."""

    __tablename__ = "resource_policy_versions"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "policy_id"], [ResourcePolicy.tenant_id, ResourcePolicy.id], ondelete="CASCADE"
        ),
        CheckConstraint("effect IN ('allow', 'deny')", "effect"),
        Index(None, "tenant_id", "policy_id", "version", unique=True),
    )
    policy_id: Mapped[UUID]
    author_id: Mapped[UUID]
