"""Creates the tables of policies, and lets a revision tell of everybody at once."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from kit.migrations import protect

revision = "202611221300"
down_revision = "202611221150"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_policies()
    create_versions()
    protect("identity", "resource_policies", "resource_policy_versions")
    op.alter_column("access_revisions", "tenant_id", nullable=True, schema="identity")


def downgrade() -> None:
    # Services that run meanwhile have heard of them.
    op.execute("DELETE FROM identity.access_revisions WHERE tenant_id IS NULL")
    op.alter_column("access_revisions", "tenant_id", nullable=False, schema="identity")
    for table in ("resource_policy_versions", "resource_policies"):
        op.drop_table(table, schema="identity")


def text_columns() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("actions", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("conditions", postgresql.JSONB(), nullable=False),
        sa.Column("effect", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
    )


def row_columns() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    )


def create_policies() -> None:
    op.create_table(
        "resource_policies",
        *text_columns(),
        sa.Column("state", sa.Text(), nullable=False),
        *row_columns(),
        sa.Column("revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("effect IN ('allow', 'deny')", name=op.f("ck_resource_policies_effect")),
        sa.CheckConstraint("state IN ('draft', 'active')", name=op.f("ck_resource_policies_state")),
        sa.CheckConstraint("state = 'draft' OR deleted_at IS NULL", name=op.f("ck_resource_policies_deleted")),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["identity.tenants.tenant_id"], name="fk_resource_policies_tenant_id"
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_resource_policies"),
        schema="identity",
    )
    op.create_index(
        "ix_resource_policies_tenant_id_name",
        "resource_policies",
        ["tenant_id", sa.literal_column("lower(name)")],
        unique=True,
        schema="identity",
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    for column in ("resource", "state"):
        op.create_index(
            f"ix_resource_policies_tenant_id_{column}_id",
            "resource_policies",
            ["tenant_id", column, "id"],
            schema="identity",
        )


def create_versions() -> None:
    op.create_table(
        "resource_policy_versions",
        *text_columns(),
        sa.Column("policy_id", sa.Uuid(), nullable=False),
        sa.Column("author_id", sa.Uuid(), nullable=False),
        *row_columns(),
        sa.CheckConstraint("effect IN ('allow', 'deny')", name=op.f("ck_resource_policy_versions_effect")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "policy_id"],
            ["identity.resource_policies.tenant_id", "identity.resource_policies.id"],
            name="fk_resource_policy_versions_tenant_id_policy_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_resource_policy_versions"),
        schema="identity",
    )
    op.create_index(
        "ix_resource_policy_versions_tenant_id_policy_id_version",
        "resource_policy_versions",
        ["tenant_id", "policy_id", "version"],
        unique=True,
        schema="identity",
    )
