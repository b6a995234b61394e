"""Publishes versions together."""

revision = "202611221510"
down_revision = "202611221500"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
