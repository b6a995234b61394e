"""The learning service: its parts, put together."""

from kit.decisions import Decided
from kit.inbox import Together
from kit.jobs import Repeating
from kit.server import Service, run
from kit.settings import Settings
from services.callers import may_call
from services.learning import policies, projections
from services.learning.client_events import ClientEventService
from services.learning.cohort_analytics import CohortAnalyticsService
from services.learning.cohorts import CohortService
from services.learning.difficulties import DifficultyService
from services.learning.enrolling import Registry
from services.learning.enrollments import EnrollmentService
from services.learning.home import HomeService
from services.learning.jobs import ABANDONED, SWEEP_SECONDS, Sums
from services.learning.learner_analytics import LearnerAnalyticsService
from services.learning.learner_settings import LearnerSettingsService
from services.learning.learning_sessions import LearningSessionService
from services.learning.models import (
    Cohort,
    DailyActivity,
    Enrollment,
    LearnerSettings,
    LearningSession,
    Progress,
    Statement,
    StoryDifficulty,
    TenantActivity,
    VocabularyProgress,
    VocabularyReview,
    WordDifficulty,
)
from services.learning.progress import ProgressService, lessons_taken
from services.learning.projections import LessonIndex, Words
from services.learning.statements import StatementService
from services.learning.subjects import HOLDINGS
from services.learning.tenant_analytics import TenantAnalyticsService
from services.learning.vocabulary_progress import VocabularyProgressService
from services.learning.vocabulary_reviews import VocabularyReviewService
from storyloom.assessment.v1.events_pb2 import AttemptGraded
from storyloom.content.v1.courses_pb2_grpc import CourseServiceStub
from storyloom.content.v1.events_pb2 import CourseChanged, LessonChanged
from storyloom.content.v1.lessons_pb2_grpc import LessonServiceStub
from storyloom.content.v1.stories_pb2_grpc import StoryServiceStub
from storyloom.content.v1.vocabularies_pb2_grpc import VocabularyServiceStub
from storyloom.identity.v1.access_pb2_grpc import AccessServiceStub
from storyloom.identity.v1.events_pb2 import TenantChanged
from storyloom.learning.v1.events_pb2 import EnrollmentChanged

DECIDED = (
    Decided(model=Enrollment),
    Decided(model=Cohort),
    Decided(model=Progress, of_row=lessons_taken),
    Decided(model=LearningSession, of_row=lessons_taken),
    Decided(model=LearnerSettings),
    Decided(model=VocabularyProgress),
    Decided(model=VocabularyReview),
    Decided(model=DailyActivity),
    Decided(model=WordDifficulty),
    Decided(model=StoryDifficulty),
    Decided(model=TenantActivity),
    Decided(model=Statement),
)


def build(settings: Settings) -> Service:
    service = Service(settings, rules=policies.RULES, publishes={EnrollmentChanged: ("content",)}, callers=may_call)
    stub = service.clients.stub
    index = LessonIndex(service.db, stub(LessonServiceStub, "content"))
    words = Words(service.db, stub(VocabularyServiceStub, "content"))
    registry = Registry(courses=stub(CourseServiceStub, "content"), access=stub(AccessServiceStub, "identity"))
    service.add(
        EnrollmentService(service.db, registry),
        CohortService(service.db, registry),
        HomeService(service.db),
        ProgressService(service.db, index),
        LearningSessionService(service.db, index, stories=stub(StoryServiceStub, "content")),
        LearnerSettingsService(service.db),
        LearnerAnalyticsService(service.db),
        CohortAnalyticsService(service.db),
        ClientEventService(service.db, index, words),
        DifficultyService(service.db),
        StatementService(service.db, issuer=settings.token_issuer),
        TenantAnalyticsService(service.db),
        VocabularyProgressService(service.db, words),
        VocabularyReviewService(service.db, words),
    )
    service.holds(HOLDINGS)
    service.run_in_background(Repeating(service.db, ABANDONED, seconds=SWEEP_SECONDS).run)
    service.run_in_background(Sums(service.db).run)
    service.decides(*DECIDED)
    service.consume(
        {
            LessonChanged: projections.on_lesson_changed,
            CourseChanged: projections.on_course_changed,
            TenantChanged: projections.on_tenant_changed,
            AttemptGraded: Together(projections.on_attempts_graded),
        }
    )
    return service


if __name__ == "__main__":
    run("learning", build)
