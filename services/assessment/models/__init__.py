"""The tables of the assessment service: the question bank, quizzes, and what learners make of them."""

from services.assessment.models.attempts import Attempt, QuizResult, Response
from services.assessment.models.base import Base
from services.assessment.models.questions import Question, QuestionVersion
from services.assessment.models.quizzes import Quiz, QuizQuestion

__all__ = ["Attempt", "Base", "Question", "QuestionVersion", "Quiz", "QuizQuestion", "QuizResult", "Response"]
