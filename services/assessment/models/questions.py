"""The bank: questions and their versions."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, Computed, ForeignKeyConstraint, Index, Numeric, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from kit.models import Resource, SoftDeleted, TenantRow, Timed
from services.assessment.models.base import Base
from services.assessment.models.exercises import Exercise
from storyloom.assessment.v1 import questions_pb2


class Question(Resource, SoftDeleted, Base):
    """A question of the bank. What it asks is in its versions; `prompt` is the latest one's, to list and find it.

    `search_key` has a space before each word of prompt and tags, in lower case and without accents; a trigger keeps it.
    `facility` is what the last analysis of answers found.
    """

    __tablename__ = "questions"
    __resource__ = "question"
    __message__ = questions_pb2.Question.DESCRIPTOR
    __table_args__ = (
        CheckConstraint(
            "type IN ('multiple_choice', 'fill_blank', 'short_answer', 'numeric', 'matching', 'ordering')", name="type"
        ),
        CheckConstraint("facility BETWEEN 0 AND 1", name="facility"),
        Index(None, "tenant_id", "author_id", "id"),
        Index(
            None,
            "tenant_id",
            "search_key",
            "tags",
            postgresql_using="gin",
            postgresql_ops={"tenant_id": "extensions.uuid_ops", "search_key": "extensions.gin_trgm_ops"},
        ),
    )

    type: Mapped[str]
    prompt: Mapped[str]
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), default=list, server_default=text("'{}'"))
    facility: Mapped[Decimal | None] = mapped_column(Numeric)
    facility_time: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(default=1)
    author_id: Mapped[UUID]
    search_key: Mapped[str] = mapped_column(server_default=text("''"))


class QuestionVersion(TenantRow, Timed, Base):
    """What a question asks and accepts, as `bodies.check_body` tells. Never changed.

    `preserved` has what an import could not tell in the body, by format, for exports to the same format; and `digest`
    is the SHA-256 of all that it brought, by which the next import knows it again.
    """

    __tablename__ = "question_versions"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "question_id"], [Question.tenant_id, Question.id]),
        Index(None, "tenant_id", "question_id", "version", unique=True),
        ForeignKeyConstraint(["tenant_id", "exercise_id"], [Exercise.tenant_id, Exercise.id]),
        Index(None, "tenant_id", "exercise_id"),
        Index(None, "tenant_id", "digest", postgresql_where=text("digest IS NOT NULL")),
        CheckConstraint("octet_length(preserved::text) <= 65536", name="preserved"),
    )

    question_id: Mapped[UUID]
    version: Mapped[int]
    body: Mapped[dict[str, Any]] = mapped_column(JSONB)
    preserved: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict, server_default=text("'{}'"))
    digest: Mapped[str | None]
    exercise_id: Mapped[UUID | None] = mapped_column(
        Computed("nullif(body ->> 'exercise_id'::text, ''::text)::uuid", persisted=True)
    )
