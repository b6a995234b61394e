"""Creates the tables of tenants, users, roles, sessions, signing keys and revisions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from kit.migrations import create_infrastructure, drop_infrastructure, grant, protect

revision = "202611220900"
down_revision = None
branch_labels = None
depends_on = None

TENANT_TABLES = (
    "tenants",
    "tenant_listings",
    "users",
    "roles",
    "role_permissions",
    "user_roles",
    "user_permissions",
    "sessions",
    "refresh_tokens",
    "sign_in_failures",
    "signing_keys",
)


def upgrade() -> None:
    create_infrastructure("identity")
    op.create_table(
        "tenants",
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("settings", postgresql.JSONB(), nullable=False),
        sa.Column("revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("status IN ('active', 'suspended')", name=op.f("ck_tenants_status")),
        sa.CheckConstraint("id = tenant_id", name=op.f("ck_tenants_own")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_tenants"),
        sa.UniqueConstraint("tenant_id", name="uq_tenants_tenant_id"),
        schema="identity",
    )
    op.create_table(
        "tenant_listings",
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("settings", postgresql.JSONB(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "tenant_id = '00000000-0000-0000-0000-000000000000'", name=op.f("ck_tenant_listings_system")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_tenant_listings"),
        schema="identity",
    )
    op.create_index(
        "ix_tenant_listings_tenant_id_slug", "tenant_listings", ["tenant_id", "slug"], unique=True, schema="identity"
    )
    op.create_table(
        "users",
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("locale", sa.Text(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("attributes", postgresql.JSONB(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status <> 'active' OR password_hash IS NOT NULL", name=op.f("ck_users_password")),
        sa.CheckConstraint("status IN ('active', 'invited', 'deactivated')", name=op.f("ck_users_status")),
        sa.ForeignKeyConstraint(["tenant_id"], ["identity.tenants.tenant_id"], name="fk_users_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_users"),
        schema="identity",
    )
    op.create_index(
        "ix_users_tenant_id_display_name_id", "users", ["tenant_id", "display_name", "id"], schema="identity"
    )
    op.create_index(
        "ix_users_tenant_id_email",
        "users",
        ["tenant_id", sa.text("lower(email)")],
        unique=True,
        schema="identity",
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "roles",
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("system", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["identity.tenants.tenant_id"], name="fk_roles_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_roles"),
        schema="identity",
    )
    op.create_index("ix_roles_tenant_id_slug", "roles", ["tenant_id", "slug"], unique=True, schema="identity")
    op.create_table(
        "role_permissions",
        sa.Column("role_id", sa.Uuid(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "role_id"],
            ["identity.roles.tenant_id", "identity.roles.id"],
            name="fk_role_permissions_tenant_id_role_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_role_permissions"),
        schema="identity",
    )
    op.create_index(
        "ix_role_permissions_tenant_id_role_id_resource_action",
        "role_permissions",
        ["tenant_id", "role_id", "resource", "action"],
        unique=True,
        schema="identity",
    )
    op.create_table(
        "user_roles",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("role_id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "role_id"],
            ["identity.roles.tenant_id", "identity.roles.id"],
            name="fk_user_roles_tenant_id_role_id",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "user_id"],
            ["identity.users.tenant_id", "identity.users.id"],
            name="fk_user_roles_tenant_id_user_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_user_roles"),
        schema="identity",
    )
    op.create_index("ix_user_roles_tenant_id_role_id", "user_roles", ["tenant_id", "role_id"], schema="identity")
    op.create_index(
        "ix_user_roles_tenant_id_user_id_role_id",
        "user_roles",
        ["tenant_id", "user_id", "role_id"],
        unique=True,
        schema="identity",
    )
    op.create_table(
        "user_permissions",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "user_id"],
            ["identity.users.tenant_id", "identity.users.id"],
            name="fk_user_permissions_tenant_id_user_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_user_permissions"),
        schema="identity",
    )
    op.create_index(
        "ix_user_permissions_tenant_id_user_id_resource_action",
        "user_permissions",
        ["tenant_id", "user_id", "resource", "action"],
        unique=True,
        schema="identity",
    )
    op.create_table(
        "sessions",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("rotated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_reason", sa.Text(), nullable=True),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "end_reason IN ('sign_out', 'password_change', 'barred', 'token_reuse')",
            name=op.f("ck_sessions_end_reason"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "user_id"],
            ["identity.users.tenant_id", "identity.users.id"],
            name="fk_sessions_tenant_id_user_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_sessions"),
        schema="identity",
    )
    op.create_index("ix_sessions_tenant_id_expires_at", "sessions", ["tenant_id", "expires_at"], schema="identity")
    op.create_index(
        "ix_sessions_tenant_id_user_id_ended_at", "sessions", ["tenant_id", "user_id", "ended_at"], schema="identity"
    )
    op.create_table(
        "refresh_tokens",
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "session_id"],
            ["identity.sessions.tenant_id", "identity.sessions.id"],
            name="fk_refresh_tokens_tenant_id_session_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_refresh_tokens"),
        schema="identity",
    )
    op.create_index(
        "ix_refresh_tokens_tenant_id_session_id_token_hash",
        "refresh_tokens",
        ["tenant_id", "session_id", "token_hash"],
        unique=True,
        schema="identity",
    )
    op.create_table(
        "sign_in_failures",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_failed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("blocked_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_sign_in_failures"),
        schema="identity",
    )
    op.create_index(
        "ix_sign_in_failures_tenant_id_key", "sign_in_failures", ["tenant_id", "key"], unique=True, schema="identity"
    )
    op.create_index(
        "ix_sign_in_failures_tenant_id_last_failed_at",
        "sign_in_failures",
        ["tenant_id", "last_failed_at"],
        schema="identity",
    )
    op.create_table(
        "signing_keys",
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("sealed_private_key", sa.LargeBinary(), nullable=False),
        sa.Column("activated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("state IN ('published', 'active', 'retired')", name=op.f("ck_signing_keys_state")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_signing_keys"),
        schema="identity",
    )
    op.create_index(
        "ix_signing_keys_tenant_id_state",
        "signing_keys",
        ["tenant_id", "state"],
        unique=True,
        schema="identity",
        postgresql_where=sa.text("state <> 'retired'"),
    )
    op.create_table(
        "access_revisions",
        sa.Column("revision", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("session_id", sa.Uuid(), nullable=True),
        sa.Column(
            "transaction_id",
            sa.BigInteger(),
            server_default=sa.text("(pg_current_xact_id()::text)::bigint"),
            nullable=False,
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("revision", name="pk_access_revisions"),
        schema="identity",
    )
    op.create_index("ix_access_revisions_created_at", "access_revisions", ["created_at"], schema="identity")
    op.create_index("ix_access_revisions_transaction_id", "access_revisions", ["transaction_id"], schema="identity")
    protect("identity", *TENANT_TABLES)
    grant("identity", "access_revisions")


def downgrade() -> None:
    for table in reversed((*TENANT_TABLES, "access_revisions")):
        op.drop_table(table, schema="identity")
    drop_infrastructure("identity")
