"""The bank: questions and their versions."""

from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from kit.models import Resource, SoftDeleted, TenantRow, Timed
from services.assessment.models.base import Base
from storyloom.assessment.v1 import questions_pb2


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
