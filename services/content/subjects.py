"""What is personal in the content service. Its texts are the school's; only who wrote them is somebody's."""

from kit.holdings import ERASED, GOES, NOBODY, SOMEBODY, Held, Holdings, loses_name
from services.content.models import (
    Audio,
    Base,
    Course,
    CourseAccess,
    CourseOrigin,
    LessonAuthor,
    Story,
    StoryOrigin,
    StoryVersion,
)

SCHOOLS = loses_name("teaching material is the school's, whoever wrote it", author_id=NOBODY)
COPIES = loses_name("where teaching material comes from is the school's to know", user_id=NOBODY)
# The summary is a serialised message, in which the id is text. What replaces it has the same length, so that the
# message stays one.
PLACE = "position(convert_to($2::uuid::text, 'UTF8') in summary)"
WITHOUT_AUTHOR = (
    f"CASE WHEN {PLACE} > 0 THEN overlay(summary PLACING convert_to('{ERASED}', 'UTF8') FROM {PLACE})"
    " ELSE summary END"
)

HOLDINGS = Holdings(
    metadata=Base.metadata,
    held=(
        Held(Course, "author_id", SCHOOLS),
        Held(Story, "author_id", SCHOOLS),
        Held(Audio, "author_id", SCHOOLS, omit=("storage_key",)),
        # Several people write one lesson: they stay several.
        Held(LessonAuthor, "user_id", loses_name("as above", user_id=SOMEBODY)),
        Held(
            StoryVersion,
            "author_id",
            loses_name("the version is part of the story", author_id=NOBODY, summary=WITHOUT_AUTHOR),
            omit=("summary", "body"),
        ),
        Held(CourseOrigin, "user_id", COPIES),
        Held(StoryOrigin, "user_id", COPIES),
        Held(CourseAccess, "user_id", GOES),
    ),
    # Each story names its current version, each version its story.
    inseparable={Story: (StoryVersion, "story_id")},
)
