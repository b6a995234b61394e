"""Finds the learners of a course."""

import sqlalchemy as sa
from alembic import op

revision = "202611221510"
down_revision = "202611221500"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_course_access_learners",
        "course_access",
        ["tenant_id", "course_id", "user_id"],
        schema="content",
        postgresql_where=sa.text("active"),
    )


def downgrade() -> None:
    op.drop_index("ix_course_access_learners", table_name="course_access", schema="content")
