"""Binds approvals to policies."""

import sqlalchemy as sa
from alembic import op

revision = "202611221430"
down_revision = "202611221330"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("resource_policies", sa.Column("approval_id", sa.Uuid(), nullable=True), schema="identity")
    op.add_column("resource_policies", sa.Column("approved_hash", sa.Text(), nullable=True), schema="identity")


def downgrade() -> None:
    op.drop_column("resource_policies", "approved_hash", schema="identity")
    op.drop_column("resource_policies", "approval_id", schema="identity")
