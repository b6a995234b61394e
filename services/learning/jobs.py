"""Long work on the rows of all tenants; `python -m kit.jobs list learning` tells what there is."""

import asyncio
import logging
from collections.abc import Sequence
from uuid import UUID

from kit import audit
from kit.db import Database, ReadSession, WriteSession
from kit.ids import NIL
from kit.jobs import Job
from kit.models import now
from services.learning.queries import difficulties, learning_sessions, rebuilding, sums, tenant_activity
from services.learning.queries.daily_activity import recount
from services.learning.queries.learners import lock_learner
from services.learning.rules import ABANDONED_AFTER

log = logging.getLogger(__name__)
# Until it is written down that a session is abandoned it merely looks so.
SWEEP_SECONDS, SUM_SECONDS = 600.0, 5.0
# Days that an audit entry names.
MOST_TOLD = 100


async def rebuild_vocabulary_progress(session: WriteSession, after: UUID, most: int) -> tuple[int, UUID | None]:
    """Makes the progress with words of the next learners anew, and says where it was not what it should have been."""
    learners = await rebuilding.list_learners(session, after, most)
    for learner in learners:
        rebuilt = await rebuilding.rebuild_learner(session, learner)
        if rebuilt.mended:
            log.error("progress was not what its log says", extra={"words": len(rebuilt.mended), "of": rebuilt.words})
            told = {"user_id": learner, "words": len(rebuilt.mended)}
            audit.write(session, "rebuild", "vocabulary_progress", learner, new=told, subject_id=learner)
    return len(learners), learners[-1] if learners else None


async def rebuild_daily_activity(session: WriteSession, after: UUID, most: int) -> tuple[int, UUID | None]:
    """Counts the days of the next learners anew, and says where they were not what they should have been."""
    learners = await rebuilding.list_learners(session, after, most)
    for learner in learners:
        await lock_learner(session, learner)
        if wrong := await recount(session, learner):
            log.error("days were not what the logs say", extra={"days": len(wrong)})
            told = {"user_id": learner, "days": list(map(str, wrong[:MOST_TOLD])), "count": len(wrong)}
            audit.write(session, "rebuild", "daily_activity", learner, new=told, subject_id=learner)
    return len(learners), learners[-1] if learners else None


async def rebuild_word_difficulties(session: WriteSession, after: UUID, most: int) -> tuple[int, UUID | None]:
    """Counts the next words anew, and says which of them were not what learners' progress says."""
    words = await difficulties.list_word_ids(session, after, most)
    _tell_mended(session, "word_difficulty", await difficulties.rebuild_words(session, words))
    return len(words), words[-1] if words else None


async def rebuild_story_difficulties(session: WriteSession, after: UUID, most: int) -> tuple[int, UUID | None]:
    """Counts the next stories anew, and says which of them were not what readings and sessions say."""
    stories = await difficulties.list_story_ids(session, after, most)
    _tell_mended(session, "story_difficulty", await difficulties.rebuild_stories(session, stories))
    return len(stories), stories[-1] if stories else None


async def rebuild_tenant_activity(session: WriteSession, after: UUID, most: int) -> tuple[int, UUID | None]:
    """Counts the active learners of the tenant anew, all of them at once."""
    _tell_mended(session, "tenant_activity", await tenant_activity.rebuild_activity(session))
    return 1, None


async def count_tenant(session: ReadSession) -> int:
    return 1


def _tell_mended(session: WriteSession, kind: str, mended: Sequence[object]) -> None:
    if mended:
        log.error("sums were not what they are the sums of", extra={"kind": kind, "count": len(mended)})
        told = {"mended": list(map(str, mended[:MOST_TOLD])), "count": len(mended)}
        audit.write(session, "rebuild", kind, NIL, new=told)


async def close_abandoned_sessions(session: WriteSession, after: UUID, most: int) -> tuple[int, UUID | None]:
    """Writes down of the next sessions that they are abandoned, since when they were last heard of."""
    running, last = await learning_sessions.list_silent_to_change(session, after, now() - ABANDONED_AFTER, most)
    for one in running:
        one.state, one.end_time = "abandoned", one.last_seen_time
        audit.record(session, "end", one)
    return len(running), last


async def count_silent(session: ReadSession) -> int:
    return await learning_sessions.count_silent(session, now() - ABANDONED_AFTER)


ABANDONED = Job(
    name="close_abandoned_sessions",
    doc="Ends the learning sessions that nobody has heard of for 30 minutes. The service does it every 10 minutes.",
    count=count_silent,
    batch=close_abandoned_sessions,
)
JOBS = (
    ABANDONED,
    Job(
        name="rebuild_vocabulary_progress",
        doc="Makes progress with words anew from the logs of reviews and exposures, and mends what differs.",
        count=rebuilding.count_learners,
        batch=rebuild_vocabulary_progress,
        batch_size=5,
    ),
    Job(
        name="rebuild_daily_activity",
        doc="Counts what learners did day by day anew from what is kept one by one, and mends what differs.",
        count=rebuilding.count_learners,
        batch=rebuild_daily_activity,
        batch_size=20,
    ),
    Job(
        name="rebuild_word_difficulties",
        doc="Counts how hard words are anew from learners' progress with them, and mends what differs.",
        count=difficulties.count_words,
        batch=rebuild_word_difficulties,
    ),
    Job(
        name="rebuild_story_difficulties",
        doc="Counts how stories are read anew from readings and sessions, and mends what differs.",
        count=difficulties.count_stories,
        batch=rebuild_story_difficulties,
    ),
    Job(
        name="rebuild_tenant_activity",
        doc="Counts active learners anew from their days, and mends what differs.",
        count=count_tenant,
        batch=rebuild_tenant_activity,
    ),
)


class Sums:
    """Adds what is pending of the sums over all learners, now and then for ever, tenant by tenant."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def run(self) -> None:
        """What fails is tried again when it is next due."""
        while True:
            await asyncio.sleep(SUM_SECONDS)
            try:
                await self.add()
            except Exception:
                log.exception("sums are not brought up to date")

    async def add(self) -> None:
        """Of every tenant, all that is pending now, unless another process is about to."""
        tenant_id: UUID | None = NIL
        while tenant_id is not None:
            more = True
            while more:
                async with self._db.write(tenant_id) as session:
                    more = await sums.has_pending(session) and await sums.add_pending(session)
            async with self._db.read(NIL) as session:
                tenant_id = await sums.find_next_tenant(session, tenant_id)
