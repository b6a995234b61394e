"""Gives the stories of a lesson their places: at first the order in which they were made."""

import sqlalchemy as sa
from alembic import op

revision = "202611221500"
down_revision = "202611221430"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("stories", sa.Column("position", sa.Integer(), nullable=True), schema="content")
    # Deleted ones too: each keeps the place that it would come back to.
    op.execute(
        """
        UPDATE content.stories SET position = placed.position
        FROM (
          SELECT tenant_id, id, row_number() OVER (PARTITION BY tenant_id, lesson_id ORDER BY id) AS position
          FROM content.stories WHERE lesson_id IS NOT NULL
        ) AS placed
        WHERE stories.tenant_id = placed.tenant_id AND stories.id = placed.id
        """
    )
    op.create_check_constraint(op.f("ck_stories_position"), "stories", "position > 0", schema="content")
    op.create_check_constraint(
        op.f("ck_stories_place"), "stories", "(lesson_id IS NULL) = (position IS NULL)", schema="content"
    )
    op.create_exclude_constraint(
        "ex_stories_position",
        "stories",
        (sa.column("tenant_id"), "="),
        (sa.column("lesson_id"), "="),
        (sa.column("position"), "="),
        where=sa.text("deleted_at IS NULL"),
        deferrable=True,
        initially="DEFERRED",
        using="btree",
        schema="content",
    )


def downgrade() -> None:
    op.drop_constraint("ex_stories_position", "stories", schema="content")
    op.drop_column("stories", "position", schema="content")
