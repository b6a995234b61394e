"""Indexes sessions by time, for those that last into a day."""

from kit.altering import build_index, drop_index

revision = "202611221910"
down_revision = "202611221900"
branch_labels = None
depends_on = None

NAME = "ix_learning_sessions_by_time"


def upgrade() -> None:
    build_index("learning", NAME, "learning_sessions (tenant_id, user_id, last_seen_time, start_time)")


def downgrade() -> None:
    drop_index("learning", NAME)
