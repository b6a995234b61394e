"""Who takes which course, and how far they come in its lessons."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, Interval, Text, text
from sqlalchemy.dialects.postgresql import TSTZMULTIRANGE, Range
from sqlalchemy.orm import Mapped, mapped_column

from kit.models import Resource, now
from services.learning.models.base import Base
from storyloom.learning.v1 import enrollments_pb2, learning_sessions_pb2, progress_pb2


class Enrollment(Resource, Base):
    __tablename__ = "enrollments"
    __resource__ = "enrollment"
    __message__ = enrollments_pb2.Enrollment.DESCRIPTOR
    __table_args__ = (
        CheckConstraint("state IN ('active', 'withdrawn')", name="state"),
        Index(
            "ix_enrollments_one_active",
            "tenant_id", "user_id", "course_id",
            unique=True,
            postgresql_where=text("state = 'active'"),
        ),
        Index(None, "tenant_id", "user_id", "id"),
        Index(None, "tenant_id", "course_id", "id"),
    )  # fmt: skip

    course_id: Mapped[UUID]
    user_id: Mapped[UUID]
    state: Mapped[str] = mapped_column(Text, default="active", server_default="active")
    withdraw_time: Mapped[datetime | None]


class Progress(Resource, Base):
    __tablename__ = "user_progress"
    __resource__ = "progress"
    __message__ = progress_pb2.Progress.DESCRIPTOR
    __table_args__ = (
        CheckConstraint("status IN ('not_started', 'in_progress', 'completed')", name="status"),
        CheckConstraint("position_percent BETWEEN 0 AND 100", name="position_percent"),
        Index(None, "tenant_id", "user_id", "lesson_id", unique=True),
        Index(None, "tenant_id", "user_id", "change"),
        Index(None, "tenant_id", "course_id", "id"),
    )

    user_id: Mapped[UUID]
    lesson_id: Mapped[UUID]
    course_id: Mapped[UUID]
    status: Mapped[str]
    position_percent: Mapped[int]
    start_time: Mapped[datetime | None]
    last_view_time: Mapped[datetime | None]
    complete_time: Mapped[datetime | None]
    # When a teacher last set it back to the beginning, and when at least to where it was not completed: what happened
    # before, and is told of later, counts no more than it would have.
    reset_time: Mapped[datetime | None]
    reopen_time: Mapped[datetime | None]
    # The number of the learner's change that it was last written in.
    change: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))


class LearningSession(Resource, Base):
    __tablename__ = "learning_sessions"
    __resource__ = "learning_session"
    __message__ = learning_sessions_pb2.LearningSession.DESCRIPTOR
    __table_args__ = (
        CheckConstraint("state IN ('open', 'ended', 'abandoned')", name="state"),
        CheckConstraint("(state = 'open') = (end_time IS NULL)", name="end_time"),
        Index(
            "ix_learning_sessions_one_open",
            "tenant_id", "user_id",
            unique=True,
            postgresql_where=text("state = 'open'"),
        ),
        Index(None, "tenant_id", "user_id", "id"),
        Index(None, "tenant_id", "user_id", "change"),
        Index(None, "tenant_id", "lesson_id", "id"),
        Index("ix_learning_sessions_by_time", "tenant_id", "user_id", "last_seen_time", "start_time"),
        Index(
            "ix_learning_sessions_of_story",
            "tenant_id", "story_id", "user_id",
            postgresql_where=text("story_id IS NOT NULL AND state <> 'open'"),
        ),
    )  # fmt: skip

    user_id: Mapped[UUID]
    lesson_id: Mapped[UUID]
    story_id: Mapped[UUID | None]
    start_time: Mapped[datetime] = mapped_column(default=now)
    last_seen_time: Mapped[datetime] = mapped_column(default=now)
    end_time: Mapped[datetime | None]
    active_duration: Mapped[timedelta] = mapped_column(Interval, default=timedelta(0))
    # When that was: what two sessions share counts once in a day. None of sessions from before it was kept, for which
    # it is taken to be the beginning.
    active_times: Mapped[list[Range[datetime]] | None] = mapped_column(TSTZMULTIRANGE)
    interactions: Mapped[int] = mapped_column(default=0)
    # A session without a sign of life is abandoned, though nobody comes by to write it down: see `rules.state_at`.
    state: Mapped[str] = mapped_column(Text, default="open", server_default="open")
    # What the client called it in its events, of which all else follows; None when it was opened here.
    client_session_id: Mapped[UUID | None]
    # The number of the learner's change that it was last written in.
    change: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
