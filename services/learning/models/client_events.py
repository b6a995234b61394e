"""What phones told, event by event."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, Integer, LargeBinary, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from kit.models import TenantRow, now
from services.learning.models.base import Base


class ClientEvent(TenantRow, Base):
    """An event that was accepted. Rows are only ever added. The id is made of the user and the client's `event_id`.

    What a review or a reading says besides is in the row of the same id in the log of those.
    """

    __tablename__ = "client_events"
    __table_args__ = (
        CheckConstraint(
            "kind IN ('lesson_viewed', 'lesson_progressed', 'story_read', 'interacted', 'review_answered',"
            " 'session_started', 'session_heartbeat', 'session_ended')",
            name="kind",
        ),
        Index(
            "ix_client_events_of_session",
            "tenant_id", "user_id", "session_id",
            postgresql_where=text("session_id IS NOT NULL"),
        ),
        Index(None, "tenant_id", "user_id", "event_time", "id"),
        Index(None, "tenant_id", "receive_time", "id"),
    )  # fmt: skip

    user_id: Mapped[UUID]
    event_id: Mapped[UUID]
    device_id: Mapped[UUID]
    kind: Mapped[str] = mapped_column(Text)
    # By the server's clock, as `offline.corrected` has it.
    event_time: Mapped[datetime]
    receive_time: Mapped[datetime] = mapped_column(default=now)
    # Of all that the client said in the event: what else has its `event_id` is another one.
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    lesson_id: Mapped[UUID | None]
    story_id: Mapped[UUID | None]
    vocabulary_id: Mapped[UUID | None]
    # The client's.
    session_id: Mapped[UUID | None]
    status: Mapped[str | None] = mapped_column(Text)
    position_percent: Mapped[int | None] = mapped_column(Integer)
    interactions: Mapped[int | None] = mapped_column(Integer)
