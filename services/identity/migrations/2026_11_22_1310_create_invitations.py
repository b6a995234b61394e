"""Creates the table of invitations, and lets direct permissions end and say why they were given."""

import sqlalchemy as sa
from alembic import op

from kit.migrations import protect

revision = "202611221310"
down_revision = "202611221300"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "invitations",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("creator_id", sa.Uuid(), nullable=False),
        sa.Column("revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('welcome', 'reset')", name=op.f("ck_invitations_kind")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "user_id"],
            ["identity.users.tenant_id", "identity.users.id"],
            name="fk_invitations_tenant_id_user_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_invitations"),
        schema="identity",
    )
    op.create_index(
        "ix_invitations_tenant_id_user_id_id", "invitations", ["tenant_id", "user_id", "id"], schema="identity"
    )
    op.create_index(
        "ix_invitations_pending",
        "invitations",
        ["tenant_id", "user_id"],
        unique=True,
        schema="identity",
        postgresql_where=sa.text("accepted_at IS NULL AND revoked_at IS NULL"),
    )
    protect("identity", "invitations")
    for column in (
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("creator_id", sa.Uuid(), nullable=True),
    ):
        op.add_column("user_permissions", column, schema="identity")


def downgrade() -> None:
    for name in ("creator_id", "expires_at", "reason"):
        op.drop_column("user_permissions", name, schema="identity")
    op.drop_table("invitations", schema="identity")
