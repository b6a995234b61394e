"""Statements on vocabularies."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import func, inspect, or_, select
from sqlalchemy.dialects.postgresql import insert

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import NotFound
from kit.pagination import Page
from services.content.models import UNDELETED, Vocabulary
from services.content.queries.bulk import execute_for_each
from services.content.rules import term_key
from storyloom.content.v1.vocabularies_pb2 import ListVocabulariesRequest

COLUMNS: tuple[Any, ...] = (
    Vocabulary.id,
    Vocabulary.term,
    Vocabulary.term_key,
    Vocabulary.translation,
    Vocabulary.part_of_speech,
    Vocabulary.sense,
    Vocabulary.level,
    Vocabulary.explanation,
    Vocabulary.forms,
    Vocabulary.language,
    Vocabulary.learning_language,
    Vocabulary.revision,
    Vocabulary.created_at,
    Vocabulary.updated_at,
    Vocabulary.deleted_at,
)


async def get_vocabulary(session: ReadSession, vocabulary_id: UUID) -> Any:
    """The vocabulary's columns."""
    statement = select(*COLUMNS).where(
        Vocabulary.tenant_id == session.tenant_id, Vocabulary.id == vocabulary_id, Vocabulary.deleted_at.is_(None)
    )
    row = (await session.execute(statement)).first()
    if row is None:
        raise NotFound("vocabulary")
    return row


async def list_vocabularies(
    session: ReadSession, request: ListVocabulariesRequest, part_of_speech: str, page: Page
) -> Sequence[Any]:
    """One row more than the page holds."""
    statement = select(*COLUMNS).where(
        Vocabulary.tenant_id == session.tenant_id, Vocabulary.deleted_at.is_(None), visible("list", Vocabulary)
    )
    if request.language:
        statement = statement.where(Vocabulary.language == request.language)
    if request.learning_language:
        statement = statement.where(Vocabulary.learning_language == request.learning_language)
    if part_of_speech:
        statement = statement.where(Vocabulary.part_of_speech == part_of_speech)
    if request.query:
        translation = func.starts_with(func.lower(Vocabulary.translation), func.lower(request.query))
        statement = statement.where(or_(func.starts_with(Vocabulary.term_key, term_key(request.query)), translation))
    field, _, direction = request.order_by.partition(" ")
    keys = (Vocabulary.term_key, Vocabulary.id) if field == "term" else (Vocabulary.id,)
    statement = page.apply(statement, *keys, descending=direction == "desc" or not field)
    return (await session.execute(statement)).all()


async def list_words(
    session: ReadSession, language: str, learning_language: str, only: Collection[UUID]
) -> Sequence[Any]:
    """What the weave needs of the words of a language pair; `only` narrows them, unless it is empty."""
    statement = select(
        Vocabulary.id,
        Vocabulary.term,
        Vocabulary.translation,
        Vocabulary.part_of_speech,
        Vocabulary.explanation,
        Vocabulary.forms,
    ).where(
        Vocabulary.tenant_id == session.tenant_id,
        Vocabulary.language == language,
        Vocabulary.learning_language == learning_language,
        Vocabulary.deleted_at.is_(None),
    )
    if only:
        statement = statement.where(Vocabulary.id.in_(only))
    return (await session.execute(statement)).all()


async def count_vocabularies(session: ReadSession, vocabulary_ids: Collection[UUID]) -> int:
    """How many of these the tenant has."""
    statement = select(func.count()).where(
        Vocabulary.tenant_id == session.tenant_id, Vocabulary.id.in_(vocabulary_ids), Vocabulary.deleted_at.is_(None)
    )
    return int(await session.scalar(statement))


async def lock_vocabulary(session: WriteSession, vocabulary_id: UUID, *, deleted: bool = False) -> Vocabulary:
    """The vocabulary, locked."""
    statement = (
        select(Vocabulary)
        .where(Vocabulary.tenant_id == session.tenant_id, Vocabulary.id == vocabulary_id)
        .with_for_update()
    )
    found: Vocabulary | None = (await session.execute(statement)).scalar_one_or_none()
    if found is None or (found.deleted_at is not None and not deleted):
        raise NotFound("vocabulary")
    return found


async def insert_new(session: WriteSession, words: Sequence[Vocabulary]) -> set[UUID]:
    """Inserts those whose sense is not there yet, in one statement; returns their ids."""
    columns = [column.key for column in inspect(Vocabulary).column_attrs]
    values = [{name: getattr(word, name) for name in columns} for word in words]
    statement = (
        insert(Vocabulary)
        .on_conflict_do_nothing(
            index_elements=["tenant_id", "language", "learning_language", "term_key", "part_of_speech", "sense"],
            index_where=UNDELETED,
        )
        .returning(Vocabulary.id)
    )
    return set((await execute_for_each(session, statement, values)).scalars())
