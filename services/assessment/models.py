"""Tables of the assessment service: the question bank, quizzes, and what learners make of them."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, ForeignKeyConstraint, Index, Interval, Numeric, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

import kit.models
from kit.models import Resource, SoftDeleted, TenantRow, Timed
from storyloom.assessment.v1 import attempts_pb2, questions_pb2, quizzes_pb2


class Base(kit.models.Base):
    __abstract__ = True
    metadata = kit.models.metadata("assessment")


class Question(Resource, SoftDeleted, Base):
    """A question of the bank. What it asks is in its versions; `prompt` is the latest one's, to list and find it."""

    __tablename__ = "questions"
    __resource__ = "question"
    __message__ = questions_pb2.Question.DESCRIPTOR
    __table_args__ = (CheckConstraint("type IN ('multiple_choice', 'fill_blank')", name="type"),)

    type: Mapped[str]
    prompt: Mapped[str]
    version: Mapped[int] = mapped_column(default=1)
    author_id: Mapped[UUID]


class QuestionVersion(TenantRow, Timed, Base):
    """What a question asks and accepts, as `rules.check_body` tells. Never changed."""

    __tablename__ = "question_versions"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "question_id"], [Question.tenant_id, Question.id]),
        Index(None, "tenant_id", "question_id", "version", unique=True),
    )

    question_id: Mapped[UUID]
    version: Mapped[int]
    body: Mapped[dict[str, Any]] = mapped_column(JSONB)


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


class Attempt(Resource, Base):
    """A learner's taking of a quiz. `version_ids` are the question versions it keeps, in its own order."""

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
    )  # fmt: skip

    quiz_id: Mapped[UUID]
    lesson_id: Mapped[UUID | None]
    user_id: Mapped[UUID]
    number: Mapped[int]
    state: Mapped[str] = mapped_column(default="open")
    version_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    # Whether the choices too have an order of their own: that of `rules.shuffled`, which the attempt's id decides.
    shuffled: Mapped[bool]
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
