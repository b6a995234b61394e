"""Notes what was copied from where."""

revision = "202611221520"
down_revision = "202611221510"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
