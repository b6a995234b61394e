"""The tables of the content service."""

from services.content.models.audios import Audio, AudioUpload, ChunkTimestamp, stored_files
from services.content.models.base import UNDELETED, Base
from services.content.models.hierarchy import Course, Lesson, LessonAuthor, LessonPrerequisite, Unit
from services.content.models.origins import CourseOrigin, StoryOrigin
from services.content.models.projections import CourseAccess, TenantSettings
from services.content.models.stories import ClozeConfig, Story, StoryChunk, StoryVersion
from services.content.models.tags import CourseTag, LessonTag, SearchDocument, StoryTag, Tag
from services.content.models.vocabularies import Vocabulary

__all__ = [
    "UNDELETED",
    "Audio",
    "AudioUpload",
    "Base",
    "ChunkTimestamp",
    "ClozeConfig",
    "Course",
    "CourseAccess",
    "CourseOrigin",
    "CourseTag",
    "Lesson",
    "LessonAuthor",
    "LessonPrerequisite",
    "LessonTag",
    "SearchDocument",
    "Story",
    "StoryChunk",
    "StoryOrigin",
    "StoryTag",
    "StoryVersion",
    "Tag",
    "TenantSettings",
    "Unit",
    "Vocabulary",
    "stored_files",
]
