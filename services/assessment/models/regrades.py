"""Changes to how a question of a quiz is graded, and the results that they replaced."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, Numeric
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from kit.ids import NIL
from kit.models import TenantRow, Timed
from services.assessment.models.attempts import Attempt
from services.assessment.models.base import Base
from services.assessment.models.questions import Question, QuestionVersion
from services.assessment.models.quizzes import Quiz


class Regrade(TenantRow, Timed, Base):
    """How a question is graded in attempts at the quiz that have it in this `version` or an earlier one.

    `last_attempt_id` is the last attempt whose result is up to date with it, and the counts are of those up to there.
    """

    __tablename__ = "regrades"
    __table_args__ = (
        CheckConstraint("kind IN ('full_marks', 'drop', 'key', 'original')", name="kind"),
        CheckConstraint("state IN ('applying', 'applied')", name="state"),
        CheckConstraint("(kind = 'key') = (key_version_id IS NOT NULL)", name="key"),
        ForeignKeyConstraint(["tenant_id", "quiz_id"], [Quiz.tenant_id, Quiz.id]),
        ForeignKeyConstraint(["tenant_id", "question_id"], [Question.tenant_id, Question.id]),
        ForeignKeyConstraint(["tenant_id", "key_version_id"], [QuestionVersion.tenant_id, QuestionVersion.id]),
        Index(None, "tenant_id", "quiz_id", "number", unique=True),
        Index(None, "tenant_id", "question_id"),
        Index(None, "tenant_id", "key_version_id"),
    )

    quiz_id: Mapped[UUID]
    question_id: Mapped[UUID]
    kind: Mapped[str]
    version: Mapped[int]
    key_version_id: Mapped[UUID | None]
    number: Mapped[int]
    author_id: Mapped[UUID]
    state: Mapped[str] = mapped_column(default="applying")
    last_attempt_id: Mapped[UUID] = mapped_column(default=NIL)
    attempts: Mapped[int] = mapped_column(default=0)
    unfitting: Mapped[int] = mapped_column(default=0)
    changed: Mapped[int] = mapped_column(default=0)
    raised: Mapped[int] = mapped_column(default=0)
    lowered: Mapped[int] = mapped_column(default=0)
    newly_passed: Mapped[int] = mapped_column(default=0)
    newly_failed: Mapped[int] = mapped_column(default=0)


class PastResult(TenantRow, Timed, Base):
    """A result as it was until a regrade replaced it. `regrade_count` says which regrades it had taken into account, so
    that with them and what the attempt keeps it can be computed again. Never changed."""

    __tablename__ = "past_results"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "attempt_id"], [Attempt.tenant_id, Attempt.id]),
        ForeignKeyConstraint(["tenant_id", "regrade_id"], [Regrade.tenant_id, Regrade.id]),
        Index(None, "tenant_id", "attempt_id", "regrade_count", unique=True),
        Index(None, "tenant_id", "regrade_id", "attempt_id", unique=True),
    )

    attempt_id: Mapped[UUID]
    regrade_id: Mapped[UUID]
    score: Mapped[Decimal] = mapped_column(Numeric)
    max_score: Mapped[Decimal] = mapped_column(Numeric)
    percent: Mapped[Decimal] = mapped_column(Numeric)
    passed: Mapped[bool]
    detail: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    pass_mark: Mapped[Decimal] = mapped_column(Numeric)
    regrade_count: Mapped[int]
    graded_at: Mapped[datetime]
