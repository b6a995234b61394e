"""The tables of the assessment service: the question bank, quizzes, and what learners make of them."""

from services.assessment.models.attempts import Attempt, QuizResult, Response
from services.assessment.models.base import Base
from services.assessment.models.exercises import Exercise
from services.assessment.models.questions import Question, QuestionVersion
from services.assessment.models.quizzes import Extension, Quiz, QuizDraw, QuizQuestion
from services.assessment.models.regrades import PastResult, Regrade

__all__ = [
    "Attempt",
    "Base",
    "Exercise",
    "Extension",
    "PastResult",
    "Question",
    "QuestionVersion",
    "Quiz",
    "QuizDraw",
    "QuizQuestion",
    "QuizResult",
    "Regrade",
    "Response",
]
