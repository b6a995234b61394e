"""Pure decisions of the identity service: refresh tokens, backoff, key rotation, grants and states."""

import base64
import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any, Self
from uuid import UUID

from google.protobuf.message import Message

from kit.access import Snapshot
from kit.errors import FailedPrecondition, PermissionDenied, Unauthenticated
from kit.ids import SYSTEM_TENANT
from storyloom.type.v1.errors_pb2 import ErrorReason

ACCESS_TOKEN_LIFETIME = timedelta(minutes=10)
REFRESH_TOKEN_LIFETIME = timedelta(days=30)
REPLAY_WINDOW = timedelta(seconds=10)
# More devices than anybody has: a new sign-in ends the oldest session beyond them.
MOST_SESSIONS = 20
# An access token of an ended session may look valid for its lifetime, and for the clock skew that services allow.
REVOCATION_MEMORY = timedelta(minutes=15)

DEFAULT_SETTINGS: Mapping[str, Any] = {
    "story_language": "vi",
    "learning_language": "en",
    "approval_required": True,
    "desired_retention": "0.9",
    "approval_quorum": 1,
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
class RefreshSecret:
    """What a refresh token says: where its session is found, and 256 bits that only its holder knows.

    The token names the tenant so that the look-up can run within it, under its row-level security.
    """

    tenant_id: UUID
    session_id: UUID
    secret: bytes

    @classmethod
    def new(cls, tenant_id: UUID, session_id: UUID) -> Self:
        return cls(tenant_id, session_id, secrets.token_bytes(32))

    @classmethod
    def parse(cls, token: str) -> Self:
        """Of its text; UNAUTHENTICATED for what has not the form of a token."""
        try:
            data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except ValueError as error:
            raise refused_refresh() from error
        if len(data) != 64:
            raise refused_refresh()
        return cls(UUID(bytes=data[:16]), UUID(bytes=data[16:32]), data[32:])

    @property
    def text(self) -> str:
        data = self.tenant_id.bytes + self.session_id.bytes + self.secret
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    @property
    def digest(self) -> bytes:
        # A fast hash suffices: nobody can guess 256 random bits.
        return hashlib.sha256(self.secret).digest()


def refused_refresh() -> Unauthenticated:
    """One answer for every reason, so that a thief learns nothing."""
    return Unauthenticated("The refresh token is not valid; sign in again.")


@dataclass(frozen=True, slots=True)
class Backoff:
    """After `free` failures each further attempt waits: `first`, then twice as long each time, at most `longest`.

    Failures count until `forgotten_after` has passed without another.
    """

    free: int
    first: timedelta
    longest: timedelta
    forgotten_after: timedelta

    def after_failure(self, failures: int, last: datetime, now: datetime) -> tuple[int, datetime]:
        """The new number of failures, and until when the next attempt is refused."""
        count = 1 if now - last > self.forgotten_after else failures + 1
        if count < self.free:
            return count, now
        # Beyond some twenty doublings every delay is the longest, and a timedelta would overflow.
        return count, now + min(self.first * 2 ** min(count - self.free, 20), self.longest)


# Whoever fails again and again for one account from one address waits ever longer there, and nobody else does: the
# account's owner, at another address, cannot be locked out, and at the same one waits half a minute at most. Many
# accounts tried from one address are slowed by the second.
ACCOUNT_AT_ADDRESS = Backoff(5, timedelta(seconds=1), timedelta(seconds=30), timedelta(hours=1))
ADDRESS = Backoff(100, timedelta(seconds=1), timedelta(seconds=30), timedelta(minutes=15))


def refused_until(account: Any, address: Any) -> datetime | None:
    """Until when the next attempt is refused, by the rows (or None) of the account at this address and of the address.

    The address's delay counts from the account's own last failure: who shares an address with an attacker, a whole
    school maybe, is refused nothing while nobody fails for their account, and no attacker can renew it for all at once.
    """
    if account is None:
        return None
    delay = address.blocked_until - address.last_failed_at if address else timedelta()
    until: datetime = max(account.blocked_until, account.last_failed_at + delay)
    return until


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


def check_roles_exist(wanted: Sequence[Any], found: Sequence[Any]) -> None:
    """Refuses when the tenant lacks one of the roles; `found` are those it has."""
    if len(found) != len(wanted):
        raise FailedPrecondition(
            "The tenant has no such role.", reason=ErrorReason.REFERENCE_NOT_FOUND, metadata={"resource": "role"}
        )


def check_not_self(user_id: UUID, caller_id: UUID) -> None:
    """Nobody bars themselves: the mistake could not be taken back by the one who made it."""
    if user_id == caller_id:
        raise FailedPrecondition("You cannot do this to your own account.", metadata={"state": "own_account"})


def check_administrators(count: int) -> None:
    """Refuses a change after which nobody could administer the tenant."""
    if count == 0:
        raise FailedPrecondition(
            "The tenant would be left without an administrator.", metadata={"state": "last_administrator"}
        )


def deactivated(status: str) -> str:
    """The status of a user who is barred."""
    if status == "deactivated":
        raise FailedPrecondition("The user is deactivated already.", metadata={"state": status})
    return "deactivated"


def reactivated(status: str, *, has_password: bool) -> str:
    """The status of a user who may sign in again; without password they are still only invited."""
    if status != "deactivated":
        raise FailedPrecondition("The user is not deactivated.", metadata={"state": status})
    return "active" if has_password else "invited"


def suspended(tenant_id: UUID, status: str) -> str:
    """The status of a suspended tenant; the platform's own would lock everybody out."""
    if tenant_id == SYSTEM_TENANT or status == "suspended":
        raise FailedPrecondition("The tenant cannot be suspended.", metadata={"state": status})
    return "suspended"


def resumed(status: str) -> str:
    """The status of a tenant whose suspension ends."""
    if status != "suspended":
        raise FailedPrecondition("The tenant is not suspended.", metadata={"state": status})
    return "active"


def settings_of(written: Message) -> dict[str, Any]:
    """All settings, of those that are set and the defaults of the others."""
    return {**DEFAULT_SETTINGS, **{field.name: value for field, value in written.ListFields()}}
