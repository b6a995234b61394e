"""Lessons, which are content's: that somebody who names one may read it."""

from typing import Any

from kit.errors import FailedPrecondition, NotFound, PermissionDenied
from storyloom.content.v1.lessons_pb2 import GetLessonRequest
from storyloom.type.v1.errors_pb2 import ErrorReason


async def check_lesson(lessons: Any, lesson_id: str, field: str) -> None:
    """Asks content, outside of any transaction. FAILED_PRECONDITION naming the field when there is no such lesson."""
    if not lesson_id:
        return
    try:
        await lessons.GetLesson(GetLessonRequest(id=lesson_id))
    except (NotFound, PermissionDenied) as error:
        raise FailedPrecondition(
            "There is no such lesson.",
            reason=ErrorReason.REFERENCE_NOT_FOUND,
            metadata={"field": field, "id": lesson_id},
        ) from error
