"""Pure decisions of the identity service: tokens, invitations, backoff, key rotation, grants, quotas and states."""

import base64
import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any, Self
from uuid import UUID

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from kit.access import Snapshot
from kit.errors import (
    FailedPrecondition,
    InvalidArgument,
    PermissionDenied,
    Unauthenticated,
    reference_not_found,
    wrong_state,
)
from kit.ids import SYSTEM_TENANT
from storyloom.type.v1.errors_pb2 import ErrorReason

ACCESS_TOKEN_LIFETIME = timedelta(minutes=10)
REFRESH_TOKEN_LIFETIME = timedelta(days=30)
REPLAY_WINDOW = timedelta(seconds=10)
# Renewed at every sign-in.
DEVICE_TOKEN_LIFETIME = timedelta(days=365)
# More devices than anybody has: a new sign-in ends the oldest session beyond them.
MOST_SESSIONS = 20
# An access token of an ended session may look valid for its lifetime, and for the clock skew that services allow.
REVOCATION_MEMORY = timedelta(minutes=15)
# Every call of every user goes through them.
MOST_POLICIES_IN_FORCE = 200
# Of the conditions of all of them: every service reads and compiles them again after each change, for each user, while
# all other tenants wait, and gets them in one message.
MOST_BYTES_IN_FORCE = 131_072

DEFAULT_SETTINGS: Mapping[str, Any] = {
    "story_language": "vi",
    "learning_language": "en",
    "approval_required": True,
    "desired_retention": "0.9",
    "approval_quorum": 1,
    "policy_approval_required": False,
}


class Refresh(Enum):
    """What a refresh token that was issued is good for."""

    ROTATE = auto()
    REPLAY = auto()
    REUSE = auto()


def refresh(token: int, session: int, rotated_at: datetime, now: datetime) -> Refresh:
    """Judges a token by its generation and its session's, which grows with each rotation.

    A token of the current generation rotates. One of the generation before is taken for a retry after a lost answer
    during `REPLAY_WINDOW` after the rotation, and gets another token of the current generation. Everything else was
    used by somebody already: one of two holders is a thief (RFC 9700, section 4.14.2).
    """
    if token == session:
        return Refresh.ROTATE
    if token == session - 1 and now - rotated_at <= REPLAY_WINDOW:
        return Refresh.REPLAY
    return Refresh.REUSE


@dataclass(frozen=True, slots=True)
class Secret:
    """What an opaque token says: where its row is found, and 256 bits that only its holder knows.

    The token names the tenant so that the look-up can run within it, under its row-level security.
    """

    tenant_id: UUID
    row_id: UUID
    secret: bytes

    @classmethod
    def new(cls, tenant_id: UUID, row_id: UUID) -> Self:
        return cls(tenant_id, row_id, secrets.token_bytes(32))

    @classmethod
    def parse(cls, token: str) -> Self:
        """Of its text; UNAUTHENTICATED for what has not the form of a token."""
        try:
            data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except ValueError as error:
            raise cls.refused() from error
        if len(data) != 64:
            raise cls.refused()
        return cls(UUID(bytes=data[:16]), UUID(bytes=data[16:32]), data[32:])

    @staticmethod
    def refused() -> Unauthenticated:
        """One answer for every reason, so that a thief learns nothing."""
        return Unauthenticated("The token is not valid.")

    @property
    def text(self) -> str:
        data = self.tenant_id.bytes + self.row_id.bytes + self.secret
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    @property
    def digest(self) -> bytes:
        # A fast hash suffices: nobody can guess 256 random bits.
        return hashlib.sha256(self.secret).digest()


class RefreshSecret(Secret):
    """What a refresh token says; its row is the session."""

    __slots__ = ()

    @property
    def session_id(self) -> UUID:
        return self.row_id

    @staticmethod
    def refused() -> Unauthenticated:
        return refused_refresh()


def refused_refresh() -> Unauthenticated:
    """One answer for every reason, so that a thief learns nothing."""
    return Unauthenticated("The refresh token is not valid; sign in again.")


class InvitationSecret(Secret):
    """What the token of an invitation says; its row is the invitation."""

    __slots__ = ()

    @staticmethod
    def refused() -> Unauthenticated:
        return Unauthenticated("The invitation is not valid; ask for a new one.")


# What a kind of invitation is for: users of this status; and how long it works unless somebody says otherwise.
INVITED_STATUS = {"welcome": "invited", "reset": "active"}
INVITATION_LIFETIME = {"welcome": timedelta(days=7), "reset": timedelta(days=1)}


def check_invitable(kind: str, status: str) -> None:
    """Refuses an invitation that the user could not accept."""
    if status != INVITED_STATUS[kind]:
        raise wrong_state(f"A {kind} is for users who are {INVITED_STATUS[kind]}; this one is {status}.", status)


def invitation_state(invitation: Any, now: datetime) -> str:
    """What became of an invitation."""
    if invitation.accepted_at is not None:
        return "accepted"
    if invitation.revoked_at is not None:
        return "revoked"
    return "expired" if invitation.expires_at <= now else "pending"


ROTATION_PERIOD = timedelta(days=30)
# Longer than anybody keeps a fetched key set, so that no token's key is unknown.
PUBLISHED_BEFORE_USE = timedelta(seconds=120)
# Tokens of a retired key live this long at most, with what a process takes to notice that the key is retired.
RETIRED_BEFORE_REMOVAL = ACCESS_TOKEN_LIFETIME + timedelta(minutes=5)


class Rotation(Enum):
    """The next step in the life of the signing keys."""

    NONE = auto()
    PUBLISH = auto()
    PROMOTE = auto()


def rotation(activated_at: datetime, published_at: datetime | None, now: datetime) -> Rotation:
    """Given since when the active key signs, and since when its successor is published (None: there is none)."""
    if published_at is not None:
        return Rotation.PROMOTE if now - published_at >= PUBLISHED_BEFORE_USE else Rotation.NONE
    return Rotation.PUBLISH if now - activated_at >= ROTATION_PERIOD else Rotation.NONE


def pair(permission: str) -> tuple[str, str]:
    """(resource, action) of `resource:action`."""
    resource, _, action = permission.partition(":")
    return resource, action


def check_grant(snapshot: Snapshot, permissions: Iterable[tuple[str, str]]) -> None:
    """Refuses to let a user hand out, or take away, what they may not do themselves."""
    for resource, action in sorted(permissions):
        if not snapshot.grants(resource, action):
            raise PermissionDenied(
                f"Only who has the permission {resource}:{action} may give it or take it away.",
                metadata={"permission": f"{resource}:{action}", "resource": resource},
            )


def check_future(field: str, time: datetime | None, now: datetime) -> None:
    """Refuses an end that has come already; None is no end."""
    if time is not None and time <= now:
        raise InvalidArgument.fields([(field, "must be in the future")])


def check_quota(users: int, quota: int) -> None:
    """Refuses what leaves a tenant with more users than its quota, of which 0 is none."""
    if quota and users > quota:
        raise wrong_state("The tenant has as many users as it may have.", "quota_of_users", quota=str(quota))


def check_roles_exist(wanted: Sequence[Any], found: Sequence[Any]) -> None:
    """Refuses when the tenant lacks one of the roles; `found` are those it has."""
    if len(found) != len(wanted):
        raise reference_not_found("The tenant has no such role.", resource="role")


def check_not_self(user_id: UUID, caller_id: UUID) -> None:
    """Nobody bars themselves: the mistake could not be taken back by the one who made it."""
    if user_id == caller_id:
        raise wrong_state("You cannot do this to your own account.", "own_account")


def check_administrators(count: int) -> None:
    """Refuses a change after which nobody could administer the tenant."""
    if count == 0:
        raise wrong_state("The tenant would be left without an administrator.", "last_administrator")


def deactivated(status: str) -> str:
    """The status of a user who is barred."""
    if status == "deactivated":
        raise wrong_state("The user is deactivated already.", status)
    return "deactivated"


def reactivated(status: str, *, has_password: bool) -> str:
    """The status of a user who may sign in again; without password they are still only invited."""
    if status != "deactivated":
        raise wrong_state("The user is not deactivated.", status)
    return "active" if has_password else "invited"


def suspended(tenant_id: UUID, status: str) -> str:
    """The status of a suspended tenant; the platform's own would lock everybody out."""
    if tenant_id == SYSTEM_TENANT or status == "suspended":
        raise wrong_state("The tenant cannot be suspended.", status)
    return "suspended"


def resumed(status: str) -> str:
    """The status of a tenant whose suspension ends."""
    if status != "suspended":
        raise wrong_state("The tenant is not suspended.", status)
    return "active"


def put_in_force(state: str, in_force: int) -> str:
    """The state of a policy that begins to apply beside so many others."""
    if state == "active":
        raise wrong_state("The policy is active already.", state)
    if in_force >= MOST_POLICIES_IN_FORCE:
        message = f"The tenant has {MOST_POLICIES_IN_FORCE} active policies, which is as many as it may have."
        raise wrong_state(message, "most_policies", most=str(MOST_POLICIES_IN_FORCE))
    return "active"


def check_size_in_force(size: int) -> None:
    """Refuses conditions in force of so many bytes as JSON."""
    if size > MOST_BYTES_IN_FORCE:
        message = f"The conditions of the tenant's active policies would have more than {MOST_BYTES_IN_FORCE:,} bytes."
        raise wrong_state(message, "most_policies", most_bytes=str(MOST_BYTES_IN_FORCE))


def check_approved(content_hash: str, approved_hash: str | None) -> None:
    """Refuses to put in force what nobody else has approved."""
    if approved_hash != content_hash:
        raise FailedPrecondition(
            "What the policy says is not approved; ask for an approval first.", reason=ErrorReason.APPROVAL_REQUIRED
        )


def check_edit(*, approval_required: bool) -> None:
    """Refuses to change in force what takes an approval to be put in force."""
    if approval_required:
        raise FailedPrecondition(
            "The policy is active, and changes of it take an approval: deactivate it first.",
            reason=ErrorReason.APPROVAL_REQUIRED,
        )


def taken_out_of_force(state: str) -> str:
    """The state of a policy that no longer applies."""
    if state != "active":
        raise wrong_state("The policy is not active.", state)
    return "draft"


def check_draft(state: str) -> None:
    """Refuses to delete what is in force."""
    if state != "draft":
        raise wrong_state("The policy is active: deactivate it first.", state)


def settings_of(written: Message) -> dict[str, Any]:
    """All settings, of those that are set and the defaults of the others."""
    return {**DEFAULT_SETTINGS, **MessageToDict(written, preserving_proto_field_name=True)}


def quotas_kept(settings: dict[str, Any], quotas: dict[str, Any]) -> dict[str, Any]:
    """The settings as somebody may write them who may not change the quotas."""
    if settings.get("quotas", quotas) != quotas:
        raise PermissionDenied(
            "Only staff of the platform changes quotas.",
            metadata={"permission": "tenant:update", "resource": "tenant"},
        )
    return {**settings, "quotas": quotas} if quotas else settings


# Every service is asked to erase twice: an event that was on its way from one to another during the first round may
# have brought back what it names, and none is on its way any more when each service has given a receipt.
ERASURE_ROUNDS = 2


def to_ask(receipts: Mapping[str, Any], services: Sequence[str]) -> tuple[int, list[str]]:
    """Which services to ask next to erase, and the number of the round; none once all rounds are over.

    `receipts` have, for each service that has finished a round, the number of its last one as `round`. Nobody begins a
    round before everybody has finished the one before.
    """
    finished = {name: int(receipts.get(name, {}).get("round", 0)) for name in services}
    current = min(finished.values()) + 1
    if current > ERASURE_ROUNDS:
        return current, []
    return current, [name for name in services if finished[name] < current]


def erasure_delay(attempts: int, *, progress: bool) -> timedelta:
    """How long to wait before services are asked again: longer after each attempt at which one did not answer."""
    if progress:
        return timedelta(milliseconds=250)
    return timedelta(seconds=min(60.0, 0.5 * 2 ** min(attempts, 10)))


def check_deleted(status: str, deleted_at: datetime | None) -> None:
    """Only deleted users are erased: it takes two decisions, and none of their calls are under way."""
    if deleted_at is None:
        raise wrong_state("Only a deleted user can be purged.", status)


def check_suspended(status: str) -> None:
    """Only suspended tenants are purged: nobody works in them any more."""
    if status != "suspended":
        raise wrong_state("Only a suspended tenant can be purged.", status)
