"""Every word has a rank, and the story of a word is one that there is; both can be looked up."""

from alembic import op

from kit.altering import build_index, drop_index, enforce

revision = "202701200900"
down_revision = "202701100900"
branch_labels = None
depends_on = None

STORY = "FOREIGN KEY (tenant_id, story_id) REFERENCES content.stories (tenant_id, id)"
INDEXES = {
    "ix_vocabularies_tenant_id_level_rank_id": "(tenant_id, level_rank, id)",
    "ix_vocabularies_tenant_id_story_id": "(tenant_id, story_id)",
}


def upgrade() -> None:
    enforce("content", "vocabularies", "nn_vocabularies_level_rank", "NOT NULL level_rank")
    enforce("content", "vocabularies", "fk_vocabularies_tenant_id_story_id", STORY)
    for name, columns in INDEXES.items():
        build_index("content", name, f"vocabularies {columns}")


def downgrade() -> None:
    for name in INDEXES:
        drop_index("content", name)
    op.execute(
        "ALTER TABLE content.vocabularies DROP CONSTRAINT IF EXISTS nn_vocabularies_level_rank,"
        " DROP CONSTRAINT IF EXISTS fk_vocabularies_tenant_id_story_id"
    )
