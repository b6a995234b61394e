"""Binds approvals to lessons, and remembers who wrote them."""

import sqlalchemy as sa
from alembic import op

from kit.migrations import protect

revision = "202611221430"
down_revision = "202611221320"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("lessons", sa.Column("approval_id", sa.Uuid(), nullable=True), schema="content")
    op.add_column("lessons", sa.Column("approved_hash", sa.Text(), nullable=True), schema="content")
    op.create_table(
        "lesson_authors",
        sa.Column("lesson_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "lesson_id"],
            ["content.lessons.tenant_id", "content.lessons.id"],
            name="fk_lesson_authors_tenant_id_lesson_id",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_lesson_authors"),
        sa.UniqueConstraint(
            "tenant_id", "lesson_id", "user_id", name="uq_lesson_authors_tenant_id_lesson_id_user_id"
        ),
        schema="content",
    )
    protect("content", "lesson_authors")


def downgrade() -> None:
    op.drop_table("lesson_authors", schema="content")
    op.drop_column("lessons", "approved_hash", schema="content")
    op.drop_column("lessons", "approval_id", schema="content")
