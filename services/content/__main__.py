"""The content service: courses, units, lessons, stories and their vocabulary."""

from kit.decisions import Decided
from kit.limiter import Limiter
from kit.server import Service, run
from kit.settings import Settings
from services.callers import may_call
from services.content import policies, projections
from services.content.audio_files import AudioFileService
from services.content.audios import AudioService
from services.content.course_copies import CourseCopyService
from services.content.courses import CourseService
from services.content.coverages import CoverageService
from services.content.files import Files
from services.content.lessons import LessonService
from services.content.links import Links
from services.content.models import Audio, Course, Lesson, Story, Tag, Unit, Vocabulary
from services.content.packages import PackageService
from services.content.publications import PublicationService
from services.content.queries.courses import course_status, taken_courses
from services.content.search import SearchService
from services.content.storage import Storage
from services.content.stories import StoryService
from services.content.story_versions import StoryVersionService
from services.content.subjects import HOLDINGS
from services.content.tags import TagService
from services.content.units import UnitService
from services.content.vocabularies import VocabularyService
from services.content.vocabulary_files import VocabularyFileService
from services.content.weaves import RENDERS, WEAVES, WeaveService
from storyloom.audit.v1.events_pb2 import ApprovalDecided
from storyloom.content.v1.events_pb2 import ApprovableEdited, CourseChanged, LessonChanged
from storyloom.identity.v1.events_pb2 import TenantChanged
from storyloom.learning.v1.enrollments_pb2_grpc import EnrollmentServiceStub
from storyloom.learning.v1.events_pb2 import EnrollmentChanged
from storyloom.learning.v1.vocabulary_progress_pb2_grpc import VocabularyProgressServiceStub

PUBLISHES = {CourseChanged: ("learning",), LessonChanged: ("learning",), ApprovableEdited: ("audit",)}
# Whole courses are held in memory: so many of them at once.
COPIES_AT_ONCE, COPY_WAIT_SECONDS = 2, 5.0

DECIDED = (
    Decided(model=Audio),
    Decided(model=Course, known=taken_courses),
    Decided(model=Unit, known=taken_courses, of_row=course_status),
    Decided(model=Lesson, known=taken_courses),
    Decided(model=Story),
    Decided(model=Tag),
    Decided(model=Vocabulary),
)


def build(settings: Settings) -> Service:
    service = Service(settings, rules=policies.RULES, publishes=PUBLISHES, callers=may_call)
    service.add(
        CourseService(service.db),
        UnitService(service.db),
        LessonService(service.db, service.clients.stub(EnrollmentServiceStub, "learning")),
        SearchService(service.db),
        StoryService(service.db),
        StoryVersionService(service.db),
        TagService(service.db),
        PublicationService(service.db),
        VocabularyService(service.db),
        VocabularyFileService(service.db),
        CoverageService(service.db),
        WeaveService(service.db, service.clients.stub(VocabularyProgressServiceStub, "learning")),
    )
    files = _add_recordings(service, settings)
    copies = Limiter(COPIES_AT_ONCE, COPY_WAIT_SECONDS)
    service.limiters |= {"weaves": WEAVES, "renders": RENDERS, "copies": copies}
    service.add(CourseCopyService(service.db, files, copies), PackageService(service.db, files, copies))
    service.holds(HOLDINGS)
    service.decides(*DECIDED)
    service.consume(
        {
            EnrollmentChanged: projections.on_enrollment_changed,
            ApprovalDecided: projections.on_approval_decided,
            TenantChanged: projections.on_tenant_changed,
        }
    )
    return service


def _add_recordings(service: Service, settings: Settings) -> Files:
    storage = Storage(settings)
    files = Files(service.db, storage)
    links = Links(storage, settings.secret)
    service.run_in_background(files.run)
    service.add(AudioService(service.db, files))
    service.add(AudioFileService(service.db, files, links, settings.audio_largest_bytes))
    return files


if __name__ == "__main__":
    run("content", build)
