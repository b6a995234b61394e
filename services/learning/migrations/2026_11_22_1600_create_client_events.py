"""Creates the log of what phones tell, and what it changes: numbers of changes, and overrides that events respect.

Results of attempts are kept, and lessons know the place of their unit.
"""

from alembic import op

from kit.migrations import grant, protect, protection

revision = "202611221600"
down_revision = "202611221530"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE learning.client_events (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL DEFAULT uuidv7(),
  user_id uuid NOT NULL,
  event_id uuid NOT NULL,
  device_id uuid NOT NULL,
  kind text NOT NULL CONSTRAINT ck_client_events_kind CHECK (kind IN ('lesson_viewed', 'lesson_progressed',
    'story_read', 'interacted', 'review_answered', 'session_started', 'session_heartbeat', 'session_ended')),
  event_time timestamptz NOT NULL,
  receive_time timestamptz NOT NULL,
  digest bytea NOT NULL,
  lesson_id uuid,
  story_id uuid,
  vocabulary_id uuid,
  session_id uuid,
  status text,
  position_percent integer,
  interactions integer,
  CONSTRAINT pk_client_events PRIMARY KEY (tenant_id, id)
);
CREATE INDEX ix_client_events_of_session ON learning.client_events (tenant_id, user_id, session_id)
  WHERE session_id IS NOT NULL;
CREATE INDEX ix_client_events_tenant_id_user_id_event_time_id
  ON learning.client_events (tenant_id, user_id, event_time, id);
CREATE INDEX ix_client_events_tenant_id_receive_time_id ON learning.client_events (tenant_id, receive_time, id);
CREATE TABLE learning.graded_attempts (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL DEFAULT uuidv7(),
  quiz_id uuid NOT NULL,
  lesson_id uuid,
  user_id uuid NOT NULL,
  number integer NOT NULL,
  score numeric NOT NULL,
  max_score numeric NOT NULL,
  percent numeric NOT NULL,
  passed boolean NOT NULL,
  regraded boolean NOT NULL,
  grade_time timestamptz NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT pk_graded_attempts PRIMARY KEY (tenant_id, id)
);
CREATE INDEX ix_graded_attempts_tenant_id_user_id_grade_time_id
  ON learning.graded_attempts (tenant_id, user_id, grade_time, id);
CREATE INDEX ix_graded_attempts_tenant_id_grade_time_id ON learning.graded_attempts (tenant_id, grade_time, id);
ALTER TABLE learning.lesson_index ADD COLUMN unit_position integer NOT NULL DEFAULT 0;
ALTER TABLE learning.user_progress ADD COLUMN reset_time timestamptz;
ALTER TABLE learning.user_progress ADD COLUMN reopen_time timestamptz;
ALTER TABLE learning.user_progress ADD COLUMN change bigint NOT NULL DEFAULT 0;
CREATE INDEX ix_user_progress_tenant_id_user_id_change ON learning.user_progress (tenant_id, user_id, change);
ALTER TABLE learning.learning_sessions ADD COLUMN client_session_id uuid;
ALTER TABLE learning.learning_sessions ADD COLUMN change bigint NOT NULL DEFAULT 0;
CREATE INDEX ix_learning_sessions_tenant_id_user_id_change
  ON learning.learning_sessions (tenant_id, user_id, change);
"""


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
    protect("learning", "graded_attempts")
    for statement in protection("learning", "client_events"):
        op.execute(statement)
    # Rows are only ever added, and deleted with their user.
    grant("learning", "client_events", rights="SELECT, INSERT, DELETE")


def downgrade() -> None:
    op.drop_table("client_events", schema="learning")
    op.drop_table("graded_attempts", schema="learning")
    op.drop_column("lesson_index", "unit_position", schema="learning")
    for column in ("reset_time", "reopen_time", "change"):
        op.drop_column("user_progress", column, schema="learning")
    for column in ("client_session_id", "change"):
        op.drop_column("learning_sessions", column, schema="learning")
