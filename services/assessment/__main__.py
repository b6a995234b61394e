"""The assessment service: questions, quizzes and attempts at them."""

from kit.decisions import Decided
from kit.server import Service, run
from kit.settings import Settings
from services.assessment import policies
from services.assessment.attempts import AttemptService
from services.assessment.models import Attempt, Question, Quiz
from services.assessment.questions import QuestionService
from services.assessment.quizzes import QuizService
from services.assessment.subjects import HOLDINGS
from services.callers import may_call
from storyloom.content.v1.lessons_pb2_grpc import LessonServiceStub


def build(settings: Settings) -> Service:
    service = Service(settings, rules=policies.RULES, callers=may_call)
    lessons = service.clients.stub(LessonServiceStub, "content")
    service.add(QuestionService(service.db), QuizService(service.db, lessons), AttemptService(service.db))
    service.holds(HOLDINGS)
    service.decides(*(Decided(model=one) for one in (Question, Quiz, Attempt)))
    return service


if __name__ == "__main__":
    run("assessment", build)
