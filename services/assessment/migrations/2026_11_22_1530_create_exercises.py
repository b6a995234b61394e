"""Creates exercises, and finds the questions that name them."""

from alembic import op

from kit.migrations import protect

revision = "202611221530"
down_revision = "202611221520"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE assessment.exercises (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL DEFAULT uuidv7(),
  title text NOT NULL,
  instructions text NOT NULL,
  passage text NOT NULL,
  lesson_id uuid,
  status text NOT NULL CONSTRAINT ck_exercises_status CHECK (status IN ('draft', 'published', 'archived')),
  author_id uuid NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz,
  revision integer NOT NULL DEFAULT 1,
  CONSTRAINT pk_exercises PRIMARY KEY (tenant_id, id)
);
CREATE INDEX ix_exercises_tenant_id_lesson_id_id ON assessment.exercises (tenant_id, lesson_id, id);
UPDATE assessment.question_versions SET body = body || '{"exercise_id": ""}';
ALTER TABLE assessment.question_versions
  ADD COLUMN exercise_id uuid GENERATED ALWAYS AS (nullif(body ->> 'exercise_id', '')::uuid) STORED,
  ADD CONSTRAINT fk_question_versions_tenant_id_exercise_id FOREIGN KEY (tenant_id, exercise_id)
    REFERENCES assessment.exercises (tenant_id, id);
CREATE INDEX ix_question_versions_tenant_id_exercise_id ON assessment.question_versions (tenant_id, exercise_id)
"""


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
    protect("assessment", "exercises")


def downgrade() -> None:
    op.drop_column("question_versions", "exercise_id", schema="assessment")
    op.drop_table("exercises", schema="assessment")
    op.execute("UPDATE assessment.question_versions SET body = body - 'exercise_id'")
