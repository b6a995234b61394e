"""Creates what is known of how hard words and stories are."""

revision = "202611221620"
down_revision = "202611221610"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
