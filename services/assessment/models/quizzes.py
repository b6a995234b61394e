"""Quizzes: questions put together, with the rules for taking them."""

from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, ForeignKeyConstraint, Index, Interval, Numeric, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from kit.models import Resource, SoftDeleted, TenantRow, Timed
from services.assessment.models.base import Base
from services.assessment.models.questions import Question
from storyloom.assessment.v1 import extensions_pb2, quizzes_pb2


class Quiz(Resource, SoftDeleted, Base):
    """`question_count` and `max_score` are of an attempt. `review_policy` has what differs from the defaults."""

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
    review_policy: Mapped[dict[str, str]] = mapped_column(JSONB, default=dict, server_default=text("'{}'"))
    status: Mapped[str] = mapped_column(default="draft")
    author_id: Mapped[UUID]
    question_count: Mapped[int] = mapped_column(default=0)
    max_score: Mapped[Decimal] = mapped_column(Numeric, default=Decimal(0))
    # Attempts are graded by all of them, or not at all.
    regrade_count: Mapped[int] = mapped_column(default=0, server_default=text("0"))


class QuizDraw(TenantRow, Timed, Base):
    """Questions that each attempt draws: from its list, which are the rows of `quiz_questions` that name it, or from
    all of the bank that have these tags and this type. Positions are those of the quiz's questions too."""

    __tablename__ = "quiz_draws"
    __table_args__ = (
        CheckConstraint("draw_count BETWEEN 1 AND 200", name="draw_count"),
        ForeignKeyConstraint(["tenant_id", "quiz_id"], [Quiz.tenant_id, Quiz.id]),
        Index(None, "tenant_id", "quiz_id", "position", unique=True),
    )

    quiz_id: Mapped[UUID]
    position: Mapped[int]
    points: Mapped[Decimal] = mapped_column(Numeric)
    draw_count: Mapped[int]
    listed: Mapped[bool]
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text))
    type: Mapped[str | None]


class QuizQuestion(TenantRow, Timed, Base):
    """A question of a quiz, or of the list that a draw of it draws from. Positions begin at 1."""

    __tablename__ = "quiz_questions"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "quiz_id"], [Quiz.tenant_id, Quiz.id]),
        ForeignKeyConstraint(["tenant_id", "question_id"], [Question.tenant_id, Question.id]),
        ForeignKeyConstraint(["tenant_id", "draw_id"], [QuizDraw.tenant_id, QuizDraw.id]),
        Index(None, "tenant_id", "quiz_id", "question_id", unique=True),
        Index(None, "tenant_id", "question_id"),
        Index(None, "tenant_id", "draw_id"),
    )

    quiz_id: Mapped[UUID]
    question_id: Mapped[UUID]
    position: Mapped[int]
    points: Mapped[Decimal] = mapped_column(Numeric)
    draw_id: Mapped[UUID | None]


class Extension(Resource, Base):
    """What a learner is given at a quiz beyond its rules."""

    __tablename__ = "quiz_extensions"
    __resource__ = "extension"
    __message__ = extensions_pb2.Extension.DESCRIPTOR
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "quiz_id"], [Quiz.tenant_id, Quiz.id]),
        Index(None, "tenant_id", "quiz_id", "user_id", unique=True),
        Index(None, "tenant_id", "user_id", "id"),
    )

    quiz_id: Mapped[UUID]
    user_id: Mapped[UUID]
    extra_time: Mapped[timedelta | None] = mapped_column(Interval)
    extra_attempts: Mapped[int] = mapped_column(default=0)
    close_time: Mapped[datetime | None]
    reason: Mapped[str] = mapped_column(default="")
