"""What learners make of quizzes."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, ForeignKeyConstraint, Index, Interval, Numeric, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from kit.models import Resource, TenantRow, Timed
from services.assessment.models.base import Base
from services.assessment.models.questions import QuestionVersion
from services.assessment.models.quizzes import Quiz
from storyloom.assessment.v1 import attempts_pb2


class Attempt(Resource, Base):
    """A learner's taking of a quiz. `version_ids` are the question versions it keeps, in its own order, and `points`
    what each is worth."""

    __tablename__ = "attempts"
    __resource__ = "attempt"
    __message__ = attempts_pb2.Attempt.DESCRIPTOR
    __table_args__ = (
        CheckConstraint("state IN ('open', 'graded', 'expired')", name="state"),
        CheckConstraint("(state = 'open') = (submit_time IS NULL)", name="submit_time"),
        ForeignKeyConstraint(["tenant_id", "quiz_id"], [Quiz.tenant_id, Quiz.id]),
        Index(None, "tenant_id", "quiz_id", "user_id", "number", unique=True),
        Index(
            "ix_attempts_one_open",
            "tenant_id", "quiz_id", "user_id",
            unique=True,
            postgresql_where=text("state = 'open'"),
        ),
        Index(None, "tenant_id", "user_id", "id"),
        Index(None, "tenant_id", "quiz_id", "id"),
        Index("ix_attempts_open", "tenant_id", "id", postgresql_where=text("state = 'open'")),
    )  # fmt: skip

    quiz_id: Mapped[UUID]
    lesson_id: Mapped[UUID | None]
    user_id: Mapped[UUID]
    number: Mapped[int]
    state: Mapped[str] = mapped_column(default="open")
    version_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    points: Mapped[list[Decimal]] = mapped_column(ARRAY(Numeric))
    # Whether the choices too have an order of their own: that of `composing.shuffled`, which the attempt's id decides.
    shuffled: Mapped[bool]
    # As it was at the start: what an extension adds to.
    time_limit: Mapped[timedelta | None] = mapped_column(Interval)
    deadline_time: Mapped[datetime | None]
    submit_time: Mapped[datetime | None]


class Response(TenantRow, Timed, Base):
    """A learner's latest answer to one question of an attempt: ids of choices, or what fills the blanks, in order."""

    __tablename__ = "responses"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "attempt_id"], [Attempt.tenant_id, Attempt.id]),
        ForeignKeyConstraint(["tenant_id", "version_id"], [QuestionVersion.tenant_id, QuestionVersion.id]),
        Index(None, "tenant_id", "attempt_id", "version_id", unique=True),
        Index(None, "tenant_id", "version_id", "attempt_id"),
    )

    attempt_id: Mapped[UUID]
    version_id: Mapped[UUID]
    answer: Mapped[list[str]] = mapped_column(JSONB)


class QuizResult(TenantRow, Timed, Base):
    """The grade of an attempt; `detail` has an entry for each of its questions, in their order: `rules.Outcome`."""

    __tablename__ = "quiz_results"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "attempt_id"], [Attempt.tenant_id, Attempt.id]),
        Index(None, "tenant_id", "attempt_id", unique=True),
    )

    attempt_id: Mapped[UUID]
    score: Mapped[Decimal] = mapped_column(Numeric)
    max_score: Mapped[Decimal] = mapped_column(Numeric)
    percent: Mapped[Decimal] = mapped_column(Numeric)
    passed: Mapped[bool]
    detail: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    # What `passed` was decided by, and how many regrades of the quiz the result takes into account.
    pass_mark: Mapped[Decimal] = mapped_column(Numeric)
    regrade_count: Mapped[int] = mapped_column(default=0, server_default=text("0"))
