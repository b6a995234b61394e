"""How well learners know words: the logs of reviews and exposures, and what follows from them."""

from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, CheckConstraint, Double, Index, Integer, Interval, Numeric, Text, Uuid, text
from sqlalchemy.orm import Mapped, mapped_column

from kit.models import Resource, TenantRow, Timed, now
from services.learning.models.base import Base
from services.learning.scheduling import DEFAULT_MAXIMUM_INTERVAL_DAYS, DEFAULT_NEW_WORDS_PER_DAY
from storyloom.learning.v1 import learner_settings_pb2, vocabulary_progress_pb2, vocabulary_reviews_pb2


class Learner(TenantRow, Timed, Base):
    """One row for each learner who has changed anything; the id is the user's.

    Whoever changes what is the learner's locks it first, and so counts the change: see `queries.learners.lock_learner`.
    """

    __tablename__ = "learners"
    changes: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))


class LearnerSettings(Resource, Base):
    __tablename__ = "learner_settings"
    __resource__ = "learner_settings"
    __message__ = learner_settings_pb2.LearnerSettings.DESCRIPTOR
    __table_args__ = (
        CheckConstraint("desired_retention BETWEEN 0.70 AND 0.97", name="desired_retention"),
        CheckConstraint("maximum_interval_days BETWEEN 7 AND 3650", name="maximum_interval_days"),
        CheckConstraint("new_words_per_day BETWEEN 0 AND 200", name="new_words_per_day"),
        Index(None, "tenant_id", "user_id", unique=True),
    )

    user_id: Mapped[UUID]
    desired_retention: Mapped[Decimal | None] = mapped_column(Numeric(7, 6))
    maximum_interval_days: Mapped[int] = mapped_column(
        Integer, default=DEFAULT_MAXIMUM_INTERVAL_DAYS, server_default=text(f"{DEFAULT_MAXIMUM_INTERVAL_DAYS}")
    )
    new_words_per_day: Mapped[int] = mapped_column(
        Integer, default=DEFAULT_NEW_WORDS_PER_DAY, server_default=text(f"{DEFAULT_NEW_WORDS_PER_DAY}")
    )
    time_zone: Mapped[str] = mapped_column(Text, default="UTC", server_default="UTC")


class RetentionChange(TenantRow, Base):
    """What was in force from a time on, for a learner or, with the nil UUID, for the tenant: a review that arrives late
    is scheduled by what was in force when it was done."""

    __tablename__ = "retention_changes"
    __table_args__ = (Index(None, "tenant_id", "user_id", "effective_time"),)

    user_id: Mapped[UUID]
    effective_time: Mapped[datetime] = mapped_column(default=now)
    desired_retention: Mapped[Decimal | None] = mapped_column(Numeric(7, 6))
    maximum_interval_days: Mapped[int | None] = mapped_column(Integer)


class VocabularyReview(TenantRow, Base):
    """A review. Rows are only ever added. The id is made of the user and the client's `event_id`."""

    __tablename__ = "vocabulary_reviews"
    __resource__ = "vocabulary_review"
    __message__ = vocabulary_reviews_pb2.VocabularyReview.DESCRIPTOR
    __table_args__ = (
        CheckConstraint("rating IN ('again', 'hard', 'good', 'easy')", name="rating"),
        CheckConstraint("source IN ('online', 'offline', 'quiz', 'known')", name="source"),
        CheckConstraint("desired_retention BETWEEN 0.70 AND 0.97", name="desired_retention"),
        Index("ix_vocabulary_reviews_of_word", "tenant_id", "user_id", "vocabulary_id", "review_time", "id"),
        Index(None, "tenant_id", "user_id", "review_time", "id"),
        Index(None, "tenant_id", "review_time", "id"),
        Index(None, "tenant_id", "receive_time", "id"),
        Index(None, "tenant_id", "vocabulary_id", "review_time", "id"),
    )

    user_id: Mapped[UUID]
    vocabulary_id: Mapped[UUID]
    event_id: Mapped[UUID]
    rating: Mapped[str] = mapped_column(Text)
    review_time: Mapped[datetime]
    receive_time: Mapped[datetime] = mapped_column(default=now)
    duration: Mapped[timedelta] = mapped_column(Interval, default=timedelta(0))
    source: Mapped[str] = mapped_column(Text)
    desired_retention: Mapped[float] = mapped_column(Double)
    maximum_interval_days: Mapped[int] = mapped_column(Integer)


class VocabularyExposure(TenantRow, Base):
    """A reading in which words were seen. Rows are only ever added. The id is made of the user and the client's."""

    __tablename__ = "vocabulary_exposures"
    __table_args__ = (
        Index(None, "tenant_id", "user_id", "id"),
        Index(None, "tenant_id", "receive_time", "id"),
        Index(
            "ix_vocabulary_exposures_of_story",
            "tenant_id", "story_id", "user_id",
            postgresql_where=text("story_id IS NOT NULL"),
        ),
    )  # fmt: skip

    user_id: Mapped[UUID]
    event_id: Mapped[UUID]
    story_id: Mapped[UUID | None]
    vocabulary_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    exposure_time: Mapped[datetime]
    receive_time: Mapped[datetime] = mapped_column(default=now)


class VocabularyProgress(Resource, Base):
    """What follows from the reviews of a word by a learner (`scheduling.fold`), and from the exposures.

    `change` is the number of the learner's change that this row was last written in.
    """

    __tablename__ = "user_vocabulary_progress"
    __resource__ = "vocabulary_progress"
    __message__ = vocabulary_progress_pb2.VocabularyProgress.DESCRIPTOR
    __table_args__ = (
        CheckConstraint("status IN ('new', 'learning', 'reviewing', 'mastered')", name="status"),
        CheckConstraint("phase IN ('new', 'learning', 'review', 'relearning')", name="phase"),
        CheckConstraint("(phase = 'new') = (due_time IS NULL)", name="due_time"),
        CheckConstraint("(phase = 'new') = (review_count = 0)", name="review_count"),
        Index(None, "tenant_id", "user_id", "vocabulary_id", unique=True),
        Index(None, "tenant_id", "user_id", "id"),
        Index(None, "tenant_id", "user_id", "change"),
        Index(None, "tenant_id", "vocabulary_id", "id"),
        Index(
            "ix_user_vocabulary_progress_due",
            "tenant_id", "user_id", "due_time", "vocabulary_id",
            postgresql_where=text("due_time IS NOT NULL"),
        ),
        Index(
            "ix_user_vocabulary_progress_new",
            "tenant_id", "user_id", "first_exposure_time", "vocabulary_id",
            postgresql_where=text("due_time IS NULL"),
        ),
        Index(
            "ix_user_vocabulary_progress_begun",
            "tenant_id", "user_id", "first_review_time",
            postgresql_where=text("NOT known"),
        ),
    )  # fmt: skip

    user_id: Mapped[UUID]
    vocabulary_id: Mapped[UUID]
    status: Mapped[str] = mapped_column(Text)
    phase: Mapped[str] = mapped_column(Text)
    step: Mapped[int | None] = mapped_column(Integer)
    stability_days: Mapped[float | None] = mapped_column(Double)
    difficulty: Mapped[float | None] = mapped_column(Double)
    due_time: Mapped[datetime | None]
    first_review_time: Mapped[datetime | None]
    # The first review, not one that says the word is known, after which the word was to be asked for after days.
    learn_time: Mapped[datetime | None]
    last_review_time: Mapped[datetime | None]
    last_review_id: Mapped[UUID | None]
    review_count: Mapped[int] = mapped_column(Integer)
    lapse_count: Mapped[int] = mapped_column(Integer)
    known: Mapped[bool]
    exposure_count: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    first_exposure_time: Mapped[datetime | None]
    last_exposure_time: Mapped[datetime | None]
    change: Mapped[int] = mapped_column(BigInteger)
