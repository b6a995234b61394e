"""Creates the log of what phones tell."""

revision = "202611221600"
down_revision = "202611221530"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
