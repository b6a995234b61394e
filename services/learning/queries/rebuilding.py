"""Progress with words made anew from the logs, which must give what is kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from kit.db import ReadSession, WriteSession
from kit.ids import new_id
from services.learning.queries.daily_activity import recount
from services.learning.queries.learners import lock_learner
from services.learning.queries.vocabulary_progress import MEMORY
from services.learning.queries.vocabulary_reviews import refold
from services.learning.scheduling import NOTHING, Memory

WORDS_AT_ONCE = 500
LEARNERS = "SELECT id FROM learning.learners WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3"
MET = """
SELECT vocabulary_id FROM learning.vocabulary_reviews WHERE tenant_id = $1 AND user_id = $2
UNION SELECT unnest(vocabulary_ids) FROM learning.vocabulary_exposures WHERE tenant_id = $1 AND user_id = $2
UNION SELECT vocabulary_id FROM learning.user_vocabulary_progress WHERE tenant_id = $1 AND user_id = $2
ORDER BY vocabulary_id
"""
EXPOSED = """
SELECT word AS vocabulary_id, count(*)::int AS exposure_count, min(exposure_time) AS first_exposure_time,
       max(exposure_time) AS last_exposure_time
FROM learning.vocabulary_exposures, unnest(vocabulary_ids) AS word
WHERE tenant_id = $1 AND user_id = $2 GROUP BY word
"""
KEPT = f"""
SELECT vocabulary_id, status, {", ".join(MEMORY)}, exposure_count, first_exposure_time, last_exposure_time
FROM learning.user_vocabulary_progress WHERE tenant_id = $1 AND user_id = $2 AND vocabulary_id = ANY ($3::uuid[])
"""  # noqa: S608
NAMES = ("status", *MEMORY, "exposure_count", "first_exposure_time", "last_exposure_time")
MEND = f"""
INSERT INTO learning.user_vocabulary_progress
  (tenant_id, user_id, change, id, vocabulary_id, {", ".join(NAMES)})
VALUES ($1, $2, $3, $4, $5, {", ".join(f"${number}" for number in range(6, 6 + len(NAMES)))})
ON CONFLICT (tenant_id, user_id, vocabulary_id) DO UPDATE SET
  {", ".join(f"{name} = excluded.{name}" for name in ("change", *NAMES))},
  updated_at = now(), revision = user_vocabulary_progress.revision + 1
"""  # noqa: S608
FORGET = """
DELETE FROM learning.user_vocabulary_progress
WHERE tenant_id = $1 AND user_id = $2 AND vocabulary_id = ANY ($3::uuid[])
"""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """How many words were made anew, and which of them had been kept otherwise and are mended now."""

    words: int
    mended: Sequence[UUID]


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """All that the logs say of a word."""

    memory: Memory = NOTHING
    exposure_count: int = 0
    first_exposure_time: datetime | None = None
    last_exposure_time: datetime | None = None

    @property
    def values(self) -> tuple[Any, ...]:
        exposed = (self.exposure_count, self.first_exposure_time, self.last_exposure_time)
        return (self.memory.status, *(getattr(self.memory, name) for name in MEMORY), *exposed)


async def list_learners(session: ReadSession, after: UUID, most: int) -> list[UUID]:
    """The next learners of the tenant, by their ids."""
    return [row.id for row in await session.fetch(LEARNERS, after, most)]


async def count_learners(session: ReadSession) -> int:
    """Learners of the tenant who have changed anything."""
    return int((await session.fetchrow("SELECT count(*) AS count FROM learning.learners WHERE tenant_id = $1")).count)


async def rebuild_learner(session: WriteSession, user_id: UUID) -> Rebuilt:
    """Makes the learner's progress with words anew from the logs, and mends what is kept otherwise, to the last bit;
    days count what progress says, and so are counted anew then."""
    change = await lock_learner(session, user_id)
    met = [row.vocabulary_id for row in await session.fetch(MET, user_id)]
    exposed = {row.vocabulary_id: row for row in await session.fetch(EXPOSED, user_id)}
    mended: list[UUID] = []
    for start in range(0, len(met), WORDS_AT_ONCE):
        ids = met[start : start + WORDS_AT_ONCE]
        memories = await refold(session, user_id, ids)
        rows = await session.fetch(KEPT, user_id, ids)
        kept = {row.vocabulary_id: tuple(row[name] for name in NAMES) for row in rows}
        words = {one: _word(memories.get(one, NOTHING), exposed.get(one)) for one in ids}
        # A word that the logs say nothing of should not be there at all.
        wrong = [one for one in ids if kept.get(one) != words[one].values or words[one] == Word()]
        await _mend(session, user_id, {one: words[one] for one in wrong}, change)
        mended += wrong
    if mended:
        await recount(session, user_id)
    return Rebuilt(len(met), mended)


def _word(memory: Memory, exposed: Any) -> Word:
    if exposed is None:
        return Word(memory=memory)
    return Word(
        memory=memory,
        exposure_count=exposed.exposure_count,
        first_exposure_time=exposed.first_exposure_time,
        last_exposure_time=exposed.last_exposure_time,
    )


async def _mend(session: WriteSession, user_id: UUID, words: dict[UUID, Word], change: int) -> None:
    gone = [one for one, word in words.items() if word == Word()]
    if gone:
        await session.fetch(FORGET, user_id, gone)
    for one, word in words.items():
        if one not in gone:
            await session.fetch(MEND, user_id, change, new_id(), one, *word.values)
