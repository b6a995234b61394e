"""The tables of the learning service."""

from services.learning.models.base import Base
from services.learning.models.cohorts import Cohort, CohortMember
from services.learning.models.courses import Enrollment, LearningSession, Progress
from services.learning.models.projections import IndexedCourse, IndexedLesson
from services.learning.models.vocabularies import (
    Learner,
    LearnerSettings,
    RetentionChange,
    VocabularyExposure,
    VocabularyProgress,
    VocabularyReview,
)

__all__ = [
    "Base",
    "Cohort",
    "CohortMember",
    "Enrollment",
    "IndexedCourse",
    "IndexedLesson",
    "Learner",
    "LearnerSettings",
    "LearningSession",
    "Progress",
    "RetentionChange",
    "VocabularyExposure",
    "VocabularyProgress",
    "VocabularyReview",
]
