"""What is still to be added to sums over all learners of a tenant: nothing here says who."""

from datetime import date
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, CheckConstraint, Date, Index, Table, Text
from sqlalchemy.orm import Mapped, mapped_column

from kit.models import TenantRow
from services.learning.models.activity import DailyActivity
from services.learning.models.base import Base
from services.learning.models.courses import LearningSession
from services.learning.models.difficulties import StoryDifficulty, StoryWord, WordDifficulty
from services.learning.models.tenant_activity import TenantActivity
from services.learning.models.vocabularies import VocabularyExposure, VocabularyProgress


class PendingSum(TenantRow, Base):
    """By how much a transaction has changed one row of a sum. Triggers add it, and `queries.sums` takes it.

    Learners of a class review the same words at the same moment: each adds rows of their own here, and nobody waits for
    anybody. What a sum is at any moment is its row and all that is pending of it.
    """

    __tablename__ = "pending_sums"
    __table_args__ = (
        CheckConstraint("kind IN ('word', 'story', 'story_word', 'activity')", name="kind"),
        Index(None, "tenant_id", "kind", "id"),
    )

    kind: Mapped[str] = mapped_column(Text)
    vocabulary_id: Mapped[UUID | None]
    story_id: Mapped[UUID | None]
    period: Mapped[str | None] = mapped_column(Text)
    begin_date: Mapped[date | None] = mapped_column(Date)
    cohort: Mapped[date | None] = mapped_column(Date)
    amounts: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))


def _table(model: type[Base]) -> Table:
    found = model.__table__
    assert isinstance(found, Table)  # noqa: S101  # no model is of a join
    return found


# The purge of a tenant removes what is summed before what is pending, and that before the sums, or it would come back.
for _source in (DailyActivity, LearningSession, VocabularyExposure, VocabularyProgress):
    _table(_source).add_is_dependent_on(_table(PendingSum))
for _sum in (WordDifficulty, StoryDifficulty, StoryWord, TenantActivity):
    _table(PendingSum).add_is_dependent_on(_table(_sum))
