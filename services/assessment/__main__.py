"""The assessment service: questions, quizzes and attempts at them."""

from kit.decisions import Decided
from kit.jobs import Repeating
from kit.server import Service, run
from kit.settings import Settings
from services.assessment import policies
from services.assessment.analyses import AnalysisService
from services.assessment.attempts import AttemptService
from services.assessment.exercises import ExerciseService
from services.assessment.extensions import ExtensionService
from services.assessment.jobs import OVERDUE, SWEEP_SECONDS
from services.assessment.models import Attempt, Exercise, Extension, Question, Quiz
from services.assessment.previews import PreviewService
from services.assessment.question_files import QuestionFileService
from services.assessment.question_versions import QuestionVersionService
from services.assessment.questions import QuestionService
from services.assessment.quizzes import QuizService
from services.assessment.regrades import RegradeService
from services.assessment.story_quizzes import StoryQuizService
from services.assessment.subjects import HOLDINGS
from services.callers import may_call
from storyloom.assessment.v1.events_pb2 import AttemptGraded
from storyloom.content.v1.lessons_pb2_grpc import LessonServiceStub
from storyloom.content.v1.stories_pb2_grpc import StoryServiceStub
from storyloom.content.v1.story_versions_pb2_grpc import StoryVersionServiceStub
from storyloom.content.v1.vocabularies_pb2_grpc import VocabularyServiceStub
from storyloom.identity.v1.access_pb2_grpc import AccessServiceStub


def build(settings: Settings) -> Service:
    service = Service(settings, rules=policies.RULES, publishes={AttemptGraded: ("learning",)}, callers=may_call)
    stub = service.clients.stub
    lessons = stub(LessonServiceStub, "content")
    service.add(
        QuestionService(service.db),
        QuestionFileService(service.db),
        QuestionVersionService(service.db),
        ExerciseService(service.db, lessons),
        QuizService(service.db, lessons),
        PreviewService(service.db),
        AttemptService(service.db),
        RegradeService(service.db),
        AnalysisService(service.db),
        StoryQuizService(
            service.db,
            stories=stub(StoryServiceStub, "content"),
            versions=stub(StoryVersionServiceStub, "content"),
            vocabularies=stub(VocabularyServiceStub, "content"),
        ),
        ExtensionService(service.db, stub(AccessServiceStub, "identity")),
    )
    service.holds(HOLDINGS)
    service.run_in_background(Repeating(service.db, OVERDUE, seconds=SWEEP_SECONDS).run)
    service.decides(*(Decided(model=one) for one in (Question, Exercise, Quiz, Attempt, Extension)))
    return service


if __name__ == "__main__":
    run("assessment", build)
