"""The log of reviews, and words that learners say they know."""

from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from kit import audit
from kit.access import require, require_any
from kit.auth import current
from kit.db import Database, WriteSession
from kit.enums import stored_name
from kit.errors import InvalidArgument, reference_not_found, wrong_state
from kit.ids import NIL, new_id
from kit.models import now
from kit.pagination import Page
from kit.sheets import UnreadableFile
from services.learning.models import VocabularyReview
from services.learning.projections import Words
from services.learning.queries import vocabulary_reviews as queries
from services.learning.queries.learners import lock_learner
from services.learning.queries.vocabulary_progress import NewReview, list_memories, list_own
from services.learning.queries.vocabulary_reviews import append_reviews
from services.learning.scheduling import KNOWN, NOTHING, is_possible
from services.learning.vocabulary_progress import TOO_EARLY, time_of, told, vocabulary_progress_to_proto
from services.learning.wordlists import Named, read_known
from storyloom.learning.v1 import vocabulary_reviews_pb2
from storyloom.learning.v1.vocabulary_reviews_pb2 import (
    KnownVocabularyProblem,
    KnownVocabularyRefusal,
    ReviewRating,
)
from storyloom.learning.v1.vocabulary_reviews_pb2 import VocabularyReview as ReviewMessage

# A review told of so long after it was done was done without a connection.
ONLINE = timedelta(minutes=1)
NOT_FOUND = KnownVocabularyProblem.KNOWN_VOCABULARY_PROBLEM_NOT_FOUND
AMBIGUOUS = KnownVocabularyProblem.KNOWN_VOCABULARY_PROBLEM_AMBIGUOUS
UNREADABLE = KnownVocabularyProblem.KNOWN_VOCABULARY_PROBLEM_UNREADABLE


class VocabularyReviewService:
    SERVICE = vocabulary_reviews_pb2.DESCRIPTOR.services_by_name["VocabularyReviewService"]

    def __init__(self, db: Database, words: Words) -> None:
        self.db, self._words = db, words

    async def CreateVocabularyReview(
        self, request: vocabulary_reviews_pb2.CreateVocabularyReviewRequest, context: Any
    ) -> ReviewMessage:
        user_id, review = current().subject, _new(request.vocabulary_review, "vocabulary_review.")
        require("create", _row(user_id, review))
        if not await self._words.existing([review.vocabulary_id]):
            raise reference_not_found("There is no such vocabulary.", field="vocabulary_review.vocabulary_id")
        async with self.db.write() as session:
            appended = await append_reviews(session, user_id, [review])
            if appended.refused:
                raise wrong_state("The word has as many reviews as a word may have.", "full")
            row = await queries.get_own_review(session, user_id, review.event_id)
            if appended.reviews:
                values = {"vocabulary_id": row.vocabulary_id, "rating": row.rating, "source": row.source}
                audit.write(session, "create", "vocabulary_review", row.id, new={"user_id": user_id} | values)
            words = appended.words or await list_own(session, user_id, [row.vocabulary_id])
        message = review_to_proto(row)
        # None where a policy keeps learners from their own progress and the review was there already.
        for word in words:
            message.vocabulary_progress.CopyFrom(vocabulary_progress_to_proto(word))
        return message

    async def BatchCreateVocabularyReviews(
        self, request: vocabulary_reviews_pb2.BatchCreateVocabularyReviewsRequest, context: Any
    ) -> vocabulary_reviews_pb2.BatchCreateVocabularyReviewsResponse:
        require_any("create", VocabularyReview)
        user_id = current().subject
        reviews = [_new(one, f"vocabulary_reviews[{at}].") for at, one in enumerate(request.vocabulary_reviews)]
        for kind in {(one.vocabulary_id, one.rating, one.source): one for one in reviews}.values():
            require("create", _row(user_id, kind))
        existing = await self._words.existing({one.vocabulary_id for one in reviews})
        unknown = [one.event_id for one in reviews if one.vocabulary_id not in existing]
        async with self.db.write() as session:
            appended = await append_reviews(session, user_id, [one for one in reviews if one.vocabulary_id in existing])
            if appended.reviews:
                audit.write(session, "batch_create", "vocabulary_review", NIL, new=told(appended))
        return vocabulary_reviews_pb2.BatchCreateVocabularyReviewsResponse(
            vocabulary_progress=map(vocabulary_progress_to_proto, appended.words),
            recorded_count=len(appended.reviews),
            refused_event_ids=map(str, (*unknown, *appended.refused)),
        )

    async def ListVocabularyReviews(
        self, request: vocabulary_reviews_pb2.ListVocabularyReviewsRequest, context: Any
    ) -> vocabulary_reviews_pb2.ListVocabularyReviewsResponse:
        page = Page.of(request)
        async with self.db.read() as session:
            rows = await queries.list_reviews(
                session, page, user_id=request.user_id, vocabulary_id=request.vocabulary_id
            )
        rows, token = page.split(rows, key=lambda row: (row.review_time, row.id))
        return vocabulary_reviews_pb2.ListVocabularyReviewsResponse(
            vocabulary_reviews=map(review_to_proto, rows), next_page_token=token
        )

    async def ImportKnownVocabulary(
        self, request: vocabulary_reviews_pb2.ImportKnownVocabularyRequest, context: Any
    ) -> vocabulary_reviews_pb2.ImportKnownVocabularyResponse:
        require_any("create", VocabularyReview)
        user_id = current().subject
        found, refusals = await self._find(request, _rows(request))
        for word in found:
            require("create", _row(user_id, _known(word)))
        async with self.db.write() as session:
            change = await lock_learner(session, user_id)
            reviews = await _unknown_yet(session, user_id, found)
            appended = await append_reviews(session, user_id, reviews, change=change)
            if appended.reviews:
                audit.write(session, "import_known", "vocabulary_review", NIL, new=told(appended))
        return vocabulary_reviews_pb2.ImportKnownVocabularyResponse(
            imported_count=len(appended.reviews), refusals=refusals
        )

    async def _find(
        self, request: vocabulary_reviews_pb2.ImportKnownVocabularyRequest, rows: Sequence[Named]
    ) -> tuple[list[UUID], list[KnownVocabularyRefusal]]:
        """The words that the rows say, each once, and what is wrong with the other rows."""
        shown = await self._words.shown([one.id for one in rows if one.id])
        by_name: dict[str, list[UUID]] = {}
        for name in dict.fromkeys(one.name for one in rows if one.name):
            by_name[name] = await self._words.named(name, request.language, request.learning_language)
        found, refusals = [], []
        for one in rows:
            words = [one.id] if one.id in shown else by_name.get(one.name, [])
            if len(words) == 1:
                found += words
            else:
                refusals.append(KnownVocabularyRefusal(row=one.row, problem=_problem(one, words)))
        return list(dict.fromkeys(filter(None, found))), refusals


def _new(sent: ReviewMessage, path: str) -> NewReview:
    told_at = now()
    at = time_of(sent, "review_time") or told_at
    if not is_possible(at, told_at):
        raise InvalidArgument.fields([(f"{path}review_time", TOO_EARLY)])
    return NewReview(
        event_id=UUID(sent.event_id) if sent.event_id else new_id(),
        vocabulary_id=UUID(sent.vocabulary_id),
        rating=stored_name(ReviewRating, sent.rating),
        review_time=at,
        duration=sent.duration.ToTimedelta(),
        source="online" if told_at - at <= ONLINE else "offline",
    )


def _known(word: UUID) -> NewReview:
    return NewReview(event_id=new_id(), vocabulary_id=word, rating="easy", review_time=now(), source=KNOWN)


def _row(user_id: UUID, review: NewReview) -> VocabularyReview:
    """What the caller must be allowed to create."""
    return VocabularyReview(
        user_id=user_id, vocabulary_id=review.vocabulary_id, rating=review.rating, source=review.source
    )


def _rows(request: vocabulary_reviews_pb2.ImportKnownVocabularyRequest) -> list[Named]:
    if request.vocabulary_ids:
        return [Named(number, id=UUID(one)) for number, one in enumerate(request.vocabulary_ids, 1)]
    try:
        return read_known(request.csv)
    except UnreadableFile as error:
        raise InvalidArgument.fields([("csv", f"cannot be read: {error}")]) from error


def _problem(row: Named, words: Collection[UUID | None]) -> KnownVocabularyProblem:
    if not row.id and not row.name:
        return UNREADABLE
    return AMBIGUOUS if len(words) > 1 else NOT_FOUND


async def _unknown_yet(session: WriteSession, user_id: UUID, words: Iterable[UUID]) -> list[NewReview]:
    wanted = list(words)
    memories = await list_memories(session, user_id, wanted)
    return [_known(word) for word in wanted if memories.get(word, NOTHING).status != "mastered"]


def review_to_proto(row: Any) -> ReviewMessage:
    message = ReviewMessage(
        id=str(row.id),
        user_id=str(row.user_id),
        vocabulary_id=str(row.vocabulary_id),
        event_id=str(row.event_id),
        rating=f"REVIEW_RATING_{row.rating.upper()}",
        source=f"REVIEW_SOURCE_{row.source.upper()}",
        desired_retention=row.desired_retention,
    )
    message.review_time.FromDatetime(row.review_time)
    message.receive_time.FromDatetime(row.receive_time)
    message.duration.FromTimedelta(row.duration)
    return message
