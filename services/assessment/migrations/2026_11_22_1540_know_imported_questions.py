"""Lets imports know the questions again that they brought before."""

import sqlalchemy as sa
from alembic import op

revision = "202611221540"
down_revision = "202611221530"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("question_versions", sa.Column("digest", sa.Text()), schema="assessment")
    op.create_index(
        op.f("ix_question_versions_tenant_id_digest"),
        "question_versions",
        ["tenant_id", "digest"],
        schema="assessment",
        postgresql_where=sa.text("digest IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index(
        op.f("ix_question_versions_tenant_id_digest"), table_name="question_versions", schema="assessment"
    )
    op.drop_column("question_versions", "digest", schema="assessment")
