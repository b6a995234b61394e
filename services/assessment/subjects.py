"""What is personal in the assessment service: attempts are their learner's, questions and quizzes the school's."""

from kit.holdings import GOES, NOBODY, Held, Holdings, Part, loses_name
from services.assessment.models import (
    Attempt,
    Base,
    Exercise,
    Extension,
    PastResult,
    Question,
    Quiz,
    QuizResult,
    Regrade,
    Response,
)

SCHOOLS = loses_name("questions and quizzes are the school's, whoever wrote them", author_id=NOBODY)
OF_ATTEMPT = Part("attempt_id", Attempt, "user_id")

HOLDINGS = Holdings(
    metadata=Base.metadata,
    held=(
        Held(Question, "author_id", SCHOOLS),
        Held(Quiz, "author_id", SCHOOLS),
        Held(Exercise, "author_id", SCHOOLS),
        Held(Extension, "user_id", GOES),
        Held(Attempt, "user_id", GOES),
        Held(Response, OF_ATTEMPT, GOES),
        Held(QuizResult, OF_ATTEMPT, GOES),
        Held(PastResult, OF_ATTEMPT, GOES),
        Held(Regrade, "author_id", SCHOOLS),
    ),
)
