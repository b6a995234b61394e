"""How classes are doing, and which of their learners need somebody."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from kit.access import may, require
from kit.auth import current
from kit.db import Database, ReadSession
from kit.models import now
from kit.pagination import Page
from services.learning.queries import cohort_analytics as queries
from services.learning.queries import cohorts
from services.learning.queries.cohort_analytics import Completion
from services.learning.queries.learners import get_today
from services.learning.risks import Reviews, Standing, median_of, risks_of
from services.learning.rules import day_range, percent_of
from storyloom.learning.v1 import cohort_analytics_pb2
from storyloom.learning.v1.cohort_analytics_pb2 import CohortLearner


class Whose(NamedTuple):
    """All that decides about somebody's days; entities would take longer to make than to judge."""

    user_id: UUID


@dataclass(frozen=True, slots=True)
class Learner:
    """A learner of the class: what the database says of them, their completion, and what puts them at risk."""

    row: Any
    completed_percent: int
    risks: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Class:
    """The learners of a cohort, by their ids, in a range of days."""

    start: date
    end: date
    learners: Sequence[Learner]

    @property
    def user_ids(self) -> list[UUID]:
        return [one.row.user_id for one in self.learners]

    def total(self, name: str) -> int:
        return sum(one.row[name] for one in self.learners)

    @property
    def active_durations(self) -> list[timedelta]:
        return [one.row.active_duration for one in self.learners]

    @property
    def median_percent(self) -> float:
        return median_of([one.completed_percent for one in self.learners])


class CohortAnalyticsService:
    SERVICE = cohort_analytics_pb2.DESCRIPTOR.services_by_name["CohortAnalyticsService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def GetCohortAnalytics(
        self, request: cohort_analytics_pb2.GetCohortAnalyticsRequest, context: Any
    ) -> cohort_analytics_pb2.CohortAnalytics:
        async with self.db.read() as session:
            found = await _find_class(session, request)
            days = await queries.list_days(session, found.user_ids, found.start, found.end)
        message = _class_to_proto(request, found)
        for row in days:
            day = message.days.add(
                day=str(row.day),
                active_learner_count=row.active_learner_count,
                lessons_completed=row.lessons_completed,
                words_learned=row.words_learned,
                reviews=row.reviews,
            )
            day.active_duration.FromTimedelta(row.active_duration)
        return message

    async def ListCohortLearners(
        self, request: cohort_analytics_pb2.ListCohortLearnersRequest, context: Any
    ) -> cohort_analytics_pb2.ListCohortLearnersResponse:
        page = Page.of(request)
        async with self.db.read() as session:
            found = await _find_class(session, request)
        # What puts one at risk depends on all the others, so the class, of at most 500, is there as a whole.
        learners = [one for one in found.learners if one.risks or not request.at_risk]
        if page.after is not None:
            learners = [one for one in learners if one.row.user_id > page.after[0]]
        rows, token = page.split(learners, key=lambda one: (one.row.user_id,))
        return cohort_analytics_pb2.ListCohortLearnersResponse(
            learners=map(_learner_to_proto, rows), next_page_token=token
        )


async def _find_class(session: ReadSession, request: Any) -> Class:
    cohort = await cohorts.get_cohort(session, UUID(request.cohort_id))
    require("read", cohort, resource="cohort")
    today = await get_today(session, current().subject, now())
    start, end = day_range(request.start_day, request.end_day, today)
    members = await cohorts.list_member_ids(session, cohort.id)
    user_ids = [one for one in members if may("read", Whose(one), resource="daily_activity")]
    completion = await queries.list_completion(
        session, user_ids, UUID(request.course_id) if request.course_id else None
    )
    if request.course_id:
        user_ids = [one for one in user_ids if one in completion]
    rows = await queries.list_learners(session, user_ids, start, end)
    return Class(start, end, _judged(rows, completion))


def _judged(rows: Sequence[Any], completion: dict[UUID, Completion]) -> list[Learner]:
    percents = []
    for row in rows:
        standing = completion.get(row.user_id, Completion())
        percents.append(percent_of(standing.completed, standing.lessons))
    middle = median_of(percents)
    return [
        Learner(row, percent, risks_of(_standing(row, percent), middle))
        for row, percent in zip(rows, percents, strict=True)
    ]


def _standing(row: Any, completed_percent: int) -> Standing:
    return Standing(
        recently_active=row.recently_active,
        completed_percent=completed_percent,
        recent=Reviews(count=row.recent_reviews, forgotten=row.recent_forgotten),
        earlier=Reviews(count=row.earlier_reviews, forgotten=row.earlier_forgotten),
    )


def _class_to_proto(request: Any, found: Class) -> cohort_analytics_pb2.CohortAnalytics:
    message = cohort_analytics_pb2.CohortAnalytics(
        cohort_id=request.cohort_id,
        course_id=request.course_id,
        start_day=str(found.start),
        end_day=str(found.end),
        learner_count=len(found.learners),
        active_learner_count=sum(one.row.active_days > 0 for one in found.learners),
        at_risk_count=sum(bool(one.risks) for one in found.learners),
        median_completed_percent=int(found.median_percent),
        lessons_completed=found.total("lessons_completed"),
        words_learned=found.total("words_learned"),
        reviews=found.total("reviews"),
    )
    durations = found.active_durations
    message.active_duration.FromTimedelta(sum(durations, timedelta(0)))
    seconds = median_of([one.total_seconds() for one in durations])
    message.median_active_duration.FromTimedelta(timedelta(seconds=seconds))
    return message


def _learner_to_proto(one: Learner) -> CohortLearner:
    row = one.row
    message = CohortLearner(
        user_id=str(row.user_id),
        active_days=row.active_days,
        last_active_day=str(row.last_active_day or ""),
        lessons_completed=row.lessons_completed,
        completed_percent=one.completed_percent,
        reviews=row.reviews,
        remembered_percent=percent_of(row.reviews - row.reviews_forgotten, row.reviews),
        words_begun=row.words_begun,
        words_learned=row.words_learned,
        quizzes_passed=row.quizzes_passed,
        risks=[f"RISK_{risk.upper()}" for risk in one.risks],
    )
    message.active_duration.FromTimedelta(row.active_duration)
    return message
