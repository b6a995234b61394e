"""Notes where copies and imported courses come from."""

import sqlalchemy as sa
from alembic import op

from kit.migrations import protect

revision = "202611221520"
down_revision = "202611221510"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "course_origins",
        sa.Column("course_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("source_tenant_id", sa.Uuid(), nullable=True),
        sa.Column("source_course_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.CheckConstraint("kind IN ('copy', 'foreign_copy', 'package')", name=op.f("ck_course_origins_kind")),
        sa.CheckConstraint(
            "(kind = 'foreign_copy') = (source_tenant_id IS NOT NULL)", name=op.f("ck_course_origins_source_tenant")
        ),
        sa.CheckConstraint(
            "(kind = 'package') = (source_course_id IS NULL)", name=op.f("ck_course_origins_source")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "course_id"],
            ["content.courses.tenant_id", "content.courses.id"],
            name=op.f("fk_course_origins_tenant_id_course_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_course_origins")),
        sa.UniqueConstraint("tenant_id", "course_id", name=op.f("uq_course_origins_tenant_id_course_id")),
        schema="content",
    )
    op.create_table(
        "story_origins",
        sa.Column("story_id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("source_tenant_id", sa.Uuid(), nullable=True),
        sa.Column("source_story_id", sa.Uuid(), nullable=True),
        sa.Column("source_version_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "story_id"],
            ["content.stories.tenant_id", "content.stories.id"],
            name=op.f("fk_story_origins_tenant_id_story_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_story_origins")),
        sa.UniqueConstraint("tenant_id", "story_id", name=op.f("uq_story_origins_tenant_id_story_id")),
        schema="content",
    )
    protect("content", "course_origins", "story_origins")


def downgrade() -> None:
    op.drop_table("story_origins", schema="content")
    op.drop_table("course_origins", schema="content")
