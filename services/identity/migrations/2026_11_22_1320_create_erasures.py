"""Creates the tables of erasures and of their receipts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from kit.migrations import create_erasure_receipts, protect

revision = "202611221320"
down_revision = "202611221310"
branch_labels = None
depends_on = None

PENDING = sa.text("state = 'pending'")


def upgrade() -> None:
    create_erasures()
    create_erasure_tasks()
    protect("identity", "erasures", "erasure_tasks")
    create_erasure_receipts("identity")


def downgrade() -> None:
    for table in ("erasure_receipts", "erasure_tasks", "erasures"):
        op.drop_table(table, schema="identity")


def create_erasures() -> None:
    op.create_table(
        "erasures",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("subject_type", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("receipts", postgresql.JSONB(), nullable=False),
        sa.Column("requester_id", sa.Uuid(), nullable=False),
        sa.Column("complete_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.CheckConstraint("subject_type IN ('user', 'tenant')", name=op.f("ck_erasures_subject_type")),
        sa.CheckConstraint("state IN ('pending', 'done')", name=op.f("ck_erasures_state")),
        sa.CheckConstraint("(state = 'done') = (complete_time IS NOT NULL)", name=op.f("ck_erasures_complete_time")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_erasures"),
        schema="identity",
    )
    op.create_index(
        "ix_erasures_one_pending",
        "erasures",
        ["tenant_id", "subject_type", "subject_id"],
        unique=True,
        schema="identity",
        postgresql_where=PENDING,
    )


def create_erasure_tasks() -> None:
    op.create_table(
        "erasure_tasks",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("home_tenant_id", sa.Uuid(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "tenant_id = '00000000-0000-0000-0000-000000000000'", name=op.f("ck_erasure_tasks_system")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_erasure_tasks"),
        schema="identity",
    )
    op.create_index("ix_erasure_tasks_tenant_id_due_at", "erasure_tasks", ["tenant_id", "due_at"], schema="identity")
