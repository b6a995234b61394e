"""Creates regrades and the results that they replaced; results say by which pass mark and regrades they were made."""

from alembic import op

from kit.migrations import protect

revision = "202611221520"
down_revision = "202611221510"
branch_labels = None
depends_on = None

TABLES = """
ALTER TABLE assessment.quizzes ADD COLUMN regrade_count integer NOT NULL DEFAULT 0;
ALTER TABLE assessment.quiz_results ADD COLUMN pass_mark numeric, ADD COLUMN regrade_count integer NOT NULL DEFAULT 0;
UPDATE assessment.quiz_results r SET pass_mark = q.pass_mark
FROM assessment.attempts a JOIN assessment.quizzes q ON q.tenant_id = a.tenant_id AND q.id = a.quiz_id
WHERE a.tenant_id = r.tenant_id AND a.id = r.attempt_id;
ALTER TABLE assessment.quiz_results ALTER COLUMN pass_mark SET NOT NULL;
ALTER TABLE assessment.questions ADD COLUMN facility_time timestamptz;
CREATE INDEX ix_attempts_tenant_id_quiz_id_id ON assessment.attempts (tenant_id, quiz_id, id);
CREATE TABLE assessment.regrades (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL DEFAULT uuidv7(),
  quiz_id uuid NOT NULL,
  question_id uuid NOT NULL,
  kind text NOT NULL CONSTRAINT ck_regrades_kind CHECK (kind IN ('full_marks', 'drop', 'key', 'original')),
  version integer NOT NULL,
  key_version_id uuid,
  number integer NOT NULL,
  author_id uuid NOT NULL,
  state text NOT NULL CONSTRAINT ck_regrades_state CHECK (state IN ('applying', 'applied')),
  last_attempt_id uuid NOT NULL,
  attempts integer NOT NULL,
  unfitting integer NOT NULL,
  changed integer NOT NULL,
  raised integer NOT NULL,
  lowered integer NOT NULL,
  newly_passed integer NOT NULL,
  newly_failed integer NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT ck_regrades_key CHECK ((kind = 'key') = (key_version_id IS NOT NULL)),
  CONSTRAINT pk_regrades PRIMARY KEY (tenant_id, id),
  CONSTRAINT fk_regrades_tenant_id_quiz_id FOREIGN KEY (tenant_id, quiz_id)
    REFERENCES assessment.quizzes (tenant_id, id),
  CONSTRAINT fk_regrades_tenant_id_question_id FOREIGN KEY (tenant_id, question_id)
    REFERENCES assessment.questions (tenant_id, id),
  CONSTRAINT fk_regrades_tenant_id_key_version_id FOREIGN KEY (tenant_id, key_version_id)
    REFERENCES assessment.question_versions (tenant_id, id)
);
CREATE UNIQUE INDEX ix_regrades_tenant_id_quiz_id_number ON assessment.regrades (tenant_id, quiz_id, number);
CREATE INDEX ix_regrades_tenant_id_question_id ON assessment.regrades (tenant_id, question_id);
CREATE INDEX ix_regrades_tenant_id_key_version_id ON assessment.regrades (tenant_id, key_version_id);
CREATE TABLE assessment.past_results (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL DEFAULT uuidv7(),
  attempt_id uuid NOT NULL,
  regrade_id uuid NOT NULL,
  score numeric NOT NULL,
  max_score numeric NOT NULL,
  percent numeric NOT NULL,
  passed boolean NOT NULL,
  detail jsonb NOT NULL,
  pass_mark numeric NOT NULL,
  regrade_count integer NOT NULL,
  graded_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT pk_past_results PRIMARY KEY (tenant_id, id),
  CONSTRAINT fk_past_results_tenant_id_attempt_id FOREIGN KEY (tenant_id, attempt_id)
    REFERENCES assessment.attempts (tenant_id, id),
  CONSTRAINT fk_past_results_tenant_id_regrade_id FOREIGN KEY (tenant_id, regrade_id)
    REFERENCES assessment.regrades (tenant_id, id)
);
CREATE UNIQUE INDEX ix_past_results_tenant_id_attempt_id_regrade_count
  ON assessment.past_results (tenant_id, attempt_id, regrade_count);
CREATE UNIQUE INDEX ix_past_results_tenant_id_regrade_id_attempt_id
  ON assessment.past_results (tenant_id, regrade_id, attempt_id);
"""


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
    protect("assessment", "regrades", "past_results")
    op.execute("REVOKE UPDATE ON assessment.past_results FROM storyloom_assessment")


def downgrade() -> None:
    op.drop_table("past_results", schema="assessment")
    op.drop_table("regrades", schema="assessment")
    op.drop_index("ix_attempts_tenant_id_quiz_id_id", table_name="attempts", schema="assessment")
    columns = {"questions": "facility_time", "quizzes": "regrade_count", "quiz_results": "pass_mark regrade_count"}
    for table, column in ((table, one) for table, names in columns.items() for one in names.split()):
        op.drop_column(table, column, schema="assessment")
