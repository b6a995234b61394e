"""Long work on the rows of all tenants; `python -m kit.jobs list content` tells what there is."""

from dataclasses import replace
from typing import Any
from uuid import UUID

from kit import audit
from kit.db import WriteSession
from kit.ids import NIL
from kit.jobs import Job
from services.content import versioning
from services.content.queries import backfills, story_versions
from services.content.story_versions import messages_of


async def backfill_chunks(session: WriteSession, after: UUID, most: int) -> tuple[int, UUID | None]:
    """Gives the next versions without chunks theirs: the paragraphs, or what is woven into them."""
    versions = await backfills.list_without_chunks(session, after, most)
    for version in versions:
        await _cut(session, version)
    if not versions:
        return 0, None
    told = {"versions": len(versions), "first_id": versions[0].id, "last_id": versions[-1].id}
    audit.write(session, "backfill_chunks", "story_version", NIL, new=told)
    return len(versions), versions[-1].id


async def _cut(session: WriteSession, version: Any) -> None:
    shares = () if version.seed is None else await story_versions.list_shares(session, version.id)
    draft = versioning.remade(version.title, version.language, version, shares)
    # An approval is of the hash that the version has.
    summary, body = messages_of(version, replace(draft, content_hash=version.content_hash))
    # In this order: a version that has chunks cannot be written any more.
    await backfills.write_messages(session, version.id, summary, body)
    await story_versions.insert_chunks(session, [(version.id, draft)])


JOBS = (
    Job(
        name="backfill_chunks",
        doc="Cuts the versions of stories that have no chunks at blank lines.",
        count=backfills.count_without_chunks,
        batch=backfill_chunks,
        batch_size=50,
    ),
)
