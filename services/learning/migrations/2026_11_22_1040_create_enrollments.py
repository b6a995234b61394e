"""Creates the tables of enrolments, progress and learning sessions, and the index of lessons and courses."""

import sqlalchemy as sa
from alembic import op

from kit.migrations import create_infrastructure, drop_infrastructure, protect

revision = "202611221040"
down_revision = None
branch_labels = None
depends_on = None

TENANT_TABLES = (
    "enrollments",
    "user_progress",
    "learning_sessions",
    "lesson_index",
    "course_index",
)


def upgrade() -> None:
    create_infrastructure("learning")
    op.create_table(
        "course_index",
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("deleted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("status IN ('draft', 'published', 'archived')", name=op.f("ck_course_index_status")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_course_index"),
        schema="learning",
    )
    op.create_table(
        "enrollments",
        sa.Column("course_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), server_default="active", nullable=False),
        sa.Column("withdraw_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("state IN ('active', 'withdrawn')", name=op.f("ck_enrollments_state")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_enrollments"),
        schema="learning",
    )
    op.create_index(
        "ix_enrollments_one_active",
        "enrollments",
        ["tenant_id", "user_id", "course_id"],
        unique=True,
        schema="learning",
        postgresql_where=sa.text("state = 'active'"),
    )
    op.create_index(
        "ix_enrollments_tenant_id_course_id_id", "enrollments", ["tenant_id", "course_id", "id"], schema="learning"
    )
    op.create_index(
        "ix_enrollments_tenant_id_user_id_id", "enrollments", ["tenant_id", "user_id", "id"], schema="learning"
    )
    op.create_table(
        "learning_sessions",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("lesson_id", sa.Uuid(), nullable=False),
        sa.Column("story_id", sa.Uuid(), nullable=True),
        sa.Column("start_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("active_duration", sa.Interval(), nullable=False),
        sa.Column("interactions", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), server_default="open", nullable=False),
        sa.Column("revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("(state = 'open') = (end_time IS NULL)", name=op.f("ck_learning_sessions_end_time")),
        sa.CheckConstraint("state IN ('open', 'ended', 'abandoned')", name=op.f("ck_learning_sessions_state")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_learning_sessions"),
        schema="learning",
    )
    op.create_index(
        "ix_learning_sessions_one_open",
        "learning_sessions",
        ["tenant_id", "user_id"],
        unique=True,
        schema="learning",
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_index(
        "ix_learning_sessions_tenant_id_lesson_id_id",
        "learning_sessions",
        ["tenant_id", "lesson_id", "id"],
        schema="learning",
    )
    op.create_index(
        "ix_learning_sessions_tenant_id_user_id_id",
        "learning_sessions",
        ["tenant_id", "user_id", "id"],
        schema="learning",
    )
    op.create_table(
        "lesson_index",
        sa.Column("course_id", sa.Uuid(), nullable=False),
        sa.Column("unit_id", sa.Uuid(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("prerequisite_ids", sa.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("deleted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("status IN ('draft', 'published')", name=op.f("ck_lesson_index_status")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_lesson_index"),
        schema="learning",
    )
    op.create_index(
        "ix_lesson_index_tenant_id_course_id", "lesson_index", ["tenant_id", "course_id"], schema="learning"
    )
    op.create_table(
        "user_progress",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("lesson_id", sa.Uuid(), nullable=False),
        sa.Column("course_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("position_percent", sa.Integer(), nullable=False),
        sa.Column("start_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_view_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("complete_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "status IN ('not_started', 'in_progress', 'completed')", name=op.f("ck_user_progress_status")
        ),
        sa.CheckConstraint("position_percent BETWEEN 0 AND 100", name=op.f("ck_user_progress_position_percent")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_user_progress"),
        schema="learning",
    )
    op.create_index(
        "ix_user_progress_tenant_id_course_id_id", "user_progress", ["tenant_id", "course_id", "id"], schema="learning"
    )
    op.create_index(
        "ix_user_progress_tenant_id_user_id_lesson_id",
        "user_progress",
        ["tenant_id", "user_id", "lesson_id"],
        unique=True,
        schema="learning",
    )
    protect("learning", *TENANT_TABLES)


def downgrade() -> None:
    for table in TENANT_TABLES:
        op.drop_table(table, schema="learning")
    drop_infrastructure("learning")
