"""What is personal in the identity service: users, and what only they have. Identity forgets them last."""

from kit.holdings import GOES, NOBODY, Held, Holdings, Part, kept, loses_name
from services.identity.models import (
    Base,
    Erasure,
    Invitation,
    RefreshToken,
    ResourcePolicyVersion,
    Session,
    User,
    UserPermission,
    UserRole,
)

OTHERS = loses_name("what was given to somebody else stays theirs", creator_id=NOBODY)

HOLDINGS = Holdings(
    metadata=Base.metadata,
    held=(
        Held(User, "id", GOES, omit=("password_hash",)),
        Held(UserRole, "user_id", GOES),
        Held(UserPermission, "user_id", GOES),
        Held(UserPermission, "creator_id", OTHERS),
        Held(Session, "user_id", GOES),
        Held(RefreshToken, Part("session_id", Session, "user_id"), GOES, omit=("token_hash",)),
        Held(Invitation, "user_id", GOES, omit=("token_hash",)),
        Held(Invitation, "creator_id", OTHERS),
        Held(
            ResourcePolicyVersion,
            "author_id",
            loses_name("what a policy said stays known while the policy is", author_id=NOBODY),
        ),
        Held(Erasure, "requester_id", loses_name("the proof that others were erased", requester_id=NOBODY)),
        Held(Erasure, "subject_id", kept("the proof that the user was erased names whom")),
    ),
    excused={
        "access_revisions.user_id": "tells services that rights changed; forgotten after fifteen minutes",
    },
)
