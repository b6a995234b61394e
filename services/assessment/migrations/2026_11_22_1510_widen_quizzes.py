"""Makes room for draws, review policies, extensions and jobs; attempts keep the points of their questions."""

from alembic import op

from kit.migrations import create_jobs, drop_jobs, protect

revision = "202611221510"
down_revision = "202611221500"
branch_labels = None
depends_on = None

TABLES = """
ALTER TABLE assessment.quizzes ADD COLUMN review_policy jsonb NOT NULL DEFAULT '{}';
CREATE TABLE assessment.quiz_draws (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL DEFAULT uuidv7(),
  quiz_id uuid NOT NULL,
  position integer NOT NULL,
  points numeric NOT NULL,
  draw_count integer NOT NULL CONSTRAINT ck_quiz_draws_draw_count CHECK (draw_count BETWEEN 1 AND 200),
  listed boolean NOT NULL,
  tags text[] NOT NULL,
  type text,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT pk_quiz_draws PRIMARY KEY (tenant_id, id),
  CONSTRAINT fk_quiz_draws_tenant_id_quiz_id FOREIGN KEY (tenant_id, quiz_id)
    REFERENCES assessment.quizzes (tenant_id, id)
);
CREATE UNIQUE INDEX ix_quiz_draws_tenant_id_quiz_id_position ON assessment.quiz_draws (tenant_id, quiz_id, position);
ALTER TABLE assessment.quiz_questions ADD COLUMN draw_id uuid,
  ADD CONSTRAINT fk_quiz_questions_tenant_id_draw_id FOREIGN KEY (tenant_id, draw_id)
    REFERENCES assessment.quiz_draws (tenant_id, id);
CREATE INDEX ix_quiz_questions_tenant_id_draw_id ON assessment.quiz_questions (tenant_id, draw_id);
CREATE TABLE assessment.quiz_extensions (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL DEFAULT uuidv7(),
  quiz_id uuid NOT NULL,
  user_id uuid NOT NULL,
  extra_time interval,
  extra_attempts integer NOT NULL,
  close_time timestamptz,
  reason text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  revision integer NOT NULL DEFAULT 1,
  CONSTRAINT pk_quiz_extensions PRIMARY KEY (tenant_id, id),
  CONSTRAINT fk_quiz_extensions_tenant_id_quiz_id FOREIGN KEY (tenant_id, quiz_id)
    REFERENCES assessment.quizzes (tenant_id, id)
);
CREATE UNIQUE INDEX ix_quiz_extensions_tenant_id_quiz_id_user_id
  ON assessment.quiz_extensions (tenant_id, quiz_id, user_id);
CREATE INDEX ix_quiz_extensions_tenant_id_user_id_id ON assessment.quiz_extensions (tenant_id, user_id, id);
ALTER TABLE assessment.attempts ADD COLUMN points numeric[], ADD COLUMN time_limit interval;
UPDATE assessment.attempts a SET
  time_limit = (SELECT q.time_limit FROM assessment.quizzes q WHERE q.tenant_id = a.tenant_id AND q.id = a.quiz_id),
  points = ARRAY(
    SELECT q.points FROM unnest(a.version_ids) WITH ORDINALITY AS pin (version_id, position)
    JOIN assessment.question_versions v ON v.tenant_id = a.tenant_id AND v.id = pin.version_id
    JOIN assessment.quiz_questions q
      ON q.tenant_id = a.tenant_id AND q.quiz_id = a.quiz_id AND q.question_id = v.question_id
    ORDER BY pin.position);
ALTER TABLE assessment.attempts ALTER COLUMN points SET NOT NULL;
CREATE INDEX ix_attempts_open ON assessment.attempts (tenant_id, id) WHERE state = 'open';
"""
# The release before asks the quiz for the points of what attempts keep; what one drew becomes a question of the quiz.
KEEP_DRAWN = """
INSERT INTO assessment.quiz_questions (tenant_id, quiz_id, question_id, position, points)
SELECT DISTINCT ON (a.tenant_id, a.quiz_id, v.question_id) a.tenant_id, a.quiz_id, v.question_id, 1000, pin.points
FROM assessment.attempts a, unnest(a.version_ids, a.points) AS pin (version_id, points)
JOIN assessment.question_versions v ON v.id = pin.version_id
WHERE v.tenant_id = a.tenant_id
ON CONFLICT DO NOTHING
"""


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
    protect("assessment", "quiz_draws", "quiz_extensions")
    create_jobs("assessment", "attempts")


def downgrade() -> None:
    drop_jobs("assessment")
    op.execute("SET LOCAL row_security = off")
    op.execute(KEEP_DRAWN)
    op.drop_index("ix_attempts_open", table_name="attempts", schema="assessment")
    for table, column in (
        ("attempts", "points"),
        ("attempts", "time_limit"),
        ("quiz_questions", "draw_id"),
        ("quizzes", "review_policy"),
    ):
        op.drop_column(table, column, schema="assessment")
    op.drop_table("quiz_extensions", schema="assessment")
    op.drop_table("quiz_draws", schema="assessment")
