"""Long work on the rows of all tenants; `python -m kit.jobs list assessment` tells what there is."""

from uuid import UUID

from kit.db import ReadSession, WriteSession
from kit.jobs import Job
from kit.models import now
from services.assessment.attempts import close
from services.assessment.queries import attempts as queries

# How long after its deadline an attempt that nobody looks at is graded.
SWEEP_SECONDS = 60.0


async def close_overdue_attempts(session: WriteSession, after: UUID, most: int) -> tuple[int, UUID | None]:
    """Grades the next attempts that are over, on what was saved; just as whoever looks at one does."""
    at = now()
    ids = await queries.list_overdue(session, after, at, most)
    for one in ids:
        await close(session, await queries.get_attempt(session, one), {}, at)
    return len(ids), ids[-1] if ids else None


async def count_overdue(session: ReadSession) -> int:
    return await queries.count_overdue(session, now())


OVERDUE = Job(
    name="close_overdue_attempts",
    doc="Grades attempts whose deadline has passed or that were silent for 30 days. The service does it each minute.",
    count=count_overdue,
    batch=close_overdue_attempts,
    batch_size=20,
)
JOBS = (OVERDUE,)
