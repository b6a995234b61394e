"""What is personal in the learning service: all that learners leave behind. It is theirs, and goes with them. Classes
are the school's; only who made them is somebody's. Sums over all learners are nobody's, and lose what goes."""

from kit.holdings import GOES, NOBODY, Held, Holdings, loses_name
from services.learning.models import (
    Base,
    ClientEvent,
    Cohort,
    CohortMember,
    DailyActivity,
    Enrollment,
    GradedAttempt,
    Learner,
    LearnerSettings,
    LearningSession,
    Progress,
    RetentionChange,
    Statement,
    VocabularyExposure,
    VocabularyProgress,
    VocabularyReview,
)

HOLDINGS = Holdings(
    metadata=Base.metadata,
    held=(
        Held(Enrollment, "user_id", GOES),
        Held(Cohort, "author_id", loses_name("a class is the school's, whoever made it", author_id=NOBODY)),
        Held(CohortMember, "user_id", GOES),
        Held(Progress, "user_id", GOES),
        Held(LearningSession, "user_id", GOES),
        Held(VocabularyReview, "user_id", GOES),
        Held(VocabularyExposure, "user_id", GOES),
        Held(VocabularyProgress, "user_id", GOES),
        Held(DailyActivity, "user_id", GOES),
        Held(ClientEvent, "user_id", GOES),
        Held(GradedAttempt, "user_id", GOES),
        Held(Statement, "user_id", GOES),
        Held(LearnerSettings, "user_id", GOES),
        Held(RetentionChange, "user_id", GOES),
        Held(Learner, "id", GOES),
    ),
    excused={
        "user_vocabulary_progress.last_review_id": "a review of the same learner's",
        "client_events.device_id": "a phone of the same learner's",
        "statements.registration": "a session or an attempt of the same learner's",
    },
)
