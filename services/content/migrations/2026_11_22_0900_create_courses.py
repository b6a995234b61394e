"""Creates the tables of courses, units, lessons, stories, vocabulary and of what other services tell of."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from kit.migrations import create_infrastructure, drop_infrastructure, grant, protect

revision = "202611220900"
down_revision = None
branch_labels = None
depends_on = None


TENANT_TABLES = (
    "courses",
    "units",
    "lessons",
    "lesson_prerequisites",
    "stories",
    "vocabularies",
    "course_access",
    "tenant_settings",
)
# What is written once. Of a version only the approval comes later.
IMMUTABLE_TABLES = ("story_versions", "story_chunks", "cloze_configs")
PARTS_OF_SPEECH = (
    "part_of_speech IN ('noun', 'verb', 'adjective', 'adverb', 'pronoun', 'preposition', 'conjunction',"
    " 'interjection', 'phrase')"
)


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


def resource_columns() -> list[sa.Column[Any]]:
    return [
        *key_columns(),
        *time_columns(),
        sa.Column("revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
    ]


def upgrade() -> None:
    create_infrastructure("content")
    op.create_table(
        "course_access",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("course_id", sa.Uuid(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        *key_columns(),
        *time_columns(),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_course_access"),
        schema="content",
    )
    op.create_index(
        "ix_course_access_tenant_id_user_id",
        "course_access",
        ["tenant_id", "user_id"],
        schema="content",
        postgresql_where=sa.text("active"),
    )
    op.create_table(
        "courses",
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("story_language", sa.Text(), nullable=False),
        sa.Column("learning_language", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("author_id", sa.Uuid(), nullable=False),
        *resource_columns(),
        sa.CheckConstraint("status IN ('draft', 'published', 'archived')", name=op.f("ck_courses_status")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_courses"),
        schema="content",
    )
    op.create_index(
        "ix_courses_tenant_id_title",
        "courses",
        ["tenant_id", sa.literal_column("lower(title)"), "id"],
        schema="content",
    )
    op.create_table(
        "tenant_settings",
        sa.Column("story_language", sa.Text(), nullable=False),
        sa.Column("learning_language", sa.Text(), nullable=False),
        sa.Column("approval_required", sa.Boolean(), nullable=False),
        *key_columns(),
        *time_columns(),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_tenant_settings"),
        schema="content",
    )
    op.create_table(
        "vocabularies",
        sa.Column("term", sa.Text(), nullable=False),
        sa.Column("term_key", sa.Text(), nullable=False),
        sa.Column("translation", sa.Text(), nullable=False),
        sa.Column("part_of_speech", sa.Text(), nullable=False),
        sa.Column("sense", sa.Integer(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("explanation", sa.Text(), nullable=False),
        sa.Column("forms", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("learning_language", sa.Text(), nullable=False),
        *resource_columns(),
        sa.CheckConstraint(PARTS_OF_SPEECH, name=op.f("ck_vocabularies_part_of_speech")),
        sa.CheckConstraint("sense BETWEEN 1 AND 100", name=op.f("ck_vocabularies_sense")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_vocabularies"),
        schema="content",
    )
    op.create_index(
        "ix_vocabularies_one_sense",
        "vocabularies",
        ["tenant_id", "language", "learning_language", "term_key", "part_of_speech", "sense"],
        unique=True,
        schema="content",
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "ix_vocabularies_tenant_id_term_key_id", "vocabularies", ["tenant_id", "term_key", "id"], schema="content"
    )
    op.create_table(
        "units",
        sa.Column("course_id", sa.Uuid(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        *resource_columns(),
        postgresql.ExcludeConstraint(
            (sa.column("tenant_id"), "="),
            (sa.column("course_id"), "="),
            (sa.column("position"), "="),
            where=sa.text("deleted_at IS NULL"),
            deferrable=True,
            initially="DEFERRED",
            using="btree",
            name="ex_units_position",
        ),
        sa.CheckConstraint("position > 0", name=op.f("ck_units_position")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "course_id"],
            ["content.courses.tenant_id", "content.courses.id"],
            name="fk_units_tenant_id_course_id",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_units"),
        sa.UniqueConstraint("tenant_id", "course_id", "id", name="uq_units_tenant_id_course_id_id"),
        schema="content",
    )
    op.create_table(
        "lessons",
        sa.Column("unit_id", sa.Uuid(), nullable=False),
        sa.Column("course_id", sa.Uuid(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        *resource_columns(),
        postgresql.ExcludeConstraint(
            (sa.column("tenant_id"), "="),
            (sa.column("unit_id"), "="),
            (sa.column("position"), "="),
            where=sa.text("deleted_at IS NULL"),
            deferrable=True,
            initially="DEFERRED",
            using="btree",
            name="ex_lessons_position",
        ),
        sa.CheckConstraint("status IN ('draft', 'published')", name=op.f("ck_lessons_status")),
        sa.CheckConstraint("position > 0", name=op.f("ck_lessons_position")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "course_id", "unit_id"],
            ["content.units.tenant_id", "content.units.course_id", "content.units.id"],
            name="fk_lessons_tenant_id_course_id_unit_id",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_lessons"),
        sa.UniqueConstraint("tenant_id", "course_id", "id", name="uq_lessons_tenant_id_course_id_id"),
        schema="content",
    )
    op.create_index(
        "ix_lessons_tenant_id_course_id_unit_id", "lessons", ["tenant_id", "course_id", "unit_id"], schema="content"
    )
    op.create_table(
        "lesson_prerequisites",
        sa.Column("course_id", sa.Uuid(), nullable=False),
        sa.Column("lesson_id", sa.Uuid(), nullable=False),
        sa.Column("prerequisite_id", sa.Uuid(), nullable=False),
        *key_columns(),
        *time_columns(),
        sa.CheckConstraint("lesson_id <> prerequisite_id", name=op.f("ck_lesson_prerequisites_itself")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "course_id", "lesson_id"],
            ["content.lessons.tenant_id", "content.lessons.course_id", "content.lessons.id"],
            name="fk_lesson_prerequisites_tenant_id_course_id_lesson_id",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "course_id", "prerequisite_id"],
            ["content.lessons.tenant_id", "content.lessons.course_id", "content.lessons.id"],
            name="fk_lesson_prerequisites_tenant_id_course_id_prerequisite_id",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_lesson_prerequisites"),
        sa.UniqueConstraint(
            "tenant_id",
            "course_id",
            "lesson_id",
            "prerequisite_id",
            name="uq_lesson_prerequisites_pair",
        ),
        schema="content",
    )
    op.create_index(
        "ix_lesson_prerequisites_tenant_id_course_id_prerequisite_id",
        "lesson_prerequisites",
        ["tenant_id", "course_id", "prerequisite_id"],
        schema="content",
    )
    op.create_table(
        "stories",
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("learning_language", sa.Text(), nullable=False),
        sa.Column("lesson_id", sa.Uuid(), nullable=True),
        sa.Column("vocabulary_ids", sa.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("author_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("current_version_id", sa.Uuid(), nullable=False),
        sa.Column("published_version_id", sa.Uuid(), nullable=True),
        *resource_columns(),
        sa.CheckConstraint(
            "status <> 'published' OR published_version_id IS NOT NULL", name=op.f("ck_stories_published")
        ),
        sa.CheckConstraint("status IN ('draft', 'published', 'archived')", name=op.f("ck_stories_status")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "lesson_id"],
            ["content.lessons.tenant_id", "content.lessons.id"],
            name="fk_stories_tenant_id_lesson_id",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_stories"),
        schema="content",
    )
    op.create_index("ix_stories_tenant_id_lesson_id_id", "stories", ["tenant_id", "lesson_id", "id"], schema="content")
    op.create_index(
        "ix_stories_tenant_id_title",
        "stories",
        ["tenant_id", sa.literal_column("lower(title)"), "id"],
        schema="content",
    )
    op.create_table(
        "story_versions",
        sa.Column("story_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("annotations", postgresql.JSONB(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=True),
        sa.Column("paragraphs", sa.ARRAY(sa.Integer()), nullable=False),
        sa.Column("pinned_vocabulary_ids", sa.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("banned_vocabulary_ids", sa.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("approval_id", sa.Uuid(), nullable=True),
        sa.Column("approved_hash", sa.Text(), nullable=True),
        sa.Column("author_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("summary", sa.LargeBinary(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        *key_columns(),
        sa.CheckConstraint("number > 0", name=op.f("ck_story_versions_number")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "story_id"],
            ["content.stories.tenant_id", "content.stories.id"],
            name="fk_story_versions_tenant_id_story_id",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_story_versions"),
        sa.UniqueConstraint("tenant_id", "story_id", "id", name="uq_story_versions_tenant_id_story_id_id"),
        sa.UniqueConstraint("tenant_id", "story_id", "number", name="uq_story_versions_tenant_id_story_id_number"),
        schema="content",
    )
    op.create_table(
        "cloze_configs",
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("part_of_speech", sa.Text(), nullable=False),
        sa.Column("target", sa.Numeric(precision=7, scale=6), nullable=False),
        sa.Column("occurrences", sa.Integer(), nullable=False),
        sa.Column("woven", sa.Integer(), nullable=False),
        *key_columns(),
        sa.CheckConstraint(PARTS_OF_SPEECH, name=op.f("ck_cloze_configs_part_of_speech")),
        sa.CheckConstraint("target BETWEEN 0 AND 1", name=op.f("ck_cloze_configs_target")),
        sa.CheckConstraint("woven BETWEEN 0 AND occurrences", name=op.f("ck_cloze_configs_woven")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "version_id"],
            ["content.story_versions.tenant_id", "content.story_versions.id"],
            name="fk_cloze_configs_tenant_id_version_id",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_cloze_configs"),
        sa.UniqueConstraint(
            "tenant_id", "version_id", "part_of_speech", name="uq_cloze_configs_tenant_id_version_id_part_of_speech"
        ),
        schema="content",
    )
    op.create_table(
        "story_chunks",
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("vocabulary_id", sa.Uuid(), nullable=True),
        *key_columns(),
        sa.CheckConstraint("(kind = 'normal') = (vocabulary_id IS NULL)", name=op.f("ck_story_chunks_vocabulary_id")),
        sa.CheckConstraint("kind <> 'explain' OR source = ''", name=op.f("ck_story_chunks_source")),
        sa.CheckConstraint("kind IN ('normal', 'chem', 'explain')", name=op.f("ck_story_chunks_kind")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "version_id"],
            ["content.story_versions.tenant_id", "content.story_versions.id"],
            name="fk_story_chunks_tenant_id_version_id",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_story_chunks"),
        sa.UniqueConstraint(
            "tenant_id", "version_id", "position", name="uq_story_chunks_tenant_id_version_id_position"
        ),
        schema="content",
    )
    for name, column, deferred in (
        ("current_version", "current_version_id", "DEFERRED"),
        ("published_version", "published_version_id", None),
    ):
        op.create_foreign_key(
            f"fk_stories_{name}",
            "stories",
            "story_versions",
            ["tenant_id", "id", column],
            ["tenant_id", "story_id", "id"],
            source_schema="content",
            referent_schema="content",
            deferrable=True if deferred else None,
            initially=deferred,
        )
    protect("content", *TENANT_TABLES, *IMMUTABLE_TABLES)
    for table in IMMUTABLE_TABLES:
        op.execute(f"REVOKE UPDATE, DELETE ON content.{table} FROM storyloom_content")
    grant("content", "story_versions", rights="UPDATE (approval_id, approved_hash)")


def downgrade() -> None:
    op.drop_constraint("fk_stories_current_version", "stories", schema="content")
    op.drop_constraint("fk_stories_published_version", "stories", schema="content")
    for table in (
        "story_chunks",
        "cloze_configs",
        "story_versions",
        "stories",
        "lesson_prerequisites",
        "lessons",
        "units",
        "courses",
        "vocabularies",
        "course_access",
        "tenant_settings",
    ):
        op.drop_table(table, schema="content")
    drop_infrastructure("content")
