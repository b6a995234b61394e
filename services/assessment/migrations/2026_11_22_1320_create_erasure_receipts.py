"""Creates the table of erasure receipts, and lets question versions, which never change, go with their tenant."""

from alembic import op

from kit.migrations import create_erasure_receipts, grant

revision = "202611221320"
down_revision = "202611220900"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_erasure_receipts("assessment")
    grant("assessment", "question_versions", rights="DELETE")


def downgrade() -> None:
    op.execute("REVOKE DELETE ON assessment.question_versions FROM storyloom_assessment")
    op.drop_table("erasure_receipts", schema="assessment")
