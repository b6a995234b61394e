"""The words that are woven in."""

from sqlalchemy import CheckConstraint, Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from kit.models import Resource, SoftDeleted
from services.content.models.base import PARTS_OF_SPEECH, UNDELETED, Base
from storyloom.content.v1 import vocabularies_pb2


class Vocabulary(Resource, SoftDeleted, Base):
    """A word or phrase with its translation, in one of its senses. `term_key` is the term as spellings are compared.

    `forms` are [form, translation], the translation empty for that of the term.
    """

    __tablename__ = "vocabularies"
    __resource__ = "vocabulary"
    __message__ = vocabularies_pb2.Vocabulary.DESCRIPTOR
    term: Mapped[str]
    term_key: Mapped[str]
    translation: Mapped[str]
    part_of_speech: Mapped[str]
    sense: Mapped[int]
    level: Mapped[str]
    explanation: Mapped[str]
    forms: Mapped[list[list[str]]] = mapped_column(JSONB)
    language: Mapped[str]
    learning_language: Mapped[str]
    __table_args__ = (
        Index(
            "ix_vocabularies_one_sense",
            "tenant_id",
            "language",
            "learning_language",
            "term_key",
            "part_of_speech",
            "sense",
            unique=True,
            postgresql_where=UNDELETED,
        ),
        Index(None, "tenant_id", "term_key", "id"),
        CheckConstraint(PARTS_OF_SPEECH, name="part_of_speech"),
        CheckConstraint("sense BETWEEN 1 AND 100", name="sense"),
    )
