"""Which words and stories are hard for the learners of a tenant."""

from typing import Any

from kit.access import require
from kit.db import Database
from kit.pagination import Page
from services.learning.models import StoryDifficulty, WordDifficulty
from services.learning.queries import difficulties as queries
from services.learning.queries.difficulties import FEWEST_LEARNERS
from storyloom.learning.v1 import difficulties_pb2
from storyloom.learning.v1.difficulties_pb2 import StoryDifficulty as StoryMessage
from storyloom.learning.v1.difficulties_pb2 import WordDifficulty as WordMessage


class DifficultyService:
    SERVICE = difficulties_pb2.DESCRIPTOR.services_by_name["DifficultyService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def ListWordDifficulties(
        self, request: difficulties_pb2.ListWordDifficultiesRequest, context: Any
    ) -> difficulties_pb2.ListWordDifficultiesResponse:
        require("list", WordDifficulty())
        page = Page.of(request)
        async with self.db.read() as session:
            found = await queries.list_words(session, page)
        rows, token = page.split(found, key=lambda row: (row.difficulty_tenths, row.id))
        return difficulties_pb2.ListWordDifficultiesResponse(
            word_difficulties=map(word_to_proto, rows), next_page_token=token
        )

    async def ListStoryDifficulties(
        self, request: difficulties_pb2.ListStoryDifficultiesRequest, context: Any
    ) -> difficulties_pb2.ListStoryDifficultiesResponse:
        require("list", StoryDifficulty())
        page = Page.of(request)
        async with self.db.read() as session:
            found = await queries.list_stories(session, page)
        rows, token = page.split(found, key=lambda row: (row.difficulty_tenths, row.id))
        return difficulties_pb2.ListStoryDifficultiesResponse(
            story_difficulties=map(story_to_proto, rows), next_page_token=token
        )


def word_to_proto(row: Any) -> WordMessage:
    return WordMessage(
        vocabulary_id=str(row.id),
        difficulty=row.difficulty_tenths / 10,
        learner_count=row.learner_count,
        review_count=row.review_count,
        lapse_count=row.lapse_count,
        lapse_rate=row.lapse_count / row.review_count,
    )


def story_to_proto(row: Any) -> StoryMessage:
    message = StoryMessage(
        story_id=str(row.id),
        difficulty=row.difficulty_tenths / 10,
        word_count=row.word_count,
        lapse_rate=row.lapse_count / row.review_count if row.review_count else 0.0,
        reader_count=row.reader_count,
        reading_count=row.reading_count,
    )
    if row.session_learner_count >= FEWEST_LEARNERS:
        message.sessions.learner_count = row.session_learner_count
        message.sessions.session_count = row.session_count
        message.sessions.mean_interactions = row.interaction_count / row.session_count
        message.sessions.mean_duration.FromTimedelta(row.active_duration / row.session_count)
    return message
