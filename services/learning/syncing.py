"""What becomes of a batch of events: which are recorded, and what follows from them for the learner."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from kit import audit
from kit.access import may
from kit.db import WriteSession
from kit.ids import NIL
from services.learning import offline
from services.learning.models import LearningSession, Progress, VocabularyProgress, VocabularyReview
from services.learning.offline import LessonEvent, Sign, Told, sign_of
from services.learning.queries import client_events as queries
from services.learning.queries.learners import lock_learner
from services.learning.queries.progress import upsert_advances
from services.learning.queries.vocabulary_progress import NewExposure, NewReview, append_exposures
from services.learning.queries.vocabulary_reviews import append_reviews
from services.learning.rules import own_id

ACCEPTED, DUPLICATE = "accepted", "duplicate"
# Of lessons; and what opens one.
IN_LESSONS, OPENED = frozenset({"lesson_viewed", "lesson_progressed"}), "session_started"


@dataclass(slots=True)
class Batch:
    """Events of one learner from one phone, received at one time; `lessons` and `words` are those of them that there
    are. What becomes of each is in `outcomes` as the batch is recorded: else it is a candidate still."""

    user_id: UUID
    device_id: UUID
    receive_time: datetime
    events: Sequence[Told]
    lessons: set[UUID]
    words: set[UUID]
    outcomes: dict[int, str] = field(default_factory=dict)
    # Of those that are in the batch twice, which is the first.
    twins: dict[int, int] = field(default_factory=dict)

    @property
    def candidates(self) -> list[tuple[int, Told]]:
        return [
            (at, one) for at, one in enumerate(self.events) if at not in self.outcomes and at not in self.twins
        ]

    def of(self, *kinds: str) -> list[tuple[int, Told]]:
        """The candidates that tell of this."""
        return [(at, one) for at, one in self.candidates if one.kind in kinds]

    def reject(self, at: int, problem: str) -> None:
        self.outcomes[at] = problem


async def record(session: WriteSession, batch: Batch) -> None:
    """Records what can be recorded of the batch, and what follows from it, in statements about all of it at once."""
    change = await lock_learner(session, batch.user_id)
    _drop_known(batch, await queries.list_logged(session, [one.id for one in batch.events]))
    lesson_ids = {one.lesson_id for _, one in batch.candidates if one.lesson_id in batch.lessons}
    places = await queries.list_places(session, batch.user_id, lesson_ids)
    signs = await queries.list_signs(
        session, batch.user_id, {one.session_id for _, one in batch.candidates if one.session_id}
    )
    _drop_impossible(batch, places)
    _drop_excess(batch, signs)
    counts = {"reviews": await _review(session, batch, change), "exposures": await _expose(session, batch, change)}
    accepted = [one for _, one in batch.candidates]
    batch.outcomes |= {at: ACCEPTED for at, _ in batch.candidates}
    for at, first in batch.twins.items():
        batch.outcomes[at] = DUPLICATE if batch.outcomes[first] == ACCEPTED else batch.outcomes[first]
    await queries.insert_events(session, batch.user_id, batch.device_id, accepted)
    counts["lessons"] = await _advance(session, batch.user_id, accepted, places, change)
    counts["sessions"] = await _hold(session, batch.user_id, accepted, signs, change)
    if accepted:
        _audit(session, batch, {"events": len(accepted)} | counts)


def _drop_known(batch: Batch, logged: dict[UUID, bytes]) -> None:
    first: dict[UUID, int] = {}
    for at, one in enumerate(batch.events):
        before = first.setdefault(one.id, at)
        if one.digest != logged.get(one.id, batch.events[before].digest):
            batch.reject(at, "conflict")
        elif one.id in logged:
            batch.outcomes[at] = DUPLICATE
        elif before != at:
            batch.twins[at] = before


def _drop_impossible(batch: Batch, places: dict[UUID, Any]) -> None:
    oldest = batch.receive_time - offline.OLDEST
    allowed: dict[Any, bool] = {}
    for at, one in batch.candidates:
        if one.at < oldest:
            batch.reject(at, "too_old")
        elif one.lesson_id and (problem := _problem(one, places.get(one.lesson_id))):
            batch.reject(at, problem)
        elif one.vocabulary_id and one.vocabulary_id not in batch.words:
            batch.reject(at, "not_found")
        else:
            key = (one.kind, one.lesson_id, one.story_id, one.vocabulary_id, one.rating)
            if key not in allowed:
                allowed[key] = _may(batch.user_id, one, places)
            if not allowed[key]:
                batch.reject(at, "denied")


def _problem(one: Told, place: Any) -> str:
    if place is None:
        return "not_found"
    if not offline.was_taken(place.begins, place.ends, one.at):
        return "not_enrolled"
    return "" if place.published else "not_published"


def _may(user_id: UUID, one: Told, places: dict[UUID, Any]) -> bool:
    """Whether the caller may do what the event stands for. That its lesson was taken then is known by now."""
    taken = {"user.lesson_ids": (one.lesson_id,)}
    if one.kind in IN_LESSONS and one.lesson_id:
        place = places[one.lesson_id]
        recorded = Progress(
            user_id=user_id,
            lesson_id=one.lesson_id,
            course_id=place.course_id,
            status=place.status,
            position_percent=place.position_percent,
            start_time=place.start_time,
        )
        return may("update", recorded, known=taken)
    if one.kind == OPENED:
        opened = LearningSession(
            user_id=user_id, lesson_id=one.lesson_id, story_id=one.story_id, start_time=one.at, state="abandoned"
        )
        return may("create", opened, known=taken)
    if one.kind == "review_answered":
        review = VocabularyReview(
            user_id=user_id, vocabulary_id=one.vocabulary_id, rating=one.rating, source="offline"
        )
        return may("create", review)
    if one.kind == "story_read":
        return may("update", VocabularyProgress(user_id=user_id))
    return may("update", LearningSession(user_id=user_id, state="abandoned"))


def _drop_excess(batch: Batch, signs: dict[UUID, list[Sign]]) -> None:
    """Takes out signs of life, the latest first, of sessions that would have more than one may have."""
    wanted: dict[UUID, list[tuple[int, Told]]] = {}
    for at, one in batch.candidates:
        if one.session_id:
            wanted.setdefault(one.session_id, []).append((at, one))
    for session_id, those in wanted.items():
        room = max(offline.MOST_SIGNS - len(signs[session_id]), 0)
        if len(those) > room:
            for at, _ in sorted(those, key=lambda pair: (pair[1].at, pair[1].id))[room:]:
                batch.reject(at, "full")


async def _review(session: WriteSession, batch: Batch, change: int) -> int:
    """Adds the reviews; those recorded already, online, are none but themselves."""
    wanted = {one.event_id: (at, one) for at, one in batch.of("review_answered")}
    if not wanted:
        return 0
    appended = await append_reviews(session, batch.user_id, [_new(one) for _, one in wanted.values()], change=change)
    for event_id in appended.refused:
        batch.reject(wanted[event_id][0], "full")
    there = wanted.keys() - {one.event_id for one in appended.reviews} - {*appended.refused}
    if there:
        found = await queries.list_reviewed(session, [own_id(batch.user_id, one) for one in there])
        for event_id, row in found.items():
            at, one = wanted[event_id]
            if (row.vocabulary_id, row.rating) != (one.vocabulary_id, one.rating):
                batch.reject(at, "conflict")
    return len(appended.reviews)


def _new(one: Told) -> NewReview:
    assert one.vocabulary_id  # noqa: S101  # it is of a word that there is
    return NewReview(
        event_id=one.event_id,
        vocabulary_id=one.vocabulary_id,
        rating=one.rating,
        review_time=one.at,
        duration=one.duration,
        source="offline",
    )


async def _expose(session: WriteSession, batch: Batch, change: int) -> int:
    read = [
        NewExposure(event_id=one.event_id, story_id=one.story_id, vocabulary_ids=words, exposure_time=one.at)
        for _, one in batch.of("story_read")
        if (words := [word for word in one.words if word in batch.words])
    ]
    return len((await append_exposures(session, batch.user_id, read, change=change)).exposures) if read else 0


async def _advance(
    session: WriteSession, user_id: UUID, accepted: Iterable[Told], places: dict[UUID, Any], change: int
) -> int:
    events: dict[UUID, list[LessonEvent]] = {}
    for one in accepted:
        if one.kind in IN_LESSONS and one.lesson_id:
            told = LessonEvent(one.at, one.status or "", one.position_percent or 0)
            events.setdefault(one.lesson_id, []).append(told)
    advances = {
        (lesson_id, places[lesson_id].course_id): offline.advanced(
            those, places[lesson_id].reset_time, places[lesson_id].reopen_time
        )
        for lesson_id, those in sorted(events.items())
    }
    return len(await upsert_advances(session, user_id, advances, change))


async def _hold(
    session: WriteSession, user_id: UUID, accepted: Iterable[Told], signs: dict[UUID, list[Sign]], change: int
) -> int:
    touched = set()
    for one in accepted:
        if one.session_id:
            touched.add(one.session_id)
            signs[one.session_id].append(sign_of(one))
    held = {session_id: found for session_id in sorted(touched) if (found := offline.held(signs[session_id]))}
    return await queries.upsert_sessions(session, user_id, held, change)


def _audit(session: WriteSession, batch: Batch, counts: dict[str, int]) -> None:
    """One entry for all: the log of events is itself a record that nobody can change."""
    values: dict[str, Any] = {"user_id": batch.user_id, "device_id": batch.device_id}
    values |= {name: count for name, count in counts.items() if count}
    audit.write(
        session, "sync", "client_event", NIL, new=values, sensitive=("device_id",), subject_id=batch.user_id
    )
