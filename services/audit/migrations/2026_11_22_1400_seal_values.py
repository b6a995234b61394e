"""Puts sealed entries in the place of values in clear; adds the keys that seal them, and the queue of the tree."""

import sqlalchemy as sa
from alembic import op

from kit.migrations import grant, protection

revision = "202611221400"
down_revision = "202611221320"
branch_labels = None
depends_on = None

# Entries from before: their sensitive values were never written down, and the address is left out.
MAKE_LEAVES = """
UPDATE audit.audit_logs SET leaf = convert_to(
  '{"acting_tenant_id":' || coalesce(to_json(acting_tenant_id)::text, 'null')
  || ',"action":' || to_json(action) || ',"client_address"\\:null,"entity_id":' || to_json(entity_id)
  || ',"entity_type":' || to_json(entity_type) || ',"id":' || to_json(id)
  || ',"new_values":' || coalesce(new_values, 'null')
  || ',"occur_time":"' || to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
  || '","old_values":' || coalesce(old_values, 'null')
  || ',"request_id":' || coalesce(to_json(nullif(request_id, ''))::text, 'null')
  || ',"rpc":' || coalesce(to_json(nullif(rpc, ''))::text, 'null')
  || ',"service":' || coalesce(to_json(nullif(service, ''))::text, 'null')
  || ',"tenant_id":' || to_json(tenant_id)
  || ',"trace_id":' || coalesce(to_json(nullif(trace_id, ''))::text, 'null')
  || ',"user_id":' || coalesce(to_json(user_id)::text, 'null') || ',"v"\\:1}', 'UTF8')
"""


def upgrade() -> None:
    create_subject_keys()
    create_tree_queue()
    op.add_column("audit_logs", sa.Column("leaf", sa.LargeBinary(), nullable=True), schema="audit")
    op.execute("ALTER TABLE audit.audit_logs DISABLE TRIGGER append_only")
    op.execute(MAKE_LEAVES)
    op.execute("ALTER TABLE audit.audit_logs ENABLE TRIGGER append_only")
    op.execute("INSERT INTO audit.tree_queue (tenant_id, id) SELECT tenant_id, id FROM audit.audit_logs ORDER BY id")
    op.alter_column("audit_logs", "leaf", nullable=False, schema="audit")
    for column in ("old_values", "new_values", "client_address"):
        op.drop_column("audit_logs", column, schema="audit")


def downgrade() -> None:
    """Values that are sealed stay so: they are not brought back."""
    for column in ("old_values", "new_values"):
        op.add_column("audit_logs", sa.Column(column, sa.Text(), nullable=True), schema="audit")
    op.add_column(
        "audit_logs", sa.Column("client_address", sa.Text(), server_default="", nullable=False), schema="audit"
    )
    op.alter_column("audit_logs", "client_address", server_default=None, schema="audit")
    op.drop_column("audit_logs", "leaf", schema="audit")
    op.drop_table("tree_queue", schema="audit")
    op.drop_table("subject_keys", schema="audit")


def create_subject_keys() -> None:
    op.create_table(
        "subject_keys",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("destroyed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(wrapped_key IS NULL) = (destroyed_at IS NOT NULL)", name=op.f("ck_subject_keys_destroyed")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_subject_keys"),
        sa.UniqueConstraint("tenant_id", "subject_id", name="uq_subject_keys_tenant_id_subject_id"),
        schema="audit",
    )
    # The only change of a row is the end of its key: what it was is to leave the table's pages soon.
    op.execute(
        "ALTER TABLE audit.subject_keys SET (autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0)"
    )
    for statement in protection("audit", "subject_keys"):
        op.execute(statement)
    grant("audit", "subject_keys", rights="SELECT, INSERT, UPDATE (wrapped_key, destroyed_at)")


def create_tree_queue() -> None:
    op.create_table(
        "tree_queue",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_tree_queue"),
        schema="audit",
    )
    op.create_index("ix_tree_queue_tenant_id_seq", "tree_queue", ["tenant_id", "seq"], schema="audit")
    # Infrastructure, as the outbox is: whoever grows the trees has to find the tenants, and an id tells nothing.
    grant("audit", "tree_queue")
