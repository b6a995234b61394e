"""The tables of the learning service."""

from services.learning.models.activity import DailyActivity
from services.learning.models.base import Base
from services.learning.models.client_events import ClientEvent
from services.learning.models.cohorts import Cohort, CohortMember
from services.learning.models.courses import Enrollment, LearningSession, Progress
from services.learning.models.difficulties import StoryDifficulty, StoryWord, WordDifficulty
from services.learning.models.projections import GradedAttempt, IndexedCourse, IndexedLesson
from services.learning.models.statements import Statement
from services.learning.models.sums import PendingSum
from services.learning.models.tenant_activity import TenantActivity
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
    "ClientEvent",
    "Cohort",
    "CohortMember",
    "DailyActivity",
    "Enrollment",
    "GradedAttempt",
    "IndexedCourse",
    "IndexedLesson",
    "Learner",
    "LearnerSettings",
    "LearningSession",
    "PendingSum",
    "Progress",
    "RetentionChange",
    "Statement",
    "StoryDifficulty",
    "StoryWord",
    "TenantActivity",
    "VocabularyExposure",
    "VocabularyProgress",
    "VocabularyReview",
    "WordDifficulty",
]
