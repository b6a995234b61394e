"""Statements of searches: what may be relevant comes from an index, what of it the caller may see from the tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Float,
    Integer,
    Select,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import TSQUERY
from sqlalchemy.sql.elements import False_

from kit.access import filtered
from kit.db import ReadSession, Shapes
from services.content.highlighting import tiers
from services.content.models import Course, Lesson, SearchDocument, Story, StoryVersion, Vocabulary

MOST_WORDS = 12
# Characters of a query that are compared with titles: each more costs as much as the one before, for every title.
LONGEST_MISSPELLED = 60
# Up to so many candidates are looked at one by one. Of more, those the caller may see are so frequent that going
# through all rows, newest first, soon fills a page.
CANDIDATES = 1000
SIMILAR_CANDIDATES = 500
# What is shown is looked for in so much of a text.
SHOWN_TEXT: Any = literal_column("10000")
# A beginning of one letter is that of nearly everything.
SHORTEST_PREFIX = 2
SIMILAR = 5
# As the function that finds the candidates has it.
LEAST_SIMILARITY: Any = literal_column("400")
OF_THIS_TENANT = "$1::uuid = current_setting('app.tenant_id')::uuid"
FIND = f"SELECT kind, ids FROM content.find_documents($2::text::tsquery, $3, $4) WHERE {OF_THIS_TENANT}"  # noqa: S608
FIND_SIMILAR = f"SELECT kind, ids FROM content.find_similar_documents($2, $3, $4) WHERE {OF_THIS_TENANT}"  # noqa: S608
WORDS = f"""
SELECT content.words_of(content.folded($2)) AS folded, content.words_of(content.lowered($2)) AS lowered,
       content.folded($2) AS key
WHERE {OF_THIS_TENANT}
"""
NOTHING: Any = literal_column("''", Text)
NEW_LINE: Any = literal_column(r"E'\n'", Text)
STATEMENTS = Shapes()
MODELS: Mapping[str, Any] = {"story": Story, "course": Course, "lesson": Lesson, "vocabulary": Vocabulary}


class Hit(NamedTuple):
    """Something found: `tier` counts from 1, the most relevant; `similarity` is a number of thousandths, 0 but in the
    last tier."""

    tier: int
    similarity: int
    id: UUID
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is searched. `folded` are the words without accents, `lowered` with them, `key` all of the query without.
    `known` is what the rules know of the caller."""

    folded: Sequence[str]
    lowered: Sequence[str]
    key: str
    kinds: Sequence[str]
    language: str
    known: Mapping[str, Any]

    @property
    def prefix(self) -> bool:
        return bool(self.folded) and len(self.folded[-1]) >= SHORTEST_PREFIX


async def get_words(session: ReadSession, query: str) -> tuple[Sequence[str], Sequence[str], str]:
    """The query's words as documents have them, without accents and with them, and the beginning of it without."""
    row = await session.fetchrow(WORDS, query)
    return row.folded[:MOST_WORDS], row.lowered[:MOST_WORDS], row.key[:LONGEST_MISSPELLED]


async def search(session: ReadSession, wanted: Wanted, size: int, after: Sequence[Any] | None) -> list[Hit]:
    """The first so many hits after a place; fewer at the end."""
    tier, similarity, last = after or (1, 0, None)
    if not (wanted.folded and wanted.lowered):
        return []
    found: list[Hit] = []
    if tier < SIMILAR:
        conditions = tiers(wanted.folded, wanted.lowered, prefix=wanted.prefix)
        for number, condition in list(enumerate(conditions, 1))[tier - 1 :]:
            before = last if number == tier else None
            found += await _list_tier(session, wanted, (number, condition), size - len(found), before)
            if len(found) == size:
                return found
        if found or after:
            return found
    return await _list_similar(session, wanted, size, (similarity, last) if last else None)


async def _list_tier(
    session: ReadSession, wanted: Wanted, tier: tuple[int, str], size: int, before: UUID | None
) -> list[Hit]:
    """The newest of what meets the condition."""
    number, condition = tier
    rows = await session.fetch(FIND, condition, wanted.kinds, CANDIDATES + 1)
    candidates = {row.kind: row.ids for row in rows}
    few = sum(map(len, candidates.values())) <= CANDIDATES
    hits: list[Hit] = []
    for kind in candidates if few else wanted.kinds:
        values = {"condition": condition, "size": size} | ({"before": before} if before else {})
        newest = await _fetch(session, wanted, kind, _newest, values, candidates[kind] if few else None)
        hits += [Hit(number, 0, one.id, kind) for one in newest]
    return sorted(hits, key=_relevance)[:size]


def _newest(kind: str, updated: Any) -> Select[Any]:
    model = MODELS[kind]
    met = cast(bindparam("condition", type_=Text), TSQUERY)
    statement = select(model.id).where(_text_of(kind, updated)[1].bool_op("@@")(met))
    return statement.order_by(model.id.desc()).limit(bindparam("size", type_=Integer))


async def _list_similar(
    session: ReadSession, wanted: Wanted, size: int, after: tuple[int, UUID] | None
) -> list[Hit]:
    """Titles that are spelled much like the query, the most alike first."""
    hits: list[Hit] = []
    for row in await session.fetch(FIND_SIMILAR, wanted.key, wanted.kinds, SIMILAR_CANDIDATES):
        alike = await _fetch(session, wanted, row.kind, _alike, {"key": wanted.key}, row.ids)
        hits += [Hit(SIMILAR, one.similarity, one.id, row.kind) for one in alike]
    ordered = sorted(hits, key=_relevance)
    return [one for one in ordered if after is None or (one.similarity, one.id) < after][:size]


def _alike(kind: str, updated: Any) -> Select[Any]:
    key, title = bindparam("key", type_=Text), _text_of(kind, updated)[0]
    thousandths = cast(func.extensions.word_similarity(key, title, type_=Float) * literal_column("1000"), Integer)
    return select(MODELS[kind].id, thousandths.label("similarity")).where(thousandths >= LEAST_SIMILARITY)


def _relevance(hit: Hit) -> tuple[int, int, int]:
    return hit.tier, -hit.similarity, -hit.id.int


async def list_shown(session: ReadSession, hits: Sequence[Hit], wanted: Wanted) -> dict[UUID, Any]:
    """Title, text and language of the hits, by id; without those that have gone meanwhile."""
    found: dict[UUID, Any] = {}
    for kind in {one.kind for one in hits}:
        ids = [one.id for one in hits if one.kind == kind]
        found |= {row.id: row for row in await _fetch(session, wanted, kind, _columns, {}, ids)}
    return found


async def _fetch(
    session: ReadSession,
    wanted: Wanted,
    kind: str,
    build: Callable[[str, Any], Select[Any]],
    values: Mapping[str, Any],
    ids: Sequence[UUID] | None,
) -> list[Any]:
    """The rows of what `build` makes for the kind, of those ids if there are any: only what is there, what the caller
    may list and what is in the language asked for. The text of the statement is made once."""
    listed, updated = filtered("list", MODELS[kind], known=wanted.known), filtered("update", Story)
    if isinstance(listed.expression, False_):
        return []
    values = {**values, **listed.values, **(updated.values if kind == "story" else {})}
    values |= {"ids": ids} if ids is not None else {}
    values |= {"language": wanted.language} if wanted.language else {}

    def statement() -> Select[Any]:
        return _seen(build(kind, updated.expression), kind, listed.expression, values)

    return await STATEMENTS.fetch(session, (build, kind, listed.shape, updated.shape), statement, values)


def _seen(statement: Select[Any], kind: str, listed: Any, values: Mapping[str, Any]) -> Select[Any]:
    model, tenant = MODELS[kind], bindparam("tenant", type_=Uuid)
    document = and_(SearchDocument.tenant_id == model.tenant_id, SearchDocument.id == model.id)
    statement = statement.join_from(model, SearchDocument, document).where(
        model.tenant_id == tenant, SearchDocument.tenant_id == tenant, model.deleted_at.is_(None), listed
    )
    if "ids" in values:
        statement = statement.where(model.id == any_(bindparam("ids", type_=ARRAY(Uuid))))
    if "before" in values:
        statement = statement.where(model.id < bindparam("before", type_=Uuid))
    if "language" not in values:
        return statement
    if kind == "lesson":
        statement = statement.join(Course, and_(Course.tenant_id == Lesson.tenant_id, Course.id == Lesson.course_id))
    language = Course.story_language if kind in {"course", "lesson"} else model.language
    return statement.where(language == bindparam("language", type_=Text))


def _shows_current(updated: Any) -> Any:
    """SQL that is true of stories whose current version is the one that the caller sees; `updated` is true of those
    that they may update."""
    return or_(Story.published_version_id == Story.current_version_id, updated)


def _text_of(kind: str, updated: Any) -> tuple[Any, Any]:
    """Title and words by which the caller may find a document."""
    whole = SearchDocument.title_key, SearchDocument.words
    if kind != "story":
        return whole
    published = SearchDocument.published_title_key, SearchDocument.published_words
    current = _shows_current(updated)
    title, words = (case((current, one), else_=other) for one, other in zip(whole, published, strict=True))
    return title, words


def _columns(kind: str, updated: Any) -> Any:
    if kind == "story":
        shown = case((_shows_current(updated), Story.current_version_id), else_=Story.published_version_id)
        title, text = (
            select(column)
            .where(StoryVersion.tenant_id == Story.tenant_id, StoryVersion.id == shown)
            .correlate(Story)
            .scalar_subquery()
            for column in (StoryVersion.title, func.left(StoryVersion.text, SHOWN_TEXT))
        )
        return select(Story.id, title.label("title"), text.label("text"), Story.language)
    if kind == "course":
        description = Course.description.label("text")
        return select(Course.id, Course.title, description, Course.story_language.label("language"))
    if kind == "lesson":
        return select(Lesson.id, Lesson.title, Lesson.description.label("text"), NOTHING.label("language"))
    meaning = func.concat_ws(NEW_LINE, Vocabulary.translation, func.nullif(Vocabulary.explanation, NOTHING))
    return select(Vocabulary.id, Vocabulary.term.label("title"), meaning.label("text"), Vocabulary.language)
