"""Makes room for more types of questions, and for tags and searches."""

import re

from alembic import op

from kit.migrations import role_of

revision = "202611221500"
down_revision = "202611221320"
branch_labels = None
depends_on = None

# Collated by code point, and with the classes of characters that PostgreSQL itself brings: the same in every database.
FUNCTIONS = r"""
CREATE FUNCTION assessment.folded(text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = ''
AS $$
  SELECT normalize(translate(
    regexp_replace(normalize(lower($1 COLLATE pg_c_utf8), NFD), '[\u0300-\u036f]+', '', 'g'), 'đøłħı', 'dolhi'), NFC)
$$;
CREATE FUNCTION assessment.words_of(text) RETURNS text[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = '' AS $$
  SELECT ARRAY(SELECT left(word, 100)
               FROM regexp_split_to_table(assessment.folded($1) COLLATE pg_c_utf8, '[\W_]+') word WHERE word <> '')
$$;
CREATE FUNCTION assessment.question_key(prompt text, tags text[]) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = '' AS $$
  SELECT ' ' || array_to_string(assessment.words_of(prompt || ' ' || array_to_string(tags, ' ')), ' ')
$$;
CREATE FUNCTION assessment.keep_search_key() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
  new.search_key := assessment.question_key(new.prompt, new.tags);
  RETURN new;
END $$;
"""
# Row-level security keeps the operators of text and array indexes, which may tell of what they see, from being used
# before the policy has let a row through, and so from being used as an index. This one applies the policy's own
# condition itself, and gives nothing but ids. Without the settings the planner may prefer to read all of a tenant.
FINDER = "find_questions(text[], text[], integer)"
AS_OWNER = r"""
CREATE FUNCTION assessment.find_questions(patterns text[], wanted text[], most integer) RETURNS uuid[]
LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_indexscan = off AS $$
  SELECT coalesce(array_agg(found.id), '{}') FROM (
    SELECT q.id FROM assessment.questions q
    WHERE q.tenant_id = current_setting('app.tenant_id')::uuid
      AND q.search_key LIKE ALL (patterns) AND q.tags @> wanted AND q.deleted_at IS NULL
    LIMIT most
  ) found
$$
"""
COLUMNS = """
ALTER TABLE assessment.questions DROP CONSTRAINT ck_questions_type,
  ADD CONSTRAINT ck_questions_type
    CHECK (type IN ('multiple_choice', 'fill_blank', 'short_answer', 'numeric', 'matching', 'ordering')),
  ADD COLUMN tags text[] NOT NULL DEFAULT '{}',
  ADD COLUMN facility numeric CONSTRAINT ck_questions_facility CHECK (facility BETWEEN 0 AND 1);
ALTER TABLE assessment.questions ADD COLUMN search_key text NOT NULL DEFAULT '';
CREATE INDEX ix_questions_tenant_id_author_id_id ON assessment.questions (tenant_id, author_id, id);
CREATE INDEX ix_questions_tenant_id_search_key_tags ON assessment.questions
  USING gin (tenant_id extensions.uuid_ops, search_key extensions.gin_trgm_ops, tags);
ALTER TABLE assessment.question_versions ADD COLUMN preserved jsonb NOT NULL DEFAULT '{}'
  CONSTRAINT ck_question_versions_preserved CHECK (octet_length(preserved::text) <= 65536);
"""
TRIGGER = """
CREATE TRIGGER keep_search_key BEFORE INSERT OR UPDATE OF prompt, tags ON assessment.questions
FOR EACH ROW EXECUTE FUNCTION assessment.keep_search_key()
"""
FILL = "UPDATE assessment.questions SET search_key = assessment.question_key(prompt, tags)"
# Each body has what its type needs, and choices and accepted texts have what they earn; what they are graded by stays.
FORWARD = """
UPDATE assessment.question_versions SET body =
  body - '{choices,multiple,blanks,case_sensitive,ignore_accents}'::text[]
  || '{"scoring": "partial"}'
  || CASE body ->> 'type' WHEN 'multiple_choice' THEN jsonb_build_object(
       'multiple', body -> 'multiple',
       'choices', (SELECT coalesce(jsonb_agg(choice || '{"percent": ""}' ORDER BY place), '[]')
                   FROM jsonb_array_elements(body -> 'choices') WITH ORDINALITY AS one (choice, place)))
     ELSE jsonb_build_object(
       'case_sensitive', body -> 'case_sensitive', 'ignore_accents', body -> 'ignore_accents', 'most_typos', 0,
       'blanks', (SELECT coalesce(jsonb_agg(jsonb_build_object('options', '[]'::jsonb, 'accepted', (
                    SELECT coalesce(jsonb_agg(
                      jsonb_build_object('text', said, 'percent', '', 'feedback', '') ORDER BY nth), '[]')
                    FROM jsonb_array_elements_text(blank) WITH ORDINALITY AS known (said, nth))) ORDER BY place), '[]')
                  FROM jsonb_array_elements(body -> 'blanks') WITH ORDINALITY AS one (blank, place)))
     END
"""
BACK = """
UPDATE assessment.question_versions SET body =
  '{"choices": [], "multiple": false, "blanks": [], "case_sensitive": false, "ignore_accents": false}'
  || (body - '{scoring,most_typos,choices,blanks}'::text[])
  || CASE body ->> 'type' WHEN 'multiple_choice' THEN jsonb_build_object(
       'choices', (SELECT coalesce(jsonb_agg(choice - 'percent' ORDER BY place), '[]')
                   FROM jsonb_array_elements(body -> 'choices') WITH ORDINALITY AS one (choice, place)))
     ELSE jsonb_build_object(
       'blanks', (SELECT coalesce(jsonb_agg((
                    SELECT coalesce(jsonb_agg(known -> 'text' ORDER BY nth), '[]')
                    FROM jsonb_array_elements(blank -> 'accepted') WITH ORDINALITY AS said (known, nth))
                  ORDER BY place), '[]')
                  FROM jsonb_array_elements(body -> 'blanks') WITH ORDINALITY AS one (blank, place)))
     END
"""


def upgrade() -> None:
    _execute_each(FUNCTIONS)
    _execute_each(COLUMNS)
    op.execute(FILL)
    op.execute(TRIGGER)
    op.execute(FORWARD)
    op.execute(AS_OWNER)
    op.execute(f"REVOKE ALL ON FUNCTION assessment.{FINDER} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION assessment.{FINDER} TO {role_of('assessment')}")


def _execute_each(statements: str) -> None:
    # The driver takes one at a time. Inside of functions all lines are indented.
    for statement in re.split(r";\n(?=CREATE|ALTER)", statements.strip().removesuffix(";")):
        op.execute(statement)


def downgrade() -> None:
    """Questions of the types that were not there before keep it from being done."""
    op.execute(f"DROP FUNCTION assessment.{FINDER}")
    op.execute("DROP TRIGGER keep_search_key ON assessment.questions")
    op.execute("ALTER TABLE assessment.question_versions DROP COLUMN preserved")
    op.execute("DROP INDEX assessment.ix_questions_tenant_id_author_id_id")
    for column in ("search_key", "facility", "tags"):
        op.execute(f"ALTER TABLE assessment.questions DROP COLUMN {column}")
    op.execute("ALTER TABLE assessment.questions DROP CONSTRAINT ck_questions_type")
    op.create_check_constraint(
        op.f("ck_questions_type"), "questions", "type IN ('multiple_choice', 'fill_blank')", schema="assessment"
    )
    op.execute(BACK)
    for function in ("keep_search_key()", "question_key(text, text[])", "words_of(text)", "folded(text)"):
        op.execute(f"DROP FUNCTION assessment.{function}")
