"""What learning knows of content's courses and lessons: told by events, or asked for before the event is here."""

from typing import Any
from uuid import UUID

from kit.auth import current
from kit.db import Database, WriteSession
from services.learning import queries
from storyloom.content.v1.courses_pb2 import CourseStatus
from storyloom.content.v1.events_pb2 import CourseChanged, LessonChanged
from storyloom.content.v1.lessons_pb2 import GetLessonRequest, Lesson, LessonStatus
from storyloom.event.v1.events_pb2 import Event

REMEMBERED_LESSONS = 20_000


async def on_lesson_changed(session: WriteSession, event: Event, lesson: LessonChanged) -> None:
    values = _lesson_values(lesson) | {"id": UUID(lesson.lesson_id), "deleted": lesson.deleted}
    await queries.upsert_lesson(session, values)


async def on_course_changed(session: WriteSession, event: Event, course: CourseChanged) -> None:
    status = CourseStatus.Name(course.status).removeprefix("COURSE_STATUS_").lower()
    await queries.upsert_course(session, {"id": UUID(course.course_id), "status": status, "deleted": course.deleted})


class LessonIndex:
    """Sees to it that a lesson is in the index before a transaction needs it.

    Rows never leave the index, so a lesson that was found once need not be looked for again.
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

    def _remember(self, key: tuple[UUID, UUID]) -> None:
        if len(self._known) >= REMEMBERED_LESSONS:
            self._known.clear()
        self._known.add(key)


def _lesson_values(lesson: Lesson | LessonChanged) -> dict[str, Any]:
    return {
        "course_id": UUID(lesson.course_id),
        "unit_id": UUID(lesson.unit_id),
        "title": lesson.title,
        "status": LessonStatus.Name(lesson.status).removeprefix("LESSON_STATUS_").lower(),
        "position": lesson.position,
        "prerequisite_ids": [UUID(one) for one in lesson.prerequisite_ids],
    }
