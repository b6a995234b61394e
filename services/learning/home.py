"""Where a learner goes on."""

from typing import Any

from kit.access import require_any
from kit.auth import current
from kit.db import Database
from kit.models import now
from services.learning import rules
from services.learning.learner_analytics import streak_to_proto
from services.learning.models import Enrollment, VocabularyProgress
from services.learning.queries import home as queries
from services.learning.queries.vocabulary_progress import list_due
from storyloom.learning.v1 import home_pb2

MOST_COURSES, MOST_WORDS = 50, 10


class HomeService:
    SERVICE = home_pb2.DESCRIPTOR.services_by_name["HomeService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def GetHome(self, request: home_pb2.GetHomeRequest, context: Any) -> home_pb2.Home:
        require_any("list", Enrollment)
        require_any("list", VocabularyProgress)
        at, user_id = now(), current().subject
        async with self.db.read() as session:
            courses = await queries.list_courses(session, user_id, MOST_COURSES)
            counts = await queries.count_home(session, user_id, at)
            due = await list_due(session, user_id, at, MOST_WORDS) if counts.due_count else []
        return home_pb2.Home(
            courses=map(_course_to_proto, courses),
            due_count=counts.due_count,
            due_vocabulary_ids=[str(row.vocabulary_id) for row in due],
            streak=streak_to_proto(counts),
        )


def _course_to_proto(row: Any) -> home_pb2.HomeCourse:
    message = home_pb2.HomeCourse(
        course_id=str(row.course_id),
        title=row.title or "",
        lesson_count=row.lesson_count,
        completed_count=row.completed_count,
        completed_percent=rules.percent_of(row.completed_count, row.lesson_count),
    )
    if row.last_view_time:
        message.last_view_time.FromDatetime(row.last_view_time)
    if row.next_id:
        message.next_lesson.CopyFrom(_next_to_proto(row))
    return message


def _next_to_proto(row: Any) -> home_pb2.HomeLesson:
    return home_pb2.HomeLesson(
        lesson_id=str(row.next_id),
        unit_id=str(row.next_unit_id),
        title=row.next_title,
        status=f"PROGRESS_STATUS_{(row.next_status or 'not_started').upper()}",
        position_percent=row.next_percent or 0,
    )
