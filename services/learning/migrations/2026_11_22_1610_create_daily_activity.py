"""Creates the days of learners, and notes when words were learned; the jobs that rebuild both fill them in."""

from alembic import op

from kit.migrations import protect

revision = "202611221610"
down_revision = "202611221600"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE learning.daily_activity (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL DEFAULT uuidv7(),
  user_id uuid NOT NULL,
  day date NOT NULL,
  active_duration interval NOT NULL DEFAULT '0',
  sessions integer NOT NULL DEFAULT 0,
  lessons_completed integer NOT NULL DEFAULT 0,
  reviews integer NOT NULL DEFAULT 0,
  reviews_forgotten integer NOT NULL DEFAULT 0,
  words_begun integer NOT NULL DEFAULT 0,
  words_learned integer NOT NULL DEFAULT 0,
  readings integer NOT NULL DEFAULT 0,
  quizzes_passed integer NOT NULL DEFAULT 0,
  active boolean NOT NULL
    GENERATED ALWAYS AS (
      active_duration > '00:00:00'::interval OR reviews > 0 OR readings > 0 OR quizzes_passed > 0
    ) STORED,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT pk_daily_activity PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX ix_daily_activity_tenant_id_user_id_day ON learning.daily_activity (tenant_id, user_id, day);
CREATE INDEX ix_daily_activity_tenant_id_day_user_id ON learning.daily_activity (tenant_id, day, user_id);
ALTER TABLE learning.user_vocabulary_progress ADD COLUMN learn_time timestamptz;
"""
# Whoever has progress or sessions from before is a learner too: the jobs go through the learners.
LEARNERS = """
INSERT INTO learning.learners (tenant_id, id)
SELECT tenant_id, user_id FROM learning.user_progress
UNION SELECT tenant_id, user_id FROM learning.learning_sessions
ON CONFLICT (tenant_id, id) DO NOTHING
"""


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
    protect("learning", "daily_activity")
    op.execute("SET LOCAL row_security = off")
    op.execute(LEARNERS)


def downgrade() -> None:
    op.drop_column("user_vocabulary_progress", "learn_time", schema="learning")
    op.drop_table("daily_activity", schema="learning")
