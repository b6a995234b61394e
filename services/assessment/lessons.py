"""Lessons, which are content's: that somebody who names one may read it."""

from typing import Any

from kit.errors import NotFound, PermissionDenied, reference_not_found
from storyloom.content.v1.lessons_pb2 import GetLessonRequest


async def check_lesson(lessons: Any, lesson_id: str, field: str) -> None:
    """Asks content, outside of any transaction. FAILED_PRECONDITION naming the field when there is no such lesson."""
    if not lesson_id:
        return
    try:
        await lessons.GetLesson(GetLessonRequest(id=lesson_id))
    except (NotFound, PermissionDenied) as error:
        raise reference_not_found("There is no such lesson.", field=field, id=lesson_id) from error
