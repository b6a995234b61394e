"""A job as a release would bring it with `widening`: `python -m tests.fault.ranking run content rank_levels`."""

import sys
from uuid import UUID

from kit import jobs
from kit.db import ReadSession, WriteSession
from services.content import jobs as those_of_content

COUNT = "SELECT count(*) FROM content.vocabularies WHERE tenant_id = $1 AND level_rank IS NULL"
NEXT = """
WITH next AS (
  SELECT id FROM content.vocabularies WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3
), changed AS (
  UPDATE content.vocabularies v SET level_rank = content.rank_of(v.level) FROM next
  WHERE v.tenant_id = $1 AND v.id = next.id AND v.level_rank IS NULL RETURNING v.id
)
SELECT (SELECT count(*) FROM changed) AS done, (SELECT id FROM next ORDER BY id DESC LIMIT 1) AS last
"""


async def count(session: ReadSession) -> int:
    return int(await session.driver.fetchval(COUNT, session.tenant_id))


async def rank(session: WriteSession, after: UUID, most: int) -> tuple[int, UUID | None]:
    row = await session.fetchrow(NEXT, after, most)
    return row.done, row.last


RANK_LEVELS = jobs.Job("rank_levels", "Gives words the rank of their level.", count, rank, batch_size=1000)

if __name__ == "__main__":
    those_of_content.JOBS = (*those_of_content.JOBS, RANK_LEVELS)
    sys.exit(jobs.main())
