"""How well learners know words, and which of them are to be reviewed next."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from google.api.httpbody_pb2 import HttpBody

from kit import audit
from kit.access import require, require_any
from kit.auth import current, renew
from kit.db import Database
from kit.enums import stored_name
from kit.errors import InvalidArgument
from kit.ids import NIL
from kit.models import now
from kit.pagination import Page
from services.learning import wordlists
from services.learning.models import VocabularyProgress
from services.learning.projections import Words
from services.learning.queries import vocabulary_progress as queries
from services.learning.queries.learners import get_day
from services.learning.queries.vocabulary_progress import Appended, NewExposure, append_exposures
from services.learning.scheduling import is_possible
from storyloom.learning.v1 import vocabulary_progress_pb2
from storyloom.learning.v1.vocabulary_progress_pb2 import VocabularyExportFormat, VocabularyStatus
from storyloom.learning.v1.vocabulary_progress_pb2 import VocabularyProgress as ProgressMessage

DEFAULT_LIMIT, EXPORTED_AT_ONCE = 20, 500
CSV_TYPE, ANKI_TYPE = "text/csv; charset=utf-8; header=present", "text/plain; charset=utf-8"
TIMES = ("due_time", "first_review_time", "last_review_time", "first_exposure_time", "last_exposure_time")
TOO_EARLY = "is more than 24 hours ahead of the server's clock"


class VocabularyProgressService:
    SERVICE = vocabulary_progress_pb2.DESCRIPTOR.services_by_name["VocabularyProgressService"]

    def __init__(self, db: Database, words: Words) -> None:
        self.db, self._words = db, words

    async def GetVocabularyProgress(
        self, request: vocabulary_progress_pb2.GetVocabularyProgressRequest, context: Any
    ) -> ProgressMessage:
        async with self.db.read() as session:
            row = await queries.get_progress(session, UUID(request.id))
        require("read", row, resource="vocabulary_progress")
        return vocabulary_progress_to_proto(row)

    async def BatchGetVocabularyProgress(
        self, request: vocabulary_progress_pb2.BatchGetVocabularyProgressRequest, context: Any
    ) -> vocabulary_progress_pb2.BatchGetVocabularyProgressResponse:
        wanted = list(map(UUID, request.vocabulary_ids))
        async with self.db.read() as session:
            found = {row.vocabulary_id: row for row in await queries.list_own(session, current().subject, wanted)}
        rows = (found[one] for one in wanted if one in found)
        return vocabulary_progress_pb2.BatchGetVocabularyProgressResponse(
            vocabulary_progress=map(vocabulary_progress_to_proto, rows)
        )

    async def ListVocabularyProgress(
        self, request: vocabulary_progress_pb2.ListVocabularyProgressRequest, context: Any
    ) -> vocabulary_progress_pb2.ListVocabularyProgressResponse:
        page = Page.of(request)
        async with self.db.read() as session:
            rows = await queries.list_progress(
                session,
                page,
                user_id=request.user_id,
                vocabulary_id=request.vocabulary_id,
                status=stored_name(VocabularyStatus, request.status),
            )
        rows, token = page.split(rows, key=lambda row: (row.id,))
        return vocabulary_progress_pb2.ListVocabularyProgressResponse(
            vocabulary_progress=map(vocabulary_progress_to_proto, rows), next_page_token=token
        )

    async def GetReviewQueue(
        self, request: vocabulary_progress_pb2.GetReviewQueueRequest, context: Any
    ) -> vocabulary_progress_pb2.ReviewQueue:
        require_any("list", VocabularyProgress)
        at, limit, user_id = now(), request.limit or DEFAULT_LIMIT, current().subject
        async with self.db.read() as session:
            day = await get_day(session, user_id, at)
            counts = await queries.count_queue(session, user_id, at, day.begin)
            new_remaining = max(day.new_words_per_day - counts.begun_count, 0)
            rows = await queries.list_due(session, user_id, at, limit) if counts.due_count else []
            if fresh := min(limit - len(rows), new_remaining):
                rows += await queries.list_new(session, user_id, fresh)
        return vocabulary_progress_pb2.ReviewQueue(
            vocabulary_progress=map(vocabulary_progress_to_proto, rows),
            due_count=counts.due_count,
            new_remaining=new_remaining,
        )

    async def RecordVocabularyExposures(
        self, request: vocabulary_progress_pb2.RecordVocabularyExposuresRequest, context: Any
    ) -> vocabulary_progress_pb2.RecordVocabularyExposuresResponse:
        user_id = current().subject
        require("update", VocabularyProgress(user_id=user_id))
        exposures = [_exposure(number, one) for number, one in enumerate(request.exposures)]
        existing = await self._words.existing({word for one in exposures for word in one.vocabulary_ids})
        async with self.db.write() as session:
            appended = await append_exposures(session, user_id, _of_existing(exposures, existing))
            if appended.exposures:
                audit.write(session, "expose", "vocabulary_progress", NIL, new=told(appended))
        return vocabulary_progress_pb2.RecordVocabularyExposuresResponse(
            recorded_count=len(appended.exposures),
            new_word_count=sum(row.old_status is None for row in appended.words),
        )

    async def ExportVocabularyProgress(
        self, request: vocabulary_progress_pb2.ExportVocabularyProgressRequest, context: Any
    ) -> AsyncIterator[vocabulary_progress_pb2.ExportVocabularyProgressResponse]:
        require_any("list", VocabularyProgress)
        for_anki = request.format == VocabularyExportFormat.VOCABULARY_EXPORT_FORMAT_ANKI
        data = wordlists.ANKI_HEADER.encode() if for_anki else wordlists.csv_header()
        after: UUID | None = NIL
        while after is not None:
            await renew()
            async with self.db.read() as session:
                rows = await queries.list_met_after(session, current().subject, after, EXPORTED_AT_ONCE)
            words = await self._words.shown([row.vocabulary_id for row in rows])
            data += (wordlists.anki_lines if for_anki else wordlists.csv_lines)(rows, words)
            body = HttpBody(content_type=ANKI_TYPE if for_anki else CSV_TYPE, data=data)
            yield vocabulary_progress_pb2.ExportVocabularyProgressResponse(body=body)
            after, data = (rows[-1].id if len(rows) == EXPORTED_AT_ONCE else None), b""


def told(appended: Appended) -> dict[str, Any]:
    """What the audit log says of reviews and exposures: how many. The log of them is kept as it is anyway."""
    counts = {"reviews": len(appended.reviews), "exposures": len(appended.exposures), "words": len(appended.words)}
    return {"user_id": appended.user_id} | {name: count for name, count in counts.items() if count}


def _exposure(number: int, sent: vocabulary_progress_pb2.VocabularyExposure) -> NewExposure:
    told_at = now()
    at = time_of(sent, "exposure_time") or told_at
    if not is_possible(at, told_at):
        raise InvalidArgument.fields([(f"exposures[{number}].exposure_time", TOO_EARLY)])
    return NewExposure(
        event_id=UUID(sent.event_id),
        story_id=UUID(sent.story_id) if sent.story_id else None,
        vocabulary_ids=list(map(UUID, sent.vocabulary_ids)),
        exposure_time=at,
    )


def _of_existing(exposures: Sequence[NewExposure], existing: set[UUID]) -> list[NewExposure]:
    found = []
    for one in exposures:
        if words := [word for word in one.vocabulary_ids if word in existing]:
            found.append(replace(one, vocabulary_ids=words))
    return found


def time_of(message: Any, name: str) -> datetime | None:
    """A time in UTC; None when the message does not say it."""
    return getattr(message, name).ToDatetime(UTC) if message.HasField(name) else None


def vocabulary_progress_to_proto(row: Any) -> ProgressMessage:
    message = ProgressMessage(
        id=str(row.id),
        user_id=str(row.user_id),
        vocabulary_id=str(row.vocabulary_id),
        status=f"VOCABULARY_STATUS_{row.status.upper()}",
        stability_days=row.stability_days or 0.0,
        difficulty=row.difficulty or 0.0,
        review_count=row.review_count,
        lapse_count=row.lapse_count,
        exposure_count=row.exposure_count,
        known=row.known,
    )
    for name in TIMES:
        if at := getattr(row, name):
            getattr(message, name).FromDatetime(at)
    return message
