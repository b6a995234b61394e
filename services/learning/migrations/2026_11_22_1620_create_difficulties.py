"""Creates sums over all learners of a tenant, of words, stories and days, and what was done that no log has.

Triggers note what changes in all of it, whoever writes what it follows from; what is there already is noted here.
"""

from alembic import op

from kit.migrations import grant, protect, protection, role_of

revision = "202611221620"
down_revision = "202611221610"
branch_labels = None
depends_on = None

SUMS = ("word_difficulties", "story_difficulties", "story_words", "tenant_activity", "pending_sums")
TABLES = """
CREATE TABLE learning.word_difficulties (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL DEFAULT uuidv7(),
  learner_count integer NOT NULL DEFAULT 0,
  review_count bigint NOT NULL DEFAULT 0,
  lapse_count bigint NOT NULL DEFAULT 0,
  difficulty_sum bigint NOT NULL DEFAULT 0,
  difficulty_tenths smallint
    GENERATED ALWAYS AS (((difficulty_sum + 50 * learner_count) / NULLIF(100 * learner_count, 0))::smallint) STORED,
  CONSTRAINT pk_word_difficulties PRIMARY KEY (tenant_id, id)
) WITH (fillfactor = 70);
CREATE INDEX ix_word_difficulties_hardest ON learning.word_difficulties (tenant_id, difficulty_tenths, id)
  WHERE learner_count >= 5;
CREATE TABLE learning.story_difficulties (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL DEFAULT uuidv7(),
  reading_count integer NOT NULL DEFAULT 0,
  reader_count integer NOT NULL DEFAULT 0,
  session_count integer NOT NULL DEFAULT 0,
  session_learner_count integer NOT NULL DEFAULT 0,
  interaction_count bigint NOT NULL DEFAULT 0,
  active_duration interval NOT NULL DEFAULT '0',
  CONSTRAINT pk_story_difficulties PRIMARY KEY (tenant_id, id)
) WITH (fillfactor = 70);
CREATE TABLE learning.story_words (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL DEFAULT uuidv7(),
  story_id uuid NOT NULL,
  vocabulary_id uuid NOT NULL,
  exposure_count integer NOT NULL DEFAULT 0,
  CONSTRAINT pk_story_words PRIMARY KEY (tenant_id, id)
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX ix_story_words_tenant_id_story_id_vocabulary_id
  ON learning.story_words (tenant_id, story_id, vocabulary_id);
CREATE TABLE learning.tenant_activity (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL DEFAULT uuidv7(),
  period text NOT NULL CONSTRAINT ck_tenant_activity_period CHECK (period IN ('day', 'week', 'month')),
  begin_date date NOT NULL,
  cohort date NOT NULL,
  learner_count integer NOT NULL DEFAULT 0,
  CONSTRAINT pk_tenant_activity PRIMARY KEY (tenant_id, id)
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX ix_tenant_activity_tenant_id_period_begin_date_cohort
  ON learning.tenant_activity (tenant_id, period, begin_date, cohort);
CREATE TABLE learning.pending_sums (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL DEFAULT uuidv7(),
  kind text NOT NULL
    CONSTRAINT ck_pending_sums_kind CHECK (kind IN ('word', 'story', 'story_word', 'activity')),
  vocabulary_id uuid,
  story_id uuid,
  period text,
  begin_date date,
  cohort date,
  amounts bigint[] NOT NULL,
  CONSTRAINT pk_pending_sums PRIMARY KEY (tenant_id, id)
);
CREATE INDEX ix_pending_sums_tenant_id_kind_id ON learning.pending_sums (tenant_id, kind, id);
CREATE TABLE learning.statements (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL DEFAULT uuidv7(),
  user_id uuid NOT NULL,
  verb text NOT NULL CONSTRAINT ck_statements_verb CHECK (verb IN (
    'initialized', 'terminated', 'experienced', 'completed', 'passed', 'failed', 'scored')),
  lesson_id uuid,
  story_id uuid,
  quiz_id uuid,
  registration uuid,
  duration interval,
  interactions integer,
  score numeric,
  max_score numeric,
  passed boolean,
  event_time timestamptz NOT NULL,
  receive_time timestamptz NOT NULL,
  CONSTRAINT pk_statements PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX ix_statements_of_session ON learning.statements (tenant_id, registration, verb)
  WHERE verb IN ('initialized', 'terminated');
CREATE INDEX ix_statements_tenant_id_receive_time_id ON learning.statements (tenant_id, receive_time, id);
CREATE INDEX ix_statements_tenant_id_user_id_receive_time_id
  ON learning.statements (tenant_id, user_id, receive_time, id);
CREATE INDEX ix_vocabulary_exposures_of_story ON learning.vocabulary_exposures (tenant_id, story_id, user_id)
  WHERE story_id IS NOT NULL;
CREATE INDEX ix_vocabulary_exposures_tenant_id_receive_time_id
  ON learning.vocabulary_exposures (tenant_id, receive_time, id);
CREATE INDEX ix_vocabulary_reviews_tenant_id_receive_time_id
  ON learning.vocabulary_reviews (tenant_id, receive_time, id);
CREATE INDEX ix_learning_sessions_of_story ON learning.learning_sessions (tenant_id, story_id, user_id)
  WHERE story_id IS NOT NULL AND state <> 'open'
"""
INDEXES = (
    *("vocabulary_exposures_of_story", "vocabulary_exposures_tenant_id_receive_time_id"),
    *("vocabulary_reviews_tenant_id_receive_time_id", "learning_sessions_of_story"),
)

# What a statement has changed: its new rows are `added`, its old ones `removed`.
CHANGED = {
    "INSERT": "SELECT 1 AS sign, r.* FROM added r",
    "UPDATE": "SELECT 1 AS sign, r.* FROM added r UNION ALL SELECT -1, r.* FROM removed r",
    "DELETE": "SELECT -1 AS sign, r.* FROM removed r",
}
SEEN = {
    "INSERT": "REFERENCING NEW TABLE AS added",
    "UPDATE": "REFERENCING OLD TABLE AS removed NEW TABLE AS added",
    "DELETE": "REFERENCING OLD TABLE AS removed",
}

# Words: learners who have reviewed it, reviews, lapses, and difficulties in thousandths.
WORDS = """
  INSERT INTO learning.pending_sums (tenant_id, kind, vocabulary_id, amounts)
  SELECT c.tenant_id, 'word', c.vocabulary_id, ARRAY[
    sum(c.sign * (c.review_count > 0)::integer), sum(c.sign * c.review_count), sum(c.sign * c.lapse_count),
    sum(c.sign * coalesce(round(c.difficulty * 1000), 0)::bigint)]
  FROM ({changed}) c GROUP BY c.tenant_id, c.vocabulary_id
  HAVING sum(c.sign * c.review_count) <> 0 OR sum(c.sign * c.lapse_count) <> 0
      OR sum(c.sign * coalesce(round(c.difficulty * 1000), 0)::bigint) <> 0;
"""
# Stories: readings, readers, sessions, their learners, interactions, and active microseconds. Of a learner and a story
# there are so many readings now; less those that are new, it is how many there were.
READINGS = """
  INSERT INTO learning.pending_sums (tenant_id, kind, story_id, amounts)
  SELECT c.tenant_id, 'story', c.story_id,
         ARRAY[sum(c.readings), sum((l.now > 0)::integer - (l.now > c.readings)::integer), 0, 0, 0, 0]
  FROM (SELECT c.tenant_id, c.story_id, c.user_id, sum(c.sign) AS readings FROM ({changed}) c
        WHERE c.story_id IS NOT NULL GROUP BY c.tenant_id, c.story_id, c.user_id) c,
    LATERAL (SELECT count(*) AS now FROM learning.vocabulary_exposures e
             WHERE e.tenant_id = c.tenant_id AND e.story_id = c.story_id AND e.user_id = c.user_id) l
  GROUP BY c.tenant_id, c.story_id;
  INSERT INTO learning.pending_sums (tenant_id, kind, story_id, vocabulary_id, amounts)
  SELECT c.tenant_id, 'story_word', c.story_id, w.word, ARRAY[sum(c.sign)]
  FROM ({changed}) c, unnest(c.vocabulary_ids) AS w (word)
  WHERE c.story_id IS NOT NULL GROUP BY c.tenant_id, c.story_id, w.word;
"""
SESSIONS = """
  INSERT INTO learning.pending_sums (tenant_id, kind, story_id, amounts)
  SELECT c.tenant_id, 'story', c.story_id,
         ARRAY[0, 0, sum(c.sessions), sum((l.now > 0)::integer - (l.now > c.sessions)::integer), sum(c.interactions),
               sum(c.active)]
  FROM (SELECT c.tenant_id, c.story_id, c.user_id, sum(c.sign) AS sessions,
               sum(c.sign * c.interactions) AS interactions,
               sum(c.sign * round(extract(epoch FROM c.active_duration) * 1000000)) AS active
        FROM ({changed}) c WHERE c.story_id IS NOT NULL AND c.state <> 'open'
        GROUP BY c.tenant_id, c.story_id, c.user_id) c,
    LATERAL (SELECT count(*) AS now FROM learning.learning_sessions s
             WHERE s.tenant_id = c.tenant_id AND s.story_id = c.story_id AND s.user_id = c.user_id
               AND s.state <> 'open') l
  GROUP BY c.tenant_id, c.story_id;
"""
# All that a learner counts for follows from the days on which they were active, and so do the changes of it: from the
# days that there are now, and from those that there were.
DAYS = """
  INSERT INTO learning.pending_sums (tenant_id, kind, period, begin_date, cohort, amounts)
  WITH changed AS (
    SELECT c.tenant_id, c.user_id, c.day, sum(c.sign) AS sign FROM ({changed}) c WHERE c.active
    GROUP BY c.tenant_id, c.user_id, c.day HAVING sum(c.sign) <> 0
  ), days AS (
    SELECT a.tenant_id, a.user_id, a.day, s.sign
    FROM (SELECT DISTINCT tenant_id, user_id FROM changed) u
    JOIN learning.daily_activity a ON a.tenant_id = u.tenant_id AND a.user_id = u.user_id AND a.active
    CROSS JOIN (VALUES (1), (-1)) AS s (sign)
    WHERE s.sign = 1 OR NOT EXISTS (SELECT FROM changed c WHERE c.sign = 1 AND c.tenant_id = a.tenant_id
                                      AND c.user_id = a.user_id AND c.day = a.day)
    UNION ALL SELECT tenant_id, user_id, day, -1 FROM changed WHERE sign = -1
  ), since AS (
    SELECT d.*, min(d.day) OVER (PARTITION BY d.tenant_id, d.user_id, d.sign) AS first FROM days d
  ), cells AS (
    SELECT {cells} FROM since s UNION SELECT {weeks} FROM since s UNION SELECT {months} FROM since s
  )
  SELECT tenant_id, 'activity', period, begin_date, cohort, ARRAY[sum(sign)] FROM cells
  GROUP BY tenant_id, period, begin_date, cohort HAVING sum(sign) <> 0;
"""
WEEK, MONTH = "({0} - extract(isodow FROM {0})::integer + 1)", "({0} - extract(day FROM {0})::integer + 1)"
KEY = "s.tenant_id, s.user_id, s.sign"


def first_or_later(begin: str, first: str) -> str:
    return f"CASE WHEN {begin} = {first} THEN {begin} ELSE '-infinity'::date END"


CELLS = {
    "cells": f"{KEY}, 'day' AS period, s.day AS begin_date, {first_or_later('s.day', 's.first')} AS cohort",
    "weeks": f"{KEY}, 'week', {WEEK.format('s.day')}, {WEEK.format('s.first')}",
    "months": f"{KEY}, 'month', {MONTH.format('s.day')}, "
    + first_or_later(MONTH.format("s.day"), MONTH.format("s.first")),
}


def if_changed(changed: str, condition: str, then: str) -> str:
    return f"IF EXISTS (SELECT FROM ({changed}) c WHERE {condition}) THEN {then} END IF;"


def bodies() -> dict[tuple[str, str], str]:
    """What is done after rows of the table were inserted, updated or deleted."""
    found = {}
    for event, changed in CHANGED.items():
        found["user_vocabulary_progress", event] = WORDS.format(changed=changed)
        ended = "c.story_id IS NOT NULL AND c.state <> 'open'"
        found["learning_sessions", event] = if_changed(changed, ended, SESSIONS.format(changed=changed))
        moved = "c.active GROUP BY c.user_id, c.day HAVING sum(c.sign) <> 0"
        found["daily_activity", event] = if_changed(changed, moved, DAYS.format(changed=changed, **CELLS))
    for event in ("INSERT", "DELETE"):
        readings = READINGS.format(changed=CHANGED[event])
        found["vocabulary_exposures", event] = if_changed(CHANGED[event], "c.story_id IS NOT NULL", readings)
    return found


# Whose sums are to be brought up to date: the service itself sees one tenant at a time.
NEXT_TENANT = """
CREATE FUNCTION learning.next_pending_tenant(after uuid) RETURNS uuid LANGUAGE sql STABLE STRICT SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
RETURN (SELECT tenant_id FROM learning.pending_sums WHERE tenant_id > after ORDER BY tenant_id LIMIT 1)
"""
SESSION_STATEMENTS = """
  IF tg_op = 'INSERT' THEN
    INSERT INTO learning.statements
      (tenant_id, user_id, verb, lesson_id, story_id, registration, event_time, receive_time)
    VALUES (new.tenant_id, new.user_id, 'initialized', new.lesson_id, new.story_id, new.id, new.start_time, now())
    ON CONFLICT DO NOTHING;
  END IF;
  IF new.state <> 'open' THEN
    INSERT INTO learning.statements
      (tenant_id, user_id, verb, lesson_id, story_id, registration, duration, interactions, event_time, receive_time)
    VALUES (new.tenant_id, new.user_id, 'terminated', new.lesson_id, new.story_id, new.id, new.active_duration,
            new.interactions, new.end_time, now())
    ON CONFLICT DO NOTHING;
  END IF;
"""
PROGRESS_STATEMENTS = """
  INSERT INTO learning.statements (tenant_id, user_id, verb, lesson_id, event_time, receive_time)
  SELECT new.tenant_id, new.user_id, v.verb, new.lesson_id, v.at, now()
  FROM (VALUES ('experienced', new.start_time, CASE WHEN tg_op = 'UPDATE' THEN old.start_time END),
               ('completed', new.complete_time, CASE WHEN tg_op = 'UPDATE' THEN old.complete_time END))
    AS v (verb, at, before)
  WHERE v.at IS NOT NULL AND v.before IS NULL;
"""
# A result that is changed later is scored anew.
RESULT_STATEMENTS = """
  INSERT INTO learning.statements
    (tenant_id, user_id, verb, lesson_id, quiz_id, registration, score, max_score, passed, event_time, receive_time)
  VALUES (new.tenant_id, new.user_id,
          CASE WHEN tg_op = 'UPDATE' THEN 'scored' WHEN new.passed THEN 'passed' ELSE 'failed' END,
          new.lesson_id, new.quiz_id, new.id, new.score, new.max_score, new.passed, new.grade_time, now());
"""
NOTED = {
    "learning_sessions": (SESSION_STATEMENTS, "old.state = 'open' AND new.state <> 'open'"),
    "user_progress": (
        PROGRESS_STATEMENTS,
        "old.start_time IS NULL AND new.start_time IS NOT NULL"
        " OR old.complete_time IS NULL AND new.complete_time IS NOT NULL",
    ),
    "graded_attempts": (
        RESULT_STATEMENTS,
        "(old.score, old.max_score, old.passed) IS DISTINCT FROM (new.score, new.max_score, new.passed)",
    ),
}
EARLIER = (
    "SELECT tenant_id, user_id, 'initialized', lesson_id, story_id, id, NULL::interval, NULL::integer, start_time,"
    " created_at FROM learning.learning_sessions",
    "SELECT tenant_id, user_id, 'terminated', lesson_id, story_id, id, active_duration, interactions, end_time,"
    " updated_at FROM learning.learning_sessions WHERE state <> 'open'",
    "SELECT tenant_id, user_id, 'experienced', lesson_id, NULL, NULL, NULL, NULL, start_time, created_at"
    " FROM learning.user_progress WHERE start_time IS NOT NULL",
    "SELECT tenant_id, user_id, 'completed', lesson_id, NULL, NULL, NULL, NULL, complete_time, updated_at"
    " FROM learning.user_progress WHERE complete_time IS NOT NULL",
)


def function(name: str, body: str) -> str:
    head = f"CREATE FUNCTION learning.{name}() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$\nBEGIN\n"
    return f"{head}{body}  RETURN NULL;\nEND $$"


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        op.execute(statement)
    protect("learning", *SUMS)
    for statement in protection("learning", "statements"):
        op.execute(statement)
    grant("learning", "statements", rights="SELECT, INSERT, DELETE")
    op.execute(NEXT_TENANT)
    op.execute("REVOKE ALL ON FUNCTION learning.next_pending_tenant(uuid) FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION learning.next_pending_tenant(uuid) TO {role_of('learning')}")
    for (table, event), body in bodies().items():
        name = f"sum_{table}_on_{event.lower()}"
        op.execute(function(name, body))
        op.execute(
            f"CREATE TRIGGER {name} AFTER {event} ON learning.{table} {SEEN[event]}"
            f" FOR EACH STATEMENT EXECUTE FUNCTION learning.{name}()"
        )
    for table, (body, condition) in NOTED.items():
        op.execute(function(f"note_{table}", body))
        for event, when in (("insert", ""), ("update", f"WHEN ({condition})")):
            op.execute(
                f"CREATE TRIGGER note_{table}_on_{event} AFTER {event} ON learning.{table}"
                f" FOR EACH ROW {when} EXECUTE FUNCTION learning.note_{table}()"
            )
    op.execute("SET LOCAL row_security = off")
    # As if it were all added at this moment.
    for table, of in (("user_vocabulary_progress", WORDS), ("vocabulary_exposures", READINGS)):
        for statement in of.format(changed=f"SELECT 1 AS sign, r.* FROM learning.{table} r").split(";\n"):  # noqa: S608
            if statement.strip():
                op.execute(statement)
    op.execute(SESSIONS.format(changed="SELECT 1 AS sign, r.* FROM learning.learning_sessions r").rstrip(";\n"))
    columns = "tenant_id, user_id, verb, lesson_id, story_id, registration, duration, interactions"
    earlier = " UNION ALL ".join(EARLIER)
    op.execute(f"INSERT INTO learning.statements ({columns}, event_time, receive_time) {earlier}")


def downgrade() -> None:
    for table, event in bodies():
        op.execute(f"DROP TRIGGER sum_{table}_on_{event.lower()} ON learning.{table}")
        op.execute(f"DROP FUNCTION learning.sum_{table}_on_{event.lower()}()")
    for table in NOTED:
        for event in ("insert", "update"):
            op.execute(f"DROP TRIGGER note_{table}_on_{event} ON learning.{table}")
        op.execute(f"DROP FUNCTION learning.note_{table}()")
    for index in INDEXES:
        op.execute(f"DROP INDEX learning.ix_{index}")
    op.execute("DROP FUNCTION learning.next_pending_tenant(uuid)")
    for table in (*SUMS, "statements"):
        op.drop_table(table, schema="learning")
