"""Statements that keep sums over all learners of a tenant: adding what is pending, and counting anew."""

from collections.abc import Sequence
from uuid import UUID

from kit.db import ReadSession, WriteSession

ADDED_AT_ONCE = 10_000
# Sums are written by one transaction of a tenant at a time, and by nobody else.
KEY = "hashtextextended('learning.sums.' || $1::uuid, 0)"
LOCK, TRY_LOCK = f"SELECT pg_advisory_xact_lock({KEY})", f"SELECT pg_try_advisory_xact_lock({KEY}) AS locked"
NEXT_TENANT = "SELECT learning.next_pending_tenant($2) AS id WHERE $1::uuid IS NOT NULL"
TAKEN = """
taken AS (
  DELETE FROM learning.pending_sums
  WHERE tenant_id = $1 AND id IN (SELECT id FROM learning.pending_sums WHERE tenant_id = $1 AND kind = '{kind}'
                                  ORDER BY id LIMIT {most})
  RETURNING *
)
"""
# Of each kind of sum: its table, its key, and its amounts in the order in which they are pending.
SUMS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "word": (
        "word_difficulties",
        ("vocabulary_id",),
        ("learner_count", "review_count", "lapse_count", "difficulty_sum"),
    ),
    "story": (
        "story_difficulties",
        ("story_id",),
        (
            *("reading_count", "reader_count", "session_count", "session_learner_count", "interaction_count"),
            "active_duration",
        ),
    ),
    "story_word": ("story_words", ("story_id", "vocabulary_id"), ("exposure_count",)),
    "activity": ("tenant_activity", ("period", "begin_date", "cohort"), ("learner_count",)),
}
DURATION = "active_duration"


def column(kind: str, key: str) -> str:
    """The column of the sum's table that has the key: a word's or a story's id is that of its row."""
    return "id" if kind in {"word", "story"} else key


def upsert(kind: str, rows: str) -> str:
    """SQL that adds to the sums of a kind the rows of a query: keys, and amounts `a1`, `a2` and so on. It answers with
    how many rows that changed and how many are empty now."""
    table, keys, amounts = SUMS[kind]
    own = [column(kind, key) for key in keys]
    values = [
        f"a{place} * interval '1 microsecond'" if name == DURATION else f"a{place}"
        for place, name in enumerate(amounts, 1)
    ]
    zero = " AND ".join(f"d.{name} = '0'" for name in amounts)
    return f"""
INSERT INTO learning.{table} AS d (tenant_id, {", ".join(own)}, {", ".join(amounts)})
SELECT $1, {", ".join(keys)}, {", ".join(values)} FROM ({rows}) AS r
WHERE {" OR ".join(f"a{place} <> 0" for place in range(1, len(amounts) + 1))}
ON CONFLICT (tenant_id, {", ".join(own)}) DO UPDATE SET
  {", ".join(f"{name} = d.{name} + excluded.{name}" for name in amounts)}
RETURNING d.id, d.{own[0]}, {zero} AS empty
"""  # noqa: S608


def summed(kind: str, source: str) -> str:
    """SQL for what is pending of each key in rows like those of `pending_sums`."""
    _, keys, amounts = SUMS[kind]
    each = ", ".join(f"sum(amounts[{place}])::bigint AS a{place}" for place in range(1, len(amounts) + 1))
    return f"SELECT {', '.join(keys)}, {each} FROM {source} GROUP BY {', '.join(keys)}"  # noqa: S608


ADD = {
    kind: f"WITH {TAKEN.format(kind=kind, most=ADDED_AT_ONCE)} {upsert(kind, summed(kind, 'taken'))}" for kind in SUMS
}
EMPTY = "DELETE FROM learning.{table} WHERE tenant_id = $1 AND id = ANY ($2::uuid[])"
PENDING = "SELECT EXISTS (SELECT FROM learning.pending_sums WHERE tenant_id = $1) AS found"


async def find_next_tenant(session: ReadSession, after: UUID) -> UUID | None:
    """The next tenant of which anything is pending."""
    found: UUID | None = (await session.fetchrow(NEXT_TENANT, after)).id
    return found


async def add_pending(session: WriteSession) -> bool:
    """Adds what is pending to the tenant's sums, as much as is done at once; False when somebody else is about to."""
    if not (await session.fetchrow(TRY_LOCK)).locked:
        return False
    for kind, statement in ADD.items():
        await write(session, kind, statement)
    return True


async def lock(session: WriteSession) -> None:
    """Keeps the sums from being written by anybody else."""
    await session.fetch(LOCK)


async def write(session: WriteSession, kind: str, statement: str, *values: object) -> Sequence[UUID]:
    """Runs a statement as `upsert` makes them, and removes the rows that are empty afterwards. Answers with the first
    keys, or the ids, of what it changed."""
    rows = await session.fetch(statement, *values)
    if empty := [row.id for row in rows if row.empty]:
        await session.fetch(EMPTY.format(table=SUMS[kind][0]), empty)
    return [row[1] for row in rows]


async def has_pending(session: ReadSession) -> bool:
    """Whether anything is still to be added."""
    return (await session.fetchrow(PENDING)).found is True
