"""Creates the logs of reviews and exposures of words, what follows from them, what learners choose, and jobs."""

from alembic import op

from kit.migrations import create_jobs, drop_jobs, grant, protect, protection

revision = "202611221500"
down_revision = "202611221320"
branch_labels = None
depends_on = None

# Rows are only ever added, and deleted with their user.
LOGS = ("vocabulary_reviews", "vocabulary_exposures")
OTHERS = ("user_vocabulary_progress", "retention_changes", "learner_settings", "learners")
TABLES = """
CREATE TABLE learning.learners (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL DEFAULT uuidv7(),
  changes bigint NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT pk_learners PRIMARY KEY (tenant_id, id)
);
CREATE TABLE learning.learner_settings (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL DEFAULT uuidv7(),
  user_id uuid NOT NULL,
  desired_retention numeric(7, 6)
    CONSTRAINT ck_learner_settings_desired_retention CHECK (desired_retention BETWEEN 0.70 AND 0.97),
  maximum_interval_days integer NOT NULL DEFAULT 365
    CONSTRAINT ck_learner_settings_maximum_interval_days CHECK (maximum_interval_days BETWEEN 7 AND 3650),
  new_words_per_day integer NOT NULL DEFAULT 20
    CONSTRAINT ck_learner_settings_new_words_per_day CHECK (new_words_per_day BETWEEN 0 AND 200),
  time_zone text NOT NULL DEFAULT 'UTC',
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  revision integer NOT NULL DEFAULT 1,
  CONSTRAINT pk_learner_settings PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX ix_learner_settings_tenant_id_user_id ON learning.learner_settings (tenant_id, user_id);
CREATE TABLE learning.retention_changes (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL DEFAULT uuidv7(),
  user_id uuid NOT NULL,
  effective_time timestamptz NOT NULL,
  desired_retention numeric(7, 6),
  maximum_interval_days integer,
  CONSTRAINT pk_retention_changes PRIMARY KEY (tenant_id, id)
);
CREATE INDEX ix_retention_changes_tenant_id_user_id_effective_time
  ON learning.retention_changes (tenant_id, user_id, effective_time);
CREATE TABLE learning.vocabulary_reviews (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL DEFAULT uuidv7(),
  user_id uuid NOT NULL,
  vocabulary_id uuid NOT NULL,
  event_id uuid NOT NULL,
  rating text NOT NULL CONSTRAINT ck_vocabulary_reviews_rating CHECK (rating IN ('again', 'hard', 'good', 'easy')),
  review_time timestamptz NOT NULL,
  receive_time timestamptz NOT NULL,
  duration interval NOT NULL,
  source text NOT NULL
    CONSTRAINT ck_vocabulary_reviews_source CHECK (source IN ('online', 'offline', 'quiz', 'known')),
  desired_retention double precision NOT NULL
    CONSTRAINT ck_vocabulary_reviews_desired_retention CHECK (desired_retention BETWEEN 0.70 AND 0.97),
  maximum_interval_days integer NOT NULL,
  CONSTRAINT pk_vocabulary_reviews PRIMARY KEY (tenant_id, id)
);
CREATE INDEX ix_vocabulary_reviews_of_word
  ON learning.vocabulary_reviews (tenant_id, user_id, vocabulary_id, review_time, id);
CREATE INDEX ix_vocabulary_reviews_tenant_id_user_id_review_time_id
  ON learning.vocabulary_reviews (tenant_id, user_id, review_time, id);
CREATE INDEX ix_vocabulary_reviews_tenant_id_review_time_id
  ON learning.vocabulary_reviews (tenant_id, review_time, id);
CREATE INDEX ix_vocabulary_reviews_tenant_id_vocabulary_id_review_time_id
  ON learning.vocabulary_reviews (tenant_id, vocabulary_id, review_time, id);
CREATE TABLE learning.vocabulary_exposures (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL DEFAULT uuidv7(),
  user_id uuid NOT NULL,
  event_id uuid NOT NULL,
  story_id uuid,
  vocabulary_ids uuid[] NOT NULL,
  exposure_time timestamptz NOT NULL,
  receive_time timestamptz NOT NULL,
  CONSTRAINT pk_vocabulary_exposures PRIMARY KEY (tenant_id, id)
);
CREATE INDEX ix_vocabulary_exposures_tenant_id_user_id_id ON learning.vocabulary_exposures (tenant_id, user_id, id);
CREATE TABLE learning.user_vocabulary_progress (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL DEFAULT uuidv7(),
  user_id uuid NOT NULL,
  vocabulary_id uuid NOT NULL,
  status text NOT NULL
    CONSTRAINT ck_user_vocabulary_progress_status CHECK (status IN ('new', 'learning', 'reviewing', 'mastered')),
  phase text NOT NULL
    CONSTRAINT ck_user_vocabulary_progress_phase CHECK (phase IN ('new', 'learning', 'review', 'relearning')),
  step integer,
  stability_days double precision,
  difficulty double precision,
  due_time timestamptz,
  first_review_time timestamptz,
  last_review_time timestamptz,
  last_review_id uuid,
  review_count integer NOT NULL,
  lapse_count integer NOT NULL,
  known boolean NOT NULL,
  exposure_count integer NOT NULL DEFAULT 0,
  first_exposure_time timestamptz,
  last_exposure_time timestamptz,
  change bigint NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  revision integer NOT NULL DEFAULT 1,
  CONSTRAINT pk_user_vocabulary_progress PRIMARY KEY (tenant_id, id),
  CONSTRAINT ck_user_vocabulary_progress_due_time CHECK ((phase = 'new') = (due_time IS NULL)),
  CONSTRAINT ck_user_vocabulary_progress_review_count CHECK ((phase = 'new') = (review_count = 0))
);
CREATE UNIQUE INDEX ix_user_vocabulary_progress_tenant_id_user_id_vocabulary_id
  ON learning.user_vocabulary_progress (tenant_id, user_id, vocabulary_id);
CREATE INDEX ix_user_vocabulary_progress_tenant_id_user_id_id
  ON learning.user_vocabulary_progress (tenant_id, user_id, id);
CREATE INDEX ix_user_vocabulary_progress_tenant_id_user_id_change
  ON learning.user_vocabulary_progress (tenant_id, user_id, change);
CREATE INDEX ix_user_vocabulary_progress_tenant_id_vocabulary_id_id
  ON learning.user_vocabulary_progress (tenant_id, vocabulary_id, id);
CREATE INDEX ix_user_vocabulary_progress_due
  ON learning.user_vocabulary_progress (tenant_id, user_id, due_time, vocabulary_id) WHERE due_time IS NOT NULL;
CREATE INDEX ix_user_vocabulary_progress_new
  ON learning.user_vocabulary_progress (tenant_id, user_id, first_exposure_time, vocabulary_id)
  WHERE due_time IS NULL;
CREATE INDEX ix_user_vocabulary_progress_begun
  ON learning.user_vocabulary_progress (tenant_id, user_id, first_review_time) WHERE NOT known;
"""


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)
    protect("learning", *OTHERS)
    for table in LOGS:
        for statement in protection("learning", table):
            op.execute(statement)
    grant("learning", *LOGS, rights="SELECT, INSERT, DELETE")
    create_jobs("learning", "learners", "enrollments", "user_progress", "learning_sessions")


def downgrade() -> None:
    drop_jobs("learning")
    for table in (*OTHERS, *LOGS):
        op.drop_table(table, schema="learning")
