"""The learning service: its parts, put together."""

from kit.decisions import Decided
from kit.server import Service, run
from kit.settings import Settings
from services.callers import may_call
from services.learning import policies, projections
from services.learning.enrollments import EnrollmentService
from services.learning.learning_sessions import LearningSessionService
from services.learning.models import Enrollment, LearningSession, Progress
from services.learning.progress import ProgressService, lessons_taken
from services.learning.projections import LessonIndex
from services.learning.subjects import HOLDINGS
from storyloom.content.v1.courses_pb2_grpc import CourseServiceStub
from storyloom.content.v1.events_pb2 import CourseChanged, LessonChanged
from storyloom.content.v1.lessons_pb2_grpc import LessonServiceStub
from storyloom.content.v1.stories_pb2_grpc import StoryServiceStub
from storyloom.identity.v1.access_pb2_grpc import AccessServiceStub
from storyloom.learning.v1.events_pb2 import EnrollmentChanged


def build(settings: Settings) -> Service:
    service = Service(settings, rules=policies.RULES, publishes={EnrollmentChanged: ("content",)}, callers=may_call)
    stub = service.clients.stub
    index = LessonIndex(service.db, stub(LessonServiceStub, "content"))
    service.add(
        EnrollmentService(
            service.db, courses=stub(CourseServiceStub, "content"), access=stub(AccessServiceStub, "identity")
        ),
        ProgressService(service.db, index),
        LearningSessionService(service.db, index, stories=stub(StoryServiceStub, "content")),
    )
    service.holds(HOLDINGS)
    service.decides(
        Decided(model=Enrollment),
        Decided(model=Progress, of_row=lessons_taken),
        Decided(model=LearningSession, of_row=lessons_taken),
    )
    service.consume({LessonChanged: projections.on_lesson_changed, CourseChanged: projections.on_course_changed})
    return service


if __name__ == "__main__":
    run("learning", build)
