"""Statements about reviews, and the one way in which they become progress."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import ResourceExhausted
from kit.models import now
from kit.pagination import Page
from services.learning.models import VocabularyReview
from services.learning.queries.daily_activity import Happened, tally
from services.learning.queries.learners import list_retention_changes, lock_learner
from services.learning.queries.vocabulary_progress import Appended, NewReview, list_memories, upsert_memories
from services.learning.rules import own_id
from services.learning.scheduling import KNOWN, MOST_REVIEWS, NOTHING, Change, Memory, Review, fold, in_force

# Of late reviews: they are folded in with all others of their words. It takes a third of a second.
MOST_FOLDED_AT_ONCE = 20_000
# Other calls have their turn after so many.
FOLDED_IN_A_TURN = 500

REVIEW: tuple[Any, ...] = (
    VocabularyReview.id,
    VocabularyReview.user_id,
    VocabularyReview.vocabulary_id,
    VocabularyReview.event_id,
    VocabularyReview.rating,
    VocabularyReview.review_time,
    VocabularyReview.receive_time,
    VocabularyReview.duration,
    VocabularyReview.source,
    VocabularyReview.desired_retention,
)
INSERT = """
INSERT INTO learning.vocabulary_reviews
  (tenant_id, user_id, receive_time, id, event_id, vocabulary_id, rating, review_time, duration, source,
   desired_retention, maximum_interval_days)
SELECT $1, $2, $3, new.* FROM unnest($4::uuid[], $5::uuid[], $6::uuid[], $7::text[], $8::timestamptz[], $9::interval[],
                                     $10::text[], $11::float8[], $12::int[]) AS new
ON CONFLICT (tenant_id, id) DO NOTHING
RETURNING id
"""
RECORDED = "SELECT id FROM learning.vocabulary_reviews WHERE tenant_id = $1 AND id = ANY ($2::uuid[])"
LOG = """
SELECT vocabulary_id, id, rating, review_time, source, desired_retention, maximum_interval_days
FROM learning.vocabulary_reviews
WHERE tenant_id = $1 AND user_id = $2 AND vocabulary_id = ANY ($3::uuid[])
ORDER BY vocabulary_id, review_time, id
"""


async def append_reviews(
    session: WriteSession, user_id: UUID, reviews: Sequence[NewReview], *, change: int | None = None
) -> Appended:
    """Adds reviews of one learner to the log, in any order, and brings the progress with their words up to date.

    What was added before, by its `event_id`, changes nothing. `change` is what `lock_learner` answered with, if the
    learner is locked already. Raises RESOURCE_EXHAUSTED when the reviews come so late, of words with so many others,
    that they must be added in smaller parts.
    """
    change = change or await lock_learner(session, user_id)
    memories = await list_memories(session, user_id, {one.vocabulary_id for one in reviews})
    by_id = {own_id(user_id, one.event_id): one for one in reviews}
    refused = await _drop_excess(session, by_id, memories)
    added = await _insert(session, user_id, by_id) if by_id else {}
    folded = await _folded(session, user_id, added.values(), memories, by_id)
    words = await upsert_memories(session, user_id, folded, change)
    new = [by_id[one] for one in added]
    await tally(session, user_id, happened(new, words))
    return Appended(user_id=user_id, change=change, reviews=new, words=words, refused=refused)


def happened(reviews: Iterable[NewReview], words: Iterable[Any]) -> list[Happened]:
    """What new reviews, and what has become of their words, are in the days of the learner."""
    made = [
        Happened(at=one.review_time, reviews=1, reviews_forgotten=int(one.rating == "again"))
        for one in reviews
        if one.source != KNOWN
    ]
    for word in words:
        # A review that came late moves the word from one day to another.
        for at, by in _moved(word, "first_review_time"):
            made.append(Happened(at=at, words_begun=by))
        for at, by in _moved(word, "learn_time"):
            made.append(Happened(at=at, words_learned=by))
    return made


def _moved(word: Any, name: str) -> list[tuple[datetime, int]]:
    """The time to take back and the one to add, if what the learner did with the word at that time has changed."""
    before = None if word.old_known else word[f"old_{name}"]
    after = None if word.known else word[name]
    return [] if before == after else [(at, by) for at, by in ((before, -1), (after, 1)) if at]


async def _drop_excess(
    session: WriteSession, by_id: dict[UUID, NewReview], memories: Mapping[UUID, Memory]
) -> list[UUID]:
    """Takes out reviews, the latest first, of words that would have more than a word may have."""
    wanted: dict[UUID, list[UUID]] = {}
    for key, one in by_id.items():
        wanted.setdefault(one.vocabulary_id, []).append(key)
    room = {word: MOST_REVIEWS - memories.get(word, NOTHING).review_count for word in wanted}
    full = {word: keys for word, keys in wanted.items() if len(keys) > room[word]}
    if not full:
        return []
    rows = await session.fetch(RECORDED, [key for keys in full.values() for key in keys])
    recorded = {row.id for row in rows}
    refused = []
    for word, keys in full.items():
        fresh = sorted((key for key in keys if key not in recorded), key=lambda key: (by_id[key].review_time, key))
        refused += [by_id.pop(key).event_id for key in fresh[max(room[word], 0) :]]
    return refused


async def _insert(session: WriteSession, user_id: UUID, by_id: Mapping[UUID, NewReview]) -> dict[UUID, Review]:
    """Those that were not there, as the log has them now."""
    own, common = await list_retention_changes(session, user_id, min(one.review_time for one in by_id.values()))
    stored = [_stored(key, one, own, common) for key, one in by_id.items()]
    new = list(by_id.values())
    rows = await session.fetch(
        INSERT,
        user_id,
        now(),
        list(by_id),
        [one.event_id for one in new],
        [one.vocabulary_id for one in new],
        [one.rating for one in new],
        [one.review_time for one in new],
        [one.duration for one in new],
        [one.source for one in new],
        [one.desired_retention for one in stored],
        [one.maximum_interval_days for one in stored],
    )
    added = {row.id for row in rows}
    return {one.id: one for one in stored if one.id in added}


def _stored(key: UUID, one: NewReview, own: Sequence[Change], common: Sequence[Change]) -> Review:
    retention, interval = in_force(own, common, one.review_time)
    return Review(
        id=key,
        rating=one.rating,
        review_time=one.review_time,
        source=one.source,
        desired_retention=retention,
        maximum_interval_days=interval,
    )


async def _folded(
    session: WriteSession,
    user_id: UUID,
    added: Iterable[Review],
    memories: Mapping[UUID, Memory],
    by_id: Mapping[UUID, NewReview],
) -> dict[UUID, Memory]:
    """What follows for each word from the reviews that were added: from where it was, unless some of them came late."""
    fresh: dict[UUID, list[Review]] = {}
    for one in sorted(added, key=lambda one: one.place):
        fresh.setdefault(by_id[one.id].vocabulary_id, []).append(one)
    late = {word for word, those in fresh.items() if not memories.get(word, NOTHING).precedes(those[0])}
    folded = {word: fold(those, memories.get(word, NOTHING)) for word, those in fresh.items() if word not in late}
    if sum(memories[word].review_count for word in late) > MOST_FOLDED_AT_ONCE:
        raise ResourceExhausted(
            "These reviews come before too many others; send fewer words at once.", retry_after=timedelta(seconds=1)
        )
    return folded | await refold(session, user_id, late)


async def refold(session: ReadSession, user_id: UUID, words: Iterable[UUID]) -> dict[UUID, Memory]:
    """What follows for each of the words from the whole log."""
    wanted = list(words)
    if not wanted:
        return {}
    folded, done = {}, 0
    for word, rows in groupby(await session.fetch(LOG, user_id, wanted), key=lambda row: row.vocabulary_id):
        folded[word] = fold(rows)
        done += folded[word].review_count
        if done > FOLDED_IN_A_TURN:
            done = 0
            await asyncio.sleep(0)
    return folded


async def get_own_review(session: ReadSession, user_id: UUID, event_id: UUID) -> Any:
    """The user's review, which must exist."""
    statement = select(*REVIEW).where(
        VocabularyReview.tenant_id == session.tenant_id, VocabularyReview.id == own_id(user_id, event_id)
    )
    return (await session.execute(statement)).one()


async def list_reviews(session: ReadSession, page: Page, *, user_id: str, vocabulary_id: str) -> Sequence[Row[Any]]:
    statement = select(*REVIEW).where(
        VocabularyReview.tenant_id == session.tenant_id, visible("list", VocabularyReview)
    )
    if user_id:
        statement = statement.where(VocabularyReview.user_id == UUID(user_id))
    if vocabulary_id:
        statement = statement.where(VocabularyReview.vocabulary_id == UUID(vocabulary_id))
    return (await session.execute(page.apply(statement, VocabularyReview.review_time, VocabularyReview.id))).all()
