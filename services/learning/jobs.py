"""Long work on the rows of all tenants; `python -m kit.jobs list learning` tells what there is."""

import asyncio
import logging
from uuid import UUID

from kit import audit
from kit.db import Database, ReadSession, WriteSession
from kit.jobs import Job, JobError, Runner
from kit.models import now
from services.learning.queries import learning_sessions, rebuilding
from services.learning.rules import ABANDONED_AFTER

log = logging.getLogger(__name__)
SWEEP_SECONDS = 600.0


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


async def close_abandoned_sessions(session: WriteSession, after: UUID, most: int) -> tuple[int, UUID | None]:
    """Writes down of the next sessions that they are abandoned, since when they were last heard of."""
    running = await learning_sessions.list_silent_to_change(session, after, now() - ABANDONED_AFTER, most)
    for one in running:
        one.state, one.end_time = "abandoned", one.last_seen_time
        audit.record(session, "end", one)
    return len(running), running[-1].id if running else None


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
)


class Sweeps:
    """Runs the job that closes abandoned sessions, now and then for ever; of several processes one at a time."""

    def __init__(self, db: Database, *, seconds: float = SWEEP_SECONDS) -> None:
        self._db, self._seconds = db, seconds

    async def run(self) -> None:
        """What fails is tried again when it is next due: until then such sessions merely look abandoned."""
        while True:
            await asyncio.sleep(self._seconds)
            try:
                await Runner(self._db, ABANDONED, tell=lambda standing: None).run()
            except JobError as error:
                log.info("abandoned sessions are closed elsewhere", extra={"reason": str(error)})
            except Exception:
                log.exception("abandoned sessions are not closed")
