"""The tables of the content service."""

from services.content.models.base import UNDELETED, Base
from services.content.models.hierarchy import Course, Lesson, LessonAuthor, LessonPrerequisite, Unit
from services.content.models.projections import CourseAccess, TenantSettings
from services.content.models.stories import ClozeConfig, Story, StoryChunk, StoryVersion
from services.content.models.vocabularies import Vocabulary

__all__ = [
    "UNDELETED",
    "Base",
    "ClozeConfig",
    "Course",
    "CourseAccess",
    "Lesson",
    "LessonAuthor",
    "LessonPrerequisite",
    "Story",
    "StoryChunk",
    "StoryVersion",
    "TenantSettings",
    "Unit",
    "Vocabulary",
]
