"""Makes room for sections, review policies and extensions."""

revision = "202611221510"
down_revision = "202611221500"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
