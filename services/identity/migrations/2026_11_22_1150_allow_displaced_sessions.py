"""Lets a session end because the user has too many."""

from alembic import op

revision = "202611221150"
down_revision = "202611220900"
branch_labels = None
depends_on = None

REASONS = "'sign_out', 'password_change', 'barred', 'token_reuse'"


def upgrade() -> None:
    _replace(f"end_reason IN ({REASONS}, 'displaced')", not_valid=False)


def downgrade() -> None:
    # Sessions that ended so keep their reason: nobody changes an ended session.
    _replace(f"end_reason IN ({REASONS})", not_valid=True)


def _replace(condition: str, *, not_valid: bool) -> None:
    name = op.f("ck_sessions_end_reason")
    op.drop_constraint(name, "sessions", schema="identity", type_="check")
    op.create_check_constraint(name, "sessions", condition, schema="identity", postgresql_not_valid=not_valid)
