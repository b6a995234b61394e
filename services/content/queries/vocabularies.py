"""Statements on vocabularies."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Integer, Select, Text, Uuid, and_, bindparam, cast, column, func, inspect, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.elements import True_

from kit.access import filtered, visible
from kit.db import ReadSession, Shapes, WriteSession
from kit.errors import existing
from kit.pagination import Page
from services.content.models import UNDELETED, Vocabulary
from services.content.queries.bulk import execute_for_each
from services.content.rules import term_key
from storyloom.content.v1.vocabularies_pb2 import ListVocabulariesRequest
from storyloom.content.v1.vocabulary_files_pb2 import ExportVocabulariesRequest

Key = tuple[str, str, str, str, int]
KEY_COLUMNS: Mapping[str, Any] = {
    "language": Text,
    "learning_language": Text,
    "term_key": Text,
    "part_of_speech": Text,
    "sense": Integer,
}
WORD_COLUMNS: tuple[Any, ...] = (
    Vocabulary.id,
    Vocabulary.term,
    Vocabulary.translation,
    Vocabulary.part_of_speech,
    Vocabulary.level,
    Vocabulary.explanation,
)
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
    return existing((await session.execute(statement)).first(), "vocabulary")


async def list_some(session: ReadSession, vocabulary_ids: Collection[UUID]) -> Sequence[Any]:
    """Those of the vocabularies that are there and that the caller may read."""
    statement = select(*COLUMNS).where(
        Vocabulary.tenant_id == session.tenant_id,
        Vocabulary.id.in_(vocabulary_ids),
        Vocabulary.deleted_at.is_(None),
        visible("read", Vocabulary),
    )
    return (await session.execute(statement)).all()


async def list_vocabularies(
    session: ReadSession, request: ListVocabulariesRequest, part_of_speech: str, page: Page
) -> Sequence[Any]:
    """One row more than the page holds."""
    statement = select(*COLUMNS).where(
        Vocabulary.tenant_id == session.tenant_id, Vocabulary.deleted_at.is_(None), visible("list", Vocabulary)
    )
    statement = _narrowed(statement, request, part_of_speech)
    if request.query:
        translation = func.starts_with(func.lower(Vocabulary.translation), func.lower(request.query))
        statement = statement.where(or_(func.starts_with(Vocabulary.term_key, term_key(request.query)), translation))
    field, _, direction = request.order_by.partition(" ")
    keys = (Vocabulary.term_key, Vocabulary.id) if field == "term" else (Vocabulary.id,)
    statement = page.apply(statement, *keys, descending=direction == "desc" or not field)
    return (await session.execute(statement)).all()


def _narrowed(statement: Select[Any], request: Any, part_of_speech: str) -> Select[Any]:
    if request.language:
        statement = statement.where(Vocabulary.language == request.language)
    if request.learning_language:
        statement = statement.where(Vocabulary.learning_language == request.learning_language)
    if part_of_speech:
        statement = statement.where(Vocabulary.part_of_speech == part_of_speech)
    return statement


async def list_after(
    session: ReadSession, request: ExportVocabulariesRequest, part_of_speech: str, after: UUID, most: int
) -> Sequence[Any]:
    """The next of the vocabularies that the caller may list, oldest first."""
    statement = select(*COLUMNS).where(
        Vocabulary.tenant_id == session.tenant_id,
        Vocabulary.deleted_at.is_(None),
        Vocabulary.id > after,
        visible("list", Vocabulary),
    )
    statement = _narrowed(statement, request, part_of_speech).order_by(Vocabulary.id).limit(most)
    return (await session.execute(statement)).all()


# One statement for a batch of rows, however many they are.
KEYS = (
    func.unnest(*(bindparam(name, type_=ARRAY(kind)) for name, kind in KEY_COLUMNS.items()))
    .table_valued(*(column(name, kind) for name, kind in KEY_COLUMNS.items()), name="key")
    .render_derived()
)
OF_KEY = and_(*(getattr(Vocabulary, name) == KEYS.c[name] for name in KEY_COLUMNS))


async def find_by_keys(session: WriteSession, keys: Collection[Key], *, lock: bool) -> dict[Key, Vocabulary]:
    """The vocabularies there are, by what makes each unique."""
    statement = (
        select(Vocabulary)
        .join(KEYS, OF_KEY)
        .where(Vocabulary.tenant_id == session.tenant_id, Vocabulary.deleted_at.is_(None))
        .order_by(Vocabulary.id)
    )
    if lock:
        statement = statement.with_for_update(of=Vocabulary)
    found = (await session.execute(statement, _columns_of(keys))).scalars()
    return {key_of(one): one for one in found}


async def find_ids(session: ReadSession, keys: Collection[Key]) -> dict[Key, UUID]:
    """Their ids only."""
    statement = (
        select(Vocabulary.id, *(getattr(Vocabulary, name) for name in KEY_COLUMNS))
        .join(KEYS, OF_KEY)
        .where(Vocabulary.tenant_id == session.tenant_id, Vocabulary.deleted_at.is_(None))
    )
    return {key_of(row): row.id for row in await session.execute(statement, _columns_of(keys))}


def _columns_of(keys: Collection[Key]) -> dict[str, list[Any]]:
    columns = zip(*keys, strict=True) if keys else [()] * len(KEY_COLUMNS)
    return dict(zip(KEY_COLUMNS, map(list, columns), strict=True))


def key_of(word: Any) -> Key:
    """What no other vocabulary of the tenant has."""
    return word.language, word.learning_language, word.term_key, word.part_of_speech, word.sense


# A weave may be had of thousands of words: past SQLAlchemy they cost a quarter of the time.
WORDS = Shapes()


async def list_words(
    session: ReadSession,
    language: str,
    learning_language: str,
    only: Collection[UUID],
    shown: Collection[UUID] | None = None,
) -> Sequence[Any]:
    """What the weave needs of the words of a language pair, their forms as JSON text; `only` narrows them, unless it is
    empty, and `shown` to those that the caller may read or is shown anyway."""
    seen = None if shown is None else filtered("read", Vocabulary)
    if seen is not None and isinstance(seen.expression, True_):
        seen = None
    values: dict[str, Any] = {"language": language, "learning_language": learning_language}
    if only:
        values["only"] = list(only)
    if seen is not None:
        values |= {"shown": list(shown or ()), **seen.values}

    def build() -> Select[Any]:
        forms = cast(Vocabulary.forms, Text).label("forms")
        statement = select(*WORD_COLUMNS, forms).where(
            Vocabulary.tenant_id == bindparam("tenant"),
            Vocabulary.language == bindparam("language"),
            Vocabulary.learning_language == bindparam("learning_language"),
            Vocabulary.deleted_at.is_(None),
        )
        if only:
            statement = statement.where(Vocabulary.id == func.any(bindparam("only", type_=ARRAY(Uuid))))
        if seen is not None:
            anyway = Vocabulary.id == func.any(bindparam("shown", type_=ARRAY(Uuid)))
            statement = statement.where(or_(seen.expression, anyway))
        return statement

    return await WORDS.fetch(session, (bool(only), seen and seen.shape), build, values)


async def count_vocabularies(session: ReadSession, vocabulary_ids: Collection[UUID]) -> int:
    """How many of these the tenant has."""
    statement = select(func.count()).where(
        Vocabulary.tenant_id == session.tenant_id, Vocabulary.id.in_(vocabulary_ids), Vocabulary.deleted_at.is_(None)
    )
    return int(await session.scalar(statement))


async def lock_vocabulary(session: WriteSession, vocabulary_id: UUID, *, deleted: bool = False) -> Vocabulary:
    statement = (
        select(Vocabulary)
        .where(Vocabulary.tenant_id == session.tenant_id, Vocabulary.id == vocabulary_id)
        .with_for_update()
    )
    found: Vocabulary | None = await session.scalar(statement)
    return existing(found, "vocabulary", also_deleted=deleted)


async def insert_new(session: WriteSession, words: Sequence[Vocabulary]) -> set[UUID]:
    """Inserts those whose sense is not there yet, in one statement; returns their ids."""
    columns = [column.key for column in inspect(Vocabulary).column_attrs]
    values = [{name: getattr(word, name) for name in columns} for word in words]
    statement = (
        insert(Vocabulary)
        .on_conflict_do_nothing(index_elements=["tenant_id", *KEY_COLUMNS], index_where=UNDELETED)
        .returning(Vocabulary.id)
    )
    return set((await execute_for_each(session, statement, values)).scalars())
