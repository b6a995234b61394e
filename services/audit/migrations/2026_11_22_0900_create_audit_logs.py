"""Creates the audit log, partitioned by month and append-only, and approvals."""

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import sqlalchemy as sa
from alembic import op

from kit.migrations import create_infrastructure, drop_infrastructure, grant, protect, protection

revision = "202611220900"
down_revision = None
branch_labels = None
depends_on = None

FIRST_MONTH = (2026, 10)
LAST_MONTH = (2028, 12)
# Takes what no month takes, so that an entry is never lost for want of a partition. A month that is to be added later
# must be added before its first entry: PostgreSQL refuses it once this one holds entries of that month.
DEFAULT = "audit_logs_default"

# A trigger for each row is copied to every partition, also to those attached later; one for TRUNCATE cannot be.
REFUSE_CHANGE = """
CREATE FUNCTION audit.refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
  RAISE EXCEPTION 'the audit log is append-only: % is refused', TG_OP USING ERRCODE = 'restrict_violation';
END $$
"""
REFUSE_ROWS = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit.audit_logs
FOR EACH ROW EXECUTE FUNCTION audit.refuse_change()
"""
REFUSE_TRUNCATE = """
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON audit.{table}
FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change()
"""


def upgrade() -> None:
    create_audit_logs()
    partitions = list(create_partitions())
    make_append_only("audit_logs", *partitions)
    create_approvals()
    create_approval_decisions()
    create_infrastructure("audit")
    protect("audit", "approvals", "approval_decisions")
    grant("audit", "audit_logs", rights="SELECT, INSERT")
    # The parent's policy does not bind whoever reads a partition by its own name, so each has its own; and no rights.
    for table in ("audit_logs", *partitions):
        for statement in protection("audit", table):
            op.execute(statement)


def downgrade() -> None:
    for table in ("audit_logs", "approval_decisions", "approvals"):
        op.drop_table(table, schema="audit")
    op.execute("DROP FUNCTION audit.refuse_change()")
    drop_infrastructure("audit")


def create_audit_logs() -> None:
    op.create_table(
        "audit_logs",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("entity_type", sa.Text(), nullable=False),
        sa.Column("entity_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("acting_tenant_id", sa.Uuid(), nullable=True),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("old_values", sa.Text(), nullable=True),
        sa.Column("new_values", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("trace_id", sa.Text(), nullable=False),
        sa.Column("rpc", sa.Text(), nullable=False),
        sa.Column("client_address", sa.Text(), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_audit_logs"),
        schema="audit",
        postgresql_partition_by="RANGE (id)",
    )
    create_index("audit_logs", "tenant_id", "entity_type", "entity_id", "id")
    create_index("audit_logs", "tenant_id", "entity_type", "id")
    create_index("audit_logs", "tenant_id", "user_id", "id")
    create_index("audit_logs", "tenant_id", "action", "id")
    create_index("audit_logs", "tenant_id", "request_id", "id")
    create_index("audit_logs", "tenant_id", "trace_id", "id")


def create_partitions() -> Iterator[str]:
    """Makes the partitions; yields their names."""
    for month, after in months():
        name = f"audit_logs_{month:%Y_%m}"
        op.execute(
            f"CREATE TABLE audit.{name} PARTITION OF audit.audit_logs"
            f" FOR VALUES FROM ('{first_id(month)}') TO ('{first_id(after)}')"
        )
        yield name
    op.execute(f"CREATE TABLE audit.{DEFAULT} PARTITION OF audit.audit_logs DEFAULT")
    yield DEFAULT


def months() -> Iterator[tuple[datetime, datetime]]:
    """The first moment of each month, and of the one after."""
    first, last = (year * 12 + month - 1 for year, month in (FIRST_MONTH, LAST_MONTH))
    for number in range(first, last + 1):
        yield start_of(number), start_of(number + 1)


def start_of(number: int) -> datetime:
    return datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC)


def first_id(at: datetime) -> UUID:
    """The smallest UUID whose first 48 bits, as in a UUIDv7, are these milliseconds."""
    return UUID(int=int(at.timestamp() * 1000) << 80)


def make_append_only(*tables: str) -> None:
    op.execute(REFUSE_CHANGE)
    op.execute(REFUSE_ROWS)
    for table in tables:
        op.execute(REFUSE_TRUNCATE.format(table=table))


def create_approvals() -> None:
    open_states = "state IN ('pending', 'approved')"
    op.create_table(
        "approvals",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("entity_type", sa.Text(), nullable=False),
        sa.Column("entity_id", sa.Uuid(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("requester_id", sa.Uuid(), nullable=False),
        sa.Column("author_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("quorum", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.CheckConstraint(
            "state IN ('pending', 'approved', 'rejected', 'withdrawn', 'voided')", name=op.f("ck_approvals_state")
        ),
        sa.CheckConstraint("quorum >= 1", name=op.f("ck_approvals_quorum")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_approvals"),
        schema="audit",
    )
    op.create_index(
        "ix_approvals_open_entity",
        "approvals",
        ["tenant_id", "entity_type", "entity_id"],
        unique=True,
        schema="audit",
        postgresql_where=sa.text(open_states),
    )
    create_index("approvals", "tenant_id", "entity_id", "id")
    create_index("approvals", "tenant_id", "state", "id")
    create_index("approvals", "tenant_id", "requester_id", "id")


def create_approval_decisions() -> None:
    op.create_table(
        "approval_decisions",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("approval_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("verdict IN ('approve', 'reject')", name=op.f("ck_approval_decisions_verdict")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "approval_id"],
            ["audit.approvals.tenant_id", "audit.approvals.id"],
            name="fk_approval_decisions_tenant_id_approval_id",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_approval_decisions"),
        sa.UniqueConstraint(
            "tenant_id", "approval_id", "user_id", name="uq_approval_decisions_tenant_id_approval_id_user_id"
        ),
        schema="audit",
    )


def create_index(table: str, *columns: str) -> None:
    op.create_index(f"ix_{table}_{'_'.join(columns)}", table, list(columns), schema="audit")
