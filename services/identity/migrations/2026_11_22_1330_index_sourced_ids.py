"""Finds users by the id that their school's own system knows them by."""

import sqlalchemy as sa
from alembic import op

revision = "202611221330"
down_revision = "202611221320"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        op.f("ix_users_tenant_id_sourced_id"),
        "users",
        ["tenant_id", sa.literal_column("(attributes ->> 'sourced_id')")],
        schema="identity",
        postgresql_where=sa.text("deleted_at IS NULL AND attributes ->> 'sourced_id' IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_users_tenant_id_sourced_id"), table_name="users", schema="identity")
