"""Notes which results learners may not know; of those that are there already, nobody has said it."""

import sqlalchemy as sa
from alembic import op

revision = "202611221630"
down_revision = "202611221620"
branch_labels = None
depends_on = None


def upgrade() -> None:
    column = sa.Column[bool]("score_hidden", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    op.add_column("graded_attempts", column, schema="learning")


def downgrade() -> None:
    op.drop_column("graded_attempts", "score_hidden", schema="learning")
