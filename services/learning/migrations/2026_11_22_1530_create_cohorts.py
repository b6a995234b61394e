"""Creates classes."""

revision = "202611221530"
down_revision = "202611221520"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
