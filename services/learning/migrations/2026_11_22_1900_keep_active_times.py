"""Keeps when a learner was active in a session, so that what sessions share counts once."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "202611221900"
down_revision = "202611221630"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Of sessions that are there it stays unknown: nothing is to be filled in.
    column = sa.Column("active_times", postgresql.TSTZMULTIRANGE(), nullable=True)
    op.add_column("learning_sessions", column, schema="learning")


def downgrade() -> None:
    op.drop_column("learning_sessions", "active_times", schema="learning")
