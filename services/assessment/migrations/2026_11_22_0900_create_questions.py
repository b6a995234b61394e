"""Creates the tables of questions, quizzes and attempts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from kit.migrations import create_infrastructure, drop_infrastructure, protect

revision = "202611220900"
down_revision = None
branch_labels = None
depends_on = None

TENANT_TABLES = (
    "questions",
    "question_versions",
    "quizzes",
    "quiz_questions",
    "attempts",
    "responses",
    "quiz_results",
)


def upgrade() -> None:
    create_infrastructure("assessment")
    op.create_table(
        "questions",
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("author_id", sa.Uuid(), nullable=False),
        sa.Column("revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("type IN ('multiple_choice', 'fill_blank')", name=op.f("ck_questions_type")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_questions")),
        schema="assessment",
    )
    op.create_table(
        "quizzes",
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("lesson_id", sa.Uuid(), nullable=True),
        sa.Column("time_limit", sa.Interval(), nullable=True),
        sa.Column("attempts_allowed", sa.Integer(), nullable=False),
        sa.Column("pass_mark", sa.Numeric(), nullable=False),
        sa.Column("shuffle", sa.Boolean(), nullable=False),
        sa.Column("open_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("close_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("author_id", sa.Uuid(), nullable=False),
        sa.Column("question_count", sa.Integer(), nullable=False),
        sa.Column("max_score", sa.Numeric(), nullable=False),
        sa.Column("revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('draft', 'published', 'archived')", name=op.f("ck_quizzes_status")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_quizzes")),
        schema="assessment",
    )
    op.create_index(
        op.f("ix_quizzes_tenant_id_lesson_id_id"),
        "quizzes",
        ["tenant_id", "lesson_id", "id"],
        unique=False,
        schema="assessment",
    )
    op.create_table(
        "attempts",
        sa.Column("quiz_id", sa.Uuid(), nullable=False),
        sa.Column("lesson_id", sa.Uuid(), nullable=True),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("version_ids", sa.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("shuffled", sa.Boolean(), nullable=False),
        sa.Column("deadline_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("submit_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("(state = 'open') = (submit_time IS NULL)", name=op.f("ck_attempts_submit_time")),
        sa.CheckConstraint("state IN ('open', 'graded', 'expired')", name=op.f("ck_attempts_state")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "quiz_id"],
            ["assessment.quizzes.tenant_id", "assessment.quizzes.id"],
            name=op.f("fk_attempts_tenant_id_quiz_id"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_attempts")),
        schema="assessment",
    )
    op.create_index(
        "ix_attempts_one_open",
        "attempts",
        ["tenant_id", "quiz_id", "user_id"],
        unique=True,
        schema="assessment",
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_index(
        op.f("ix_attempts_tenant_id_quiz_id_user_id_number"),
        "attempts",
        ["tenant_id", "quiz_id", "user_id", "number"],
        unique=True,
        schema="assessment",
    )
    op.create_index(
        op.f("ix_attempts_tenant_id_user_id_id"),
        "attempts",
        ["tenant_id", "user_id", "id"],
        unique=False,
        schema="assessment",
    )
    op.create_table(
        "question_versions",
        sa.Column("question_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("body", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "question_id"],
            ["assessment.questions.tenant_id", "assessment.questions.id"],
            name=op.f("fk_question_versions_tenant_id_question_id"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_question_versions")),
        schema="assessment",
    )
    op.create_index(
        op.f("ix_question_versions_tenant_id_question_id_version"),
        "question_versions",
        ["tenant_id", "question_id", "version"],
        unique=True,
        schema="assessment",
    )
    op.create_table(
        "quiz_questions",
        sa.Column("quiz_id", sa.Uuid(), nullable=False),
        sa.Column("question_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("points", sa.Numeric(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "question_id"],
            ["assessment.questions.tenant_id", "assessment.questions.id"],
            name=op.f("fk_quiz_questions_tenant_id_question_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "quiz_id"],
            ["assessment.quizzes.tenant_id", "assessment.quizzes.id"],
            name=op.f("fk_quiz_questions_tenant_id_quiz_id"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_quiz_questions")),
        schema="assessment",
    )
    op.create_index(
        op.f("ix_quiz_questions_tenant_id_question_id"),
        "quiz_questions",
        ["tenant_id", "question_id"],
        unique=False,
        schema="assessment",
    )
    op.create_index(
        op.f("ix_quiz_questions_tenant_id_quiz_id_question_id"),
        "quiz_questions",
        ["tenant_id", "quiz_id", "question_id"],
        unique=True,
        schema="assessment",
    )
    op.create_table(
        "quiz_results",
        sa.Column("attempt_id", sa.Uuid(), nullable=False),
        sa.Column("score", sa.Numeric(), nullable=False),
        sa.Column("max_score", sa.Numeric(), nullable=False),
        sa.Column("percent", sa.Numeric(), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "attempt_id"],
            ["assessment.attempts.tenant_id", "assessment.attempts.id"],
            name=op.f("fk_quiz_results_tenant_id_attempt_id"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_quiz_results")),
        schema="assessment",
    )
    op.create_index(
        op.f("ix_quiz_results_tenant_id_attempt_id"),
        "quiz_results",
        ["tenant_id", "attempt_id"],
        unique=True,
        schema="assessment",
    )
    op.create_table(
        "responses",
        sa.Column("attempt_id", sa.Uuid(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("answer", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "attempt_id"],
            ["assessment.attempts.tenant_id", "assessment.attempts.id"],
            name=op.f("fk_responses_tenant_id_attempt_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "version_id"],
            ["assessment.question_versions.tenant_id", "assessment.question_versions.id"],
            name=op.f("fk_responses_tenant_id_version_id"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_responses")),
        schema="assessment",
    )
    op.create_index(
        op.f("ix_responses_tenant_id_attempt_id_version_id"),
        "responses",
        ["tenant_id", "attempt_id", "version_id"],
        unique=True,
        schema="assessment",
    )
    op.create_index(
        op.f("ix_responses_tenant_id_version_id_attempt_id"),
        "responses",
        ["tenant_id", "version_id", "attempt_id"],
        unique=False,
        schema="assessment",
    )
    protect("assessment", *TENANT_TABLES)
    # Attempts and results rest on the versions they keep.
    op.execute("REVOKE UPDATE, DELETE ON assessment.question_versions FROM storyloom_assessment")


def downgrade() -> None:
    for table in reversed(TENANT_TABLES):
        op.drop_table(table, schema="assessment")
    drop_infrastructure("assessment")
