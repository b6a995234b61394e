"""Creates regrades."""

revision = "202611221520"
down_revision = "202611221510"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
