"""Statements about how hard words and stories are."""

from typing import Any
from uuid import UUID

from kit.db import ReadSession, WriteSession
from kit.pagination import Page
from services.learning.queries import sums
from services.learning.queries.sums import summed, upsert

# Figures about fewer learners would tell of each of them. The index has the same number in it.
FEWEST_LEARNERS = 5
FIRST = (32_767, UUID(int=2**128 - 1))
WORDS = f"""
SELECT id, difficulty_tenths, learner_count, review_count, lapse_count FROM learning.word_difficulties
WHERE tenant_id = $1 AND learner_count >= {FEWEST_LEARNERS} AND (difficulty_tenths, id) < ($2::smallint, $3::uuid)
ORDER BY difficulty_tenths DESC, id DESC LIMIT $4
"""  # noqa: S608
# What a story's words are is known of each story, how hard they are of each word: a story is never written to because
# somebody reviewed a word that is in hundreds of them. Its own figure is made of both when it is asked for.
STORIES = f"""
WITH hard AS (
  SELECT w.story_id, round(avg(d.difficulty_tenths))::smallint AS tenths, count(*) AS words,
         sum(d.review_count) AS reviews, sum(d.lapse_count) AS lapses
  FROM learning.story_words w
  JOIN learning.word_difficulties d ON d.tenant_id = $1 AND d.id = w.vocabulary_id
  WHERE w.tenant_id = $1 AND d.learner_count >= {FEWEST_LEARNERS} GROUP BY w.story_id
)
SELECT s.id, coalesce(h.tenths, 0) AS difficulty_tenths, coalesce(h.words, 0) AS word_count,
       coalesce(h.reviews, 0)::bigint AS review_count, coalesce(h.lapses, 0)::bigint AS lapse_count,
       s.reader_count, s.reading_count, s.session_count, s.session_learner_count, s.interaction_count, s.active_duration
FROM learning.story_difficulties s LEFT JOIN hard h ON h.story_id = s.id
WHERE s.tenant_id = $1 AND s.reader_count >= {FEWEST_LEARNERS}
  AND (coalesce(h.tenths, 0), s.id) < ($2::smallint, $3::uuid)
ORDER BY 2 DESC, s.id DESC LIMIT $4
"""  # noqa: S608
# The next ids of either, without looking at all rows of each: `$2` is where to begin.
NEXT = """
(WITH RECURSIVE next (id) AS (
  (SELECT {column} FROM {table} WHERE tenant_id = $1 AND {column} > $2 {condition} ORDER BY {column} LIMIT 1)
  UNION ALL
  SELECT (SELECT t.{column} FROM {table} t WHERE t.tenant_id = $1 AND t.{column} > next.id {condition}
          ORDER BY t.{column} LIMIT 1)
  FROM next WHERE next.id IS NOT NULL
) SELECT id FROM next WHERE id IS NOT NULL LIMIT $3)
"""


def _ids(*sources: tuple[str, str, str]) -> str:
    some = " UNION ".join(
        NEXT.format(table=f"learning.{table}", column=column, condition=condition)
        for table, column, condition in sources
    )
    return f"SELECT id FROM ({some}) AS ids ORDER BY id LIMIT $3"  # noqa: S608


WORD_IDS = _ids(("word_difficulties", "id", ""), ("user_vocabulary_progress", "vocabulary_id", ""))
STORY_IDS = _ids(
    ("story_difficulties", "id", ""),
    ("story_words", "story_id", ""),
    ("vocabulary_exposures", "story_id", "AND story_id IS NOT NULL"),
    ("learning_sessions", "story_id", "AND story_id IS NOT NULL AND state <> 'open'"),
)
COUNT_WORDS = "SELECT count(*) AS count FROM learning.word_difficulties WHERE tenant_id = $1"
COUNT_STORIES = "SELECT count(*) AS count FROM learning.story_difficulties WHERE tenant_id = $1"
# How far what is counted anew is from what is kept and pending: as amounts, counted ones positive and kept ones not.
COUNTED_WORDS = """
SELECT vocabulary_id, ARRAY[1, review_count, lapse_count, coalesce(round(difficulty * 1000), 0)::bigint] AS amounts
FROM learning.user_vocabulary_progress
WHERE tenant_id = $1 AND vocabulary_id = ANY ($2::uuid[]) AND review_count > 0
UNION ALL
SELECT id, ARRAY[-learner_count, -review_count, -lapse_count, -difficulty_sum] FROM learning.word_difficulties
WHERE tenant_id = $1 AND id = ANY ($2::uuid[])
UNION ALL
SELECT vocabulary_id, ARRAY[-amounts[1], -amounts[2], -amounts[3], -amounts[4]] FROM learning.pending_sums
WHERE tenant_id = $1 AND kind = 'word' AND vocabulary_id = ANY ($2::uuid[])
"""
COUNTED_STORIES = """
SELECT story_id, ARRAY[count(*), count(DISTINCT user_id), 0, 0, 0, 0] AS amounts
FROM learning.vocabulary_exposures WHERE tenant_id = $1 AND story_id = ANY ($2::uuid[]) GROUP BY story_id
UNION ALL
SELECT story_id, ARRAY[0, 0, count(*), count(DISTINCT user_id), sum(interactions),
                       sum(round(extract(epoch FROM active_duration) * 1000000))::bigint]
FROM learning.learning_sessions
WHERE tenant_id = $1 AND story_id = ANY ($2::uuid[]) AND state <> 'open' GROUP BY story_id
UNION ALL
SELECT id, ARRAY[-reading_count, -reader_count, -session_count, -session_learner_count, -interaction_count,
                 -round(extract(epoch FROM active_duration) * 1000000)::bigint]
FROM learning.story_difficulties WHERE tenant_id = $1 AND id = ANY ($2::uuid[])
UNION ALL
SELECT story_id, ARRAY[-amounts[1], -amounts[2], -amounts[3], -amounts[4], -amounts[5], -amounts[6]]
FROM learning.pending_sums WHERE tenant_id = $1 AND kind = 'story' AND story_id = ANY ($2::uuid[])
"""
COUNTED_STORY_WORDS = """
SELECT story_id, word AS vocabulary_id, ARRAY[count(*)] AS amounts
FROM learning.vocabulary_exposures, unnest(vocabulary_ids) AS word
WHERE tenant_id = $1 AND story_id = ANY ($2::uuid[]) GROUP BY story_id, word
UNION ALL
SELECT story_id, vocabulary_id, ARRAY[-exposure_count::bigint] FROM learning.story_words
WHERE tenant_id = $1 AND story_id = ANY ($2::uuid[])
UNION ALL
SELECT story_id, vocabulary_id, ARRAY[-amounts[1]] FROM learning.pending_sums
WHERE tenant_id = $1 AND kind = 'story_word' AND story_id = ANY ($2::uuid[])
"""
REBUILD = {
    kind: upsert(kind, summed(kind, f"({counted}) AS counted"))
    for kind, counted in (("word", COUNTED_WORDS), ("story", COUNTED_STORIES), ("story_word", COUNTED_STORY_WORDS))
}


async def list_words(session: ReadSession, page: Page) -> list[Any]:
    """Words with enough learners, hardest first; one more than the page holds."""
    return await session.fetch(WORDS, *(page.after or FIRST), page.size + 1)


async def list_stories(session: ReadSession, page: Page) -> list[Any]:
    """Stories with enough readers, hardest first; one more than the page holds."""
    return await session.fetch(STORIES, *(page.after or FIRST), page.size + 1)


async def count_words(session: ReadSession) -> int:
    """Words that somebody has reviewed."""
    return int((await session.fetchrow(COUNT_WORDS)).count)


async def count_stories(session: ReadSession) -> int:
    """Stories that somebody has read."""
    return int((await session.fetchrow(COUNT_STORIES)).count)


async def list_word_ids(session: ReadSession, after: UUID, most: int) -> list[UUID]:
    """The next words that somebody has met or that sums are kept of."""
    return [row.id for row in await session.fetch(WORD_IDS, after, most)]


async def list_story_ids(session: ReadSession, after: UUID, most: int) -> list[UUID]:
    """The next stories that somebody has read or that sums are kept of."""
    return [row.id for row in await session.fetch(STORY_IDS, after, most)]


async def rebuild_words(session: WriteSession, ids: list[UUID]) -> list[UUID]:
    """Counts these words anew from the progress of all learners; answers with those that were otherwise."""
    return await _rebuilt(session, ids, "word")


async def rebuild_stories(session: WriteSession, ids: list[UUID]) -> list[UUID]:
    """Counts these stories anew from their readings and sessions; answers with those that were otherwise."""
    return await _rebuilt(session, ids, "story", "story_word")


async def _rebuilt(session: WriteSession, ids: list[UUID], *kinds: str) -> list[UUID]:
    if not ids:
        return []
    await sums.lock(session)
    wrong = [one for kind in kinds for one in await sums.write(session, kind, REBUILD[kind], ids)]
    return sorted(set(wrong))
