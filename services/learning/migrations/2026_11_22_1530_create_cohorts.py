"""Creates classes and their members; courses have titles, and a teacher sets progress in lessons never opened."""

from alembic import op

from kit.migrations import protect

revision = "202611221530"
down_revision = "202611221500"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE learning.cohorts (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL DEFAULT uuidv7(),
  name text NOT NULL,
  description text NOT NULL,
  author_id uuid NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz,
  revision integer NOT NULL DEFAULT 1,
  CONSTRAINT pk_cohorts PRIMARY KEY (tenant_id, id)
);
CREATE TABLE learning.cohort_members (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL DEFAULT uuidv7(),
  cohort_id uuid NOT NULL,
  user_id uuid NOT NULL,
  leave_time timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT pk_cohort_members PRIMARY KEY (tenant_id, id),
  CONSTRAINT fk_cohort_members_tenant_id_cohort_id FOREIGN KEY (tenant_id, cohort_id)
    REFERENCES learning.cohorts (tenant_id, id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX ix_cohort_members_once
  ON learning.cohort_members (tenant_id, cohort_id, user_id) WHERE leave_time IS NULL;
CREATE INDEX ix_cohort_members_tenant_id_cohort_id_id ON learning.cohort_members (tenant_id, cohort_id, id);
CREATE INDEX ix_cohort_members_tenant_id_user_id_cohort_id
  ON learning.cohort_members (tenant_id, user_id, cohort_id);
ALTER TABLE learning.course_index ADD COLUMN title text NOT NULL DEFAULT '';
ALTER TABLE learning.user_progress ALTER COLUMN last_view_time DROP NOT NULL;
"""


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
    protect("learning", "cohorts", "cohort_members")


def downgrade() -> None:
    op.execute("SET LOCAL row_security = off")
    op.execute("UPDATE learning.user_progress SET last_view_time = created_at WHERE last_view_time IS NULL")
    op.alter_column("user_progress", "last_view_time", nullable=False, schema="learning")
    op.drop_column("course_index", "title", schema="learning")
    op.drop_table("cohort_members", schema="learning")
    op.drop_table("cohorts", schema="learning")
