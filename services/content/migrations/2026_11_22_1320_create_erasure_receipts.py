"""Creates the table of erasure receipts, and lets what never changes lose its author and go with its tenant."""

from alembic import op

from kit.migrations import create_erasure_receipts, grant

revision = "202611221320"
down_revision = "202611220900"
branch_labels = None
depends_on = None

UNCHANGING = ("story_versions", "story_chunks", "cloze_configs")


def upgrade() -> None:
    create_erasure_receipts("content")
    # The text, in `body`, stays out of reach.
    grant("content", "story_versions", rights="UPDATE (author_id, summary)")
    grant("content", *UNCHANGING, rights="DELETE")


def downgrade() -> None:
    for table in UNCHANGING:
        op.execute(f"REVOKE DELETE ON content.{table} FROM storyloom_content")
    op.execute("REVOKE UPDATE (author_id, summary) ON content.story_versions FROM storyloom_content")
    op.drop_table("erasure_receipts", schema="content")
