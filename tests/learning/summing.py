"""Sums over all learners of a tenant, as they are kept, and as they follow from the logs, counted here once more."""

import asyncio
from collections import Counter, defaultdict
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from kit.db import Database
from services.learning.jobs import Sums
from services.learning.queries.sums import has_pending
from services.learning.scheduling import Review, fold
from tests.learning.conftest import Connection

Tables = Connection
LOG = """
SELECT user_id, vocabulary_id, id, rating, review_time, source, desired_retention, maximum_interval_days
FROM learning.vocabulary_reviews WHERE tenant_id = $1 ORDER BY user_id, vocabulary_id, review_time, id
"""
WORDS = """
SELECT id, learner_count, review_count, lapse_count, difficulty_sum FROM learning.word_difficulties WHERE tenant_id = $1
"""
STORIES = """
SELECT id, reading_count, reader_count, session_count, session_learner_count, interaction_count, active_duration
FROM learning.story_difficulties WHERE tenant_id = $1
"""
SESSIONS = """
SELECT story_id, user_id, interactions, active_duration FROM learning.learning_sessions
WHERE tenant_id = $1 AND story_id IS NOT NULL AND state <> 'open'
"""
EXPOSURES = """
SELECT story_id, user_id, vocabulary_ids FROM learning.vocabulary_exposures
WHERE tenant_id = $1 AND story_id IS NOT NULL
"""
ACTIVITY = """
SELECT period, begin_date, cohort, learner_count FROM learning.tenant_activity WHERE tenant_id = $1
"""
DAYS = "SELECT user_id, day FROM learning.daily_activity WHERE tenant_id = $1 AND active ORDER BY user_id, day"


async def kept_words(tables: Tables, tenant_id: UUID) -> dict[UUID, tuple[Any, ...]]:
    return {row["id"]: tuple(row)[1:] for row in await tables.fetch(WORDS, tenant_id)}


async def logged_words(tables: Tables, tenant_id: UUID) -> dict[UUID, tuple[Any, ...]]:
    """Learners, reviews, lapses and difficulties of each word, of the log of reviews alone."""
    logs: defaultdict[tuple[UUID, UUID], list[Review]] = defaultdict(list)
    for row in await tables.fetch(LOG, tenant_id):
        values = {name: value for name, value in row.items() if name not in {"user_id", "vocabulary_id"}}
        logs[row["user_id"], row["vocabulary_id"]].append(Review(**values))
    found: dict[UUID, tuple[Any, ...]] = {}
    for (_, word), reviews in logs.items():
        memory = fold(reviews)
        one = (1, memory.review_count, memory.lapse_count, round((memory.difficulty or 0.0) * 1000))
        found[word] = tuple(map(sum, zip(found.get(word, (0, 0, 0, 0)), one, strict=True)))
    return found


async def kept_stories(tables: Tables, tenant_id: UUID) -> dict[UUID, tuple[Any, ...]]:
    return {row["id"]: tuple(row)[1:] for row in await tables.fetch(STORIES, tenant_id)}


async def logged_stories(tables: Tables, tenant_id: UUID) -> dict[UUID, tuple[Any, ...]]:
    readings = await tables.fetch(EXPOSURES, tenant_id)
    sessions = await tables.fetch(SESSIONS, tenant_id)
    found = {}
    for story in {row["story_id"] for row in (*readings, *sessions)}:
        of_story = [row for row in readings if row["story_id"] == story]
        ended = [row for row in sessions if row["story_id"] == story]
        found[story] = (
            len(of_story),
            len({row["user_id"] for row in of_story}),
            len(ended),
            len({row["user_id"] for row in ended}),
            sum(row["interactions"] for row in ended),
            sum((row["active_duration"] for row in ended), timedelta(0)),
        )
    return found


async def kept_story_words(tables: Tables, tenant_id: UUID) -> Counter[tuple[UUID, UUID]]:
    rows = await tables.fetch(
        "SELECT story_id, vocabulary_id, exposure_count FROM learning.story_words WHERE tenant_id = $1", tenant_id
    )
    return Counter({(story, word): count for story, word, count in rows})


async def logged_story_words(tables: Tables, tenant_id: UUID) -> Counter[tuple[UUID, UUID]]:
    rows = await tables.fetch(EXPOSURES, tenant_id)
    return Counter((row["story_id"], word) for row in rows for word in row["vocabulary_ids"])


async def kept_activity(tables: Tables, tenant_id: UUID) -> Counter[tuple[str, date, date]]:
    return Counter({tuple(row)[:3]: row[3] for row in await tables.fetch(ACTIVITY, tenant_id)})


async def daily_activity(tables: Tables, tenant_id: UUID) -> Counter[tuple[str, date, date]]:
    """The same, of the days of each learner."""
    days: defaultdict[UUID, list[date]] = defaultdict(list)
    for user_id, day in await tables.fetch(DAYS, tenant_id):
        days[user_id].append(day)
    cells: Counter[tuple[str, date, date]] = Counter()
    for those in days.values():
        first = those[0]
        for day in those:
            cells["day", day, first if day == first else date.min] += 1
        weeks = {day - timedelta(days=day.weekday()) for day in those}
        cells.update(("week", week, min(weeks)) for week in weeks)
        months = {day.replace(day=1) for day in those}
        cells.update(("month", month, month if month == min(months) else date.min) for month in months)
    return cells


async def add_up(db: Database, tenant_id: UUID) -> None:
    """Until nothing is pending, whoever adds it."""
    async with asyncio.timeout(10):
        while True:
            await Sums(db).add()
            async with db.read(tenant_id) as session:
                if not await has_pending(session):
                    return
            await asyncio.sleep(0.02)


async def check_sums(tables: Tables, tenant_id: UUID) -> None:
    """Whatever happened in the tenant, what is kept is what the logs say."""
    assert await kept_words(tables, tenant_id) == await logged_words(tables, tenant_id)
    assert await kept_stories(tables, tenant_id) == await logged_stories(tables, tenant_id)
    assert await kept_story_words(tables, tenant_id) == await logged_story_words(tables, tenant_id)
    assert await kept_activity(tables, tenant_id) == await daily_activity(tables, tenant_id)
