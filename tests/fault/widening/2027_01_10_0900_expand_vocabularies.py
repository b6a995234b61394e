"""Makes room for the rank of a word's level, and for the story where it was first met.

Whoever does not know of the rank yet, as the release before, has it set all the same.
"""

from alembic import op
from alembic.script import ScriptDirectory

from kit.migrations import config

revision = "202701100900"
down_revision = ScriptDirectory.from_config(config("content", "")).get_current_head()
branch_labels = None
depends_on = None

FUNCTIONS = (
    "CREATE FUNCTION content.rank_of(level text) RETURNS smallint LANGUAGE sql IMMUTABLE SET search_path = ''"
    " RETURN coalesce(array_position(ARRAY['A1', 'A2', 'B1', 'B2', 'C1', 'C2'], level), 0)::smallint",
    "CREATE FUNCTION content.rank_level() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$"
    " BEGIN new.level_rank := content.rank_of(new.level); RETURN new; END $$",
)
TRIGGER = (
    "CREATE TRIGGER rank_level BEFORE INSERT OR UPDATE OF level ON content.vocabularies"
    " FOR EACH ROW EXECUTE FUNCTION content.rank_level()"
)


def upgrade() -> None:
    op.execute("ALTER TABLE content.vocabularies ADD COLUMN level_rank smallint, ADD COLUMN story_id uuid")
    for function in FUNCTIONS:
        op.execute(function)
    op.execute(TRIGGER)


def downgrade() -> None:
    op.execute("DROP TRIGGER rank_level ON content.vocabularies")
    op.execute("DROP FUNCTION content.rank_level()")
    op.execute("DROP FUNCTION content.rank_of(text)")
    op.execute("ALTER TABLE content.vocabularies DROP COLUMN level_rank, DROP COLUMN story_id")
