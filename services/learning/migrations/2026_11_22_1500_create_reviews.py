"""Creates the log of reviews and what follows from it."""

revision = "202611221500"
down_revision = "202611221320"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
