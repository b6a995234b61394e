"""Statements about what phones told, and the rows that follow from it; each about all of a batch at once."""

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from kit.db import ReadSession, WriteSession
from kit.errors import ResourceExhausted
from kit.models import now
from services.learning.offline import Held, Sign, Told, sign_of
from services.learning.queries.daily_activity import Happened, tally, tally_time
from services.learning.rules import Span, own_id

# Sessions are folded from all their signs of life: as many are read for one batch.
MOST_SIGNS_AT_ONCE = 20_000
LOGGED = "SELECT id, digest FROM learning.client_events WHERE tenant_id = $1 AND id = ANY ($2::uuid[])"
INSERT = """
INSERT INTO learning.client_events
  (tenant_id, user_id, device_id, receive_time, id, event_id, kind, event_time, digest, lesson_id, story_id,
   vocabulary_id, session_id, status, position_percent, interactions)
SELECT $1, $2, $3, $4, told.* FROM unnest($5::uuid[], $6::uuid[], $7::text[], $8::timestamptz[], $9::bytea[],
  $10::uuid[], $11::uuid[], $12::uuid[], $13::uuid[], $14::text[], $15::int[], $16::int[]) AS told
"""
COLUMNS = (
    *("id", "event_id", "kind", "at", "digest", "lesson_id", "story_id", "vocabulary_id", "session_id", "status"),
    *("position_percent", "interactions"),
)
# Of each lesson, when the learner took its course, and what is recorded; deleted lessons too.
PLACES = """
SELECT l.id AS lesson_id, l.course_id,
       l.status = 'published' AND coalesce(c.status, 'published') <> 'draft' AS published,
       ARRAY(SELECT e.created_at FROM learning.enrollments e
             WHERE e.tenant_id = $1 AND e.user_id = $2 AND e.course_id = l.course_id ORDER BY e.id) AS begins,
       ARRAY(SELECT e.withdraw_time FROM learning.enrollments e
             WHERE e.tenant_id = $1 AND e.user_id = $2 AND e.course_id = l.course_id ORDER BY e.id) AS ends,
       coalesce(p.status, 'not_started') AS status, coalesce(p.position_percent, 0) AS position_percent, p.start_time,
       p.reset_time, p.reopen_time
FROM learning.lesson_index l
LEFT JOIN learning.course_index c ON c.tenant_id = $1 AND c.id = l.course_id
LEFT JOIN learning.user_progress p ON p.tenant_id = $1 AND p.user_id = $2 AND p.lesson_id = l.id
WHERE l.tenant_id = $1 AND l.id = ANY ($3::uuid[])
"""
REVIEWED = """
SELECT event_id, vocabulary_id, rating FROM learning.vocabulary_reviews
WHERE tenant_id = $1 AND id = ANY ($2::uuid[])
"""
SIGNS = f"""
SELECT id, session_id, kind, event_time AS at, interactions, lesson_id, story_id FROM learning.client_events
WHERE tenant_id = $1 AND user_id = $2 AND session_id = ANY ($3::uuid[]) LIMIT {MOST_SIGNS_AT_ONCE + 1}
"""  # noqa: S608
HELD = (
    *("lesson_id", "story_id", "start_time", "last_seen_time", "active_duration", "interactions", "state"),
    "active_times",
)
UPSERT_SESSIONS = f"""
INSERT INTO learning.learning_sessions AS s
  (tenant_id, user_id, change, id, client_session_id, {", ".join(HELD)}, end_time)
SELECT $1, $2, $3, told.*, told.last_seen_time
FROM unnest($4::uuid[], $5::uuid[], $6::uuid[], $7::uuid[], $8::timestamptz[], $9::timestamptz[], $10::interval[],
            $11::int[], $12::text[], $13::text[]::tstzmultirange[]) AS told (id, client_session_id, {", ".join(HELD)})
ON CONFLICT (tenant_id, id) DO UPDATE SET
  {", ".join(f"{name} = excluded.{name}" for name in (*HELD, "end_time", "change"))},
  updated_at = now(), revision = s.revision + 1
WHERE ({", ".join(f"s.{name}" for name in HELD)}) IS DISTINCT FROM ({", ".join(f"excluded.{name}" for name in HELD)})
RETURNING new.start_time, new.last_seen_time, old.start_time AS old_start_time,
          old.last_seen_time AS old_last_seen_time, new.active_times IS DISTINCT FROM old.active_times AS moved
"""  # noqa: S608


async def list_logged(session: ReadSession, ids: Collection[UUID]) -> dict[UUID, bytes]:
    """The digests of those events that were told of before."""
    return {row.id: row.digest for row in await session.fetch(LOGGED, list(ids))}


async def insert_events(session: WriteSession, user_id: UUID, device_id: UUID, events: Sequence[Told]) -> None:
    if events:
        values = ([getattr(one, name) for one in events] for name in COLUMNS)
        await session.fetch(INSERT, user_id, device_id, now(), *values)


async def list_places(session: ReadSession, user_id: UUID, lesson_ids: Collection[UUID]) -> dict[UUID, Any]:
    """Where the learner stands with these lessons, see `PLACES`."""
    if not lesson_ids:
        return {}
    return {row.lesson_id: row for row in await session.fetch(PLACES, user_id, list(lesson_ids))}


async def list_reviewed(session: ReadSession, ids: Collection[UUID]) -> dict[UUID, Any]:
    """Which words these reviews are of, and how they were rated, by their event ids."""
    return {row.event_id: row for row in await session.fetch(REVIEWED, list(ids))}


async def list_signs(session: ReadSession, user_id: UUID, session_ids: Collection[UUID]) -> dict[UUID, list[Sign]]:
    """The signs of life of these sessions that were told of, by the client's id of the session.

    Raises RESOURCE_EXHAUSTED when they are too many to be looked through at once.
    """
    if not session_ids:
        return {}
    found: dict[UUID, list[Sign]] = {one: [] for one in session_ids}
    rows = await session.fetch(SIGNS, user_id, list(session_ids))
    if len(rows) > MOST_SIGNS_AT_ONCE:
        raise ResourceExhausted(
            "These events are of sessions with too many others; send those of fewer at once.",
            retry_after=timedelta(seconds=1),
        )
    for row in rows:
        found[row.session_id].append(sign_of(row))
    return found


async def upsert_sessions(session: WriteSession, user_id: UUID, sessions: Mapping[UUID, Held], change: int) -> int:
    """Writes the learner's sessions, by the client's ids, and counts them in the days of the learner, who must be
    locked. How many were changed."""
    if not sessions:
        return 0
    told = sessions.values()
    rows = await session.fetch(
        UPSERT_SESSIONS,
        user_id,
        change,
        [own_id(user_id, one) for one in sessions],
        list(sessions),
        *([getattr(one, name) for one in told] for name in HELD[:-1]),
        [_multirange(one.active_times) for one in told],
    )
    begun = [(at, by) for row in rows for at, by in ((row.old_start_time, -1), (row.start_time, 1)) if at]
    await tally(session, user_id, [Happened(at=at, sessions=by) for at, by in begun])
    moved = [row for row in rows if row.moved]
    spans = [(row.start_time, row.last_seen_time) for row in moved]
    spans += [(row.old_start_time, row.old_last_seen_time) for row in moved if row.old_start_time]
    await tally_time(session, user_id, spans)
    return len(rows)


def _multirange(spans: Sequence[Span]) -> str:
    """As PostgreSQL reads it: its driver takes a list of lists for an array of two dimensions."""
    return "{" + ",".join(f'["{begin.isoformat()}","{end.isoformat()}")' for begin, end in spans) + "}"
