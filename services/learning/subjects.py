"""What is personal in the learning service: all that learners leave behind. It is theirs, and goes with them."""

from kit.holdings import GOES, Held, Holdings
from services.learning.models import Base, Enrollment, LearningSession, Progress

HOLDINGS = Holdings(
    metadata=Base.metadata,
    held=(
        Held(Enrollment, "user_id", GOES),
        Held(Progress, "user_id", GOES),
        Held(LearningSession, "user_id", GOES),
    ),
)
