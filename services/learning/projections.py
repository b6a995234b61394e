"""What learning knows of content and of the tenant: told by events, or asked for before the event is here."""

from collections.abc import Collection, Sequence
from datetime import UTC
from decimal import Decimal
from typing import Any
from uuid import UUID

from kit.auth import current
from kit.db import Database, WriteSession
from kit.enums import stored_name
from kit.errors import DeadlineExceeded, PermissionDenied, Unavailable
from kit.ids import NIL
from kit.models import now
from services.learning.queries import learners
from services.learning.queries import projections as queries
from services.learning.queries.daily_activity import tally_quizzes
from services.learning.queries.learners import lock_learners
from services.learning.queries.vocabulary_progress import list_met
from services.learning.wordlists import same
from storyloom.assessment.v1.events_pb2 import AttemptGraded
from storyloom.content.v1.courses_pb2 import CourseStatus
from storyloom.content.v1.events_pb2 import CourseChanged, LessonChanged
from storyloom.content.v1.lessons_pb2 import BatchGetLessonsRequest, GetLessonRequest, Lesson, LessonStatus
from storyloom.content.v1.vocabularies_pb2 import BatchGetVocabulariesRequest, ListVocabulariesRequest, Vocabulary
from storyloom.event.v1.events_pb2 import Event
from storyloom.identity.v1.events_pb2 import TenantChanged

REMEMBERED_LESSONS = 20_000
WORDS_AT_ONCE = 500
# Content is asked while a learner waits.
WORDS_SECONDS = 2.0


async def on_lesson_changed(session: WriteSession, event: Event, lesson: LessonChanged) -> None:
    if lesson.purged:
        await queries.delete_lesson(session, UUID(lesson.lesson_id))
        return
    place = {"unit_position": lesson.unit_position, "deleted": lesson.deleted}
    values = _lesson_values(lesson) | {"id": UUID(lesson.lesson_id), **place}
    await queries.upsert_lesson(session, values)


async def on_course_changed(session: WriteSession, event: Event, course: CourseChanged) -> None:
    if course.purged:
        await queries.delete_course(session, UUID(course.course_id))
        return
    status = stored_name(CourseStatus, course.status)
    values = {"title": course.title, "status": status, "deleted": course.deleted}
    await queries.upsert_course(session, {"id": UUID(course.course_id), **values})


async def on_attempts_graded(session: WriteSession, told: Sequence[tuple[Event, AttemptGraded]]) -> None:
    """Keeps the latest result of each attempt, and counts it in the day of the learner if they may know it."""
    await lock_learners(session, {UUID(attempt.user_id) for _, attempt in told})
    waiting = [_result_values(attempt) for _, attempt in told]
    while waiting:
        # One result of an attempt after the other, so that each of them is noted.
        first = {values["id"]: values for values in reversed(waiting)}
        waiting = [values for values in waiting if values is not first[values["id"]]]
        rows = await queries.upsert_graded_attempts(session, list(first.values()))
        results = (
            (row.user_id, *one)
            for row in rows
            for one in ((row.old_passed, row.old_grade_time, -1), (row.passed, row.grade_time, 1))
        )
        await tally_quizzes(session, [(user_id, at, by) for user_id, passed, at, by in results if passed])


def _result_values(attempt: AttemptGraded) -> dict[str, Any]:
    return {
        "id": UUID(attempt.attempt_id),
        "quiz_id": UUID(attempt.quiz_id),
        "lesson_id": UUID(attempt.lesson_id) if attempt.lesson_id else None,
        "user_id": UUID(attempt.user_id),
        "number": attempt.number,
        "score": Decimal(attempt.score),
        "max_score": Decimal(attempt.max_score),
        "percent": Decimal(attempt.percent),
        "passed": attempt.passed,
        "regraded": attempt.regraded,
        "grade_time": attempt.grade_time.ToDatetime(UTC),
        "score_hidden": attempt.score_hidden,
    }


class LessonIndex:
    """Sees to it that a lesson is in the index before a transaction needs it.

    Rows leave the index only for good, so a lesson that was found once need not be looked for again.
    """

    def __init__(self, db: Database, lessons: Any) -> None:
        self._db, self._lessons = db, lessons
        self._known: set[tuple[UUID, UUID]] = set()

    async def ensure(self, lesson_id: UUID) -> None:
        """Asks content, in the caller's name, for a lesson the index lacks; raises what content answers."""
        key = (current().tenant_id, lesson_id)
        if key in self._known:
            return
        async with self._db.read() as session:
            found = await queries.has_lesson(session, lesson_id)
        if found:
            self._remember(key)
            return
        lesson = await self._lessons.GetLesson(GetLessonRequest(id=str(lesson_id)))
        # Not remembered yet: with an idempotency key the row is committed, or not, only when the call ends.
        async with self._db.write() as session:
            await queries.insert_lesson(session, _lesson_values(lesson) | {"id": lesson_id, "deleted": False})

    async def known(self, lesson_ids: Collection[UUID]) -> set[UUID]:
        """Those of the lessons that there are, in the index from then on: deleted ones too, and what content shows to
        the caller. Raises UNAVAILABLE when content must be asked and cannot."""
        tenant_id = current().tenant_id
        found = {one for one in lesson_ids if (tenant_id, one) in self._known}
        rest = [one for one in lesson_ids if one not in found]
        if rest:
            async with self._db.read() as session:
                there = await queries.list_indexed(session, rest)
            for one in there:
                self._remember((tenant_id, one))
            found |= there | await self._ask([one for one in rest if one not in there])
        return found

    async def _ask(self, lesson_ids: Sequence[UUID]) -> set[UUID]:
        if not lesson_ids:
            return set()
        request = BatchGetLessonsRequest(ids=map(str, lesson_ids))
        try:
            answer = await self._lessons.BatchGetLessons(request, timeout=WORDS_SECONDS)
        except PermissionDenied:
            return set()
        async with self._db.write() as session:
            for one in answer.lessons:
                await queries.insert_lesson(session, _lesson_values(one) | {"id": UUID(one.id), "deleted": False})
        return {UUID(one.id) for one in answer.lessons}

    def _remember(self, key: tuple[UUID, UUID]) -> None:
        if len(self._known) >= REMEMBERED_LESSONS:
            self._known.clear()
        self._known.add(key)


def _lesson_values(lesson: Lesson | LessonChanged) -> dict[str, Any]:
    return {
        "course_id": UUID(lesson.course_id),
        "unit_id": UUID(lesson.unit_id),
        "title": lesson.title,
        "status": stored_name(LessonStatus, lesson.status),
        "position": lesson.position,
        "prerequisite_ids": [UUID(one) for one in lesson.prerequisite_ids],
    }


async def on_tenant_changed(session: WriteSession, event: Event, payload: TenantChanged) -> None:
    """Keeps what the tenant wants to be remembered, from now on."""
    if chosen := payload.settings.desired_retention:
        await learners.insert_retention_change(session, NIL, now(), Decimal(chosen), None)


class Words:
    """Finds out which words there are: those that a learner has met, and those that content shows to the caller."""

    def __init__(self, db: Database, vocabularies: Any) -> None:
        self._db, self._vocabularies = db, vocabularies

    async def existing(self, ids: Collection[UUID]) -> set[UUID]:
        """Those of the words that there are for the caller. While content cannot be asked all of them are: what a
        phone has recorded is not lost, and a word that never was is a row in its learner's own list."""
        async with self._db.read() as session:
            met = await list_met(session, current().subject, ids)
        try:
            return met | (await self.shown([one for one in ids if one not in met])).keys()
        except (Unavailable, DeadlineExceeded):
            return set(ids)

    async def shown(self, ids: Sequence[UUID]) -> dict[UUID, Vocabulary]:
        """Those of the words that content shows to the caller. Raises UNAVAILABLE when it cannot be asked."""
        found: dict[UUID, Vocabulary] = {}
        for start in range(0, len(ids), WORDS_AT_ONCE):
            request = BatchGetVocabulariesRequest(ids=map(str, ids[start : start + WORDS_AT_ONCE]))
            try:
                answer = await self._vocabularies.BatchGetVocabularies(request, timeout=WORDS_SECONDS)
            except PermissionDenied:
                return {}
            found |= {UUID(one.id): one for one in answer.vocabularies}
        return found

    async def named(self, name: str, language: str, learning_language: str) -> list[UUID]:
        """The words whose term or translation this is, at most the first hundred that begin so."""
        request = ListVocabulariesRequest(
            query=name, language=language, learning_language=learning_language, order_by="term", page_size=100
        )
        try:
            answer = await self._vocabularies.ListVocabularies(request)
        except PermissionDenied:
            return []
        wanted = same(name)
        return [UUID(one.id) for one in answer.vocabularies if wanted in {same(one.term), same(one.translation)}]
