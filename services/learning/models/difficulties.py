"""How hard words and stories are for the learners of a tenant, all together: nothing here says who."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import BigInteger, Computed, Index, Integer, Interval, SmallInteger, text
from sqlalchemy.orm import Mapped, mapped_column

from kit.models import TenantRow
from services.learning.models.base import Base
from storyloom.learning.v1 import difficulties_pb2


def _count(kind: type[Integer] = Integer) -> Mapped[int]:
    return mapped_column(kind, server_default=text("0"))


class WordDifficulty(TenantRow, Base):
    """What `user_vocabulary_progress` says of a word, whose id is the row's, summed over the learners who have reviewed
    it. `difficulty_sum` is in thousandths, rounded for each learner, so that sums are exact.

    There are no constraints on the counts, because PostgreSQL would check them on what is to be added.
    """

    __tablename__ = "word_difficulties"
    __resource__ = "word_difficulty"
    __message__ = difficulties_pb2.WordDifficulty.DESCRIPTOR
    __table_args__ = (
        Index(
            "ix_word_difficulties_hardest",
            "tenant_id", "difficulty_tenths", "id",
            postgresql_where=text("learner_count >= 5"),
        ),
    )  # fmt: skip

    learner_count: Mapped[int] = _count()
    review_count: Mapped[int] = _count(BigInteger)
    lapse_count: Mapped[int] = _count(BigInteger)
    difficulty_sum: Mapped[int] = _count(BigInteger)
    difficulty_tenths: Mapped[int | None] = mapped_column(
        SmallInteger,
        Computed("((difficulty_sum + 50 * learner_count) / NULLIF(100 * learner_count, 0))::smallint", persisted=True),
    )


class StoryDifficulty(TenantRow, Base):
    """What `vocabulary_exposures` and the ended `learning_sessions` say of a story, whose id is the row's.
    `session_learner_count` are the learners of the sessions, `reader_count` those of the readings."""

    __tablename__ = "story_difficulties"
    __resource__ = "story_difficulty"
    __message__ = difficulties_pb2.StoryDifficulty.DESCRIPTOR

    reading_count: Mapped[int] = _count()
    reader_count: Mapped[int] = _count()
    session_count: Mapped[int] = _count()
    session_learner_count: Mapped[int] = _count()
    interaction_count: Mapped[int] = _count(BigInteger)
    active_duration: Mapped[timedelta] = mapped_column(Interval, server_default=text("'0'"))


class StoryWord(TenantRow, Base):
    """A word that learners have seen in a story, and in how many readings."""

    __tablename__ = "story_words"
    __table_args__ = (Index(None, "tenant_id", "story_id", "vocabulary_id", unique=True),)

    story_id: Mapped[UUID]
    vocabulary_id: Mapped[UUID]
    exposure_count: Mapped[int] = _count()
