"""Creates the table of erasure receipts."""

from alembic import op

from kit.migrations import create_erasure_receipts

revision = "202611221320"
down_revision = "202611220900"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_erasure_receipts("audit")


def downgrade() -> None:
    op.drop_table("erasure_receipts", schema="audit")
