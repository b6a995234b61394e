"""Keeps what imported questions carry along."""

revision = "202611221540"
down_revision = "202611221530"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
