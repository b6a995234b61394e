"""Creates tags, and what searches need."""

revision = "202611221550"
down_revision = "202611221540"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
