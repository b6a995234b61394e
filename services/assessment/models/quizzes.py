"""Quizzes: questions put together, with the rules for taking them."""

from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, Interval, Numeric
from sqlalchemy.orm import Mapped, mapped_column

from kit.models import Resource, SoftDeleted, TenantRow, Timed
from services.assessment.models.base import Base
from services.assessment.models.questions import Question
from storyloom.assessment.v1 import quizzes_pb2


class Quiz(Resource, SoftDeleted, Base):
    __tablename__ = "quizzes"
    __resource__ = "quiz"
    __message__ = quizzes_pb2.Quiz.DESCRIPTOR
    __table_args__ = (
        CheckConstraint("status IN ('draft', 'published', 'archived')", name="status"),
        Index(None, "tenant_id", "lesson_id", "id"),
    )

    title: Mapped[str]
    lesson_id: Mapped[UUID | None]
    time_limit: Mapped[timedelta | None] = mapped_column(Interval)
    attempts_allowed: Mapped[int] = mapped_column(default=0)
    pass_mark: Mapped[Decimal] = mapped_column(Numeric, default=Decimal(50))
    shuffle: Mapped[bool] = mapped_column(default=False)
    open_time: Mapped[datetime | None]
    close_time: Mapped[datetime | None]
    status: Mapped[str] = mapped_column(default="draft")
    author_id: Mapped[UUID]
    question_count: Mapped[int] = mapped_column(default=0)
    max_score: Mapped[Decimal] = mapped_column(Numeric, default=Decimal(0))


class QuizQuestion(TenantRow, Timed, Base):
    """A question of a quiz. Positions begin at 1."""

    __tablename__ = "quiz_questions"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "quiz_id"], [Quiz.tenant_id, Quiz.id]),
        ForeignKeyConstraint(["tenant_id", "question_id"], [Question.tenant_id, Question.id]),
        Index(None, "tenant_id", "quiz_id", "question_id", unique=True),
        Index(None, "tenant_id", "question_id"),
    )

    quiz_id: Mapped[UUID]
    question_id: Mapped[UUID]
    position: Mapped[int]
    points: Mapped[Decimal] = mapped_column(Numeric)
