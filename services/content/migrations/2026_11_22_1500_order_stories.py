"""Gives the stories of a lesson their places."""

revision = "202611221500"
down_revision = "202611221430"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
