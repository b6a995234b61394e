"""Words to review, histories of reviews, and what they come to without any database."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from itertools import groupby
from random import Random
from typing import Any
from uuid import UUID

from kit.db import WriteSession
from kit.ids import new_id
from services.learning.queries.vocabulary_progress import MEMORY, NewExposure, NewReview, memory_of
from services.learning.queries.vocabulary_reviews import append_reviews
from services.learning.rules import own_id
from services.learning.scheduling import Memory, Review, fold
from storyloom.content.v1.vocabularies_pb2 import (
    BatchCreateVocabulariesRequest,
    PartOfSpeech,
    Vocabulary,
)
from storyloom.content.v1.vocabularies_pb2_grpc import VocabularyServiceStub
from tests.stack import Person, School

START = datetime(2026, 1, 5, 7, 30, tzinfo=UTC)
RATINGS = ("again", "hard", "good", "easy")
STATE = f"""
SELECT vocabulary_id, status, {", ".join(MEMORY)}, exposure_count, first_exposure_time, last_exposure_time
FROM learning.user_vocabulary_progress WHERE tenant_id = $1 AND user_id = $2 ORDER BY vocabulary_id
"""


async def make_words(teacher: Person, count: int = 1, *, translation: str = "word") -> list[str]:
    """Ids of new words of the teacher's tenant."""
    words = teacher.stub(VocabularyServiceStub, "content")
    request = BatchCreateVocabulariesRequest(
        vocabularies=[
            Vocabulary(
                term=f"từ {new_id()}",
                translation=f"{translation} {number}",
                part_of_speech=PartOfSpeech.PART_OF_SPEECH_NOUN,
                language="vi",
                learning_language="en",
            )
            for number in range(count)
        ]
    )
    answer = await words.BatchCreateVocabularies(request)
    return [result.vocabulary.id for result in answer.results]


def writing(school: School) -> AbstractAsyncContextManager[WriteSession]:
    """A transaction of learning's, in the school's tenant."""
    return school.stack.services["learning"].db.write(UUID(school.student.tenant_id))


def history(random: Random, *, words: int = 4, reviews: int = 24) -> list[NewReview]:
    """Reviews of a few words over months, some within minutes of each other and some at the same moment."""
    ids = [new_id() for _ in range(words)]
    at, made = START, []
    for _ in range(reviews):
        at += random.choice((timedelta(0), timedelta(minutes=7), timedelta(hours=9), timedelta(days=6, microseconds=1)))
        # The clock of one phone is wrong, by up to an hour.
        skew = timedelta(seconds=random.choice((0, 0, -random.randrange(3600), random.randrange(3600))))
        source = "known" if random.random() < 0.04 else random.choice(("online", "offline", "quiz"))
        rating = "easy" if source == "known" else random.choice(RATINGS)
        word = random.choice(ids)
        review = NewReview(
            event_id=new_id(), vocabulary_id=word, rating=rating, review_time=at + skew, source=source
        )
        made.append(review)
    return made


def exposures(random: Random, reviews: Sequence[NewReview]) -> list[NewExposure]:
    """Readings of stories with some of the words of the reviews."""
    words = sorted({one.vocabulary_id for one in reviews})
    return [
        NewExposure(
            event_id=new_id(),
            story_id=None,
            vocabulary_ids=random.sample(words, random.randint(1, len(words))),
            exposure_time=START + timedelta(seconds=random.randrange(10**7)),
        )
        for _ in range(random.randint(0, 5))
    ]


def delivered(random: Random, reviews: Sequence[Any]) -> list[list[Any]]:
    """The same from several devices: split, shuffled, some of it twice, in batches of any size."""
    devices = random.randint(1, 4)
    split: list[list[Any]] = [[] for _ in range(devices)]
    for review in reviews:
        split[random.randrange(devices)].append(review)
    sent = [one for device in split for one in (*device, *random.sample(device, len(device) // 4))]
    if random.random() < 0.8:
        random.shuffle(sent)
    batches = []
    while sent:
        size = random.randint(1, 12)
        batches.append(sent[:size])
        sent = sent[size:]
    return batches


def replayed(user_id: UUID, reviews: Sequence[NewReview]) -> dict[UUID, Memory]:
    """What follows from the reviews, one after the other in the order in which they were done."""
    stored = [
        (
            one.vocabulary_id,
            Review(
                id=own_id(user_id, one.event_id),
                rating=one.rating,
                review_time=one.review_time,
                source=one.source,
                desired_retention=0.9,
                maximum_interval_days=365,
            ),
        )
        for one in reviews
    ]
    stored.sort(key=lambda pair: (pair[0], pair[1].place))
    return {word: fold(one for _, one in those) for word, those in groupby(stored, key=lambda pair: pair[0])}


async def kept(session: WriteSession, user_id: UUID) -> dict[UUID, Memory]:
    """What the database has of the learner."""
    return {row.vocabulary_id: memory_of(row) for row in await session.fetch(STATE, user_id)}


async def send(school: School, user_id: UUID, batch: Sequence[NewReview]) -> None:
    async with writing(school) as session:
        await append_reviews(session, user_id, batch)


async def send_all(school: School, user_id: UUID, batches: Sequence[Sequence[NewReview]]) -> None:
    """All at the same time."""
    await together(send(school, user_id, batch) for batch in batches)


async def together(writes: Iterable[Awaitable[None]]) -> None:
    """Five at a time: each waits for the learner with a connection of its own, and calls have a limit, too, for which
    there are enough."""
    at_once = asyncio.Semaphore(5)

    async def one(write: Awaitable[None]) -> None:
        async with at_once:
            await write

    await asyncio.gather(*(one(write) for write in writes))
