"""Creates tags, and the documents that searches look into, with what keeps them."""

import re
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from kit.migrations import protect, role_of

revision = "202611221550"
down_revision = "202611221540"
branch_labels = None
depends_on = None

# Lists of these may be by title.
TITLED = ("courses", "stories")
TAGGED = {"course": "courses", "lesson": "lessons", "story": "stories"}
# Collated by code point, and with the classes of characters that PostgreSQL itself brings: the same in every database.
FUNCTIONS = r"""
CREATE FUNCTION content.lowered(text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = ''
AS $$
  SELECT lower(normalize($1, NFC) COLLATE pg_c_utf8)
$$;
CREATE FUNCTION content.folded(text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = ''
AS $$
  SELECT normalize(translate(
    regexp_replace(normalize(lower($1 COLLATE pg_c_utf8), NFD), '[\u0300-\u036f]+', '', 'g'), 'đøłħı', 'dolhi'), NFC)
$$;
CREATE FUNCTION content.words_of(text) RETURNS text[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = ''
AS $$
  SELECT ARRAY(SELECT left(word, 100) FROM regexp_split_to_table($1 COLLATE pg_c_utf8, '[\W_]+') word
               WHERE word <> '')
$$;
CREATE FUNCTION content.lexemes(title text, body text) RETURNS tsvector
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = '' AS $$
  WITH text (folded, lowered) AS (
    SELECT content.words_of(content.folded(title || ' ' || body)),
           content.words_of(content.lowered(title || ' ' || body))
  ), head (folded, lowered) AS (
    SELECT content.words_of(content.folded(title)), content.words_of(content.lowered(title))
  )
  SELECT array_to_tsvector(ARRAY(
    SELECT word FROM text, unnest(folded) word
    UNION SELECT '=' || word FROM text, unnest(lowered) word
    UNION SELECT '^' || word FROM head, unnest(folded) word
    UNION SELECT '^=' || word FROM head, unnest(lowered) word))
$$;
CREATE FUNCTION content.keep_document(tenant uuid, entity uuid, sort text, title text, body text) RETURNS void
LANGUAGE sql SET search_path = '' AS $$
  INSERT INTO content.search_documents (tenant_id, id, kind, title_key, words)
  VALUES (tenant, entity, sort, content.folded(title), content.lexemes(title, body))
  ON CONFLICT (tenant_id, id) DO UPDATE SET title_key = excluded.title_key, words = excluded.words
$$;
CREATE FUNCTION content.keep_course_document() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
  PERFORM content.keep_document(new.tenant_id, new.id, 'course', new.title, new.description);
  RETURN NULL;
END $$;
CREATE FUNCTION content.keep_lesson_document() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
  PERFORM content.keep_document(new.tenant_id, new.id, 'lesson', new.title, new.description);
  RETURN NULL;
END $$;
CREATE FUNCTION content.vocabulary_title(term text, translation text, forms jsonb) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = '' AS $$
  SELECT concat_ws(' ', term, translation, (SELECT string_agg(concat_ws(' ', one ->> 0, one ->> 1), ' ')
                                            FROM jsonb_array_elements(forms) one))
$$;
CREATE FUNCTION content.keep_vocabulary_document() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
  PERFORM content.keep_document(
    new.tenant_id, new.id, 'vocabulary', content.vocabulary_title(new.term, new.translation, new.forms),
    new.explanation);
  RETURN NULL;
END $$;
CREATE FUNCTION content.keep_story_document() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
  tenant text := current_setting('app.tenant_id', true);
BEGIN
  -- At the end of a transaction that wrote in several tenants it is in another one, or in none.
  EXECUTE format('SET LOCAL app.tenant_id = %L', new.tenant_id);
  -- As the transaction leaves it, however often it has changed on the way.
  INSERT INTO content.search_documents
    (tenant_id, id, kind, title_key, words, published_title_key, published_words)
  SELECT s.tenant_id, s.id, 'story', content.folded(c.title), content.lexemes(c.title, c.text),
         content.folded(p.title), content.lexemes(p.title, p.text)
  FROM content.stories s
  JOIN content.story_versions c ON c.tenant_id = s.tenant_id AND c.id = s.current_version_id
  LEFT JOIN content.story_versions p ON p.tenant_id = s.tenant_id AND p.id = s.published_version_id
    AND p.id <> s.current_version_id
  WHERE s.tenant_id = new.tenant_id AND s.id = new.id
  ON CONFLICT (tenant_id, id) DO UPDATE SET title_key = excluded.title_key, words = excluded.words,
    published_title_key = excluded.published_title_key, published_words = excluded.published_words;
  EXECUTE format('SET LOCAL app.tenant_id = %L', coalesce(tenant, ''));
  RETURN NULL;
END $$;
CREATE FUNCTION content.drop_document() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
  DELETE FROM content.search_documents WHERE tenant_id = old.tenant_id AND id = old.id;
  RETURN NULL;
END $$;
"""
# Row-level security keeps the operators of full-text and trigram indexes, which may tell of what they see, from being
# used before the policy has let a row through, and so from being used as an index. These two apply the policy's own
# condition themselves, and give nothing but ids. Without the settings the planner may prefer to read all of a tenant.
AS_OWNER = r"""
CREATE FUNCTION content.find_documents(wanted tsquery, kinds text[], most integer)
RETURNS TABLE (kind text, ids uuid[]) LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_indexscan = off AS $$
  SELECT found.kind, array_agg(found.id) FROM (
    SELECT d.kind, d.id FROM content.search_documents d
    WHERE d.tenant_id = current_setting('app.tenant_id')::uuid
      AND (d.words @@ wanted OR d.published_words @@ wanted) AND d.kind = ANY (kinds)
    LIMIT most
  ) found GROUP BY found.kind
$$;
CREATE FUNCTION content.find_similar_documents(wanted text, kinds text[], most integer)
RETURNS TABLE (kind text, ids uuid[]) LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_indexscan = off SET pg_trgm.word_similarity_threshold = 0.4 AS $$
  SELECT found.kind, array_agg(found.id) FROM (
    SELECT d.kind, d.id FROM content.search_documents d
    WHERE d.tenant_id = current_setting('app.tenant_id')::uuid
      AND (wanted OPERATOR(extensions.<%) d.title_key OR wanted OPERATOR(extensions.<%) d.published_title_key)
      AND d.kind = ANY (kinds)
    ORDER BY greatest(extensions.word_similarity(wanted, d.title_key),
                      extensions.word_similarity(wanted, d.published_title_key)) DESC, d.id DESC
    LIMIT most
  ) found GROUP BY found.kind
$$;
"""
FINDERS = ("find_documents(tsquery, text[], integer)", "find_similar_documents(text, text[], integer)")
TRIGGERS = {
    "courses": ("course", "title, description"),
    "lessons": ("lesson", "title, description"),
    "vocabularies": ("vocabulary", "term, translation, forms, explanation"),
}
FILL = """
INSERT INTO content.search_documents (tenant_id, id, kind, title_key, words)
SELECT tenant_id, id, 'course', content.folded(title), content.lexemes(title, description) FROM content.courses
UNION ALL
SELECT tenant_id, id, 'lesson', content.folded(title), content.lexemes(title, description) FROM content.lessons
UNION ALL
SELECT tenant_id, id, 'vocabulary', content.folded(content.vocabulary_title(term, translation, forms)),
       content.lexemes(content.vocabulary_title(term, translation, forms), explanation) FROM content.vocabularies;
INSERT INTO content.search_documents (tenant_id, id, kind, title_key, words, published_title_key, published_words)
SELECT s.tenant_id, s.id, 'story', content.folded(c.title), content.lexemes(c.title, c.text),
       content.folded(p.title), content.lexemes(p.title, p.text)
FROM content.stories s
JOIN content.story_versions c ON c.tenant_id = s.tenant_id AND c.id = s.current_version_id
LEFT JOIN content.story_versions p ON p.tenant_id = s.tenant_id AND p.id = s.published_version_id
  AND p.id <> s.current_version_id
"""


def key_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
    ]


def time_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    ]


def upgrade() -> None:
    for table in TITLED:
        op.drop_index(f"ix_{table}_tenant_id_title", table, schema="content")
        key = sa.Column("title_key", sa.Text(), sa.Computed("lower(title)", persisted=True), nullable=False)
        op.add_column(table, key, schema="content")
        columns = ["tenant_id", "title_key", "id"]
        op.create_index(f"ix_{table}_tenant_id_title_key_id", table, columns, schema="content")
    _create_tags()
    op.create_table(
        "search_documents",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("title_key", sa.Text(), nullable=False),
        sa.Column("words", postgresql.TSVECTOR(), nullable=False),
        sa.Column("published_title_key", sa.Text(), nullable=True),
        sa.Column("published_words", postgresql.TSVECTOR(), nullable=True),
        *key_columns(),
        sa.CheckConstraint(
            "kind IN ('story', 'course', 'lesson', 'vocabulary')", name=op.f("ck_search_documents_kind")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_search_documents"),
        schema="content",
    )
    _execute_each(FUNCTIONS)
    _execute_each(FILL)
    _create_indexes()
    _execute_each(AS_OWNER)
    for finder in FINDERS:
        op.execute(f"REVOKE ALL ON FUNCTION content.{finder} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION content.{finder} TO {role_of('content')}")
    _create_triggers()
    protect("content", "tags", *(f"{kind}_tags" for kind in TAGGED), "search_documents")


def _execute_each(statements: str) -> None:
    # The driver takes one at a time. Inside of functions all lines are indented.
    for statement in re.split(r";\n(?=CREATE|INSERT)", statements.strip().removesuffix(";")):
        op.execute(statement)


def _create_tags() -> None:
    op.create_table(
        "tags",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("name_key", sa.Text(), nullable=False),
        *key_columns(),
        *time_columns(),
        sa.Column("revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_tags"),
        schema="content",
    )
    op.create_index(
        "ix_tags_one_name",
        "tags",
        ["tenant_id", "name_key"],
        unique=True,
        schema="content",
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    for kind, kinds in TAGGED.items():
        _create_join_table(f"{kind}_tags", kind, kinds)


def _create_join_table(table: str, kind: str, kinds: str) -> None:
    op.create_table(
        table,
        sa.Column(f"{kind}_id", sa.Uuid(), nullable=False),
        sa.Column("tag_id", sa.Uuid(), nullable=False),
        *key_columns(),
        *time_columns(),
        *(
            sa.ForeignKeyConstraint(
                ["tenant_id", f"{one}_id"],
                [f"content.{parent}.tenant_id", f"content.{parent}.id"],
                name=f"fk_{table}_tenant_id_{one}_id",
                ondelete="CASCADE",
            )
            for one, parent in ((kind, kinds), ("tag", "tags"))
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=f"pk_{table}"),
        sa.UniqueConstraint("tenant_id", f"{kind}_id", "tag_id", name=f"uq_{table}_tenant_id_{kind}_id_tag_id"),
        schema="content",
    )
    op.create_index(
        f"ix_{table}_tenant_id_tag_id_{kind}_id", table, ["tenant_id", "tag_id", f"{kind}_id"], schema="content"
    )


def _create_indexes() -> None:
    for column in ("words", "published_words", "title_key", "published_title_key"):
        classes = {"tenant_id": "extensions.uuid_ops"}
        if column.endswith("key"):
            classes[column] = "extensions.gin_trgm_ops"
        op.create_index(
            f"ix_search_documents_tenant_id_{column}",
            "search_documents",
            ["tenant_id", column],
            schema="content",
            postgresql_using="gin",
            postgresql_ops=classes,
        )


def _create_triggers() -> None:
    for table, (kind, columns) in TRIGGERS.items():
        op.execute(
            f"CREATE TRIGGER keep_document AFTER INSERT OR UPDATE OF {columns} ON content.{table}"
            f" FOR EACH ROW EXECUTE FUNCTION content.keep_{kind}_document()"
        )
    # A story and its first version refer to each other: both are there at the end of the transaction.
    op.execute(
        "CREATE CONSTRAINT TRIGGER keep_document AFTER INSERT OR UPDATE OF current_version_id, published_version_id"
        " ON content.stories DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION content.keep_story_document()"
    )
    for table in (*TRIGGERS, "stories"):
        op.execute(
            f"CREATE TRIGGER drop_document AFTER DELETE ON content.{table}"
            " FOR EACH ROW EXECUTE FUNCTION content.drop_document()"
        )


def downgrade() -> None:
    for table in (*TRIGGERS, "stories"):
        for trigger in ("keep_document", "drop_document"):
            op.execute(f"DROP TRIGGER {trigger} ON content.{table}")
    for function in (
        *FINDERS,
        "drop_document()",
        "keep_story_document()",
        "keep_vocabulary_document()",
        "keep_lesson_document()",
        "keep_course_document()",
        "vocabulary_title(text, text, jsonb)",
        "keep_document(uuid, uuid, text, text, text)",
        "lexemes(text, text)",
        "words_of(text)",
        "folded(text)",
        "lowered(text)",
    ):
        op.execute(f"DROP FUNCTION content.{function}")
    op.drop_table("search_documents", schema="content")
    for kind in TAGGED:
        op.drop_table(f"{kind}_tags", schema="content")
    op.drop_table("tags", schema="content")
    for table in TITLED:
        op.drop_index(f"ix_{table}_tenant_id_title_key_id", table, schema="content")
        op.drop_column(table, "title_key", schema="content")
        title: Any = sa.literal_column("lower(title)")
        op.create_index(f"ix_{table}_tenant_id_title", table, ["tenant_id", title, "id"], schema="content")
