"""The content service: courses, units, lessons, stories and their vocabulary."""

from kit.decisions import Decided
from kit.server import Service, run
from kit.settings import Settings
from services.callers import may_call
from services.content import policies, projections
from services.content.courses import CourseService
from services.content.lessons import LessonService
from services.content.models import Course, Lesson, Story, Unit, Vocabulary
from services.content.queries.courses import course_status, taken_courses
from services.content.stories import StoryService
from services.content.story_versions import StoryVersionService
from services.content.subjects import HOLDINGS
from services.content.units import UnitService
from services.content.vocabularies import VocabularyService
from services.content.weaves import WeaveService
from storyloom.audit.v1.events_pb2 import ApprovalDecided
from storyloom.content.v1.events_pb2 import ApprovableEdited, CourseChanged, LessonChanged
from storyloom.identity.v1.events_pb2 import TenantChanged
from storyloom.learning.v1.enrollments_pb2_grpc import EnrollmentServiceStub
from storyloom.learning.v1.events_pb2 import EnrollmentChanged

PUBLISHES = {CourseChanged: ("learning",), LessonChanged: ("learning",), ApprovableEdited: ("audit",)}


def build(settings: Settings) -> Service:
    service = Service(settings, rules=policies.RULES, publishes=PUBLISHES, callers=may_call)
    service.add(
        CourseService(service.db),
        UnitService(service.db),
        LessonService(service.db, service.clients.stub(EnrollmentServiceStub, "learning")),
        StoryService(service.db),
        StoryVersionService(service.db),
        VocabularyService(service.db),
        WeaveService(service.db),
    )
    service.holds(HOLDINGS)
    service.decides(
        Decided(model=Course, known=taken_courses),
        Decided(model=Unit, known=taken_courses, of_row=course_status),
        Decided(model=Lesson, known=taken_courses),
        Decided(model=Story),
        Decided(model=Vocabulary),
    )
    service.consume(
        {
            EnrollmentChanged: projections.on_enrollment_changed,
            ApprovalDecided: projections.on_approval_decided,
            TenantChanged: projections.on_tenant_changed,
        }
    )
    return service


if __name__ == "__main__":
    run("content", build)
