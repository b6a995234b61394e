"""Makes room for more types of questions."""

revision = "202611221500"
down_revision = "202611221320"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
