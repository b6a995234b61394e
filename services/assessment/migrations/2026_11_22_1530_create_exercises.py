"""Creates exercises."""

revision = "202611221530"
down_revision = "202611221520"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
