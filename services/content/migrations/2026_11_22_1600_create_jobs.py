"""Creates the jobs."""

revision = "202611221600"
down_revision = "202611221550"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
