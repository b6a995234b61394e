"""Creates the trees that the log's entries are the leaves of, and the signed checkpoints of them."""

import sqlalchemy as sa
from alembic import op

from kit.migrations import grant, protection

revision = "202611221410"
down_revision = "202611221400"
branch_labels = None
depends_on = None

# What is proof is added to, and never changed by the service.
PROTECTED = ("tree_leaves", "tree_nodes", "checkpoints")
REFUSE_ROWS = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit.{table}
FOR EACH ROW EXECUTE FUNCTION audit.refuse_change()
"""
REFUSE_TRUNCATE = """
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON audit.{table}
FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change()
"""


def upgrade() -> None:
    create_trees()
    create_tree_leaves()
    create_tree_nodes()
    create_checkpoints()
    for table in PROTECTED:
        for statement in protection("audit", table):
            op.execute(statement)
        op.execute(REFUSE_ROWS.format(table=table))
        op.execute(REFUSE_TRUNCATE.format(table=table))
    grant("audit", *PROTECTED, rights="SELECT, INSERT")
    # Infrastructure, as their queue is: whoever signs has to find the trees that grew.
    grant("audit", "trees", rights="SELECT, INSERT, UPDATE")


def downgrade() -> None:
    for table in (*PROTECTED, "trees"):
        op.drop_table(table, schema="audit")


def create_trees() -> None:
    op.create_table(
        "trees",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("size", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("signed_size", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("unsigned_since", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("signed_size BETWEEN 0 AND size", name=op.f("ck_trees_signed_size")),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_trees"),
        schema="audit",
    )
    # A row for each tenant, changed with every batch: it stays on its page.
    op.execute("ALTER TABLE audit.trees SET (fillfactor = 50)")


def create_tree_leaves() -> None:
    op.create_table(
        "tree_leaves",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("leaf_index", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("leaf_index >= 0", name=op.f("ck_tree_leaves_leaf_index")),
        sa.CheckConstraint("length(hash) = 32", name=op.f("ck_tree_leaves_hash")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_tree_leaves"),
        sa.UniqueConstraint("tenant_id", "leaf_index", name="uq_tree_leaves_tenant_id_leaf_index"),
        schema="audit",
    )


def create_tree_nodes() -> None:
    op.create_table(
        "tree_nodes",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("length(hash) = 32", name=op.f("ck_tree_nodes_hash")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_tree_nodes"),
        schema="audit",
    )


def create_checkpoints() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("tree_size", sa.BigInteger(), nullable=False),
        sa.Column("root_hash", sa.LargeBinary(), nullable=False),
        sa.Column("signed_text", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("tree_size > 0", name=op.f("ck_checkpoints_tree_size")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_checkpoints"),
        sa.UniqueConstraint("tenant_id", "tree_size", name="uq_checkpoints_tenant_id_tree_size"),
        schema="audit",
    )
