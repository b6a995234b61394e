"""Creates the table of jobs, and lets versions without chunks get what follows from their text."""

from alembic import op

from kit.migrations import create_jobs, drop_jobs, grant

revision = "202611221600"
down_revision = "202611221550"
branch_labels = None
depends_on = None

# Whoever may write the body still cannot change a version that is whole.
FUNCTION = """
CREATE FUNCTION content.refuse_new_body() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT FROM content.story_chunks WHERE tenant_id = NEW.tenant_id AND version_id = NEW.id) THEN
    RAISE EXCEPTION 'a version of a story that has chunks never changes' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$
"""
TRIGGER = """
CREATE TRIGGER unchanging BEFORE UPDATE OF body ON content.story_versions
FOR EACH ROW EXECUTE FUNCTION content.refuse_new_body()
"""


def upgrade() -> None:
    create_jobs("content", "stories", "vocabularies")
    grant("content", "story_versions", rights="UPDATE (body)")
    op.execute(FUNCTION)
    op.execute(TRIGGER)


def downgrade() -> None:
    op.execute("DROP TRIGGER unchanging ON content.story_versions")
    op.execute("DROP FUNCTION content.refuse_new_body()")
    op.execute("REVOKE UPDATE (body) ON content.story_versions FROM storyloom_content")
    drop_jobs("content")
