"""Statements about how well learners know words."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Integer, Row, Uuid, bindparam, func, literal_column, select

from kit.access import filtered, visible
from kit.db import ReadSession, Shapes, WriteSession
from kit.errors import existing
from kit.ids import new_id
from kit.models import now
from kit.pagination import Page
from services.learning.models import VocabularyProgress
from services.learning.queries.daily_activity import Happened, tally
from services.learning.queries.learners import lock_learner
from services.learning.rules import own_id
from services.learning.scheduling import Memory

# What a queue tells of what is due; counting more takes longer than anybody wants to know.
MOST_COUNTED = 500
# New words that a learner can choose to begin in a day.
MOST_BEGUN = 200
FIELDS = (
    *("id", "user_id", "vocabulary_id", "status", "due_time", "stability_days", "difficulty", "review_count"),
    *("lapse_count", "first_review_time", "last_review_time", "exposure_count", "first_exposure_time"),
    *("last_exposure_time", "known"),
)
PROGRESS: tuple[Any, ...] = tuple(getattr(VocabularyProgress, name) for name in FIELDS)
OWN = select(*PROGRESS).where(
    VocabularyProgress.tenant_id == bindparam("tenant"), VocabularyProgress.user_id == bindparam("learner")
)
MOST = bindparam("most", type_=Integer)
SOME = OWN.where(VocabularyProgress.vocabulary_id == func.any(bindparam("words", type_=ARRAY(Uuid))))
AFTER = OWN.where(VocabularyProgress.id > bindparam("after")).order_by(VocabularyProgress.id).limit(MOST)
# In the order of the index, so that a plan made for any learner takes it.
DUE = (
    OWN.where(VocabularyProgress.due_time <= bindparam("at"))
    .order_by(VocabularyProgress.due_time, VocabularyProgress.vocabulary_id)
    .limit(MOST)
)
NEW = (
    OWN.where(VocabularyProgress.due_time.is_(None))
    .order_by(VocabularyProgress.first_exposure_time, VocabularyProgress.vocabulary_id)
    .limit(MOST)
)
BEGUN = OWN.where(~VocabularyProgress.known, VocabularyProgress.first_review_time >= bindparam("day")).order_by(
    VocabularyProgress.first_review_time
)
LISTS = Shapes()
MEMORY = (
    *("phase", "step", "stability_days", "difficulty", "due_time", "first_review_time", "last_review_time"),
    *("last_review_id", "review_count", "lapse_count", "known", "learn_time"),
)
NEW_VALUES, OLD_VALUES = (*FIELDS, "learn_time", "change"), ("status", "first_review_time", "learn_time", "known")
RETURNED = ", ".join((*(f"new.{name}" for name in NEW_VALUES), *(f"old.{name} AS old_{name}" for name in OLD_VALUES)))
MEMORIES = f"""
SELECT vocabulary_id, {", ".join(MEMORY)} FROM learning.user_vocabulary_progress
WHERE tenant_id = $1 AND user_id = $2 AND vocabulary_id = ANY ($3::uuid[])
"""  # noqa: S608
UPSERT_MEMORIES = f"""
INSERT INTO learning.user_vocabulary_progress
  (tenant_id, user_id, change, id, vocabulary_id, status, {", ".join(MEMORY)})
SELECT $1, $2, $3, word.* FROM unnest($4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::int[], $9::float8[],
  $10::float8[], $11::timestamptz[], $12::timestamptz[], $13::timestamptz[], $14::uuid[], $15::int[], $16::int[],
  $17::boolean[], $18::timestamptz[]) AS word
ON CONFLICT (tenant_id, user_id, vocabulary_id) DO UPDATE SET
  {", ".join(f"{name} = excluded.{name}" for name in ("change", "status", *MEMORY))},
  updated_at = now(), revision = user_vocabulary_progress.revision + 1
RETURNING {RETURNED}
"""  # noqa: S608
INSERT_EXPOSURES = """
INSERT INTO learning.vocabulary_exposures
  (tenant_id, user_id, receive_time, id, event_id, story_id, vocabulary_ids, exposure_time)
SELECT $1, $2, $3, new.* FROM jsonb_to_recordset($4::text::jsonb)
  AS new (id uuid, event_id uuid, story_id uuid, vocabulary_ids uuid[], exposure_time timestamptz)
ON CONFLICT (tenant_id, id) DO NOTHING
RETURNING id
"""
UPSERT_EXPOSED = f"""
INSERT INTO learning.user_vocabulary_progress AS p
  (tenant_id, user_id, change, status, phase, review_count, lapse_count, known, id, vocabulary_id, exposure_count,
   first_exposure_time, last_exposure_time)
SELECT $1, $2, $3, 'new', 'new', 0, 0, false, word.*
FROM unnest($4::uuid[], $5::uuid[], $6::int[], $7::timestamptz[], $8::timestamptz[]) AS word
ON CONFLICT (tenant_id, user_id, vocabulary_id) DO UPDATE SET
  exposure_count = p.exposure_count + excluded.exposure_count,
  first_exposure_time = least(p.first_exposure_time, excluded.first_exposure_time),
  last_exposure_time = greatest(p.last_exposure_time, excluded.last_exposure_time),
  change = excluded.change, updated_at = now(), revision = p.revision + 1
RETURNING {RETURNED}
"""  # noqa: S608


@dataclass(frozen=True, slots=True, kw_only=True)
class NewReview:
    """A review to add, as a client tells of it: `scheduling.is_possible` of its time, its word checked."""

    event_id: UUID
    vocabulary_id: UUID
    rating: str
    review_time: datetime
    source: str
    duration: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewExposure:
    """A reading in which words were seen, as a client tells of it: its time possible, its words checked, each once."""

    event_id: UUID
    story_id: UUID | None
    vocabulary_ids: Sequence[UUID]
    exposure_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """What adding reviews, or exposures, of a learner came to; for whatever counts them.

    `reviews` and `exposures` are those that were not there before. `words` are the rows of progress that were written,
    as they are now, each with what it was as `old_…` (`OLD_VALUES`), None where there was none. `refused` are the event
    ids of reviews of words that have as many as a word may have. `change` is the number of the learner's change.
    """

    user_id: UUID
    change: int
    reviews: Sequence[NewReview] = ()
    exposures: Sequence[NewExposure] = ()
    words: Sequence[Any] = ()
    refused: Sequence[UUID] = ()


async def append_exposures(
    session: WriteSession, user_id: UUID, exposures: Sequence[NewExposure], *, change: int | None = None
) -> Appended:
    """Adds exposures of one learner to the log and counts them; those added before, by their `event_id`, change
    nothing. `change` is what `lock_learner` answered with, if the learner is locked already."""
    change = change or await lock_learner(session, user_id)
    added = await _insert_exposures(session, user_id, exposures)
    words = await _upsert_exposed(session, user_id, added, change)
    await tally(session, user_id, [Happened(at=one.exposure_time, readings=1) for one in added])
    return Appended(user_id=user_id, change=change, exposures=added, words=words)


async def list_memories(session: ReadSession, user_id: UUID, words: Collection[UUID]) -> dict[UUID, Memory]:
    """What follows from the learner's reviews of each of these words that the learner has met."""
    rows = await session.fetch(MEMORIES, user_id, list(words))
    return {row.vocabulary_id: memory_of(row) for row in rows}


def memory_of(row: Any) -> Memory:
    return Memory(**{name: row[name] for name in MEMORY})


async def upsert_memories(
    session: WriteSession, user_id: UUID, memories: Mapping[UUID, Memory], change: int
) -> list[Any]:
    """The progress as written, each with its `old_status`, None where there was none."""
    if not memories:
        return []
    told = memories.values()
    return await session.fetch(
        UPSERT_MEMORIES,
        user_id,
        change,
        [new_id() for _ in told],
        list(memories),
        [one.status for one in told],
        *([getattr(one, name) for one in told] for name in MEMORY),
    )


async def _insert_exposures(
    session: WriteSession, user_id: UUID, exposures: Iterable[NewExposure]
) -> list[NewExposure]:
    """Those that were not there before, by their `event_id`."""
    by_id = {own_id(user_id, one.event_id): one for one in exposures}
    told = [
        {
            "id": str(key),
            "event_id": str(one.event_id),
            "story_id": str(one.story_id) if one.story_id else None,
            "vocabulary_ids": list(map(str, one.vocabulary_ids)),
            "exposure_time": one.exposure_time.isoformat(),
        }
        for key, one in by_id.items()
    ]
    rows = await session.fetch(INSERT_EXPOSURES, user_id, now(), json.dumps(told))
    return [by_id[row.id] for row in rows]


async def _upsert_exposed(
    session: WriteSession, user_id: UUID, exposures: Iterable[NewExposure], change: int
) -> list[Any]:
    """Counts exposures that were not there before; the progress as written, as of `upsert_memories`."""
    times: dict[UUID, list[datetime]] = {}
    for one in exposures:
        for word in one.vocabulary_ids:
            times.setdefault(word, []).append(one.exposure_time)
    if not times:
        return []
    return await session.fetch(
        UPSERT_EXPOSED,
        user_id,
        change,
        [new_id() for _ in times],
        list(times),
        [len(those) for those in times.values()],
        [min(those) for those in times.values()],
        [max(those) for those in times.values()],
    )


async def get_progress(session: ReadSession, progress_id: UUID) -> Any:
    statement = select(*PROGRESS).where(
        VocabularyProgress.tenant_id == session.tenant_id, VocabularyProgress.id == progress_id
    )
    return existing((await session.execute(statement)).one_or_none(), "vocabulary_progress")


async def list_own(session: ReadSession, user_id: UUID, words: Collection[UUID]) -> list[Any]:
    """Of these words, what the caller may read of the learner's progress."""
    return await _fetch(session, "read", user_id, SOME.where, {"words": list(words)})


async def list_met(session: ReadSession, user_id: UUID, words: Collection[UUID]) -> set[UUID]:
    """Those of the words that the learner has met."""
    statement = select(VocabularyProgress.vocabulary_id).where(
        VocabularyProgress.tenant_id == session.tenant_id,
        VocabularyProgress.user_id == user_id,
        VocabularyProgress.vocabulary_id.in_(words),
    )
    return set((await session.execute(statement)).scalars())


async def list_progress(
    session: ReadSession, page: Page, *, user_id: str, vocabulary_id: str, status: str
) -> Sequence[Row[Any]]:
    statement = select(*PROGRESS).where(
        VocabularyProgress.tenant_id == session.tenant_id, visible("list", VocabularyProgress)
    )
    if user_id:
        statement = statement.where(VocabularyProgress.user_id == UUID(user_id))
    if vocabulary_id:
        statement = statement.where(VocabularyProgress.vocabulary_id == UUID(vocabulary_id))
    if status:
        statement = statement.where(VocabularyProgress.status == status)
    return (await session.execute(page.apply(statement, VocabularyProgress.id))).all()


async def list_met_after(session: ReadSession, user_id: UUID, after: UUID, most: int) -> list[Any]:
    """The learner's progress, first met first, as far as the caller may list it."""
    return await _fetch(session, "list", user_id, AFTER.where, {"after": after, "most": most})


async def list_due(session: ReadSession, user_id: UUID, at: datetime, most: int) -> list[Any]:
    """What is due, longest due first."""
    return await _fetch(session, "list", user_id, DUE.where, {"at": at, "most": most})


async def list_new(session: ReadSession, user_id: UUID, most: int) -> list[Any]:
    """Words that were seen and not reviewed, first seen first."""
    return await _fetch(session, "list", user_id, NEW.where, {"most": most})


async def count_queue(session: ReadSession, user_id: UUID, at: datetime, day: datetime) -> Any:
    """`due_count`, the words that are due, and `begun_count`, those first reviewed since the day began, without those
    that were known; of each as many as anybody needs to know."""
    (row,) = await _fetch(session, "list", user_id, _counts, {"at": at, "day": day})
    return row


def count_due(seen: Any) -> Any:
    """A subquery: the words of `learner` that are due `at` the time and are seen, as many as anybody needs to know."""
    return _count(DUE.where(seen), MOST_COUNTED)


def _counts(seen: Any) -> Any:
    due, begun = count_due(seen), _count(BEGUN.where(seen), MOST_BEGUN)
    return select(due.label("due_count"), begun.label("begun_count"))


def _count(statement: Any, most: int) -> Any:
    limited = statement.with_only_columns(literal_column("1")).limit(literal_column(str(most))).subquery()
    return select(func.count()).select_from(limited).scalar_subquery()


async def _fetch(
    session: ReadSession, action: str, user_id: UUID, build: Callable[[Any], Any], values: Mapping[str, Any]
) -> list[Any]:
    """The rows of a statement about the learner's words that is built of what the caller may see."""
    seen = filtered(action, VocabularyProgress)
    # Statements of one set of values are one: no two of those above have the same.
    values = {"learner": user_id, **values, **seen.values}
    return await LISTS.fetch(session, seen.shape, lambda: build(seen.expression), values)
