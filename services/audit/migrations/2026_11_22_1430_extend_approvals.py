"""Gives approvals a due date, a comment on their withdrawal, and the authors of what they are of."""

import sqlalchemy as sa
from alembic import op

from kit.migrations import protect

revision = "202611221430"
down_revision = "202611221420"
branch_labels = None
depends_on = None

STATES = "state IN ('pending', 'approved', 'rejected', 'withdrawn', 'voided'{more})"
OPEN = {
    "old": (["tenant_id", "entity_type", "entity_id"], "state IN ('pending', 'approved')"),
    "new": (
        ["tenant_id", "entity_type", "entity_id", "content_hash"],
        "state = 'pending' OR (state = 'approved' AND NOT superseded)",
    ),
}


def limit(states: str, one_open: str) -> None:
    op.drop_constraint(op.f("ck_approvals_state"), "approvals", schema="audit")
    op.create_check_constraint(op.f("ck_approvals_state"), "approvals", states, schema="audit")
    op.drop_index("ix_approvals_open_entity", table_name="approvals", schema="audit")
    columns, condition = OPEN[one_open]
    op.create_index(
        "ix_approvals_open_entity",
        "approvals",
        columns,
        unique=True,
        schema="audit",
        postgresql_where=sa.text(condition),
    )


def upgrade() -> None:
    for column in (
        sa.Column("due_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("withdrawal_comment", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("superseded", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    ):
        op.add_column("approvals", column, schema="audit")
    limit(STATES.format(more=", 'expired'"), "new")
    op.create_index(
        op.f("ix_approvals_tenant_id_due_time"),
        "approvals",
        ["tenant_id", "due_time"],
        schema="audit",
        postgresql_where=sa.text("due_time IS NOT NULL"),
    )
    op.create_table(
        "approval_authors",
        sa.Column("approval_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "approval_id"],
            ["audit.approvals.tenant_id", "audit.approvals.id"],
            name="fk_approval_authors_tenant_id_approval_id",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_approval_authors"),
        sa.UniqueConstraint(
            "tenant_id", "approval_id", "user_id", name="uq_approval_authors_tenant_id_approval_id_user_id"
        ),
        schema="audit",
    )
    protect("audit", "approval_authors")
    op.execute(
        "INSERT INTO audit.approval_authors (tenant_id, approval_id, user_id)"
        " SELECT tenant_id, id, author_id FROM audit.approvals"
    )


def downgrade() -> None:
    op.drop_table("approval_authors", schema="audit")
    op.drop_index(op.f("ix_approvals_tenant_id_due_time"), table_name="approvals", schema="audit")
    op.execute("UPDATE audit.approvals SET state = 'voided' WHERE state = 'expired' OR superseded")
    limit(STATES.format(more=""), "old")
    for column in ("superseded", "withdrawal_comment", "due_time"):
        op.drop_column("approvals", column, schema="audit")
