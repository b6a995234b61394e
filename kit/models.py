"""What the tables of every service have in common: keys that lead with the tenant, times, revisions, soft delete."""

from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    inspect,
    text,
)
from sqlalchemy import Column as SqlColumn
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column

from kit.errors import Aborted
from kit.ids import new_id
from storyloom.type.v1.errors_pb2 import ErrorReason

NAMING = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}


def now() -> datetime:
    """The server's clock, in UTC."""
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """Base of each service's own abstract Base, which sets `metadata = kit.models.metadata(<service>)`."""

    __abstract__ = True

    def __init__(self, **values: Any) -> None:
        """Applies column defaults now rather than at the flush, so that audit and events see them."""
        for column in inspect(type(self)).columns:
            if column.default is not None and column.key not in values:
                given = column.default.arg  # type: ignore[attr-defined]
                values[str(column.key)] = given(None) if callable(given) else given
        for name, value in values.items():
            setattr(self, name, value)

    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: DateTime(timezone=True), UUID: Uuid(), str: Text()}


class TenantRow:
    """Every table of a tenant's data: `PRIMARY KEY (tenant_id, id)`."""

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id, server_default=text("uuidv7()"))


class Timed:
    """When the row was made and last changed."""

    created_at: Mapped[datetime] = mapped_column(default=now, server_default=text("now()"))
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now, server_default=text("now()"))


class Resource(TenantRow, Timed):
    """A row that clients see and change: it has an etag, and audit knows which of its fields are public.

    `__resource__` is the name in permissions and audit; `__message__` the descriptor of its proto message, whose
    fields decide what audit records and what it seals.
    """

    __resource__: ClassVar[str]
    __message__: ClassVar[Any]
    revision: Mapped[int] = mapped_column(Integer, nullable=False, server_default=text("1"))

    @declared_attr.directive
    def __mapper_args__(cls) -> Any:  # noqa: N805  # SQLAlchemy calls it with the class
        return {"version_id_col": cls.revision, "eager_defaults": False}

    @property
    def etag(self) -> str:
        return str(self.revision)


class SoftDeleted:
    """A row that users delete and bring back."""

    deleted_at: Mapped[datetime | None] = mapped_column(default=None)


def check_etag(entity: Resource, etag: str) -> None:
    """Refuses with ABORTED when the client's etag is not the current one; an empty etag is no condition."""
    if etag and etag != entity.etag:
        raise Aborted("The resource was changed meanwhile; read it again.", reason=ErrorReason.STALE_ETAG)


def set_times(message: Any, row: Any) -> None:
    """Says in its message when a resource that can be deleted was made, changed and, if it was, deleted."""
    message.create_time.FromDatetime(row.created_at)
    message.update_time.FromDatetime(row.updated_at)
    if row.deleted_at:
        message.delete_time.FromDatetime(row.deleted_at)


def metadata(service: str, *, jobs: bool = False) -> MetaData:
    """A service's metadata: its schema, the naming convention, and the tables the kit needs in each service, with one
    more where there are jobs."""
    meta = MetaData(schema=service, naming_convention=NAMING)
    _outbox(meta)
    _inbox(meta)
    _idempotency(meta)
    _erasure_receipts(meta)
    if jobs:
        _jobs(meta)
    return meta


def _outbox(meta: MetaData) -> Table:
    """Events not yet delivered: one row for each event and consumer. Infrastructure: no policy."""
    return Table(
        "outbox",
        meta,
        SqlColumn("seq", BigInteger, Identity(always=True), primary_key=True),
        SqlColumn("event_id", Uuid, nullable=False),
        SqlColumn("tenant_id", Uuid, nullable=False),
        SqlColumn("consumer", Text, nullable=False),
        SqlColumn("aggregate_type", Text, nullable=False),
        SqlColumn("aggregate_id", Uuid, nullable=False),
        SqlColumn("payload_type", Text, nullable=False),
        SqlColumn("payload", LargeBinary, nullable=False),
        SqlColumn("traceparent", Text, nullable=False, server_default=""),
        SqlColumn("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        SqlColumn("attempts", Integer, nullable=False, server_default=text("0")),
        SqlColumn("due_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        SqlColumn("parked_at", DateTime(timezone=True)),
        Index(None, "consumer", "aggregate_id", "seq"),
        Index(None, "consumer", "due_at"),
    )


def _inbox(meta: MetaData) -> Table:
    """Ids of the events whose effect is committed. Infrastructure: no policy."""
    return Table(
        "inbox",
        meta,
        SqlColumn("event_id", Uuid, primary_key=True),
        SqlColumn("handled_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        Index(None, "handled_at"),
    )


def _idempotency(meta: MetaData) -> Table:
    """Responses to keyed mutations. The id is made of the user and the key."""
    return Table(
        "idempotency_keys",
        meta,
        SqlColumn("tenant_id", Uuid, primary_key=True),
        SqlColumn("id", Uuid, primary_key=True),
        SqlColumn("request_hash", LargeBinary, nullable=False),
        SqlColumn("response", LargeBinary),
        SqlColumn("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        Index(None, "tenant_id", "created_at"),
    )


def _erasure_receipts(meta: MetaData) -> Table:
    """What was done for each erasure; the id is the erasure's. Of a purged tenant it is a row of the system tenant.

    `counts` are numbers of rows by table, then by what was done with them.
    """
    return Table(
        "erasure_receipts",
        meta,
        SqlColumn("tenant_id", Uuid, primary_key=True),
        SqlColumn("id", Uuid, primary_key=True),
        SqlColumn("counts", JSONB, nullable=False, server_default=text("'{}'")),
        SqlColumn("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        SqlColumn("completed_at", DateTime(timezone=True)),
    )


def _jobs(meta: MetaData) -> Table:
    """How far each job is: in which tenant, and behind which row of it. Infrastructure: no policy."""
    return Table(
        "jobs",
        meta,
        SqlColumn("name", Text, primary_key=True),
        SqlColumn("state", Text, nullable=False),
        SqlColumn("tenant_id", Uuid, nullable=False),
        SqlColumn("position", Uuid, nullable=False),
        SqlColumn("done", BigInteger, nullable=False),
        SqlColumn("total", BigInteger, nullable=False),
        SqlColumn("started_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        SqlColumn("updated_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        CheckConstraint("state IN ('running', 'pausing', 'paused', 'failed', 'done')", name="state"),
    )
