"""Learners enough for what is told only of many together."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from kit.db import Database
from kit.ids import new_id
from kit.settings import Settings
from kit.telemetry import Telemetry
from services.learning.jobs import Sums
from services.learning.queries.difficulties import FEWEST_LEARNERS
from services.learning.queries.vocabulary_progress import NewExposure, NewReview, append_exposures
from services.learning.queries.vocabulary_reviews import append_reviews
from tests.stack import Stack


async def crowd(stack: Stack, tenant_id: str, words: Iterable[str], stories: Iterable[str]) -> None:
    """As many learners, of whom nothing else is known, have read the stories and reviewed the words."""
    url = stack.cluster.superuser_url
    settings = Settings(service="learning", database_url=url, secret_key="", service_credential="", service_keys="")
    # Of its own: the services may be other processes.
    db = Database(url, service="learning", pool_size=1, telemetry=Telemetry(settings))
    try:
        await _learn(db, UUID(tenant_id), list(map(UUID, words)), stories)
    finally:
        await db.close()


async def _learn(db: Database, tenant_id: UUID, ids: list[UUID], stories: Iterable[str]) -> None:
    at = datetime.now(UTC) - timedelta(days=1)
    for _ in range(FEWEST_LEARNERS):
        learner = new_id()
        reviews = [
            NewReview(event_id=new_id(), vocabulary_id=word, rating="good", review_time=at, source="offline")
            for word in ids
        ]
        readings = [
            NewExposure(event_id=new_id(), story_id=UUID(story), vocabulary_ids=ids, exposure_time=at)
            for story in stories
        ]
        async with db.write(tenant_id) as session:
            await append_reviews(session, learner, reviews)
            await append_exposures(session, learner, readings)
    await Sums(db).add()
