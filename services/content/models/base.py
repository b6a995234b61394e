"""What the tables of the content service have in common."""


from sqlalchemy import Computed
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import ExcludeConstraint
from sqlalchemy.orm import Mapped, mapped_column

from kit.models import Base as KitBase
from kit.models import metadata

UNDELETED = sql("deleted_at IS NULL")
PARTS_OF_SPEECH = (
    "part_of_speech IN ('noun', 'verb', 'adjective', 'adverb', 'pronoun', 'preposition', 'conjunction',"
    " 'interjection', 'phrase')"
)


class Base(KitBase):
    """Base of the tables in the schema `content`."""

    __abstract__ = True
    metadata = metadata("content", jobs=True)


def title_key() -> Mapped[str]:
    """The title as lists order and compare it. A column, not an expression in an index: below row-level security no
    index takes a condition on an expression whose functions may tell of what they see, as `lower` may."""
    return mapped_column(Computed("lower(title)", persisted=True))


def one_per_place(table: str, parent: str) -> ExcludeConstraint:
    """No two undeleted rows of a parent share a position at the end of a transaction.

    Rows that are moved on pass through each other's places, which a unique index forbids, and a unique constraint,
    which could wait, cannot leave out the deleted.
    """
    return ExcludeConstraint(
        ("tenant_id", "="),
        (parent, "="),
        ("position", "="),
        using="btree",
        where=UNDELETED,
        deferrable=True,
        initially="DEFERRED",
        name=f"ex_{table}_position",
    )
