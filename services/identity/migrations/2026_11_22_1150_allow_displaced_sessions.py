"""Lets a session end because the user has too many."""

from alembic import op

revision = "202611221150"
down_revision = "202611220900"
branch_labels = None
depends_on = None

REASONS = "'sign_out', 'password_change', 'barred', 'token_reuse'"


def upgrade() -> None:
    _replace(f"end_reason IN ({REASONS}, 'displaced')")


def downgrade() -> None:
    op.execute("UPDATE identity.sessions SET end_reason = 'sign_out' WHERE end_reason = 'displaced'")
    _replace(f"end_reason IN ({REASONS})")


def _replace(condition: str) -> None:
    name = op.f("ck_sessions_end_reason")
    op.drop_constraint(name, "sessions", schema="identity", type_="check")
    op.create_check_constraint(name, "sessions", condition, schema="identity")
