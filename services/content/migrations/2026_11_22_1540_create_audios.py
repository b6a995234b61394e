"""Creates recordings, where their chunks begin, and what is known of their files."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from kit.migrations import grant, protect

revision = "202611221540"
down_revision = "202611221530"
branch_labels = None
depends_on = None


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
    op.create_table(
        "audios",
        sa.Column("story_id", sa.Uuid(), nullable=True),
        sa.Column("version_id", sa.Uuid(), nullable=True),
        sa.Column("vocabulary_id", sa.Uuid(), nullable=True),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("voice", sa.Text(), nullable=False),
        sa.Column("author_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("mime_type", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("duration", sa.Interval(), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("storage_key", sa.Text(), nullable=True),
        *key_columns(),
        *time_columns(),
        sa.Column("revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('draft', 'processed', 'published')", name=op.f("ck_audios_status")),
        sa.CheckConstraint("(story_id IS NULL) = (version_id IS NULL)", name=op.f("ck_audios_version_id")),
        sa.CheckConstraint("(story_id IS NULL) <> (vocabulary_id IS NULL)", name=op.f("ck_audios_vocabulary_id")),
        sa.CheckConstraint("(status = 'draft') = (storage_key IS NULL)", name=op.f("ck_audios_file")),
        sa.CheckConstraint("starts_with(storage_key, tenant_id::text || '/')", name=op.f("ck_audios_storage_key")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "story_id", "version_id"],
            ["content.story_versions.tenant_id", "content.story_versions.story_id", "content.story_versions.id"],
            name="fk_audios_tenant_id_story_id_version_id",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "vocabulary_id"],
            ["content.vocabularies.tenant_id", "content.vocabularies.id"],
            name="fk_audios_tenant_id_vocabulary_id",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_audios"),
        schema="content",
    )
    for columns in (("story_id", "version_id", "id"), ("version_id", "id"), ("vocabulary_id", "id"), ("storage_key",)):
        names = ["tenant_id", *columns]
        op.create_index(f"ix_audios_{'_'.join(names)}", "audios", names, schema="content")
    op.create_table(
        "audio_uploads",
        sa.Column("audio_id", sa.Uuid(), nullable=False),
        sa.Column("mime_type", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("storage_key", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        *key_columns(),
        *time_columns(),
        sa.CheckConstraint(
            "starts_with(storage_key, tenant_id::text || '/')", name=op.f("ck_audio_uploads_storage_key")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "audio_id"],
            ["content.audios.tenant_id", "content.audios.id"],
            name="fk_audio_uploads_tenant_id_audio_id",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_audio_uploads"),
        sa.UniqueConstraint("tenant_id", "audio_id", name="uq_audio_uploads_tenant_id_audio_id"),
        schema="content",
    )
    op.create_table(
        "chunk_timestamps",
        sa.Column("audio_id", sa.Uuid(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("start_offset", sa.Interval(), nullable=False),
        sa.Column("end_offset", sa.Interval(), nullable=False),
        *key_columns(),
        sa.CheckConstraint(
            "'0' <= start_offset AND start_offset < end_offset", name=op.f("ck_chunk_timestamps_offsets")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "audio_id"],
            ["content.audios.tenant_id", "content.audios.id"],
            name="fk_chunk_timestamps_tenant_id_audio_id",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "version_id"],
            ["content.story_versions.tenant_id", "content.story_versions.id"],
            name="fk_chunk_timestamps_tenant_id_version_id",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_chunk_timestamps"),
        sa.UniqueConstraint(
            "tenant_id", "audio_id", "position", name="uq_chunk_timestamps_tenant_id_audio_id_position"
        ),
        schema="content",
    )
    op.create_index(
        "ix_chunk_timestamps_tenant_id_version_id",
        "chunk_timestamps",
        ["tenant_id", "version_id"],
        schema="content",
    )
    protect("content", "audios", "audio_uploads", "chunk_timestamps")
    op.create_table(
        "stored_files",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_stored_files"),
        schema="content",
    )
    op.create_index("ix_stored_files_due_at", "stored_files", ["due_at"], schema="content")
    grant("content", "stored_files")


def downgrade() -> None:
    for table in ("stored_files", "chunk_timestamps", "audio_uploads", "audios"):
        op.drop_table(table, schema="content")
