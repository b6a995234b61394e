"""Gives forms of words their own translations: [form, translation], the translation empty for that of the term."""

from alembic import op

revision = "202611221530"
down_revision = "202611221520"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _retype("text[]", "jsonb", "SELECT coalesce(jsonb_agg(jsonb_build_array(one, '')), '[]') FROM unnest($1) AS one")


def downgrade() -> None:
    _retype("jsonb", "text[]", "SELECT ARRAY(SELECT one ->> 0 FROM jsonb_array_elements($1) AS one)")


def _retype(old: str, new: str, body: str) -> None:
    """By a function, because the expression of a new type may not be a query."""
    op.execute(f"CREATE FUNCTION pg_temp.translated({old}) RETURNS {new} LANGUAGE sql IMMUTABLE AS $${body}$$")
    op.execute(f"ALTER TABLE content.vocabularies ALTER forms TYPE {new} USING pg_temp.translated(forms)")
    op.execute(f"DROP FUNCTION pg_temp.translated({old})")
