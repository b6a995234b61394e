"""What learners did day by day, and where it has brought them."""

from typing import Any
from uuid import UUID

from kit.access import require
from kit.auth import current
from kit.db import Database
from kit.models import now
from services.learning.models import DailyActivity
from services.learning.queries import learner_analytics as queries
from services.learning.rules import day_range
from storyloom.learning.v1 import learner_analytics_pb2
from storyloom.learning.v1.learner_analytics_pb2 import DailyActivity as DayMessage

USUAL_FORECAST = 30
COUNTS = (
    *("sessions", "lessons_completed", "reviews", "reviews_forgotten"),
    *("words_begun", "words_learned", "readings", "quizzes_passed"),
)


class LearnerAnalyticsService:
    SERVICE = learner_analytics_pb2.DESCRIPTOR.services_by_name["LearnerAnalyticsService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def GetLearnerAnalytics(
        self, request: learner_analytics_pb2.GetLearnerAnalyticsRequest, context: Any
    ) -> learner_analytics_pb2.LearnerAnalytics:
        user_id, at = UUID(request.user_id), now()
        require("read", DailyActivity(user_id=user_id))
        ahead = request.forecast_days or USUAL_FORECAST
        async with self.db.read() as session:
            learner = await queries.get_learner(session, user_id, at, ahead, own=user_id == current().subject)
            start, end = day_range(request.start_day, request.end_day, learner.today)
            message = learner_analytics_pb2.LearnerAnalytics(
                user_id=request.user_id,
                time_zone=learner.time_zone,
                today=str(learner.today),
                start_day=str(start),
                end_day=str(end),
                days=map(_day_to_proto, await queries.list_days(session, user_id, start, end)),
                streak=streak_to_proto(await queries.get_streak(session, user_id, at)),
                words=_words_to_proto(await queries.count_words(session, user_id)),
            )
            for row in await queries.list_forecast(session, user_id, learner):
                message.forecast.add(day=str(row.day), count=row.count)
        return message


def _day_to_proto(row: Any) -> DayMessage:
    message = DayMessage(day=str(row.day), **{name: row[name] for name in COUNTS})
    message.active_duration.FromTimedelta(row.active_duration)
    return message


def _words_to_proto(counts: dict[str, int]) -> learner_analytics_pb2.WordCounts:
    return learner_analytics_pb2.WordCounts(
        fresh=counts.get("new", 0),
        learning=counts.get("learning", 0),
        reviewing=counts.get("reviewing", 0),
        mastered=counts.get("mastered", 0),
    )


def streak_to_proto(row: Any) -> learner_analytics_pb2.Streak:
    return learner_analytics_pb2.Streak(
        current_days=row.current_days,
        longest_days=row.longest_days,
        last_active_day=str(row.last_active_day or ""),
    )
