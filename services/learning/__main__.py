"""The learning service: its parts, put together."""

from kit.decisions import Decided
from kit.server import Service, run
from kit.settings import Settings
from services.callers import may_call
from services.learning import policies, projections
from services.learning.cohorts import CohortService
from services.learning.enrolling import Registry
from services.learning.enrollments import EnrollmentService
from services.learning.home import HomeService
from services.learning.jobs import Sweeps
from services.learning.learner_settings import LearnerSettingsService
from services.learning.learning_sessions import LearningSessionService
from services.learning.models import (
    Cohort,
    Enrollment,
    LearnerSettings,
    LearningSession,
    Progress,
    VocabularyProgress,
    VocabularyReview,
)
from services.learning.progress import ProgressService, lessons_taken
from services.learning.projections import LessonIndex, Words
from services.learning.subjects import HOLDINGS
from services.learning.vocabulary_progress import VocabularyProgressService
from services.learning.vocabulary_reviews import VocabularyReviewService
from storyloom.content.v1.courses_pb2_grpc import CourseServiceStub
from storyloom.content.v1.events_pb2 import CourseChanged, LessonChanged
from storyloom.content.v1.lessons_pb2_grpc import LessonServiceStub
from storyloom.content.v1.stories_pb2_grpc import StoryServiceStub
from storyloom.content.v1.vocabularies_pb2_grpc import VocabularyServiceStub
from storyloom.identity.v1.access_pb2_grpc import AccessServiceStub
from storyloom.identity.v1.events_pb2 import TenantChanged
from storyloom.learning.v1.events_pb2 import EnrollmentChanged


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
        VocabularyProgressService(service.db, words),
        VocabularyReviewService(service.db, words),
    )
    service.holds(HOLDINGS)
    service.run_in_background(Sweeps(service.db).run)
    service.decides(
        Decided(model=Enrollment),
        Decided(model=Cohort),
        Decided(model=Progress, of_row=lessons_taken),
        Decided(model=LearningSession, of_row=lessons_taken),
        Decided(model=LearnerSettings),
        Decided(model=VocabularyProgress),
        Decided(model=VocabularyReview),
    )
    service.consume(
        {
            LessonChanged: projections.on_lesson_changed,
            CourseChanged: projections.on_course_changed,
            TenantChanged: projections.on_tenant_changed,
        }
    )
    return service


if __name__ == "__main__":
    run("learning", build)
